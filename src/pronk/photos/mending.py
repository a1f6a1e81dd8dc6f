"""Bytes that Pillow refuses, though their pixels are all there -> bytes, or a picture, that it takes."""

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from pronk.photos.colours import find_white
from pronk.photos.formats import recognise
from pronk.photos.heif import open_heif
from pronk.photos.jpeg import END, PROBE, read_segments
from pronk.photos.tiff import open_tiff, read_tiff

PNG_START = b"\x89PNG\r\n\x1a\n"
NEEDED_CHUNKS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))  # without which its pixels are not known
PNG_END = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
# Of a JPEG without what it says about itself: Exif (E1), colour profile (E2) and the kind of colours (EE) stay.
NEEDED_SEGMENTS = frozenset((0xE1, 0xE2, 0xEE))
BITMAP_FIELDS = (3, 6)


def list_mendings(data: bytes) -> Iterator[Callable[[], Image.Image]]:
    """Yield the ways in which a file that Pillow refused may still be opened; each may fail with any error."""
    if data.startswith(PNG_START):
        yield lambda: _open(strip_png(data), "PNG")
    elif data.startswith(b"\xff\xd8"):
        yield lambda: _open(strip_jpeg(data), "JPEG")
    elif data.startswith((b"II", b"MM")):
        yield lambda: _open_tiff(data)
    elif data.startswith(b"BM"):
        yield lambda: read_bitmap(data)
    elif (kind := recognise(data)) and kind.name == "HEIC":
        yield lambda: open_heif(data)


def strip_png(data: bytes) -> bytes:
    """Return a PNG of its first frame alone, without remarks, profile and whatever else is not needed for its pixels.

    Remarks may be too long, of an unknown compression, or damaged; later frames may be broken; the end may be missing.
    """
    position, kept = len(PNG_START), [PNG_START]
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        if kind in NEEDED_CHUNKS:
            kept.append(data[position : position + 12 + length])
        elif kind[:1].isupper() or not kind.isalpha():  # what must be understood, or is no chunk
            kept.append(data[position:])
            break
        position += 12 + length
        if kind == b"IEND":
            break
    if kept[-1][4:8] != b"IEND":
        kept.append(PNG_END)
    return b"".join(kept)


def find_significant_bits(data: bytes) -> int:
    """Return the bits of the colours of a PNG that its sBIT chunk says have a meaning; 0 where it says nothing."""
    place = data.find(b"sBIT", 0, max(data.find(b"IDAT"), 0))
    colours = {1: 1, 2: 1, 3: 3, 4: 3}.get(int.from_bytes(data[place - 4 : place]), 0) if place > 0 else 0
    return max(data[place + 4 : place + 4 + colours], default=0)


def is_deep_png(data: bytes) -> bool:
    """Tell whether a PNG has 16 bits a sample."""
    return data.startswith(PNG_START) and data[24:25] == b"\x10"


def brighten_png(data: bytes, image: Image.Image) -> Image.Image:
    """Spread colours of fewer than 16 bits over 8 bits; `image` has the upper bytes, which are all that Pillow gives.

    The lower bytes come from the same file, whose samples are said to be in the other order. They have 14 bits at most.
    """
    lows = Image.open(io.BytesIO(data), formats=("PNG",))
    is_grey = lows.tile[0].args == "LA;16B"  # its two samples of two bytes are read as four of one
    kind = "RGBA" if is_grey else str(lows.tile[0].args).replace("16B", "16L")
    lows.tile = [tile._replace(args=kind) for tile in lows.tile]
    values = np.asarray(image)[..., :3].astype(np.uint16) << 8
    values |= np.asarray(lows)[..., [1, 1, 1] if is_grey else [0, 1, 2]]
    white = 2.0 ** find_significant_bits(data) - 1
    if not values.max() <= white < 2**16 - 1:
        white = find_white(float(values.max()), int(np.gcd.reduce(values, axis=None)))
    table = np.round(np.minimum(np.arange(2**14) * (255 / white), 255)).astype(np.uint8)
    picture = Image.fromarray(table[values])
    if image.mode == "RGBA":
        picture.putalpha(image.getchannel("A"))
    return picture


def strip_jpeg(data: bytes) -> bytes:
    """Return a JPEG without remarks that may be damaged, and with its end mark, if no pixel is lost with it.

    Raises:
        EOFError: if pixels are lost.
    """
    position, kept = 2, [data[:2]]
    for marker, segment in read_segments(data):
        if not 0xE0 <= marker <= 0xFE or marker in NEEDED_SEGMENTS:
            kept.append(segment)
        position = data.index(segment, position) + len(segment)
    kept.append(data[position:])
    stripped = b"".join(kept)
    if END in data[position:]:
        return stripped
    # Bytes that nobody needs change nothing: only then it was all there.
    one, other = (np.asarray(_open(stripped + more + END, "JPEG")) for more in (b"", PROBE))
    if not np.array_equal(one, other):
        raise EOFError("truncated")
    return stripped + END


def read_bitmap(data: bytes) -> Image.Image:
    """Read a BMP of 16 or 32 bits a pixel whose colours lie at any bits.

    Raises:
        ValueError: for any other; EOFError if pixels are missing.
    """
    start, size, width, height, _, bits, packing = struct.unpack_from("<IIiiHHI", data, 10)
    rows = abs(height)
    if bits not in (16, 32) or packing not in BITMAP_FIELDS or not 0 < width * rows <= 50_000_000:
        raise ValueError("this kind of BMP is not supported")
    masks = struct.unpack_from("<III", data, 54 if size <= 40 else 14 + 40)
    row_bytes = (width * bits // 8 + 3) // 4 * 4
    if len(data) < start + row_bytes * rows:
        raise EOFError("truncated")
    table = np.frombuffer(data, np.uint8, row_bytes * rows, start).reshape(rows, row_bytes)
    packed = table[:, : width * bits // 8].copy().view(f"<u{bits // 8}").astype(np.uint32)
    colours = [_pick(packed, mask) for mask in masks]
    pixels = np.stack(colours, axis=2)
    return Image.fromarray(pixels if height < 0 else np.ascontiguousarray(pixels[::-1]))


def _pick(packed: np.ndarray, mask: int) -> np.ndarray:
    if not mask:
        return np.zeros(packed.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    return np.round(((packed & np.uint32(mask)) >> np.uint32(shift)) * (255 / (mask >> shift))).astype(np.uint8)


def _open(data: bytes, kind: str) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=(kind,))


def _open_tiff(data: bytes) -> Image.Image:
    tiff = open_tiff(data)
    picture = read_tiff(tiff) if tiff else None
    if picture is None:
        raise ValueError("this kind of TIFF is not supported")
    return picture


def is_html(data: bytes) -> bool:
    """Tell whether a file is a page of a web site, as servers send it in place of a picture that they do not have."""
    return (
        re.match(
            rb"\s*(?:\xef\xbb\xbf)?\s*(?:<!doctype html|<html|<head|<\?xml[^>]*>\s*<!doctype html)", data[:512], re.I
        )
        is not None
    )
