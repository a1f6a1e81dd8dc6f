"""TIFF files that Pillow does not read, or reads wrongly -> their samples; of the others, what kind they are.

After the TIFF 6.0 specification (Adobe 1992) and its large form, BigTIFF. Read are strips and tiles of 1 to 16 bits or
floats, in planes or not, packed without loss or not at all; palettes of 16 bits; samples beyond colours are left out.
"""

import dataclasses
import io
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from pronk.photos.colours import find_white

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
OFFSETS, SAMPLES, ROWS, COUNTS, PLANES = 273, 277, 278, 279, 284
PREDICTOR, PALETTE, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, KIND = 317, 320, 322, 323, 324, 325, 339
LOWEST, HIGHEST = 340, 341  # SMinSampleValue, SMaxSampleValue
TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 16: "Q"}
NAMES = {
    1: "no compression", 2: "CCITT", 3: "fax", 4: "fax", 5: "LZW", 6: "old JPEG", 7: "JPEG", 8: "deflate",
    32773: "PackBits", 32946: "deflate", 34712: "JPEG 2000", 34925: "LZMA", 50000: "Zstandard", 50001: "WebP",
    50002: "JPEG XL",
}  # fmt: skip
COLOURS = {0: "white is zero", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "L*a*b*"}
KINDS = {1: "unsigned", 2: "signed", 3: "float", 5: "complex", 6: "complex"}
PACKINGS = (1, 5, 8, 32773, 32946, 34925, 50000)
MOST_ENTRIES, MOST_VALUES = 1000, 2**20
MOST_PIXELS = 12_500_000  # all samples are held at once, some twice


@dataclasses.dataclass(frozen=True)
class Tiff:
    """The first directory of a TIFF: values by tag."""

    data: bytes
    order: str
    tags: Mapping[int, tuple[Any, ...]]

    def get(self, tag: int, default: int = 1) -> Any:
        """Return the first value of a tag."""
        return (self.tags.get(tag) or (default,))[0]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return int(self.get(WIDTH)), int(self.get(HEIGHT))

    @property
    def is_float(self) -> bool:
        """Whether samples are floats."""
        return bool(self.get(KIND) == 3)

    @property
    def samples(self) -> int:
        """Samples per pixel."""
        return int(self.get(SAMPLES))

    @property
    def bits(self) -> int:
        """Bits of a sample; 0 where they differ."""
        bits = set(self.tags.get(BITS, (1,)))
        return int(bits.pop()) if len(bits) == 1 else 0

    @property
    def range(self) -> tuple[float, float] | None:
        """The values that the file itself calls its lowest and highest."""
        return (
            (float(self.get(LOWEST)), float(self.get(HIGHEST)))
            if HIGHEST in self.tags and LOWEST in self.tags
            else None
        )

    @property
    def is_misread(self) -> bool:
        """Whether Pillow takes it, and makes noise of it.

        So it does of planes of 16 bits that are not compressed, and of compressed floats in motor order.
        """
        in_planes = self.get(PLANES) == 2 and self.samples > 1 and self.bits == 16
        is_turned = self.is_float and self.order == ">"
        return (self.get(COMPRESSION) == 1) == in_planes and (in_planes or is_turned)

    def describe(self) -> str:
        """Say what kind of TIFF it is, as far as that may be why it is not read."""
        bits = "/".join(map(str, self.tags.get(BITS, (1,))[:5]))
        words = [f"{bits} bits a sample"]
        words += [KINDS.get(self.get(KIND), "unknown numbers")] if self.get(KIND) != 1 else []
        words += [COLOURS.get(self.get(PHOTOMETRIC), f"colours of kind {self.get(PHOTOMETRIC)}")]
        words += [NAMES.get(self.get(COMPRESSION), f"compression {self.get(COMPRESSION)}")]
        words += ["in planes"] if self.get(PLANES) == 2 else []
        return ", ".join(words)


def open_tiff(data: bytes) -> Tiff | None:
    """Read the first directory; None where it is not all there.

    Example:
        >>> open_tiff(b"II*\\0") is None
        True
    """
    try:
        order = "<" if data[:2] == b"II" else ">"
        is_big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
        (start,) = struct.unpack_from(f"{order}{'Q' if is_big else 'I'}", data, 8 if is_big else 4)
        (number,) = struct.unpack_from(f"{order}{'Q' if is_big else 'H'}", data, start)
        size, head, room = (20, 8, 8) if is_big else (12, 2, 4)
        tags = {}
        for place in range(start + head, start + head + size * min(number, MOST_ENTRIES), size):
            tag, kind, count = struct.unpack_from(f"{order}HH{'Q' if is_big else 'I'}", data, place)
            letter = TYPES.get(kind)
            if letter is None or not 0 < count <= MOST_VALUES:
                continue
            at = place + size - room
            if count * struct.calcsize(f"={letter}") > room:
                (at,) = struct.unpack_from(f"{order}{'Q' if is_big else 'I'}", data, at)
            tags[tag] = struct.unpack_from(f"{order}{count}{letter}", data, at)
    except struct.error:
        return None
    return Tiff(data, order, tags) if WIDTH in tags and HEIGHT in tags else None


def read_tiff(tiff: Tiff) -> Image.Image | None:
    """Return the picture: grey of 8 bits, 16 bits or floats, or RGB; None for kinds that are not read here.

    Raises:
        ValueError: if the data are damaged; EOFError if they end too early.
    """
    (width, height), bits, is_float, photometric = tiff.size, tiff.bits, tiff.is_float, tiff.get(PHOTOMETRIC)
    colours = {0: 1, 1: 1, 2: 3, 3: 1}.get(photometric, 0)
    if (
        not 0 < width * height <= MOST_PIXELS
        or not 0 < colours <= tiff.samples <= 16
        or not (bits in (16, 32, 64) if is_float else 1 <= bits <= 16 and tiff.get(KIND) == 1)
        or tiff.get(COMPRESSION) not in PACKINGS
        or tiff.get(PREDICTOR) not in ((1, 3) if is_float else (1, 2) if bits in (8, 16) else (1,))
    ):
        return None
    values = _read_samples(tiff)[..., :colours]
    if photometric == 3:
        return _look_up(values[..., 0], tiff.tags.get(PALETTE, ()), bits)
    if photometric == 0 and not is_float:
        values = 2**bits - 1 - values
    return _make_image(values, bits, is_float, tiff.range)


def _make_image(values: np.ndarray, bits: int, is_float: bool, given: tuple[float, float] | None) -> Image.Image:
    if is_float and values.shape[2] == 1:
        return Image.fromarray(values[..., 0].astype(np.float32))
    if is_float:
        finite = np.nan_to_num(values.astype(np.float32))
        low, high = given or (0.0, 1.0 if finite.max() <= 1 else max(255.0, float(finite.max())))
        return Image.fromarray(np.clip((finite - low) * (255 / max(high - low, 1e-9)) + 0.5, 0, 255).astype(np.uint8))
    if values.shape[2] == 1 and bits > 8:
        # Of fewer bits than 16 it is known what is white; 16 may hold fewer than they could.
        deep = values[..., 0].astype(np.uint16)
        return Image.fromarray(deep if bits == 16 else np.round(deep * (65535 / (2**bits - 1))).astype(np.uint16))
    white: float = 2**bits - 1
    if bits == 16:
        white = given[1] if given else find_white(float(values.max()), int(np.gcd.reduce(values, axis=None)))
    grey = np.round(np.minimum(values * (255 / white), 255)).astype(np.uint8)
    return Image.fromarray(grey[..., 0] if values.shape[2] == 1 else grey)


def _look_up(places: np.ndarray, palette: tuple[int, ...], bits: int) -> Image.Image:
    if len(palette) != 3 * 2**bits:
        raise ValueError("its palette is not whole")
    table = np.array(palette, np.float32).reshape(3, -1).T
    return Image.fromarray(np.round(table / 257).clip(0, 255).astype(np.uint8)[places])


def _read_samples(tiff: Tiff) -> np.ndarray:
    """Return [height, width, samples]."""
    (width, height), samples, bits = tiff.size, tiff.samples, tiff.bits
    is_tiled = TILE_OFFSETS in tiff.tags
    tile_width = int(tiff.get(TILE_WIDTH)) if is_tiled else width
    tile_height = int(tiff.get(TILE_HEIGHT)) if is_tiled else min(int(tiff.get(ROWS, height)), height)
    if not (0 < tile_width * tile_height <= MOST_PIXELS):
        raise ValueError("its tiles are too large")
    offsets = tiff.tags.get(TILE_OFFSETS if is_tiled else OFFSETS, ())
    counts = tiff.tags.get(TILE_COUNTS if is_tiled else COUNTS, ())
    in_planes = tiff.get(PLANES) == 2
    depth = 1 if in_planes else samples
    kind = {16: np.float16, 32: np.float32, 64: np.float64}[bits] if tiff.is_float else np.uint16
    found = np.zeros((height, width, samples), kind)
    places = [
        (top, left, plane)
        for plane in range(samples if in_planes else 1)
        for top in range(0, height, tile_height)
        for left in range(0, width, tile_width)
    ]
    if not len(places) <= min(len(offsets), len(counts)):
        raise ValueError("some of its strips are missing")
    for (top, left, plane), offset, count in zip(places, offsets, counts, strict=False):
        rows = tile_height if is_tiled else min(tile_height, height - top)
        row_bytes = (tile_width * depth * bits + 7) // 8
        block = _unpack(tiff, offset, count, rows, row_bytes)
        if tiff.get(PREDICTOR) == 3:
            block = _add_bytes(block, rows, tile_width * depth, depth, tiff.order)
        values = _read_block(tiff, block, rows, tile_width, depth)
        if tiff.get(PREDICTOR) == 2:
            values = np.cumsum(values, axis=1, dtype=np.uint16 if bits == 16 else np.uint8)
        part = values[: height - top, : width - left]
        found[top : top + rows, left : left + tile_width, plane : plane + depth] = part
    return found


def _unpack(tiff: Tiff, offset: int, count: int, rows: int, row_bytes: int) -> bytes:
    """Return the bytes of a strip or tile: packed ones by Pillow, to which they are shown as 8-bit grey."""
    block, packing = tiff.data[offset : offset + count], tiff.get(COMPRESSION)
    if packing != 1:
        tags = {WIDTH: row_bytes, HEIGHT: rows, BITS: 8, COMPRESSION: packing, PHOTOMETRIC: 1, SAMPLES: 1, ROWS: rows}
        tags |= {OFFSETS: 8 + 2 + 12 * 9 + 4, COUNTS: len(block)}
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
        shown = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + block
        block = Image.open(io.BytesIO(shown), formats=("TIFF",)).tobytes()
    if len(block) < rows * row_bytes:
        raise EOFError("truncated")
    return block[: rows * row_bytes]


def _add_bytes(block: bytes, rows: int, values: int, depth: int, order: str) -> bytes:
    """Undo the prediction of floats: each byte less the one before, and the highest bytes of a row first."""
    table = np.frombuffer(block, np.uint8).reshape(rows, -1, depth)
    added = np.cumsum(table, axis=1, dtype=np.uint8).reshape(rows, -1, values).swapaxes(1, 2)
    return np.ascontiguousarray(added if order == ">" else added[..., ::-1]).tobytes()


def _read_block(tiff: Tiff, block: bytes, rows: int, width: int, depth: int) -> np.ndarray:
    """Return the samples of a strip or tile, [rows, width, depth]; each row begins with a new byte."""
    bits = tiff.bits
    if tiff.is_float or bits in (8, 16):
        kind = f"{'f' if tiff.is_float else 'u'}{bits // 8}"
        return np.frombuffer(block, f"{tiff.order}{kind}").reshape(rows, width, depth)
    values, weights = np.empty((rows, width * depth), np.uint16), 1 << np.arange(bits - 1, -1, -1, dtype=np.uint16)
    for row, packed in enumerate(np.frombuffer(block, np.uint8).reshape(rows, -1)):
        values[row] = np.unpackbits(packed)[: width * depth * bits].reshape(-1, bits) @ weights
    return values.reshape(rows, width, depth)
