"""Bytes of a .tflite file -> refused where pronk would not have written them."""

import math

from pronk.model.guards.files import MAX_BYTES
from pronk.model.guards.flatbuffer import Table, read_root
from pronk.model.guards.schema import refusal, show

MAX_ELEMENTS = 2**28
MOST_OPERATORS = 64
# By the numbers of LiteRT's schema: ADD, AVERAGE_POOL_2D, CONV_2D, DEPTHWISE_CONV_2D, DEQUANTIZE, FULLY_CONNECTED,
# MUL, RELU, RELU6, RESHAPE, SOFTMAX, PAD, TRANSPOSE, MEAN, SUB, DIV, SQUEEZE, CAST, MAXIMUM, MINIMUM, QUANTIZE.
LITERT_OPERATORS = frozenset((0, 1, 3, 4, 6, 9, 18, 19, 21, 22, 25, 34, 39, 40, 41, 42, 43, 53, 55, 57, 114))


def check_tflite(data: bytes) -> None:
    """Refuse a LiteRT model with operators that are not built in or of no use here, or with data elsewhere.

    Raises:
        ModelError: what is wrong with it.

    Example:
        >>> check_tflite(b"no model")
        Traceback (most recent call last):
        pronk.errors.ModelError: ...
    """
    if len(data) > MAX_BYTES:
        raise refusal(f"it has {len(data)} bytes")
    model = read_root(data, identifier=b"TFL3")
    codes = model.tables(1)
    if len(codes) > MOST_OPERATORS:
        raise refusal(f"it has {len(codes)} kinds of operator")
    for code in codes:
        # The runtime takes the larger one: the first was too small for new operators.
        number = max(code.number(0, "b"), code.number(3, "i"))
        if code.has(1) or number not in LITERT_OPERATORS:
            raise refusal(f"it has the operator {number} {show(code.text(1))}")
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
        _check_tensor_of_litert(tensor)


def _check_tensor_of_litert(tensor: Table) -> None:
    shape = tensor.numbers(0)
    if tensor.number(10):
        raise refusal("it has data in another file")
    if min(shape, default=0) < 0 or math.prod(shape) > MAX_ELEMENTS:
        raise refusal(f"it has an array of shape {shape}")
