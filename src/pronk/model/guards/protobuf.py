"""Protobuf bytes -> numbered fields: enough to read an array out of an ONNX file without the onnx package.

A message is a row of fields. Each begins with a varint that holds its number and its wire type; nothing says
where a message ends, and an inner message looks like any other bytes, so who reads must know the schema
(https://protobuf.dev/programming-guides/encoding). What lies inside a message is not copied: memory stays within
what the caller keeps, and every step consumes at least one byte, so reading ends.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from pronk.errors import COPY_AGAIN, ModelError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4 are groups, which ONNX never had
VARINT_BYTES = 10  # for 64 bits, 7 in each byte
TAG_BYTES = 5

T = TypeVar("T")
Value = int | memoryview


def read_fields(message: bytes | memoryview) -> Iterator[tuple[int, int, Value]]:
    """Read a message's fields in the order of the bytes.

    Args:
        message: the bytes; a view of them is not copied.

    Yields:
        Number and wire type of each field, and its value: an int for VARINT, else a view of its bytes.

    Raises:
        ModelError: where the bytes are not a message, once reading reaches that place.

    Example:
        >>> [(number, kind, bytes(value)) for number, kind, value in read_fields(bytes([0x0A, 2]) + b"ab")]
        [(1, 2, b'ab')]
    """
    view, position = memoryview(message), 0
    while position < len(view):
        tag, position = _read_varint(view, position, longest=TAG_BYTES)
        number, kind = tag >> 3, tag & 7
        if number == 0 or tag >= 2**32:
            raise _damaged(f"field number {number}")
        if kind == VARINT:
            integer, position = _read_varint(view, position, longest=VARINT_BYTES)
            yield number, kind, integer
            continue
        length, position = _read_length(view, position, kind)
        yield number, kind, view[position : position + length]
        position += length


def read_parts(message: bytes | memoryview, number: int) -> Iterator[memoryview]:
    """Read the strings, byte strings or inner messages of one field.

    Raises:
        ModelError: if the bytes are not a message, or the field holds something else.

    Example:
        >>> [bytes(part) for part in read_parts(bytes([0x0A, 1]) + b"a" + bytes([0x0A, 1]) + b"b", 1)]
        [b'a', b'b']
    """
    for found, _, value in read_fields(message):
        if found == number:
            if not isinstance(value, memoryview):
                raise _damaged(f"field {number} is a number")
            yield value


def read_integers(message: bytes | memoryview, number: int) -> Iterator[int]:
    """Read the unsigned integers of one field, whether packed or one by one.

    Raises:
        ModelError: if the bytes are not a message, or the field holds something else.

    Example:
        >>> list(read_integers(bytes([0x08, 3, 0x0A, 2, 4, 5]), 1))
        [3, 4, 5]
    """
    for found, kind, value in read_fields(message):
        if found != number:
            continue
        if isinstance(value, int):
            yield value
        elif kind == BYTES:
            position = 0
            while position < len(value):
                integer, position = _read_varint(value, position, longest=VARINT_BYTES)
                yield integer
        else:
            raise _damaged(f"field {number} is not an integer")


def only(values: Iterable[T], what: str) -> T:
    """Return the value of a field that has to be there once.

    Args:
        values: from `read_parts` or `read_integers`; all of the message is read, or until a second one appears.
        what: names it in the error.

    Raises:
        ModelError: if there is none, or more than one.

    Example:
        >>> only(read_integers(bytes([0x08, 3]), 1), "data type")
        3
    """
    found = list(islice(values, 2))
    if len(found) != 1:
        raise _damaged(f"{'more than one' if found else 'no'} {what}")
    return found[0]


def _read_varint(view: memoryview, position: int, *, longest: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(view[position : position + longest]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value >= 2**64:
                raise _damaged("a number of more than 64 bits")
            return value, position + index + 1
    raise _damaged("a number without an end")


def _read_length(view: memoryview, position: int, kind: int) -> tuple[int, int]:
    if kind == BYTES:
        length, position = _read_varint(view, position, longest=VARINT_BYTES)
    elif kind in (FIXED32, FIXED64):
        length = 4 if kind == FIXED32 else 8
    else:
        raise _damaged(f"wire type {kind}")
    if length > len(view) - position:
        raise _damaged(f"a field of {length} bytes where {len(view) - position} are left")
    return length, position


def _damaged(what: str) -> ModelError:
    return ModelError(f"the model's bytes are damaged: {what}", hint=COPY_AGAIN)
