"""Bytes of a JPEG -> its picture, unless the decoder had to make some of it up.

A decoder of JPEG goes on whatever it reads: where data are missing or altered it fills up the rest with one colour, and
says so to nobody. It shows by when it is done. Of a whole file it needs the last bytes before the end mark, and is then
within the last row of blocks; of a damaged one it is done long before, or wants more when there is none.
"""

import io
import struct
from collections.abc import Iterator
from typing import Any

from PIL import Image

END = b"\xff\xd9"
SCAN = b"\xff\xda"
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of frame headers (ITU-T T.81, table B.1)
LOSSLESS = frozenset((0xC3, 0xC7, 0xCB, 0xCF))  # their decoders cannot make a picture smaller
UNREAD = 64  # bytes before the end that must not be left over: a few blocks, which no encoder pads
AHEAD = 32  # blocks, of two bits each, that a decoder may have read and not decoded: it reads 64 bits ahead
SENTINELS = 1, 254  # the left and right half of a row that is not written yet
PROBES = 9  # pixels of the row that are looked at
GAP = bytes(256)
PROBE = bytes((73 * i + 129) % 254 + 1 for i in range(256))  # read as pixels, it is other pixels; no marker
TEXT_BYTES = 2**15  # that are looked at
TEXT_LINES = 16  # line ends of one kind only, from which on a copy as text has made them so


class JpegFile(io.BytesIO):
    """The bytes of a JPEG that notes how far the decoder of a picture comes, in place of the file it was opened from.

    It watches where the blocks come in one scan: only then rows come out early.
    """

    def __init__(self, image: Any) -> None:
        data: bytes = image.fp.getvalue()
        super().__init__(data)
        start = data.rfind(SCAN, 0, image.fp.tell())
        self.data, self.image, self.size, self.start = data, image, image.size, start
        self.stops: tuple[int, ...] = ()
        self.asked: set[int] = set()
        self.lacks_rows = False
        image.fp = self
        image.decodermaxblock = len(data)  # one large step, between which threads need not wait for each other
        if start < 0 or image.info.get("progressive") or data[start + 4] != len(getattr(image, "layer", ())):
            return
        # The first one ends it. Where the file ends with one, that is it, but for several pictures in one file.
        is_last = data.endswith(END) and image.format == "JPEG"
        end = len(data) - len(END) if is_last else data.find(END, start)
        end = len(data) if end < 0 else end
        if end > start + UNREAD:
            self.stops = (end - UNREAD, end)

    def read(self, size: int | None = -1) -> bytes:
        """Read as any file, but stop where it has to be noted what became of the picture."""
        position, size = self.tell(), len(self.data) if size is None or size < 0 else size
        if self.stops:
            if position == 0:
                self._mark_row()
            if position in self.stops:
                self.asked.add(position)
            if position == self.stops[-1]:
                self.lacks_rows = self._is_unwritten()
            size = min([size, *(stop - position for stop in self.stops if stop > position)])
        return super().read(size)

    def is_damaged(self) -> bool:
        """Tell whether the decoder, which is done, left bytes over, or had none for some of the picture."""
        if not self.stops:
            return False
        if self.stops[0] not in self.asked or self.lacks_rows or self._has_gap():
            return self.data.find(END, self.start, self.stops[-1]) < 0  # else there is another picture behind it
        return self._ends_flat() and self._takes_more()

    def _has_gap(self) -> bool:
        """Tell whether there are zeros that no encoder has written, as where a disk has lost a block."""
        steps = self.data[self.start : self.stops[-1] : len(GAP) // 2]  # a gap has two of them in a row
        if steps.find(b"\0\0") < 0 or self.data.find(GAP, self.start, self.stops[-1]) < 0:
            return False
        # The code of zeros alone is the first of each table. Of flat areas it is the end of a block.
        return any(table[0] >> 4 and table[17:18] != b"\0" for table in read_tables(self.data))

    def _ends_flat(self) -> bool:
        """Tell whether the last blocks are of one colour, as a decoder makes up what it has no data for."""
        width, height = self.image.size
        corner = width - 1, height - 1
        if self.image.im.getpixel(corner) != self.image.im.getpixel((max(0, width - 2), height - 1)):
            return False
        side = max(1, 16 // self._scale)
        last = self.image.crop((max(0, width - 3 * side // 2), max(0, height - side // 2), width, height))
        extremes = last.getextrema()
        return all(low == high for low, high in (extremes if isinstance(extremes[0], tuple) else (extremes,)))

    def _takes_more(self) -> bool:
        """Tell whether bytes that are put before the end become a part of the picture: of a whole file they do not."""
        end = self.stops[-1]
        more = Image.open(io.BytesIO(self.data[:end] + PROBE + self.data[end:]), formats=("JPEG",))
        more.draft(self.image.mode, (self.size[0] // self._scale, self.size[1] // self._scale))
        return bool(more.tobytes() != self.image.tobytes())

    @property
    def _scale(self) -> int:
        """The factor by which the picture is made smaller while it is decoded."""
        return round(self.size[1] / self.image.size[1]) or 1

    def _last_row(self) -> int:
        """Return the last row that must be there when all but the end mark was read."""
        _, height = self.image.im.size
        width, _ = self.size
        # Blocks of all colours that belong together: pixels across, and down in the picture that is made.
        across, down = (8 * max(part[i] for part in self.image.layer) for i in (1, 2))
        rows = max(1, down // self._scale)
        last = (height - 1) // rows * rows  # the first row of the last row of blocks
        waiting = -(-AHEAD // -(-width // across))  # rows of blocks
        return int(last - waiting * rows - 1 - -(-rows // 4))  # enlarging the colours takes some of the rows below

    def _mark_row(self) -> None:
        core, row = self.image.im, self._last_row()
        middle, width = core.size[0] // 2, core.size[0]
        for sentinel, left, right in zip(SENTINELS, (0, middle), (middle, width), strict=True):
            if left < right and row >= 0:
                core.paste(self._sentinel(sentinel), (left, row, right, row + 1))

    def _is_unwritten(self) -> bool:
        core, row = self.image.im, self._last_row()
        width = core.size[0]
        places = {width * i // PROBES for i in range(PROBES)} | {width - 1}
        return row >= 0 and all(core.getpixel((x, row)) == self._sentinel(SENTINELS[x >= width // 2]) for x in places)

    def _sentinel(self, value: int) -> Any:
        bands = self.image.im.bands
        return (value,) * bands if bands > 1 else value


def is_lossless(data: bytes) -> bool:
    """Tell whether a JPEG is of the lossless kind, whose picture cannot be made smaller while it is decoded."""
    return next((marker in LOSSLESS for marker, _ in read_segments(data) if marker in FRAMES), False)


def is_text_copy(data: bytes) -> bool:
    """Tell whether a copy in text mode has turned the line ends of a file: then no line feed is left without a return.

    Among so many line feeds none without is met once in 256 ** TEXT_LINES files.
    """
    position = 0
    for _ in range(TEXT_LINES):
        position = data.find(b"\n", position + 1, TEXT_BYTES)
        if position < 0 or data[position - 1 : position] != b"\r":
            return False
    return data.count(b"\n", 0, TEXT_BYTES) == data.count(b"\r\n", 0, TEXT_BYTES)


def read_tables(data: bytes) -> Iterator[bytes]:
    """Yield the Huffman tables before the first scan: kind and number, 16 counts by length, symbols (T.81, B.2.4.2)."""
    for marker, segment in read_segments(data):
        position = 4
        while marker == 0xC4 and position + 17 <= len(segment):
            length = 17 + sum(segment[position + 1 : position + 17])
            yield segment[position : position + length]
            position += length


def read_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the marker and the bytes, marker and length included, of each segment before the first scan."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], struct.unpack_from(">H", data, position + 2)[0]
        if marker == 0xFF:  # filled up
            position += 1
            continue
        yield marker, data[position : position + 2 + length]
        if marker == SCAN[1]:
            return
        position += 2 + length
