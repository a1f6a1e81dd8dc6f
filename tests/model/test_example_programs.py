"""How a photo becomes the model's input: the words and the code say what pronk does."""

import numpy as np
import pytest
from PIL import Image

from helpers.bad_files import exif
from helpers.pictures import encode
from pronk.model.formats.example_programs import write_decoding
from pronk.photos.decoding import load_pixels

ramp = np.linspace(0, 1, 96 * 64).reshape(64, 96)
COLOURS = (255 * np.stack([ramp, ramp[::-1], 1 - ramp, ramp[:, ::-1]], -1)).astype(np.uint8)
PHOTOS = {
    "colours": encode(Image.fromarray(COLOURS[..., :3]), "PNG"),
    "transparent": encode(Image.fromarray(COLOURS), "PNG"),
    "16 bits": encode(Image.fromarray((65535 * ramp).astype(np.uint16)), "PNG"),
    "turned": encode(Image.fromarray(COLOURS[..., :3]), quality=95, exif=exif(6)),
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
