"""Bytes of a .tflite file -> refused where pronk would not have written them.

The file is a flatbuffer, of which enough is read to see what the model asks for, without its library. A table begins
with the distance to its vtable, which holds the place of each field within the table, 0 for one that is missing
(https://flatbuffers.dev/internals). Every place comes from the file, so each read is checked against its ends; tables
may be shared, but nothing here follows them by itself, so reading ends.
"""

import dataclasses
import math
import struct

from pronk.model.guards.files import MAX_BYTES, refusal, show

LONGEST_VECTOR = 20_000
MAX_ELEMENTS = 2**28
MOST_OPERATORS = 64
# By the numbers of LiteRT's schema: ADD, AVERAGE_POOL_2D, CONCATENATION, CONV_2D, DEPTHWISE_CONV_2D, DEQUANTIZE,
# FULLY_CONNECTED, MUL, RELU, RELU6, RESHAPE, RESIZE_BILINEAR, SOFTMAX, PAD, TRANSPOSE, MEAN, SUB, DIV, SQUEEZE, CAST,
# MAXIMUM, MINIMUM, QUANTIZE.
LITERT_OPERATORS = frozenset((0, 1, 2, 3, 4, 6, 9, 18, 19, 21, 22, 23, 25, 34, 39, 40, 41, 42, 43, 53, 55, 57, 114))
RESIZE_BILINEAR, MOST_SIDE = 23, 128  # an eighth of the largest photo: its size is a constant, not a shape


@dataclasses.dataclass(frozen=True)
class Table:
    """One table: the whole file, and where in it the table begins."""

    data: bytes
    position: int

    def number(self, field: int, kind: str = "I") -> int:
        """Read a whole number: a field, by its number in the schema from 0, and its letter in `struct`."""
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


def check_tflite(data: bytes) -> None:
    """Refuse, by a ModelError, a model with operators not built in or of no use here, or with data elsewhere."""
    if len(data) > MAX_BYTES:
        raise refusal(f"it has {len(data)} bytes")
    if data[4:8] != b"TFL3":
        raise refusal(f"it begins with {data[:8]!r}, and TFL3 should come after four bytes")
    model = Table(data, _read(data, 0, "I"))
    codes = model.tables(1)
    if len(codes) > MOST_OPERATORS:
        raise refusal(f"it has {len(codes)} kinds of operator")
    numbers = []
    for code in codes:
        # The runtime takes the larger one: the first was too small for new operators.
        number = max(code.number(0, "b"), code.number(3, "i"))
        if code.has(1) or number not in LITERT_OPERATORS:
            raise refusal(f"it has the operator {number} {show(code.text(1))}")
        numbers.append(number)
    for buffer in model.tables(4):
        start, size = buffer.number(1, "Q"), buffer.number(2, "Q")
        if start + size > len(data):
            raise refusal(f"it has data at byte {start} and is {len(data)} bytes long")
        buffer.size(0)  # within the file
    if model.has(8) or model.has(9):
        raise refusal("it has data in another file")
    graphs = model.tables(2)
    if len(graphs) != 1:
        raise refusal(f"it has {len(graphs)} graphs")
    for tensor in graphs[0].tables(0):
        shape = tensor.numbers(0)
        if tensor.number(10):
            raise refusal("it has data in another file")
        if min(shape, default=0) < 0 or math.prod(shape) > MAX_ELEMENTS:
            raise refusal(f"it has an array of shape {shape}")
    _check_enlarging(graphs[0], numbers, model.tables(4))


def _check_enlarging(graph: Table, codes: list[int], buffers: list[Table]) -> None:
    tensors = graph.tables(0)
    for operator in graph.tables(3):
        code, inputs = operator.number(0), operator.numbers(1)
        if code < len(codes) and codes[code] == RESIZE_BILINEAR:
            places = [tensors[place].number(2) for place in inputs[1:] if 0 <= place < len(tensors)]
            sizes = [buffers[place].text(0) for place in places if place < len(buffers)]
            if len(sizes) != 1 or len(sizes[0]) != 8 or max(struct.unpack("<2i", sizes[0])) > MOST_SIDE:
                raise refusal("it enlarges an array by any amount")


def _read(data: bytes, position: int, kind: str) -> int:
    if not 0 <= position <= len(data) - struct.calcsize(f"<{kind}"):
        raise refusal(f"it points to byte {position} and has {len(data)}")
    (value,) = struct.unpack_from(f"<{kind}", data, position)
    return int(value)
