"""Messages of protocol buffers, written by hand, and small ONNX models."""

from onnx import TensorProto, helper


def field(number, kind, value):
    tag = varint(number << 3 | kind)
    if kind == 0:
        return tag + varint(value)
    return tag + (varint(len(value)) if kind == 2 else b"") + value


def varint(value):
    pieces = []
    while value >= 0x80:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*pieces, value])


def make_onnx(nodes=None, arrays=()):
    """A small model to change: image -> Add -> out."""
    nodes = [helper.make_node("Add", ["image", "image"], ["out"])] if nodes is None else nodes
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("image", "out")]
    graph = helper.make_graph(nodes, "pronk", value[:1], value[1:], list(arrays))
    return helper.make_model(graph, producer_name="pronk", opset_imports=[helper.make_opsetid("", 18)])
