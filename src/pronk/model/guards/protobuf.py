"""Protobuf bytes -> fields by number, without the onnx package; whatever a schema does not name is refused.

A message is a row of fields. Each begins with a varint that holds its number and its wire type; nothing says
where a message ends, and an inner message looks like any other bytes, so who reads must know the schema
(https://protobuf.dev/programming-guides/encoding). What lies inside a message is not copied, and every step consumes
at least one byte, so reading ends. Parsers skip the fields they do not know, and a checker that does the same looks
past what a newer parser obeys: a field that nobody thought of must be no way in.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from pronk.errors import COPY_AGAIN, ModelError
from pronk.model.guards.files import refusal, show

VARINT, BYTES = 0, 2  # wire types; the models of pronk have no others
VARINT_BYTES = 10  # for 64 bits, 7 in each byte
TAG_BYTES = 5
LONGEST_LIST = 64  # of the integers that are shapes or settings of an operator

T = TypeVar("T")
Value = int | memoryview
Fields = dict[int, list[Value]]


class Schema(NamedTuple):
    """The fields that a message may have once, those it may have many times, and names of some that are refused."""

    once: frozenset[int]
    many: frozenset[int] = frozenset()
    refused: Mapping[int, str] = {}


def read_fields(message: bytes | memoryview) -> Iterator[tuple[int, Value]]:
    """Yield the number of each field of a message, and its value: an int, or a view of its bytes.

    Where the bytes are not a message, a ModelError comes once reading reaches that place.
    """
    view, position = memoryview(message), 0
    while position < len(view):
        tag, position = _read_varint(view, position, longest=TAG_BYTES)
        number, kind = tag >> 3, tag & 7
        if number == 0 or tag >= 2**32:
            raise _damaged(f"field number {number}")
        if kind not in (VARINT, BYTES):
            raise _damaged(f"wire type {kind}")
        integer, position = _read_varint(view, position, longest=VARINT_BYTES)
        if kind == VARINT:
            yield number, integer
            continue
        if integer > len(view) - position:
            raise _damaged(f"a field of {integer} bytes where {len(view) - position} are left")
        yield number, view[position : position + integer]
        position += integer


def read_message(message: bytes | memoryview, schema: Schema, budget: Iterator[int]) -> Fields:
    """Read a message that may only hold the fields of a schema.

    Args:
        message: the bytes; views of it are not copied.
        schema: its fields.
        budget: gives a number for each field that may still be read, over all messages of a file, so that a file of
            millions of empty fields does not take minutes.

    Returns:
        The values by number, for every number of the schema.

    Raises:
        ModelError: if the message is damaged, or holds anything else.
    """
    found: Fields = {number: [] for number in (*schema.once, *schema.many)}
    for number, value in read_fields(message):
        if next(budget, None) is None:
            raise refusal("it has more parts than any model of pronk")
        if number not in found:
            raise refusal(f"it has {schema.refused.get(number, f'the unknown field {number}')}: {show(value)}")
        if number in schema.once and found[number]:
            raise refusal(f"it has field {number} twice: {show(value)}")
        found[number].append(value)
    return found


def parts_of(fields: Fields, number: int) -> list[memoryview]:
    """Return the strings or messages of one field; a number among them is an error."""
    parts = [value for value in fields[number] if isinstance(value, memoryview)]
    if len(parts) != len(fields[number]):
        raise refusal(f"field {number} is a number")
    return parts


def text_of(fields: Fields, number: int) -> bytes:
    """Return the one string of a field; where it is missing, it is empty, as in every protobuf reader."""
    return b"".join(bytes(part[: 2**16]) for part in parts_of(fields, number))


def integers_of(fields: Fields, number: int) -> list[int]:
    """Return the few integers of one field, packed or one by one, negative ones too."""
    found: list[int] = []
    for value in fields[number]:
        position = 0
        while isinstance(value, memoryview) and position < len(value) and len(found) <= LONGEST_LIST:
            integer, position = _read_varint(value, position, longest=VARINT_BYTES)
            found.append(integer)
        if isinstance(value, int):
            found.append(value)
        if len(found) > LONGEST_LIST:
            raise refusal(f"it has a list of more than {LONGEST_LIST} integers")
    return [value - 2**64 if value >= 2**63 else value for value in found]


def only(values: Sequence[T], what: str) -> T:
    """Return the value of a field that has to be there once; `what` names it in the error."""
    if len(values) != 1:
        raise _damaged(f"{'more than one' if values else 'no'} {what}")
    return values[0]


def _read_varint(view: memoryview, position: int, *, longest: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(view[position : position + longest]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value >= 2**64:
                raise _damaged("a number of more than 64 bits")
            return value, position + index + 1
    raise _damaged("a number without an end")


def _damaged(what: str) -> ModelError:
    return ModelError(f"the model's bytes are damaged: {what}", hint=COPY_AGAIN)
