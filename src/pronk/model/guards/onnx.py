"""Bytes of an ONNX file -> refused where pronk would not have written them."""

import math
from collections.abc import Iterator, Mapping

import numpy as np

from pronk.model.guards.files import MAX_BYTES, refusal, show
from pronk.model.guards.protobuf import Schema, integers_of, only, parts_of, read_message, text_of

MAX_PARTS = 200_000  # a quantised model has some 6,000 fields
MAX_SIDE = 2**14  # of an ONNX array; there are at most 10,000 classes
MAX_SETTING, MAX_GROUP = 16, 2**14  # of an ONNX operator; a convolution may have as many groups as channels
# The fields of onnx.proto that pronk and ONNX Runtime's quantiser write.
MODEL = Schema(frozenset(range(1, 8)), frozenset((8, 14)), {20: "training info", 25: "functions of its own"})
GRAPH = Schema(frozenset((2, 10)), frozenset((1, 5, 11, 12, 13)), {15: "sparse arrays"})
NODE = Schema(frozenset((3, 4, 6, 7)), frozenset((1, 2, 5)), {8: "an overloaded operator"})
ATTRIBUTE = Schema(
    frozenset((1, 3, 4, 20)),
    frozenset((8,)),
    {5: "an array inside a node"} | dict.fromkeys((6, 11), "a graph inside a node"),
)
TENSOR = Schema(frozenset((2, 4, 5, 7, 8, 9, 12, 14)), frozenset((1,)), {13: "an array in another file"})
PAIR = Schema(frozenset((1, 2)))  # of an operator set, and of a note
# What pronk writes and what quantising makes of it, with their settings. Nothing is computed from constants alone but
# their dequantised values, so that opening a model takes little more memory than its arrays; what a run takes still
# depends on the size of the photo and the channels of the convolutions.
OPERATORS: Mapping[bytes, frozenset[bytes]] = {
    **dict.fromkeys(b"Add Clip Div Flatten Gemm GlobalAveragePool Mul Sub".split(), frozenset()),
    **dict.fromkeys((b"Concat", b"DequantizeLinear", b"QuantizeLinear", b"Softmax"), frozenset((b"axis",))),
    b"Cast": frozenset((b"to",)),
    b"Conv": frozenset((b"group", b"kernel_shape", b"pads", b"strides")),
    b"Resize": frozenset((b"mode",)),
    b"Transpose": frozenset((b"perm",)),
}
DOUBLING, MOST_DOUBLINGS = np.array([1, 1, 2, 2], "<f4").tobytes(), 2  # scales of a Resize: others take any memory
BY_A_NUMBER = (b"Div", b"Mul", b"Sub")
DOMAINS = (b"", b"ai.onnx")
NOTES = (b"onnx.infer", b"onnx.quant.pre_process")  # left by ONNX Runtime's quantiser; `ort_config` sets options
ITEM_BYTES = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8}  # by ONNX's number of a data type
RAW = 9
IN_FIELDS = {1: 4, 2: 5, 3: 5, 6: 5, 7: 7, 9: 5, 10: 5}  # the field of an array's values where they are not raw


def check_onnx(data: bytes) -> None:
    """Refuse, by a ModelError, a model that reaches for other files or other code, or is not what its shapes say.

    The content of arrays is not looked at, so it takes milliseconds.
    """
    # ONNX Runtime tells its own format by these bytes alone, and they can be part of a name in an ONNX file.
    if data[4:8] == b"ORTM":
        raise refusal("it is in ONNX Runtime's own format")
    if len(data) > MAX_BYTES:
        raise refusal(f"it has {len(data)} bytes")
    budget = iter(range(MAX_PARTS))
    model = read_message(data, MODEL, budget)
    for opset in parts_of(model, 8):
        _check_domain(text_of(read_message(opset, PAIR, budget), 1))
    for note in parts_of(model, 14):
        key = text_of(read_message(note, PAIR, budget), 1)
        if key not in NOTES:
            raise refusal(f"it has the setting {show(key)}")
    graph = read_message(only(parts_of(model, 7), "graph"), GRAPH, budget)
    tensors = [_check_tensor(tensor, budget) for tensor in parts_of(graph, 5)]
    constants = {name: shape for name, shape, _ in tensors} | {b"": []}  # an input left out
    doublings = {name for name, _, content in tensors if content == DOUBLING}
    nodes = [_check_node(node, budget) for node in parts_of(graph, 1)]
    for operator, (first, *_), outputs in nodes:
        if operator == b"DequantizeLinear" and first in constants:
            constants |= dict.fromkeys(outputs, constants[first])
    for operator, inputs, _ in nodes:
        _check_inputs(operator, inputs, constants)
    spread = [inputs for operator, inputs, _ in nodes if operator == b"Resize"]
    if len(spread) > MOST_DOUBLINGS or any(len(names) != 3 or names[2] not in doublings for names in spread):
        raise refusal(f"it enlarges {len(spread)} arrays")


def _check_domain(domain: bytes) -> None:
    if domain not in DOMAINS:
        raise refusal(f"it has operators of {show(domain)}")


def _check_node(node: memoryview, budget: Iterator[int]) -> tuple[bytes, list[bytes], list[bytes]]:
    """Return its operator, and the names of its inputs and outputs."""
    fields = read_message(node, NODE, budget)
    _check_domain(text_of(fields, 7))
    operator = text_of(fields, 4)
    if operator not in OPERATORS:
        raise refusal(f"it has the operator {show(operator)}")
    for attribute in parts_of(fields, 5):
        setting = read_message(attribute, ATTRIBUTE, budget)
        name, values = text_of(setting, 1), integers_of(setting, 3) + integers_of(setting, 8)
        word = text_of(setting, 4)
        most = MAX_GROUP if name == b"group" else MAX_SETTING
        # Such as the padding of a convolution, which would take any amount of memory.
        fits = word == (b"linear" if name == b"mode" else b"")
        if name not in OPERATORS[operator] or not fits or any(abs(value) > most for value in values):
            raise refusal(f"{show(operator)} has the setting {show(name)} {show(word)} {values}")
    inputs, outputs = ([bytes(part) for part in parts_of(fields, number)] for number in (1, 2))
    if not inputs:
        raise refusal(f"{show(operator)} has no input")
    return operator, inputs, outputs


def _check_inputs(operator: bytes, inputs: list[bytes], constants: Mapping[bytes, list[int]]) -> None:
    varying = [place for place, name in enumerate(inputs) if name not in constants]
    varies = {b"Add": [0, 1], b"Concat": list(range(len(inputs)))}.get(operator, [0])
    if varying != varies and not (operator == b"DequantizeLinear" and not varying):
        raise refusal(f"{show(operator)} has constants where none belong")
    if operator in BY_A_NUMBER and any(math.prod(constants[name]) != 1 for name in inputs[1:]):
        raise refusal(f"{show(operator)} has a constant of shape {constants[inputs[1]]}")


def _check_tensor(tensor: memoryview, budget: Iterator[int]) -> tuple[bytes, list[int], bytes]:
    """Return its name, its shape, and its content where that is four floats."""
    fields = read_message(tensor, TENSOR, budget)
    if fields[14] not in ([], [0]):
        raise refusal(f"it has an array in another place: {show(fields[14][0])}")
    shape, kind = integers_of(fields, 1), only(integers_of(fields, 2), "type of an array")
    if kind not in ITEM_BYTES or any(not 0 <= side <= MAX_SIDE for side in shape):
        raise refusal(f"it has an array of type {kind} and shape {shape}")
    count = math.prod(shape)
    held = [(number, content) for number in (4, 5, 7, RAW) for content in parts_of(fields, number)]
    for number, content in held:
        if number == RAW:
            fits = len(content) == ITEM_BYTES[kind] * count
        elif number == 4:
            fits = len(content) == 4 * count
        else:  # each number ends with the only byte of it that is below 128
            fits = int(np.count_nonzero(np.frombuffer(content, np.uint8) < 0x80)) == count
        if not fits or number not in (RAW, IN_FIELDS.get(kind)):
            raise refusal(f"it has an array of type {kind} and shape {shape} in {len(content)} bytes of field {number}")
    if len(held) != 1 and (held or count):
        raise refusal(f"it has an array of shape {shape} in {len(held)} fields")
    scales = text_of(fields, RAW) if (kind, shape) == (1, [4]) else b""
    return bytes(only(parts_of(fields, 8), "name of an array")), shape, scales
