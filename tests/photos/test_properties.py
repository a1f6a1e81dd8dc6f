"""Decoded picture -> properties: quality, camera, sharpness and colours are what was put in."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from helpers.bad_files import UPRIGHT
from helpers.pictures import draw_picture, encode
from helpers.planted import draw_clean
from pronk.dataset.inspection import BLURRED
from pronk.dataset.scan import look
from pronk.photos.properties import MOST_CAMERA, estimate_quality, name_camera

MAKE, MODEL, ORIENTATION = 0x010F, 0x0110, 0x0112


def properties(picture, kind="JPEG", **options):
    return look(encode(picture, kind, **options)).properties


@pytest.mark.parametrize("quality", [25, 50, 75, 95])
def test_quality_is_that_of_the_encoder(quality):
    assert abs(properties(draw_picture("circle", 1), quality=quality).quality - quality) <= 1


@pytest.mark.parametrize("tables", [[], [[]], [[0] * 64], [[65535] * 64]])
def test_any_tables_have_a_quality(tables):
    assert 0 <= estimate_quality(tables) <= 100


@pytest.mark.parametrize("orientation", [*UPRIGHT, 99, 0])
def test_camera_and_orientation_come_from_exif(orientation):
    block = Image.Exif()
    block[MAKE], block[MODEL], block[ORIENTATION] = "NIKON CORPORATION", "NIKON D90", orientation
    found = properties(draw_picture("square", 2, (120, 80)), exif=block)
    assert found.orientation == (orientation if orientation in UPRIGHT else 1)
    assert (found.camera, found.width, found.height) == ("NIKON D90", 120, 80), "as stored"


@pytest.mark.parametrize(
    ("make", "model", "named"),
    [
        ("", "", ""),
        (None, None, ""),
        (b"bytes", 7, ""),
        ("Apple", "iPhone 12", "Apple iPhone 12"),
        ("HP\0\0\0rest", "\0", "HP"),
        ("\u202eevil", "a\nb", "\\u202eevil a\\nb"),
        ("x" * 10_000, "", "x" * MOST_CAMERA),
    ],
)
def test_a_camera_is_a_short_visible_name(make, model, named):
    assert name_camera(make, model) == named


def test_colours_are_those_of_the_picture_and_its_edges():
    pixels = np.full((120, 160, 3), 100, np.uint8)
    pixels[:3], pixels[-3:] = (255, 0, 0), (0, 255, 0)
    pixels[:, :3], pixels[:, -3:] = (0, 0, 255), (255, 255, 255)
    found = properties(Image.fromarray(pixels), "PNG")
    assert all(abs(value - 100) < 12 for value in found.colour)
    top, bottom, left, right = (found.border[3 * side : 3 * side + 3] for side in range(4))
    assert top[0] > 230 > 30 > top[1]
    assert bottom[1] > 230 > 30 > bottom[0]
    assert left[2] > 230 > 30 > left[0]
    assert min(right) > 230
    assert found.spread > 50
    assert properties(Image.new("RGB", (50, 50), "navy"), "PNG").spread == 0


def test_a_blurred_picture_is_less_sharp():
    for photo in draw_clean(6, (640, 480)):
        sharp = properties(photo, quality=90).sharpness
        soft = properties(photo.filter(ImageFilter.GaussianBlur(5)), quality=90).sharpness
        assert soft < BLURRED < sharp


def test_sharpness_is_no_matter_of_contrast():
    photo = draw_clean(1, (640, 480))[0]
    pale = Image.blend(photo, Image.new("RGB", photo.size, (128, 128, 128)), 0.7)
    assert properties(pale, "PNG").sharpness > 1.7 * BLURRED
    assert properties(pale, "PNG").contrast < 0.4 * properties(photo, "PNG").contrast


@pytest.mark.parametrize("size", [(1, 1), (2, 500), (500, 2), (3, 3)])
def test_the_smallest_pictures_have_properties(size):
    found = properties(Image.new("L", size, 9), "PNG")
    assert (found.width, found.height, found.contrast, found.quality) == (*size, 0, 0)
