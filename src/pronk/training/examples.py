"""Bundle -> the files that let a model be used without pronk: labels, decode recipe and an example."""

import json
from string import Template
from typing import Any

from pronk.bundle import Bundle
from pronk.manifest import MODEL_PATHS
from pronk.text import visible

RUNTIMES = {
    "onnx": {
        "package": "onnxruntime",
        "library": "import onnxruntime",
        "open": 'session = onnxruntime.InferenceSession(here / "model.onnx")',
        "run": 'session.run(["probabilities"], {"image": pixels})[0][0]',
    },
    "litert": {
        "package": "ai-edge-litert",
        "library": "from ai_edge_litert.interpreter import Interpreter",
        "open": 'run = Interpreter(str(here / "model.tflite")).get_signature_runner()',
        "run": 'run(image=pixels)["probabilities"][0]',
    },
    "savedmodel": {
        "package": "tensorflow",
        "library": "import tensorflow as tf",
        "open": 'run = tf.saved_model.load(here / "saved_model").signatures["serving_default"]',
        "run": 'run(image=tf.constant(pixels))["probabilities"].numpy()[0]',
    },
    "keras": {
        "package": "keras tensorflow",
        "library": "import keras",
        "open": 'model = keras.saving.load_model(here / "model.keras", compile=False)',
        "run": "model.predict(pixels, verbose=0)[0]",
    },
}
FITS = {
    "crop": "ImageOps.fit(photo, ($size, $size), Image.Resampling.BILINEAR)",
    "pad": "ImageOps.pad(photo, ($size, $size), Image.Resampling.BILINEAR, color=(127, 127, 127))",
    "squash": "photo.resize(($size, $size), Image.Resampling.BILINEAR)",
}
STEPS = {
    "crop": "resize the short side to {size} and take the centre square",
    "pad": "resize the long side to {size} and fill up to a square with mid-grey (127, 127, 127)",
    "squash": "resize to {size} x {size}, whatever the aspect",
}
EXAMPLE = Template('''"""Classify photos: pip install $package pillow numpy; python predict_example.py PHOTO..."""

import sys
from pathlib import Path

import numpy as np
$library
from PIL import Image, ImageOps

here = Path(__file__).resolve().parent
labels = (here / "labels.txt").read_text(encoding="utf-8").splitlines()
$open

for name in sys.argv[1:]:
    photo = ImageOps.exif_transpose(Image.open(name)).convert("RGBA")  # upright
    photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo).convert("RGB")
    photo = $fit
    pixels = np.asarray(photo)[None]  # uint8; the model scales them itself
    probabilities = $run
    best = int(probabilities.argmax())
    print(f"{name}: {labels[best]} {probabilities[best]:.1%}")
''')


def travel_files(bundle: Bundle, to: str) -> dict[str, bytes]:
    """Write what lies beside an exported model.

    Args:
        bundle: the model that is exported.
        to: a key of `pronk.bundle.MODEL_PATHS`.

    Returns:
        labels.txt (a class name per line, in the order of the probabilities), decode.json (how a photo becomes the
        model's input) and predict_example.py, which needs the runtime, Pillow and NumPy alone.
    """
    names = RUNTIMES[to.removesuffix("-int8")]
    fit = Template(FITS[bundle.fit]).substitute(size=bundle.size)
    return {
        "labels.txt": "".join(f"{visible(name)}\n" for name in bundle.classes).encode(),
        "decode.json": (json.dumps(describe_decoding(bundle, to), indent=2) + "\n").encode(),
        "predict_example.py": EXAMPLE.substitute(names, fit=fit).encode(),
    }


def describe_decoding(bundle: Bundle, to: str) -> dict[str, Any]:
    """Say in order how a photo becomes the input of the model, and what comes out."""
    classes, side = len(bundle.classes), bundle.size // 32
    return {
        "model": MODEL_PATHS[to],
        "steps": [
            "decode the first frame",
            "turn it upright by its EXIF orientation",
            "convert to 8-bit RGB: transparency over white, more than 8 bits scaled down",
            STEPS[bundle.fit].format(size=bundle.size),
        ],
        "resample": "bilinear, over the whole area where the picture gets smaller (Pillow's BILINEAR)",
        "input": {"name": "image", "dtype": "uint8", "shape": ["N", bundle.size, bundle.size, 3], "range": [0, 255]},
        "outputs": {
            "probabilities": {"dtype": "float32", "shape": ["N", classes]},
            **(
                {}
                if to == "keras"
                else {
                    "features": {"dtype": "float32", "shape": ["N", 1280]},
                    "feature_map": {"dtype": "float32", "shape": ["N", side, side, 1280]},
                }
            ),
        },
    }
