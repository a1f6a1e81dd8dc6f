"""Protobuf bytes and what may be in them -> fields by number; whatever else is in them is refused.

`protobuf.py` reads any message. Here a message has to fit a table, so that a field nobody thought of is no way in:
parsers skip what they do not know, and a checker that does the same looks past what a newer parser obeys.
"""

from collections.abc import Iterator, Mapping
from itertools import islice

from pronk.errors import ModelError
from pronk.model.guards.protobuf import Value, read_fields, read_integers

ONCE, MANY = 1, 2
LONGEST_LIST = 64  # of the integers that are shapes or settings of an operator
SHOWN = 60

NOT_OURS = "open only models that pronk wrote, from people you trust; if this is one, copy its folder again"

Schema = Mapping[int, int | str]
Fields = dict[int, list[Value]]


def refusal(what: str) -> ModelError:
    """Return the error for a model file that pronk does not open.

    Example:
        >>> str(refusal("it has 3 graphs"))
        'the model file is refused: it has 3 graphs'
    """
    return ModelError(f"the model file is refused: {what}", hint=NOT_OURS)


def show(value: Value | bytes | str) -> str:
    """Return a value from a hostile file as a short text for an error.

    Example:
        >>> show(b"../secret")
        "'../secret'"
    """
    if isinstance(value, int):
        return str(value)
    text = value if isinstance(value, str) else bytes(value[: SHOWN + 1]).decode("utf-8", "replace")
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


def read_message(message: bytes | memoryview, schema: Schema, budget: Iterator[int]) -> Fields:
    """Read a message that may only hold the fields of a schema.

    Args:
        message: the bytes; views of it are not copied.
        schema: ONCE or MANY by number of the field; a text instead names a field that is refused.
        budget: gives a number for each field that may still be read, over all messages of a file, so that a file of
            millions of empty fields does not take minutes.

    Returns:
        The values by number, for every number of the schema.

    Raises:
        ModelError: if the message is damaged, or holds anything else.

    Example:
        >>> read_message(bytes([0x08, 3]), {1: ONCE, 2: MANY}, iter(range(9)))
        {1: [3], 2: []}
    """
    found: Fields = {number: [] for number, rule in schema.items() if not isinstance(rule, str)}
    for number, _, value in read_fields(message):
        if next(budget, None) is None:
            raise refusal("it has more parts than any model of pronk")
        rule = schema.get(number, f"the unknown field {number}")
        if isinstance(rule, str):
            raise refusal(f"it has {rule}: {show(value)}")
        if rule == ONCE and found[number]:
            raise refusal(f"it has field {number} twice: {show(value)}")
        found[number].append(value)
    return found


def parts_of(fields: Fields, number: int) -> list[memoryview]:
    """Return the strings or messages of one field.

    Raises:
        ModelError: if any of them is a number.

    Example:
        >>> parts_of({1: [memoryview(b"Conv")]}, 1)[0].tobytes()
        b'Conv'
    """
    parts = [value for value in fields[number] if isinstance(value, memoryview)]
    if len(parts) != len(fields[number]):
        raise refusal(f"field {number} is a number")
    return parts


def text_of(fields: Fields, number: int) -> bytes:
    """Return the one string of a field; where it is missing, it is empty, as in every protobuf reader.

    Example:
        >>> text_of({1: []}, 1)
        b''
    """
    return b"".join(bytes(part[: 2**16]) for part in parts_of(fields, number))


def integers_of(message: bytes | memoryview, number: int) -> list[int]:
    """Return the few integers of one field, negative ones too.

    Raises:
        ModelError: if there are more than any shape or setting needs.

    Example:
        >>> integers_of(bytes([0x08, 3, 0x08, 4]), 1)
        [3, 4]
    """
    found = list(islice(read_integers(message, number), LONGEST_LIST + 1))
    if len(found) > LONGEST_LIST:
        raise refusal(f"it has a list of more than {LONGEST_LIST} integers")
    return [value - 2**64 if value >= 2**63 else value for value in found]
