"""Every layout that a TIFF may have: the same picture comes out, or it is said what kind it is."""

import contextlib
import io
import itertools
import struct

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from helpers.pictures import draw_picture, encode
from pronk.errors import ImageError, Reason
from pronk.photos.decoding import decode
from pronk.photos.tiff import open_tiff, read_tiff

PICTURE = draw_picture("circle", 1, (96, 70))
COLOUR = np.asarray(PICTURE) / 255
GREY = np.asarray(PICTURE.convert("L")) / 255
FULL = np.ones(GREY.shape)


def whole(values, bits, most=None):
    return np.round(values * (most or 2**bits - 1)).astype(f"u{bits // 8}")


SAMPLES = {
    "grey 8": whole(GREY, 8),
    "grey 16": whole(GREY, 16),
    "grey 12 in 16": whole(GREY, 16, 4095),
    "grey float": GREY.astype("f4"),
    "colour 8": whole(COLOUR, 8),
    "colour 16": whole(COLOUR, 16),
    "colour 12 in 16": whole(COLOUR, 16, 4095),
    "colour float": COLOUR.astype("f4"),
    "opaque 8": whole(np.dstack([COLOUR, FULL]), 8),
    "opaque 16": whole(np.dstack([COLOUR, FULL]), 16),
}
LAYOUTS = list(
    itertools.product("<>", (False, True), (None, "deflate", "deflate, predicted"), (False, True), (None, (32, 32)))
)


def write(samples, *, order="<", big=False, packing=None, in_planes=False, tile=None, **options):
    """Write samples [h, w] or [h, w, n]; with the options of tifffile."""
    is_colour = samples.ndim == 3
    options |= {"photometric": "rgb" if is_colour else "minisblack", "byteorder": order, "bigtiff": big, "tile": tile}
    if packing:
        options |= {"compression": "deflate", "predictor": "predicted" in packing or None}
    if is_colour:
        options["planarconfig"] = "separate" if in_planes else "contig"
        options |= {"extrasamples": ["unassalpha"]} if samples.shape[2] == 4 else {}
        samples = np.moveaxis(samples, 2, 0) if in_planes else samples
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, **options)
    return buffer.getvalue()


def pixels(data):
    return np.asarray(decode(data).image).astype(float)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_layout_gives_the_same_picture(name):
    samples = SAMPLES[name]
    wanted = 255 * (COLOUR if samples.ndim == 3 else GREY[..., None])
    tried = 0
    for order, big, packing, in_planes, tile in LAYOUTS:
        if in_planes and samples.ndim == 2:
            continue
        try:
            data = write(samples, order=order, big=big, packing=packing, in_planes=in_planes, tile=tile)
        except (KeyError, RuntimeError, ValueError):  # tifffile needs another package for some predictions
            continue
        tried += 1
        assert np.abs(pixels(data) - wanted).mean() <= 1, (order, big, packing, in_planes, tile)
    assert tried >= 12


@pytest.mark.parametrize("packing", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "zstd"])
def test_packed_strips_are_unpacked_by_pillow(packing):
    tiff = open_tiff(encode(PICTURE, "TIFF", compression=packing))
    read = read_tiff(tiff)
    if read is not None:  # what Pillow writes with a prediction of its own
        np.testing.assert_array_equal(np.asarray(read), np.asarray(PICTURE))


def odd(bits, values, *, photometric=1, palette=()):
    """Write a TIFF of any number of bits by hand: one strip, rows that end with a byte."""
    height, width = values.shape
    rows = [np.unpackbits(row.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)[:, 16 - bits :] for row in values]
    strip = b"".join(np.packbits(row.ravel()).tobytes() for row in rows)
    tags = [(256, 3, width), (257, 3, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (277, 3, 1)]
    start = 8 + 2 + 12 * (9 + bool(palette)) + 4
    tags += [(273, 4, start), (278, 3, height), (279, 4, len(strip))]
    table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in sorted(tags))
    colours = b"".join(struct.pack("<H", value) for value in palette)
    if palette:
        table += struct.pack("<HHII", 320, 3, len(palette), start + len(strip))
    return b"II*\0" + struct.pack("<IH", 8, 9 + bool(palette)) + table + bytes(4) + strip + colours


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("photometric", [0, 1])
def test_any_number_of_bits(bits, photometric):
    values = np.round(GREY * (2**bits - 1)).astype(int)
    stored = values if photometric else 2**bits - 1 - values
    wanted = values * 255 / (2**bits - 1)
    assert np.abs(pixels(odd(bits, stored, photometric=photometric)) - wanted[..., None]).max() <= 1


def test_a_palette_of_16_bits():
    rng = np.random.default_rng(0)
    places, palette = rng.integers(0, 2**12, (20, 30)), rng.integers(0, 65536, (3, 2**12))
    wanted = palette[:, places].transpose(1, 2, 0) / 257
    data = odd(12, places, photometric=3, palette=palette.ravel().tolist())
    assert np.abs(pixels(data) - wanted).max() <= 1


@pytest.mark.parametrize(
    ("samples", "options", "said"),
    [
        (whole(COLOUR, 16).astype("u4"), {"photometric": "rgb"}, "32/32/32 bits a sample, RGB"),
        (GREY.astype("c8"), {"photometric": "minisblack"}, "complex"),
    ],
)
def test_what_is_not_read_is_said_to_be_so(samples, options, said):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, **options)
    with pytest.raises(ImageError, match=said) as caught:
        decode(buffer.getvalue())
    assert caught.value.reason is Reason.UNSUPPORTED_FORMAT
    assert "convert" in caught.value.hint


def test_cut_files_are_cut():
    for name in ("colour 16", "colour float", "grey 12 in 16"):
        for options in ({}, {"in_planes": name.startswith("colour")}, {"big": True, "order": ">"}):
            data = write(SAMPLES[name], **options)
            with pytest.raises(ImageError) as caught:
                decode(data[: len(data) * 2 // 3])
            assert caught.value.reason is Reason.TRUNCATED


@given(st.binary(max_size=400), st.sampled_from([b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"]), st.integers(0, 60))
def test_any_bytes_are_a_picture_or_an_error(data, start, at):
    made = bytearray(write(SAMPLES["colour 16"][:9, :9], in_planes=True))
    made[at : at + len(data)] = data
    for content in (start + data, bytes(made)):
        with contextlib.suppress(ImageError):  # and no other
            assert isinstance(decode(content).image, Image.Image)
