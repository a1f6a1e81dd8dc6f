"""Many records by key -> few files: each writer appends to a segment of its own, with an index beside it.

Any number of processes may write at once. A record counts once its entry is in the index, which is written after it, so
a killed writer leaves nothing half done; torn ends and damaged records fail their checksums and count as missing.
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
import secrets
import struct
import threading
import time
import zlib
from pathlib import Path
from typing import NamedTuple

from pronk.storage.files import storage_error

SEGMENT, INDEX = ".segment", ".index"
SEGMENT_BYTES = 128 * 2**20  # after which a writer starts another one: what is removed from a cache goes as a whole
_ENTRY = struct.Struct("<16sQIIIII")  # key, place, sizes and checksums of both parts, checksum of the entry
_KEY_BYTES = 16


class Place(NamedTuple):
    """Where a record is.

    Attributes:
        segment: its file.
        start: its first byte.
        sizes: bytes of its two parts.
        sums: their checksums.
    """

    segment: Path
    start: int
    sizes: tuple[int, int]
    sums: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Segments:
    """The records in a folder; each has two parts, of which one may be empty.

    Example:
        >>> import tempfile
        >>> records = Segments(Path(tempfile.mkdtemp()))
        >>> records.append("a", b"one", b"two")
        >>> records.read("a", 1)
        b'two'
    """

    folder: Path

    def find(self, key: str) -> Place | None:
        """Return where a record is, and mark its segment as used; None where, by the last `refresh`, there is none."""
        return _open(self.folder).find(_shorten(key))

    def refresh(self) -> None:
        """Learn of what other processes have added or removed since this one first asked."""
        _open(self.folder).refresh()

    def read(self, key: str, part: int) -> bytes | None:
        """Return a part of a record, or None where it is missing or damaged."""
        place = self.find(key)
        if place is None:
            self.refresh()
            place = self.find(key)
        if place is None:
            return None
        with contextlib.suppress(OSError), place.segment.open("rb") as file:
            file.seek(place.start + (place.sizes[0] if part else 0))
            data = file.read(place.sizes[part])
            if len(data) == place.sizes[part] and zlib.crc32(data) == place.sums[part]:
                return data
        _open(self.folder).forget(_shorten(key))
        return None

    def append(self, key: str, first: bytes, second: bytes = b"") -> None:
        """Keep a record; it takes the place of one with the same key.

        Not durable: what a power cut destroyed fails its checksum.

        Raises:
            StorageError: if it cannot be written; what was there before is unchanged.
        """
        _open(self.folder).append(_shorten(key), (first, second))


class _Folder:
    """What this process knows of a folder: where its records are, and the segment that it writes itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.places: dict[bytes, Place] = {}
        self.known: dict[Path, int] = {}  # bytes of each index that are in `places`
        self.used: set[Path] = set()
        self.own: Path | None = None
        self.owner = 0
        self.refresh()

    def find(self, key: bytes) -> Place | None:
        with self.lock:
            place = self.places.get(key)
            if place:
                self._use(place.segment)
            return place

    def forget(self, key: bytes) -> None:
        with self.lock:
            self.places.pop(key, None)

    def refresh(self) -> None:
        """Read what other processes have added since, and forget what is gone."""
        with self.lock:
            # Their names begin with the time, so that of two records of one key the later one counts.
            segments = sorted(self.folder.glob(f"*{SEGMENT}")) if self.folder.is_dir() else []
            found = [segment.with_suffix(INDEX) for segment in segments]
            if self.known.keys() - set(found):
                self.known, self.places = {}, {}
            for index in found:
                with contextlib.suppress(OSError):
                    if index.stat().st_size - self.known.get(index, 0) >= _ENTRY.size:
                        self._read_index(index)

    def append(self, key: bytes, parts: tuple[bytes, bytes]) -> None:
        with self.lock:
            segment = self._choose_own()
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                with segment.open("ab") as file:
                    start = file.tell()
                    file.write(parts[0] + parts[1])
                sums = zlib.crc32(parts[0]), zlib.crc32(parts[1])
                sizes = len(parts[0]), len(parts[1])
                index = segment.with_suffix(INDEX)
                with index.open("ab") as file:
                    file.write(_pack(key, start, sizes, sums))
                    self.known[index] = file.tell()
            except OSError as error:
                self.own = None  # its end may be torn
                raise storage_error(segment, error) from error
            self.places[key] = Place(segment, start, sizes, sums)
            if start + sum(sizes) > SEGMENT_BYTES:
                self.own = None

    def _choose_own(self) -> Path:
        if self.own is None or self.owner != os.getpid() or not self.own.exists():
            self.own, self.owner = self.folder / f"{time.time_ns():016x}-{secrets.token_hex(4)}{SEGMENT}", os.getpid()
            self.used.add(self.own)
        return self.own

    def _read_index(self, index: Path) -> None:
        with index.open("rb") as file:
            file.seek(self.known.get(index, 0))
            data = file.read()
        segment = index.with_suffix(SEGMENT)
        end = segment.stat().st_size  # less than it was, after a power cut
        for at in range(0, len(data) - _ENTRY.size + 1, _ENTRY.size):
            key, start, *numbers, checksum = _ENTRY.unpack_from(data, at)
            if zlib.crc32(data[at : at + _ENTRY.size - 4]) == checksum and start + sum(numbers[:2]) <= end:
                self.places[key] = Place(segment, start, tuple(numbers[:2]), tuple(numbers[2:]))
        self.known[index] = self.known.get(index, 0) + len(data) // _ENTRY.size * _ENTRY.size

    def _use(self, segment: Path) -> None:
        """Mark a segment as used, once: what was used least recently is removed first."""
        if segment not in self.used:
            self.used.add(segment)
            for path in (segment, segment.with_suffix(INDEX)):
                with contextlib.suppress(OSError):
                    os.utime(path)


@functools.lru_cache(maxsize=16)
def _open(folder: Path) -> _Folder:
    return _Folder(folder)


def count_records(folder: Path) -> int:
    """Count the records below a folder, those included that a later one replaces."""
    return sum(index.stat().st_size // _ENTRY.size for index in folder.rglob(f"*{INDEX}"))


def _shorten(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=_KEY_BYTES).digest()


def _pack(key: bytes, start: int, sizes: tuple[int, int], sums: tuple[int, int]) -> bytes:
    entry = _ENTRY.pack(key, start, *sizes, *sums, 0)[:-4]
    return entry + zlib.crc32(entry).to_bytes(4, "little")
