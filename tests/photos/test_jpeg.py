"""Damaged JPEG is told from whole JPEG, at every size it is decoded in."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from helpers.pictures import draw_picture, encode
from pronk.errors import ImageError, Reason
from pronk.photos.decoding import decode
from pronk.photos.jpeg import END, SCAN, is_lossless, is_text_copy, read_segments

SIZES = (None, 200, 60, 30)


def noisy(size=(480, 360), seed=1):
    """Draw a picture as full of detail as a photo."""
    noise = np.random.default_rng(seed).integers(-20, 21, (size[1], size[0], 3))
    return Image.fromarray(
        np.clip(np.asarray(draw_picture("circle", seed, size)).astype(int) + noise, 0, 255).astype(np.uint8)
    )


def verdicts(data):
    found = []
    for side in SIZES:
        try:
            decode(data, min_side=side)
            found.append("ok")
        except ImageError as error:
            found.append(error.reason)
    assert len(set(found)) == 1, found
    return found[0]


def scan_of(data):
    return data.index(SCAN) + 14, data.index(END, data.index(SCAN))


WHOLE = {
    "plain": {},
    "fine": {"quality": 97, "subsampling": 0},
    "coarse": {"quality": 20},
    "optimised": {"optimize": True},
    "restarts": {"restart_marker_rows": 1},
    "progressive": {"progressive": True},
}


@pytest.mark.parametrize("options", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(480, 360), (37, 501), (500, 19), (9, 9)])
def test_whole_files_are_whole(options, mode, size):
    picture = noisy(size).convert(mode)
    white = Image.new(mode, size, "white")
    white.paste(picture.crop((0, 0, *(side // 2 for side in size))))
    for drawn in (picture, white, Image.new(mode, size)):
        data = encode(drawn, **options)
        assert verdicts(data) == "ok"
        assert verdicts(data + b"more behind the end" * 9) == "ok"
        assert verdicts(data[:-2]) == "ok"  # the end mark holds no pixels


DAMAGES = {
    "a lost block": lambda data, start, end: data[: (start + end) // 2] + data[(start + end) // 2 + 4096 :],
    "a block of zeros": lambda data, start, end: data[: start + 9000] + bytes(4096) + data[start + 13096 :],
    "zeros to the end": lambda data, start, end: data[: (start + end) // 2] + bytes(end - (start + end) // 2) + END,
    "an end too early": lambda data, start, end: data[: (start + end) // 2] + END,
    "line ends": lambda data, start, end: data[:start] + data[start:].replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("options", [{}, {"quality": 95, "subsampling": 0}, {"optimize": True}])
def test_damaged_files_are_damaged(damage, options):
    for seed in range(3):
        data = encode(noisy(seed=seed), **options)
        assert verdicts(damage(data, *scan_of(data))) is Reason.DECODE_ERROR


def test_pixels_that_are_lost_with_the_end_are_a_cut_file():
    data = encode(noisy())
    for lost in (3, 10, 100, 5000):
        assert verdicts(data[:-lost]) is Reason.TRUNCATED


def test_a_copy_in_text_mode_is_known_by_its_line_ends():
    data = np.random.default_rng(0).bytes(20_000)
    assert not is_text_copy(data)
    assert is_text_copy(data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))


def test_remarks_that_are_damaged_cost_no_photo():
    data = encode(noisy(), quality=95)
    for broken in (b"\xff\xe0\0\2", b"\xff\xed\0\4??", b"\xff\xee\0\3A"):
        assert verdicts(data[:2] + broken + data[2:]) == "ok"


def test_lossless_jpeg_has_one_verdict_at_every_size():
    data = encode(noisy())
    frame = next(segment for marker, segment in read_segments(data) if marker == 0xC0)
    lossless = data.replace(frame, b"\xff\xc3" + frame[2:])
    assert is_lossless(lossless)
    assert not is_lossless(data)
    verdicts(lossless)


@given(st.binary(max_size=300))
def test_any_bytes_have_segments(data):
    list(read_segments(b"\xff\xd8" + data))
    with pytest.raises(ImageError):
        decode(b"\xff\xd8" + data)


def test_a_segment_is_marker_length_and_content():
    data = encode(Image.new("RGB", (8, 8)), comment=b"hello")
    segments = dict(read_segments(data))
    assert segments[0xFE] == b"\xff\xfe" + struct.pack(">H", 7) + b"hello"
    assert Image.open(io.BytesIO(data)).size == (8, 8)
