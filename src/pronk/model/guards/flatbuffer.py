"""Flatbuffer bytes -> tables: enough to see what a LiteRT model asks for, without its library.

A table begins with the distance to its vtable, which holds the place of each field within the table, 0 for one that
is missing (https://flatbuffers.dev/internals). Every place comes from the file, so each read is checked against its
ends; tables may be shared, but nothing here follows them by itself, so reading ends.
"""

import dataclasses
import struct

from pronk.model.guards.schema import refusal

LONGEST_VECTOR = 20_000


@dataclasses.dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        data: the whole file.
        position: where the table begins.
    """

    data: bytes
    position: int

    def number(self, field: int, kind: str = "I") -> int:
        """Read a whole number.

        Args:
            field: its number in the schema, from 0.
            kind: its letter in `struct`.
        """
        place = self._place(field)
        return _read(self.data, place, kind) if place else 0

    def numbers(self, field: int) -> list[int]:
        """Read a vector of int32."""
        start, count = self._vector(field, 4)
        return [_read(self.data, start + 4 * index, "i") for index in range(count)]

    def has(self, field: int) -> bool:
        """Tell whether a field is there."""
        return bool(self._place(field))

    def size(self, field: int) -> int:
        """Return the number of bytes in a vector or string of bytes."""
        return self._vector(field, 1, longest=len(self.data))[1]

    def text(self, field: int) -> bytes:
        """Read a string, or the first bytes of a long one."""
        start, count = self._vector(field, 1, longest=len(self.data))
        return self.data[start : start + min(count, 2**10)]

    def tables(self, field: int) -> list["Table"]:
        """Read a vector of tables."""
        start, count = self._vector(field, 4)
        places = range(start, start + 4 * count, 4)
        return [Table(self.data, place + _read(self.data, place, "I")) for place in places]

    def _vector(self, field: int, width: int, *, longest: int = LONGEST_VECTOR) -> tuple[int, int]:
        place = self._place(field)
        if not place:
            return 0, 0
        start = place + _read(self.data, place, "I")
        count = _read(self.data, start, "I")
        if count > longest or start + 4 + width * count > len(self.data):
            raise refusal(f"it has a list of {count} entries at byte {start}")
        return start + 4, count

    def _place(self, field: int) -> int:
        vtable = self.position - _read(self.data, self.position, "i")
        slot = 4 + 2 * field
        if slot + 2 > _read(self.data, vtable, "H"):
            return 0
        offset = _read(self.data, vtable + slot, "H")
        return self.position + offset if offset else 0


def read_root(data: bytes, *, identifier: bytes) -> Table:
    """Return a file's first table.

    Args:
        data: the file.
        identifier: what its bytes 4 to 8 must be.

    Raises:
        ModelError: if they are not, or the file ends before; later also by the methods of the tables.

    Example:
        >>> file = bytes([12, 0, 0, 0]) + b"TFL3" + bytes([4, 0, 4, 0, 4, 0, 0, 0])
        >>> read_root(file, identifier=b"TFL3").has(0)
        False
    """
    if data[4:8] != identifier:
        raise refusal(f"it begins with {data[:8]!r}, and {identifier.decode()} should come after four bytes")
    return Table(data, _read(data, 0, "I"))


def _read(data: bytes, position: int, kind: str) -> int:
    if not 0 <= position <= len(data) - struct.calcsize(f"<{kind}"):
        raise refusal(f"it points to byte {position} and has {len(data)}")
    (value,) = struct.unpack_from(f"<{kind}", data, position)
    return int(value)
