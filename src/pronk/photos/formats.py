"""Bytes -> what kind of picture they claim to be, and whether they are all there: one row per format."""

import dataclasses
import re
from collections.abc import Callable
from typing import Literal

MAX_PIXELS = 50_000_000


@dataclasses.dataclass(frozen=True)
class PictureFormat:
    """What pronk knows of a picture format.

    Attributes:
        name: Pillow's name for it, or any for a format that is not read.
        signature: regular expression that its bytes begin with.
        suffixes: endings of file names, the usual one first.
        is_cut: tells from the bytes whether a file ends before its own end; None for a format that is not read.
        needs_end: Pillow takes a file whose pixels are there but not its end.
        most_pixels: more would take too much memory.
        remedy: the way out for a file of a format that is not read.
    """

    name: str
    signature: bytes
    suffixes: tuple[str, ...] = ()
    is_cut: Callable[[bytes], bool] | None = None
    needs_end: bool = False
    most_pixels: int = MAX_PIXELS
    remedy: str = "convert it to JPEG or PNG"


def _is_tiff_cut(data: bytes) -> bool:
    # Its directory, which many programs write last, has 12 bytes per entry.
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    start = int.from_bytes(data[4:8], order)
    return len(data) < start + 6 + 12 * int.from_bytes(data[start : start + 2], order)


def _is_avif_cut(data: bytes) -> bool:
    position = 0
    while position < len(data):  # boxes, each with its length; 0 and 1 stand for longer ones
        length = int.from_bytes(data[position : position + 4], "big")
        if length < 8:
            break
        position += length
    return len(data) < position


_ALL = (
    PictureFormat(
        "JPEG",
        rb"\xff\xd8",
        (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),  # Pillow reaches MPO through JPEG
        lambda data: b"\xff\xd9" not in data[-65536:],
    ),
    PictureFormat("PNG", rb"\x89PNG", (".png", ".apng"), lambda data: b"IEND" not in data, needs_end=True),
    PictureFormat("GIF", rb"GIF8", (".gif",), lambda data: not data.rstrip(b"\0").endswith(b";")),
    PictureFormat(
        "WEBP",
        rb"RIFF....WEBP",
        (".webp",),
        lambda data: len(data) < int.from_bytes(data[4:8], "little") + 8,
        most_pixels=12_500_000,  # Pillow takes some 15 bytes a pixel, several times as much as for any other format
    ),
    PictureFormat("BMP", rb"BM", (".bmp", ".dib"), lambda data: len(data) < int.from_bytes(data[2:6], "little")),
    PictureFormat("TIFF", rb"II[*+]\0|MM\0[*+]", (".tif", ".tiff"), _is_tiff_cut),
    PictureFormat("AVIF", rb"....ftypavi[fs]", (".avif", ".avifs"), _is_avif_cut),
    # What people do put into photo folders and Pillow (as used here) does not read.
    PictureFormat("HEIC", rb"....ftyp(hei[cxms]|hev[cx]|mif1|msf1)"),
    PictureFormat("SVG", rb"\s*(?=<).{0,4092}?<svg"),
    PictureFormat("EPS", rb"%!PS|\xc5\xd0\xd3\xc6"),
    PictureFormat("Photoshop", rb"8BPS"),
    PictureFormat("JPEG XL", rb"\0\0\0\x0cJXL |\xff\x0a"),
    PictureFormat("JPEG 2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    PictureFormat("icon", rb"\0\0\x01\0"),
    PictureFormat("raw camera", rb"FUJIFILM"),
)
FORMATS = {row.name: row for row in _ALL if row.is_cut}
SUFFIXES = tuple(suffix for row in FORMATS.values() for suffix in row.suffixes)


def recognise(data: bytes) -> PictureFormat | None:
    """Return the format whose signature the bytes begin with, whether or not it is read."""
    return next((row for row in _ALL if re.match(row.signature, data, re.DOTALL)), None)
