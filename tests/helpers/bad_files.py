"""Damaged, odd and hostile picture files, made by code: each with the one verdict it has to get."""

import contextlib
import dataclasses
import functools
import os
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.pictures import draw_picture, encode
from pronk.errors import Reason
from pronk.photos.heif import can_open

ORIENTATION_TAG = 0x0112
# From stored to upright pixels, by the table of the EXIF standard rather than by Pillow's own functions.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: lambda a: np.rot90(a, 1),
}
# Orientations 6 and 8 undo each other, all others undo themselves.
STORED = UPRIGHT | {6: UPRIGHT[8], 8: UPRIGHT[6]}


@dataclasses.dataclass(frozen=True)
class Sample:
    name: str
    data: bytes
    verdict: Reason


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[ORIENTATION_TAG] = orientation
    return block


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def blank_png(width: int, height: int, *, depth: int = 1, colour: int = 0, extra: bytes = b"", rows: bool = True):
    """Write a black PNG without ever holding its pixels; `colour` is the PNG's colour type."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = bytes(1 + (width * channels * depth + 7) // 8)
    packer = zlib.compressobj(1)
    body = b"".join(packer.compress(row) for _ in range(height if rows else 1)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def widen_jpeg(data: bytes, width: int, height: int) -> bytes:
    """Change the size that a JPEG's frame header names."""
    start = data.index(b"\xff\xc0") + 5
    return data[:start] + struct.pack(">HH", height, width) + data[start + 4 :]


def _not_pictures() -> Iterator[tuple[str, bytes, Reason]]:
    no, unsupported, broken = Reason.NOT_AN_IMAGE, Reason.UNSUPPORTED_FORMAT, Reason.DECODE_ERROR
    yield "empty.jpg", b"", Reason.ZERO_BYTE
    yield "one_byte.jpg", b"\xff", no
    yield "text.jpg", b"this is not a photo\n" * 20, no
    yield "page.jpg", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", no
    yield "random.jpg", b"\x07" + np.random.default_rng(5).bytes(5000), no
    yield "nuls.jpg", bytes(4096), no
    yield "document.jpg", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n", unsupported
    yield "vector.jpg", b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', unsupported
    yield "phone.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), unsupported if not can_open() else broken
    yield "script.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", unsupported
    yield "layers.psd", b"8BPS\0\1" + bytes(200), unsupported
    yield "camera.jxl", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(60), unsupported
    yield "old.jp2", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60), unsupported
    yield "site.ico", b"\0\0\1\0\1\0" + bytes(60), unsupported


def _cut_files() -> Iterator[tuple[str, bytes, Reason]]:
    picture = draw_picture("circle", 900, (160, 120))
    whole = encode(picture)
    for name, end in (("header", 20), ("half", len(whole) // 2), ("last_200", -200), ("last_4", -4)):
        yield f"{name}.jpg", whole[:end], Reason.TRUNCATED
    thumbnail = b"Exif\0\0" + bytes(20) + encode(draw_picture("circle", 901, (32, 24)))
    yield "last_9_with_thumbnail.jpg", encode(picture, exif=thumbnail)[:-9], Reason.TRUNCATED
    for kind in ("PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"):
        data = encode(picture, kind)
        yield f"half.{kind.lower()}", data[: len(data) // 2], Reason.TRUNCATED
        yield f"start.{kind.lower()}", data[:20], Reason.TRUNCATED
    # The end mark alone holds no pixels.
    yield "no_end.jpg", whole[:-2], Reason.OK
    yield "no_end.png", encode(picture, "PNG")[:-12], Reason.OK
    packed = encode(picture, "TIFF", compression="tiff_lzw")
    yield "half_lzw.tiff", packed[: len(packed) // 2], Reason.TRUNCATED


def _damaged_files() -> Iterator[tuple[str, bytes, Reason]]:
    png = encode(draw_picture("square", 902), "PNG")
    yield "bad_crc.png", png[:29] + bytes(4) + png[33:], Reason.DECODE_ERROR
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(20 * 2**20)))
    yield "text_bomb.png", blank_png(8, 8, extra=bomb), Reason.OK_WITH_WARNING
    yield "huge_header.png", blank_png(60_000, 60_000, rows=False), Reason.TOO_MANY_PIXELS
    yield "huge_header.jpg", widen_jpeg(encode(draw_picture("square", 903)), 65_500, 65_500), Reason.TOO_MANY_PIXELS
    yield "169_megapixels.png", blank_png(13_000, 13_000), Reason.TOO_MANY_PIXELS
    yield "81_megapixels.png", blank_png(9_000, 9_000), Reason.TOO_MANY_PIXELS


def _odd_pictures() -> Iterator[tuple[str, bytes, Reason]]:
    ok, remark = Reason.OK, Reason.OK_WITH_WARNING
    seeds = iter(range(910, 1000))

    def picture() -> Image.Image:
        return draw_picture("triangle", next(seeds))

    for name, kind, dtype in (("png", "PNG", "<u2"), ("tiff", "TIFF", "<u2"), ("big_endian.tiff", "TIFF", ">u2")):
        deep = (np.asarray(picture().convert("L")).astype(np.uint16) * 257).astype(dtype)
        yield f"deep_grey.{name}", encode(Image.fromarray(deep), kind), ok
    for kind in ("WEBP", "PNG", "GIF", "BMP"):
        yield f"{kind.lower()}_named.jpg", encode(picture(), kind), remark
    yield "jpeg_named.png", encode(picture()), remark
    yield "no_suffix", encode(picture()), remark
    for kind in ("GIF", "WEBP", "PNG"):
        yield f"moving.{kind.lower()}", encode(picture(), kind, save_all=True, append_images=[picture()]), remark
    yield "two_views.jpg", encode(picture(), "MPO", save_all=True, append_images=[picture()]), ok
    yield "cmyk.jpg", encode(picture().convert("CMYK")), ok
    yield "one_bit.png", encode(picture().convert("1"), "PNG"), ok
    yield "grey_alpha.png", encode(picture().convert("LA"), "PNG"), ok
    yield "palette.png", encode(picture().quantize(32), "PNG"), ok
    yield "palette_alpha.png", encode(picture().quantize(32), "PNG", transparency=0), ok
    yield "progressive.jpg", encode(picture(), progressive=True), ok
    yield "avif.avif", encode(picture(), "AVIF", quality=92), ok
    for orientation in (*UPRIGHT, 99):
        turned = orientation in UPRIGHT and orientation != 1
        yield f"exif_{orientation}.jpg", encode(picture(), exif=exif(orientation)), remark if turned else ok
    yield "exif_garbage.jpg", encode(picture(), exif=b"Exif\0\0MM\0*\0\0\xff\xff" + bytes(range(200))), ok


@functools.cache
def make_samples() -> tuple[Sample, ...]:
    """Make a file for each way in which the content of a file can be bad or odd."""
    sources = (_not_pictures(), _cut_files(), _damaged_files(), _odd_pictures())
    return tuple(Sample(*sample) for source in sources for sample in source)


def write_hazards(folder: Path) -> dict[str, Reason]:
    """Make what a file system may hold besides ordinary files; return the verdict by path relative to `folder`."""
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(folder / "pipe.jpg")
    # The address of a socket has at most 107 bytes, so bind it by its bare name.
    with contextlib.chdir(folder), socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
    with (folder / "sparse.jpg").open("wb") as file:
        file.truncate(101 * 2**20)
    (folder / "folder.jpg").mkdir()
    (folder / "folder.jpg" / "inside.jpg").write_bytes(encode(draw_picture("circle", 950)))
    (folder / "round_and_round").symlink_to(".")
    return {
        "loop.jpg": Reason.UNREADABLE,
        "dangling.jpg": Reason.VANISHED,
        "pipe.jpg": Reason.NOT_REGULAR_FILE,
        "socket.jpg": Reason.NOT_REGULAR_FILE,
        "sparse.jpg": Reason.TOO_LARGE,
        "folder.jpg/inside.jpg": Reason.OK,
    }


HOSTILE_NAMES = (
    "new\nline.jpg",
    "tab\tand\rreturn.jpg",
    'quote".jpg',
    "apostrophe'.jpg",
    "comma, semicolon;.jpg",
    "=cmd().jpg",
    '=HYPERLINK("http:__example.org").jpg',
    "<script>alert(1)<_script>.jpg",
    "<img onerror=x>.jpg",
    "right\u202eto left.jpg",
    "\u00e9 composed.jpg",
    "e\u0301 decomposed.jpg",
    os.fsdecode(b"not \xff\xfe utf-8 \xc3.jpg"),
    "-rf.jpg",
    " spaces .jpg ",
    "back\\slash.jpg",
    "\ufeffmark.jpg",
    "m\u00b2 1\u00b2.jpg",
    "n" * 251 + ".jpg",
)
