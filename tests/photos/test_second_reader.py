"""The same pixels as another decoder makes of the same file."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers.pictures import draw_picture, encode
from pronk.photos.decoding import decode
from pronk.pools import run_in_order

EVERY = 8  # photo of the sets, for the sake of time
MOST = 2.0  # levels, on the mean: decoders of JPEG round, and enlarge colours, in their own ways
MODES = {
    "JPEG": ("L", "RGB"),
    "PNG": ("1", "L", "P", "RGB", "I;16"),
    "BMP": ("1", "L", "P", "RGB"),
    "TIFF": ("L", "P", "RGB", "I;16"),
    "WEBP": ("RGB",),
    "PPM": ("1", "L", "RGB"),
    "GIF": ("L", "P", "RGB"),
}
OPTIONS = {
    "JPEG": ({"quality": 30}, {"quality": 95, "subsampling": 0}, {"progressive": True}, {"optimize": True}),
    "PNG": ({}, {"optimize": True}),
    "TIFF": ({}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}, {"compression": "packbits"}),
    "WEBP": ({"quality": 60}, {"lossless": True}),
}
SIZES = ((96, 72), (37, 51), (1, 1), (300, 5), (128, 128), (255, 64), (17, 200))


def read(data):
    """Return what OpenCV makes of a file, RGB [h, w, 3]; None where it does not read it."""
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if found is None else found[..., ::-1]


def make_files():
    for number, size in enumerate(SIZES):
        picture = draw_picture("circle", number, size)
        for kind, modes in MODES.items():
            for mode in modes:
                drawn = picture.convert(mode) if mode != "I;16" else None
                if drawn is None:
                    drawn = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
                for options in OPTIONS.get(kind, ({},)):
                    yield f"{kind} {mode} {size} {options}", encode(drawn, kind, **options)


def test_files_made_by_code_have_the_pixels_that_another_decoder_finds():
    differences, compared = {}, 0
    for name, data in make_files():
        other = read(data)
        if other is not None:
            compared += 1
            own = np.asarray(decode(data).image).astype(int)
            differences[name] = np.abs(own - other).mean() if own.shape == other.shape else np.inf
    assert compared >= 200
    assert {name: round(value, 1) for name, value in differences.items() if value > MOST} == {}


@pytest.mark.more
@pytest.mark.skipif("PRONK_SETS" not in os.environ, reason="the sets of real photos are not here")
def test_real_photos_have_the_pixels_that_another_decoder_finds():
    paths = [path for path in sorted(Path(os.environ["PRONK_SETS"]).rglob("*")) if path.is_file()][::EVERY]

    def compare(path):
        data = path.read_bytes()
        other = read(data)
        if other is None:
            return None
        # OpenCV heeds no colour profile, of a camera or other than sRGB; without them the pixels are the same.
        has_profile = bool(Image.open(path).info.get("icc_profile"))
        decoded = decode(data, version=1 if has_profile else 2)  # raises where a whole photo is called damaged
        own = np.asarray(decoded.image).astype(int)
        return np.abs(own - other).mean() if own.shape == other.shape else np.inf

    found = dict(zip(paths, run_in_order(compare, paths), strict=True))
    wrong = {str(path): value for path, value in found.items() if value is not None and value > MOST}
    assert len(found) > 100
    assert wrong == {}
