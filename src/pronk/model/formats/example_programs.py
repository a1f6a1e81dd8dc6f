"""Bundle -> how a photo becomes the model's input, in words and as code, and the files that tell it without pronk."""

import json
from string import Template
from typing import Any

from pronk.model.bundle import Bundle, open_runtime
from pronk.model.formats.runtimes import OUTPUTS
from pronk.model.formats.table import FORMATS
from pronk.text import visible

# Not quite centred: where the rest is odd, its last row or column goes below or to the right, as in photos/decoding.py.
FITS = {
    "crop": (
        "resize the short side to $size and take the centre square",
        "ImageOps.fit(photo, ($size, $size), Image.Resampling.BILINEAR)",
    ),
    "pad": (
        "resize the long side to $size and fill up to a square with mid-grey (127, 127, 127)",
        "ImageOps.pad(photo, ($size, $size), Image.Resampling.BILINEAR, color=(127,) * 3, centering=(0.4999,) * 2)",
    ),
    "squash": (
        "resize to $size x $size, whatever the aspect",
        "photo.resize(($size, $size), Image.Resampling.BILINEAR)",
    ),
}
STEPS = (
    "decode the first frame",
    "turn it upright by its EXIF orientation",
    "convert to 8-bit RGB: transparency over white, 16-bit grey scaled down",
)
DECODING = Template("""\
photo = ImageOps.exif_transpose(Image.open($photo))  # upright
if photo.mode.startswith("I;16"):
    photo = photo.point(lambda grey: grey / 257 + 0.5).convert("L")
photo = photo.convert("RGBA")
photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo).convert("RGB")
photo = $fit
pixels = np.asarray(photo)[None]  # uint8; the model scales them itself
""")
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
    $decoding
    probabilities = $run
    best = int(probabilities.argmax())
    print(f"{name}: {labels[best]} {probabilities[best]:.1%}")
''')


def list_steps(fit: str, *, size: int) -> list[str]:
    """Say in order how a photo becomes the model's input."""
    return [*STEPS, Template(FITS[fit][0]).substitute(size=size)]


def write_decoding(fit: str, *, size: int, photo: str) -> list[str]:
    """Write the same as lines of Python, with Pillow and NumPy alone.

    The expression `photo` names the photo's file.
    """
    code = Template(FITS[fit][1]).substitute(size=size)
    return DECODING.substitute(photo=photo, fit=code).splitlines()


def travel_files(bundle: Bundle, to: str) -> dict[str, bytes]:
    """Write what lies beside an exported model.

    Returns:
        labels.txt (a class name per line, in the order of the probabilities), decode.json (how a photo becomes the
        model's input) and predict_example.py, which needs the runtime, Pillow and NumPy alone. A page of its own needs
        none of them.
    """
    program = FORMATS[to].program
    if program is None:
        return {}
    decoding = "\n    ".join(write_decoding(bundle.fit, size=bundle.size, photo="name"))
    return {
        "labels.txt": "".join(f"{visible(name)}\n" for name in bundle.classes).encode(),
        "decode.json": (json.dumps(describe_decoding(bundle, to), indent=2) + "\n").encode(),
        "predict_example.py": EXAMPLE.substitute(vars(program), decoding=decoding).encode(),
    }


def describe_decoding(bundle: Bundle, to: str) -> dict[str, Any]:
    """Say how a photo becomes the input of the model, and what comes out."""
    shapes: dict[str, list[int]] = {"probabilities": [len(bundle.classes)]}
    if to != "keras":
        shapes = {name: shape for name, shape in open_runtime(bundle).shapes.items() if name in OUTPUTS}
    return {
        "model": FORMATS[to].path,
        "steps": list_steps(bundle.fit, size=bundle.size),
        "resample": "bilinear, over the whole area where the picture gets smaller (Pillow's BILINEAR)",
        "input": {"name": "image", "dtype": "uint8", "shape": ["N", bundle.size, bundle.size, 3], "range": [0, 255]},
        "outputs": {name: {"dtype": "float32", "shape": ["N", *shape]} for name, shape in shapes.items()},
    }
