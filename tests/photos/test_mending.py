"""Files that other readers open are opened, as long as their pixels are all there; what is not read is named."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.bad_files import chunk
from helpers.pictures import draw_picture, encode
from pronk.errors import ImageError, Reason
from pronk.photos import heif
from pronk.photos.decoding import decode
from pronk.photos.mending import strip_png

PICTURE = draw_picture("circle", 1)
PIXELS = np.asarray(PICTURE)
PNG = encode(PICTURE, "PNG")
HEAD = 8 + 25  # its start and its first chunk


def pixels(data):
    return np.asarray(decode(data).image)


def refused(data):
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert caught.value.hint
    return caught.value


MOVING = encode(PICTURE, "PNG", save_all=True, append_images=[draw_picture("square", 2)])
BROKEN_FRAME = MOVING.rindex(b"fdAT") + 8
ODD_PNGS = {
    "20 MiB of text": PNG[:HEAD] + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(20 * 2**20))) + PNG[HEAD:],
    "unknown compression of text": PNG[:HEAD] + chunk(b"zTXt", b"a\0\7bb") + PNG[HEAD:],
    "unknown compression of a profile": PNG[:HEAD] + chunk(b"iCCP", b"a\0\7bb") + PNG[HEAD:],
    "wrong sum of a remark": PNG[:HEAD] + chunk(b"tEXt", b"a\0b")[:-4] + b"abcd" + PNG[HEAD:],
    "a later frame is broken": MOVING[:BROKEN_FRAME] + bytes(9) + MOVING[BROKEN_FRAME + 9 :],
    "no end": PNG[:-12],
    "half an end": PNG[:-5],
}


@pytest.mark.parametrize("data", ODD_PNGS.values(), ids=ODD_PNGS)
def test_a_png_whose_pixels_are_there_is_read(data):
    np.testing.assert_array_equal(pixels(data), PIXELS)


@given(st.integers(HEAD + 8, len(PNG) - 40))
def test_a_png_whose_pixels_are_not_there_is_not(place):
    assert refused(PNG[:place]).reason is Reason.TRUNCATED


@given(st.binary(max_size=200))
def test_any_png_can_be_stripped(data):
    assert strip_png(PNG[:HEAD] + data).startswith(PNG[:8])


@pytest.mark.parametrize("mode", ["RGB", "L", "1"])
def test_netpbm_is_read(mode):
    picture = PICTURE.convert(mode)
    data = encode(picture, "PPM")
    np.testing.assert_array_equal(pixels(data), np.asarray(picture.convert("RGB")))
    assert decode(data).format == "PPM"
    assert refused(data[: len(data) // 2]).reason is Reason.TRUNCATED


def test_netpbm_in_words_and_with_remarks():
    grey = b"P2 # a remark\n# another\n3 1\n255\n0 128 255\n"
    assert pixels(grey)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("kind", "name"),
    [("TGA", "TGA"), ("PCX", "PCX"), ("DDS", "DDS"), ("ICO", "icon"), ("SGI", "SGI"), ("EPS", "EPS"), ("PDF", "PDF")],
)
def test_formats_that_are_not_read_are_named(kind, name):
    error = refused(encode(PICTURE, kind))
    assert error.reason is Reason.UNSUPPORTED_FORMAT
    assert str(error) == f"{name} files are not supported"


def test_only_a_page_is_called_one():
    assert "web site" in str(refused(b"\n<!DOCTYPE html><html></html>"))
    assert "web site" not in str(refused(b"just text"))


def test_heic_needs_a_package_of_the_users_and_is_never_read_by_a_server(monkeypatch):
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pillow-heif" in refused(data).hint
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(heif, "is_allowed", False)
    assert refused(data).reason is Reason.UNSUPPORTED_FORMAT


def test_heic_is_read_in_a_process_of_its_own():
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif, which the user installs, is not there")
    pillow_heif.register_heif_opener()
    data = encode(PICTURE, "HEIF", quality=100)
    assert np.abs(pixels(data).astype(int) - PIXELS).mean() < 4
    assert decode(data, min_side=9).format == "HEIC"
    assert refused(data[: len(data) // 2]).reason is Reason.TRUNCATED
