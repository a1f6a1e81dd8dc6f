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
        most_pixels: more would take too much memory.
        remedy: the way out for a file of a format that is not read.
    """

    name: str
    signature: bytes
    suffixes: tuple[str, ...] = ()
    is_cut: Callable[[bytes], bool] | None = None
    most_pixels: int = MAX_PIXELS
    remedy: str = "convert it to JPEG or PNG"


def _is_tiff_cut(data: bytes) -> bool:
    # Its directory, which many programs write last, has 12 bytes per entry.
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    is_big = data[2:4] in (b"+\0", b"\0+")  # BigTIFF
    start = int.from_bytes(data[8:16] if is_big else data[4:8], order)
    head, size = (8, 20) if is_big else (2, 12)
    return len(data) < start + head + 4 + size * int.from_bytes(data[start : start + head], order)


def _is_avif_cut(data: bytes) -> bool:
    position = 0
    while position < len(data):  # boxes, each with its length; 0 and 1 stand for longer ones
        length = int.from_bytes(data[position : position + 4], "big")
        if length < 8:
            break
        position += length
    return len(data) < position


def _is_netpbm_cut(data: bytes) -> bool:
    # After its kind come width, height and, but of bits, the largest value, with remarks between them.
    kind, end = data[1:2], 2
    numbers: list[int] = []
    while len(numbers) < (2 if kind in b"14" else 3):
        found = re.compile(rb"(?:\s|#[^\n]*\n)+(\d+)").match(data, end)
        if found is None:
            return True
        numbers.append(int(found[1]))
        end = found.end()
    if kind in b"123":  # numbers in words
        return False
    width, height, *highest = numbers
    row = width * (3 if kind == b"6" else 1) * (2 if highest[0] > 255 else 1) if highest else (width + 7) // 8
    return len(data) < end + 1 + row * height


_ALL = (
    PictureFormat(
        "JPEG",
        rb"\xff\xd8",
        (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),  # Pillow reaches MPO through JPEG
        lambda data: b"\xff\xd9" not in data[-65536:],
    ),
    PictureFormat("PNG", rb"\x89PNG", (".png", ".apng"), lambda data: b"IEND" not in data),
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
    PictureFormat("PPM", rb"P[1-6]\s", (".ppm", ".pgm", ".pbm", ".pnm"), _is_netpbm_cut),
    PictureFormat("HEIC", rb"....ftyp(hei[cxms]|hev[cx]|mif1|msf1)", (".heic", ".heif"), _is_avif_cut),
    # What people do put into photo folders and Pillow (as used here) does not read.
    PictureFormat("SVG", rb"\s*(?=<).{0,4092}?<svg"),
    PictureFormat("EPS", rb"%!PS|\xc5\xd0\xd3\xc6"),
    PictureFormat("Photoshop", rb"8BPS"),
    PictureFormat("JPEG XL", rb"\0\0\0\x0cJXL |\xff\x0a"),
    PictureFormat("JPEG 2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    PictureFormat("icon", rb"\0\0\x01\0"),
    PictureFormat("raw camera", rb"FUJIFILM|II\*\0....CR|....ftypcrx|IIU\0|II(RO|RS)|MMOR|FOVb"),
    PictureFormat("portable float map", rb"P[fF]\s"),
    PictureFormat("portable any map", rb"P7\s"),
    PictureFormat("PCX", rb"\x0a[\0-\x05]\x01[\x01\x02\x04\x08]"),
    PictureFormat("DDS", rb"DDS "),
    PictureFormat("QOI", rb"qoif"),
    PictureFormat("FITS", rb"SIMPLE  ="),
    PictureFormat("DICOM", rb".{128}DICM", remedy="convert it to PNG with 16 bits, at its own range of values"),
    PictureFormat("GIMP", rb"gimp xcf"),
    PictureFormat("XPM", rb"/\* XPM \*/"),
    PictureFormat("XBM", rb"#define \w+_width \d+"),
    PictureFormat("SGI", rb"\x01\xda[\0\x01][\x01\x02]"),
    PictureFormat("Sun raster", rb"\x59\xa6\x6a\x95"),
    PictureFormat("OpenEXR", rb"\x76\x2f\x31\x01"),
    PictureFormat("Radiance HDR", rb"#\?RADIANCE|#\?RGBE"),
    PictureFormat("metafile", rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF"),
    PictureFormat("cursor", rb"\0\0\x02\0[^\0]\0"),
    PictureFormat("Mac icon", rb"icns"),
    PictureFormat("DjVu", rb"AT&TFORM"),
    PictureFormat("FLIF", rb"FLIF"),
    PictureFormat("BPG", rb"BPG\xfb"),
    PictureFormat("PDF", rb"%PDF", remedy="save its pictures as JPEG or PNG"),
    PictureFormat("video", rb"....ftyp|....moov|RIFF....AVI |\x1a\x45\xdf\xa3", remedy="save single frames of it"),
    PictureFormat("ZIP archive", rb"PK\x03\x04", remedy="unpack it"),
    # Without a signature at its start: kind of colours, and depth.
    PictureFormat("TGA", rb".[\0\x01][\x01\x02\x03\x09\x0a\x0b].{13}[\x08\x0f\x10\x18\x20][\0-\x3f]"),
)
FORMATS = {row.name: row for row in _ALL if row.is_cut}
BY_PILLOW = tuple(name for name in FORMATS if name != "HEIC")  # `pronk.photos.heif` reads it, where it can
SUFFIXES = tuple(suffix for row in FORMATS.values() for suffix in row.suffixes)


def recognise(data: bytes) -> PictureFormat | None:
    """Return the format whose signature the bytes begin with, whether or not it is read."""
    return next((row for row in _ALL if re.match(row.signature, data, re.DOTALL)), None)
