"""What is black, white and red in a file, however many bits, samples or profiles it has."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from helpers.bad_files import chunk
from helpers.pictures import draw_picture, encode
from pronk.dataset.inspection import inspect_photo
from pronk.photos.colours import MOST_PROFILE, find_levels
from pronk.photos.decoding import convert_views, decode, fit_in_srgb, fit_pixels, load_photo, load_pixels
from pronk.photos.properties import describe_picture, shrink
from pronk.photos.views import draw_views

PICTURE = draw_picture("circle", 1)
PIXELS = np.asarray(PICTURE).astype(int)
GREY = np.asarray(PICTURE.convert("L")).astype(int)


def pixels(data, **options):
    return np.asarray(decode(data, **options).image).astype(int)


def notes(data):
    decoded = decode(data)
    properties = describe_picture(decoded, shrink(decoded.image), len(data))
    return {finding.code: finding.message for finding in inspect_photo("a.png", properties)}


def assert_like(got, wanted, *, most=1):
    assert np.abs(got - (wanted if wanted.ndim == 3 else wanted[..., None])).max() <= most


def deep_png(values, *extra):
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2]] if values.ndim == 3 else 0
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_fewer_bits_than_16_are_spread_over_all_of_grey(bits, kind):
    data = encode(Image.fromarray(np.round(GREY / 255 * (2**bits - 1)).astype(np.uint16)), kind)
    assert_like(pixels(data), GREY)
    assert_like(pixels(data, version=1), GREY * (2**bits - 1) // 65535)
    assert ("deep_grey" in notes(data)) == (bits < 16)


@pytest.mark.parametrize("factor", [256, 257])
def test_a_dark_picture_of_8_bits_in_16_is_not_brightened(factor):
    dark = GREY // 20
    assert_like(pixels(encode(Image.fromarray((dark * factor).astype(np.uint16)), "PNG")), dark)


def test_black_stays_black():
    noise = np.random.default_rng(0).integers(0, 400, GREY.shape).astype(np.uint16)
    assert pixels(encode(Image.fromarray(noise), "PNG")).max() <= 2


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("colours", [PIXELS, GREY[..., None]], ids=["colours", "grey"])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_colours_of_fewer_bits_than_16_are_spread_too(bits, colours, alpha):
    samples = np.round(colours / 255 * (2**bits - 1))
    seen = np.full((*GREY.shape, 1), 65535)
    assert_like(pixels(deep_png(np.concatenate([samples, seen], axis=2) if alpha else samples)), colours)


def test_of_colours_too_a_file_may_say_what_is_white():
    dim = np.round(PIXELS / 255 * 900)
    assert_like(pixels(deep_png(dim, chunk(b"sBIT", b"\x0c\x0c\x0c"))), PIXELS * 900 / 4095)
    assert_like(pixels(deep_png(PIXELS // 20 * 257)), PIXELS // 20)


def test_what_a_file_says_of_its_bits_comes_first():
    dim = np.round(GREY / 255 * 900)  # of 12 bits, yet below 10
    assert_like(pixels(deep_png(dim, chunk(b"sBIT", b"\x0c"))), GREY * 900 / 4095)
    assert_like(pixels(deep_png(dim)), GREY * 900 / 1023)
    widened = np.round(GREY / 255 * 65535)
    assert_like(pixels(deep_png(widened, chunk(b"sBIT", b"\x0c"))), GREY)
    pgm = b"P5\n%d %d\n4095\n" % PICTURE.size + dim.astype(">u2").tobytes()
    assert_like(pixels(pgm), GREY * 900 / 4095)
    ifd = Image.fromarray(dim.astype(np.uint16))
    given_range = encode(ifd, "TIFF", tiffinfo={340: 0, 341: 900})
    assert_like(pixels(given_range), GREY)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (GREY / 255, GREY),
        (GREY * 1.0, GREY),
        (GREY / 255 * 4095, GREY),
        (280 + GREY / 255 * 40, (GREY - GREY.min()) * 255 / (GREY.max() - GREY.min())),
        (GREY / 255 * 2 - 1, (GREY - GREY.min()) * 255 / (GREY.max() - GREY.min())),
    ],
    ids=["share", "byte", "12 bits", "kelvin", "both signs"],
)
def test_numbers_with_a_fraction(values, wanted):
    data = encode(Image.fromarray(values.astype(np.float32)), "TIFF")
    assert_like(pixels(data), wanted, most=2)


@given(st.integers(1, 65535), st.sampled_from(["I;16", "I"]))
def test_white_is_never_below_the_largest_value(highest, mode):
    values = np.array([[0, highest // 2, highest]], np.uint16 if mode == "I;16" else np.int32)
    levels = find_levels(Image.fromarray(values))
    assert levels.low == 0
    assert levels.high >= highest


def test_transparent_16_bit_grey_lies_on_white():
    deep = GREY * 257
    clear = int(deep[0, 0])
    data = deep_png(deep, chunk(b"tRNS", struct.pack(">H", clear)))
    assert_like(pixels(data), np.where(deep == clear, 255, GREY))
    assert_like(pixels(data, version=1), GREY)


def bitmap(*, masks, values, version=3):
    """Write a BMP of 32 bits a pixel, its colours at any bits."""
    width, height = PICTURE.size
    body = values.astype("<u4")[::-1].tobytes()
    fields = b"".join(struct.pack("<I", mask) for mask in masks)
    header = struct.pack("<IiiHHIIiiII", 108 if version == 4 else 40, width, height, 1, 32, 3, len(body), 0, 0, 0, 0)
    header += fields + bytes(108 - 40 - len(fields) if version == 4 else 0)
    start = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + body


def test_a_bitmap_whose_transparency_is_all_zero_is_opaque():
    red, green, blue = np.moveaxis(PIXELS, 2, 0)
    values = red << 16 | green << 8 | blue
    data = bitmap(masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000), values=values, version=4)
    assert_like(pixels(data), PIXELS, most=0)
    assert pixels(data, version=1).min() == 255


def test_a_bitmap_with_colours_at_any_bits():
    red, green, blue = np.moveaxis(PIXELS * 1023 // 255, 2, 0)
    assert_like(pixels(bitmap(masks=(1023 << 20, 1023 << 10, 1023), values=red << 20 | green << 10 | blue)), PIXELS)
    red, green, blue = np.moveaxis(PIXELS >> 3, 2, 0)
    assert_like(pixels(bitmap(masks=(31, 31 << 5, 31 << 10), values=red | green << 5 | blue << 10)), PIXELS, most=8)


# Colour profiles


def profile(*, gamma, swapped=False):
    """Make an RGB profile by hand: XYZ of the three colours, and a gamma for all of them (ICC.1:2001-04)."""
    colours = [(0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)]
    colours = colours[::-1] if swapped else colours

    def fixed(value):
        return struct.pack(">i", round(value * 65536))

    def xyz(values):
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"made\0" + bytes(78 + 1)
    tags = {b"desc": text, b"wtpt": xyz((0.9642, 1, 0.8249)), b"cprt": b"text\0\0\0\0none\0\0\0\0"}
    tags |= dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(xyz, colours), strict=True))
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content
    size = start + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp"
    header += bytes(128 - len(header) - 60) + b"".join(map(fixed, (0.9642, 1, 0.8249))) + bytes(48)
    return header + struct.pack(">I", len(tags)) + table + body


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_colours_follow_the_profile_in_the_file(kind):
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 97, "subsampling": 0}}.get(kind, {})
    swapped = encode(PICTURE, kind, icc_profile=profile(gamma=2.2, swapped=True), **options)
    assert np.abs(pixels(swapped) - PIXELS[..., ::-1]).mean() < 6  # a gamma of 2.2 is not quite sRGB's
    assert_like(pixels(swapped, version=1), PIXELS, most=12 if kind == "JPEG" else 0)
    assert (
        np.abs(pixels(swapped, min_side=9) - pixels(encode(PICTURE, kind, **options), min_side=9)[..., ::-1]).mean() < 6
    )
    dark = encode(PICTURE, kind, icc_profile=profile(gamma=4.0), **options)
    assert pixels(dark).mean() < PIXELS.mean() - 20


def test_grey_pictures_may_have_a_profile_for_colours():
    grey = PICTURE.convert("L")
    dark = pixels(encode(grey, "JPEG", quality=97, icc_profile=profile(gamma=4.0)))
    assert dark.mean() < GREY.mean() - 20
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encode(grey, "PNG", icc_profile=srgb)
    assert_like(pixels(data), GREY, most=0)
    assert "colour_profile" not in notes(data)


def test_srgb_costs_no_level():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    np.testing.assert_array_equal(pixels(encode(PICTURE, "PNG", icc_profile=srgb)), PIXELS)


@pytest.mark.parametrize("broken", [b"x" * 300, profile(gamma=2.2)[:200], bytes(MOST_PROFILE + 1)])
def test_a_profile_that_is_none_costs_no_photo_and_is_noted(broken):
    data = encode(PICTURE, "TIFF", icc_profile=broken)
    np.testing.assert_array_equal(pixels(data), PIXELS)
    assert "cannot be used" in notes(data)["colour_profile"]


def test_transparent_pictures_with_a_profile():
    clear = PICTURE.convert("RGBA")
    clear.putalpha(128)
    plain, converted = (pixels(encode(clear, "PNG", **o)) for o in ({}, {"icc_profile": profile(gamma=4.0)}))
    assert converted.mean() < plain.mean()


def test_what_is_made_small_first_is_what_is_served_and_trained_on(tmp_path):
    """Few pixels are converted faster than many; the order must be the same everywhere."""
    data = encode(draw_picture("circle", 5, (300, 200)), "JPEG", quality=95, icc_profile=profile(gamma=3.0))
    decoded = decode(data, min_side=32, in_srgb=False)
    assert decoded.convert is not None
    pixels = load_pixels(data, size=32)
    np.testing.assert_array_equal(pixels, fit_in_srgb(decoded, size=32, fit="crop"))
    np.testing.assert_array_equal(pixels, load_photo(data, size=32)[1])
    views = draw_views(decoded.image, size=32, fit="crop", numbers=[0, 1], digest="00", seed=1)
    np.testing.assert_array_equal(pixels, convert_views(decoded, views)[0])
    late = fit_pixels(decode(data, min_side=32).image, size=32, fit="crop")
    assert np.abs(pixels.astype(int) - late).mean() < 2
