"""How a photo becomes the model's input: the words and the code say what pronk does."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from pronk.analysis.head import Head
from pronk.backbone.onnx_graphs import write_model
from pronk.backbone.weights import random_backbone
from pronk.model.bundle import write_bundle
from pronk.model.formats.example_programs import list_steps, travel_files, write_decoding
from pronk.photos.decoding import load_pixels


def encode(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


ramp = np.linspace(0, 1, 96 * 64).reshape(64, 96)
COLOURS = (255 * np.stack([ramp, ramp[::-1], 1 - ramp, ramp[:, ::-1]], -1)).astype(np.uint8)
PHOTOS = {
    "colours": encode(COLOURS[..., :3]),
    "transparent": encode(COLOURS),
    "16 bits": encode((65535 * ramp).astype(np.uint16)),
    "turned": encode(
        COLOURS[..., :3],
        "JPEG",
        quality=95,
        exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06" + bytes(6),
    ),
}


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_the_code_does_what_pronk_does(photo, fit, tmp_path):
    (tmp_path / "photo").write_bytes(PHOTOS[photo])
    names = {"name": tmp_path / "photo", "np": np}
    lines = ["from PIL import Image, ImageOps", *write_decoding(fit, size=32, photo="name")]
    exec("\n".join(lines), names)
    assert names["pixels"].shape == (1, 32, 32, 3)
    assert names["pixels"].dtype == np.uint8
    difference = names["pixels"][0] - load_pixels(PHOTOS[photo], size=32, fit=fit).astype(float)
    assert np.abs(difference).max() <= 3, "pronk decodes a little smaller first"
    assert np.abs(difference).mean() <= 1


def test_wide_networks_have_more_features(tmp_path):
    weights = random_backbone(alpha=1.3).weights
    kernel = np.zeros((1664, 2), np.float32)
    contents = {"model.onnx": write_model(weights, Head(kernel, kernel[0]), size=32)}
    bundle = write_bundle(tmp_path, contents, classes=["a", "b"], size=32, fit="crop", weights={})
    recipe = json.loads(travel_files(bundle, "onnx-int8")["decode.json"])
    assert recipe["steps"] == list_steps("crop", size=32)
    assert {name: output["shape"] for name, output in recipe["outputs"].items()} == {
        "probabilities": ["N", 2],
        "features": ["N", 1664],
        "heat": ["N", 1, 1, 2],
    }
