"""File or bytes -> upright RGB pixels: right colours, right side up, a named reason for everything else."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import TESTS
from helpers.bad_files import STORED, UPRIGHT, blank_png, chunk, exif, make_samples
from helpers.pictures import draw_picture, encode
from pronk.errors import ImageError, Reason
from pronk.photos import decoding as images
from pronk.photos.decoding import MAX_PIXELS, decode, fit_pixels, load_pixels, read_bytes
from pronk.photos.drawing import draw_photo
from pronk.photos.formats import BY_PILLOW, FORMATS
from pronk.pools import run_in_order

PICTURE = draw_picture("circle", 1)
PIXELS = np.asarray(PICTURE)
GREY = np.asarray(PICTURE.convert("L"))
SAMPLES = {sample.name: sample for sample in make_samples()}


def pixels(data, **options):
    return np.asarray(decode(data, **options).image)


def reason(data):
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert caught.value.hint
    return caught.value.reason


@pytest.mark.parametrize("name", SAMPLES)
def test_each_sample_gets_its_reason(name):
    sample = SAMPLES[name]
    if sample.verdict in (Reason.OK, Reason.OK_WITH_WARNING):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nothing is said to the terminal
            decoded = decode(sample.data, min_side=48)
        assert decoded.image.mode == "RGB"
        assert decoded.format in FORMATS
    else:
        assert reason(sample.data) is sample.verdict


# Right side up


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_every_orientation_gives_the_same_upright_pixels(kind, orientation):
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](PIXELS)))
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}.get(kind, {})
    data = encode(stored, kind, exif=exif(orientation), **options)
    assert np.abs(pixels(data).astype(int) - PIXELS).mean() <= (3 if kind == "JPEG" else 0)
    assert pixels(data, min_side=9).shape == (18, 24, 3)


@pytest.mark.parametrize("block", [exif(99), exif(0), b"Exif\0\0MM\0*" + bytes(range(256)), b"garbage"])
def test_a_useless_exif_block_is_ignored(block):
    np.testing.assert_array_equal(pixels(encode(PICTURE, "PNG", exif=block)), PIXELS)


# Right colours


def test_grey_of_more_than_8_bits_is_scaled():
    deep = GREY.astype(np.uint16) * 257
    for data in (
        encode(Image.fromarray(deep), "PNG"),
        encode(Image.fromarray(deep), "TIFF"),
        encode(Image.fromarray(deep.astype(np.int32)), "TIFF"),
        encode(Image.fromarray(GREY.astype(np.int32)), "TIFF"),
        encode(Image.fromarray(GREY.astype(np.float32)), "TIFF"),
        encode(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"),
        encode(Image.fromarray(deep.astype(">u2")), "TIFF"),
    ):
        np.testing.assert_array_equal(pixels(data), np.stack([GREY] * 3, axis=2))


def test_numbers_that_are_none_do_no_harm():
    values = GREY.astype(np.float32)
    values[:2] = np.nan
    values[2] = -5
    got = pixels(encode(Image.fromarray(values), "TIFF"))
    assert not got[:3].any()
    np.testing.assert_array_equal(got[3:, :, 0], GREY[3:])


def test_alpha_is_put_over_white():
    alpha = np.full(GREY.shape, 255, np.uint8)
    alpha[:, :48] = 0
    alpha[:10] = 128
    expected = 255 - (255 - PIXELS.astype(float)) * alpha[..., None] / 255
    coloured = np.dstack([PIXELS, alpha])
    assert np.abs(pixels(encode(Image.fromarray(coloured), "PNG")) - expected).max() <= 1
    both = np.dstack([GREY, alpha])
    expected = 255 - (255 - GREY.astype(float)) * alpha / 255
    assert np.abs(pixels(encode(Image.fromarray(both, "LA"), "PNG"))[..., 0] - expected).max() <= 1


def test_transparent_palette_and_colour_become_white():
    palette = PICTURE.quantize(16)
    expected = np.asarray(palette.convert("RGB")).copy()
    np.testing.assert_array_equal(pixels(encode(palette, "PNG")), expected)
    expected[np.asarray(palette) == 3] = 255
    np.testing.assert_array_equal(pixels(encode(palette, "PNG", transparency=3)), expected)
    np.testing.assert_array_equal(pixels(encode(palette, "GIF", transparency=3)), expected)
    colour = tuple(int(c) for c in PIXELS[0, 0])
    assert (pixels(encode(PICTURE, "PNG", transparency=colour))[0, 0] == 255).all()


def test_one_bit_cmyk_and_progressive_files():
    bits = PICTURE.convert("1")
    np.testing.assert_array_equal(pixels(encode(bits, "PNG")), np.asarray(bits.convert("RGB")))
    for picture, options in ((PICTURE.convert("CMYK"), {}), (PICTURE, {"progressive": True}), (PICTURE, {})):
        assert np.abs(pixels(encode(picture, quality=95, **options)).astype(int) - PIXELS).mean() < 6
    np.testing.assert_array_equal(pixels(encode(PICTURE.convert("CMYK"), "TIFF")), PIXELS)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "MPO"])
def test_of_several_pictures_the_first_is_taken(kind):
    data = encode(PICTURE, kind, save_all=True, append_images=[draw_picture("square", 2)])
    decoded = decode(data)
    assert np.abs(np.asarray(decoded.image).astype(int) - PIXELS).mean() < 12
    assert decoded.animated == (kind != "MPO")


# Smaller by a whole factor


@pytest.mark.parametrize("kind", BY_PILLOW)
def test_a_smaller_picture_keeps_twice_the_side_and_the_look(kind):
    photo = draw_photo("house", np.random.default_rng(4), (640, 480))
    full, small = decode(encode(photo, kind)), decode(encode(photo, kind), min_side=60)
    assert full.size == small.size == (640, 480)
    assert small.image.size in ((160, 120), (214, 160))
    apart = [fit_pixels(decoded.image, size=60).astype(int) for decoded in (full, small)]
    assert np.abs(apart[0] - apart[1]).mean() < 2


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_bands_join_without_a_seam(mode, monkeypatch):
    picture = Image.fromarray(GREY.astype(np.uint16) * 257) if mode == "I;16" else PICTURE.convert(mode)
    data = encode(picture, "PNG")
    whole = pixels(data), pixels(data, min_side=10)
    monkeypatch.setattr("pronk.photos.colours.BAND_PIXELS", 96 * 5)
    for expected, min_side in zip(whole, (None, 10), strict=True):
        np.testing.assert_array_equal(pixels(data, min_side=min_side), expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (3, 2), (33, 4000)])
@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_any_shape_of_picture_fits(size, fit):
    for kind in ("PNG", "JPEG"):
        got = load_pixels(encode(Image.new("RGB", size, (200, 30, 30)), kind), size=32, fit=fit)
        assert got.shape == (32, 32, 3)
        assert got.dtype == np.uint8


def test_crop_takes_the_centre_pad_keeps_all_squash_ignores_the_aspect():
    wide = Image.new("RGB", (90, 30), "blue")
    wide.paste("red", (30, 0, 60, 30))
    assert (fit_pixels(wide, size=30, fit="crop") == (255, 0, 0)).all()
    padded = fit_pixels(wide, size=30, fit="pad")
    assert (padded[0, 0] == 127).all()
    assert (padded[15, 2] == (0, 0, 255)).all()
    squashed = fit_pixels(wide, size=30, fit="squash")
    assert (squashed[:, 2] == (0, 0, 255)).all()
    assert (squashed[:, 15] == (255, 0, 0)).all()


# Limits


def test_the_ceiling_is_50_megapixels():
    assert MAX_PIXELS == 50_000_000
    assert decode(blank_png(10_000, 5_000), min_side=32).size == (10_000, 5_000)
    assert reason(blank_png(10_000, 5_001, rows=False)) is Reason.TOO_MANY_PIXELS


MEASURE = """
import sys
import numpy
from PIL import Image
from pathlib import Path
from pronk.errors import ImageError
from pronk.photos.decoding import decode

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

Image.init()
before = peak()
for path in Path(sys.argv[1]).iterdir():
    data = path.read_bytes()
    try:
        decode(data, min_side=224)
    except ImageError:
        pass
    print((peak() - before) // 1024, path.name)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
def test_one_decode_needs_at_most_300_mib(tmp_path):
    large = {
        "rgb_turned.png": blank_png(7000, 7000, depth=8, colour=2, extra=chunk(b"eXIf", exif(6).tobytes()[6:])),
        "rgba.png": blank_png(7000, 7000, depth=8, colour=6),
        "deep_grey.png": blank_png(7000, 7000, depth=16),
        "palette.png": blank_png(7000, 7000, depth=8, colour=3, extra=chunk(b"PLTE", bytes(6)) + chunk(b"tRNS", b"\0")),
        "baseline.jpg": encode(Image.new("CMYK", (7000, 7000))),
    }
    for name, data in large.items():
        (tmp_path / f"large_{name}").write_bytes(data)
    for sample in SAMPLES.values():
        (tmp_path / sample.name).write_bytes(sample.data)
    done = subprocess.run([sys.executable, "-c", MEASURE, tmp_path], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(large) + len(SAMPLES)
    assert int(lines[-1].split()[0]) <= 300, done.stdout


# Reading


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, Reason.VANISHED),
        (lambda path: path.touch(), Reason.ZERO_BYTE),
        (lambda path: path.mkdir(), Reason.NOT_REGULAR_FILE),
        (os.mkfifo, Reason.NOT_REGULAR_FILE),
        (lambda path: path.symlink_to(path), Reason.UNREADABLE),
        (lambda path: path.symlink_to("nowhere"), Reason.VANISHED),
        (lambda path: path.symlink_to("/dev/zero"), Reason.NOT_REGULAR_FILE),
        (lambda path: (path.touch(), os.truncate(path, 100 * 2**20 + 1)), Reason.TOO_LARGE),
    ],
)
def test_what_is_no_ordinary_file_has_a_reason(tmp_path, make, expected):
    path = tmp_path / "photo.jpg"
    make(path)
    refuse(path, expected)


def refuse(path, *expected):
    with pytest.raises(ImageError) as caught:
        read_bytes(path)
    assert caught.value.reason in expected
    assert caught.value.hint


@pytest.mark.parametrize("name", ["nul\0byte.jpg", "n" * 300 + ".jpg", "a/" * 3000 + "b.jpg", "file.jpg/inside.jpg"])
def test_impossible_names_have_a_reason(tmp_path, name):
    (tmp_path / "file.jpg").write_bytes(b"x")
    refuse(tmp_path / name, Reason.UNREADABLE, Reason.VANISHED)


def test_threads_decode_the_same():
    samples = [sample.data for sample in SAMPLES.values() if sample.verdict is Reason.OK]
    alone = [pixels(data) for data in samples]
    for one, other in zip(alone * 6, run_in_order(pixels, samples * 6), strict=True):
        np.testing.assert_array_equal(one, other)


# Mutants


def run_mutants(first, count):
    command = [sys.executable, "-m", "helpers.fuzzing", str(first), str(count)]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stderr[-2000:]  # negative: killed by a signal; 1: a hang or an exception
    report = json.loads(done.stdout)
    assert report["seeds"] == 20
    assert sum(report["verdicts"].values()) == count
    assert set(report["verdicts"]) <= {reason.value for reason in Reason}
    assert report["growth_kib"] <= 100 * 1024
    return report["verdicts"]


def test_500_mutants_only_get_reasons():
    verdicts = run_mutants(0, 500)
    assert {"ok", "truncated", "decode_error", "not_an_image", "too_many_pixels"} <= set(verdicts)


@pytest.mark.slow
def test_200_000_mutants_only_get_reasons():
    run_mutants(10_000, 200_000)


def test_a_webp_is_refused_at_fewer_pixels_since_it_takes_more_memory():
    with pytest.raises(ImageError, match="as WEBP") as caught:
        decode(encode(Image.new("RGB", (4200, 3000)), "WEBP"))
    assert caught.value.reason == Reason.TOO_MANY_PIXELS
    assert "12 megapixels, or as JPEG" in caught.value.hint


def test_of_large_pictures_one_is_decoded_at_a_time(monkeypatch):
    turns = []

    class Watched:
        def __enter__(self):
            turns.append("large")

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(images, "_large_lock", Watched())
    for size, kind, options in (
        ((300, 200), "PNG", {}),
        ((4000, 2100), "PNG", {}),
        ((4000, 2100), "JPEG", {}),  # becomes small while it is decoded
        ((4000, 2100), "JPEG", {"progressive": True}),
    ):
        decode(encode(Image.new("RGB", size, "green"), kind, **options), min_side=224)
        turns.append(kind)
    assert turns == ["PNG", "large", "PNG", "JPEG", "large", "JPEG"]
