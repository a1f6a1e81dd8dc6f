"""Weights of a MobileNetV2 -> ONNX graphs, written node by node.

The general converters take 8 to 20 seconds for a network that consists of eight kinds of layer. Writing
those nodes directly takes half a second, folds each BatchNormalization into the convolution before it,
and needs no training framework, so features can be extracted while Keras is still being imported.
The tests compare every graph with Keras.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pronk.analysis.head import Head
from pronk.backbone.architecture import (
    BLOCKS,
    HEAD_BLOCKS,
    HEAD_STRIDES,
    Block,
    blocks_after,
    blocks_of_head,
    pooled_sizes,
    split_blocks,
)

Weights = Mapping[str, Sequence[np.ndarray]]

PREFIX_VERSION = 2  # raise it when the prefix gives other numbers, so that features kept of the old one are not used
OPSET = 18
IR_VERSION = 9
BATCH_NORM_EPSILON = 1e-3


class GraphWriter:
    """Collect ONNX nodes and constants; each method adds one layer and returns its output's name."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.maps: dict[str, str] = {}  # what the head may read, by Keras's names

    def constant(self, name: str, value: np.ndarray | np.float32) -> str:
        """Store an array and return its name."""
        self.constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add one node with one output and return the output's name."""
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def scale(self, image: str) -> str:
        """Turn uint8 [N, h, w, 3] into float32 [N, 3, h, w] in [-1, 1]."""
        x = self.node("Cast", [image], "image_float", to=TensorProto.FLOAT)
        x = self.node("Mul", [x, self.constant("scale", np.float32(1 / 127.5))], "image_scaled")
        x = self.node("Sub", [x, self.constant("offset", np.float32(1.0))], "image_centred")
        return self.node("Transpose", [x], "image_channels_first", perm=[0, 3, 1, 2])

    def convolution(self, x: str, conv: str, batch_norm: str, *, stride: int = 1, relu: bool = True) -> str:
        """Add convolution + BatchNormalization (folded) + ReLU6 where asked for."""
        kernel, bias = fold_batch_norm(self.weights[conv][0], self.weights[batch_norm])
        size = kernel.shape[2]
        # Keras pads a stride-two layer at the bottom and right only, for even inputs.
        pads = [0, 0, 1, 1] if stride == 2 else [size // 2] * 4
        inputs = [x, self.constant(f"{conv}/kernel", kernel), self.constant(f"{conv}/bias", bias)]
        group = 1 if kernel.shape[1] > 1 else kernel.shape[0]
        attributes = {"kernel_shape": [size, size], "strides": [stride, stride], "pads": pads, "group": group}
        x = self.node("Conv", inputs, batch_norm, **attributes)
        return self.relu6(x) if relu else x

    def relu6(self, x: str) -> str:
        """Add min(max(x, 0), 6)."""
        if not any(constant.name == "six" for constant in self.constants):
            self.constant("zero", np.float32(0))
            self.constant("six", np.float32(6))
        return self.node("Clip", [x, "zero", "six"], f"{x}_relu")

    def block(self, x: str, block: Block) -> str:
        """Add one inverted residual block."""
        name, entry = block.name, x
        if block is not BLOCKS[0]:
            x = self.maps[f"{name}_expand_relu"] = self.convolution(x, f"{name}_expand", f"{name}_expand_BN")
        x = self.convolution(x, f"{name}_depthwise", f"{name}_depthwise_BN", stride=block.stride)
        x = self.convolution(x, f"{name}_project", f"{name}_project_BN", relu=False)
        return self.node("Add", [entry, x], block.output) if block.is_residual else x

    def blocks(self, x: str, blocks: Sequence[Block], *, cut: str | None = None) -> str:
        """Add blocks and the last convolution; return the output of the block that ends at the cut."""
        cut_output = ""
        for block in blocks:
            x = self.block(x, block)
            cut_output = x if x == cut else cut_output
        self.maps["out_relu"] = self.convolution(x, "Conv_1", "Conv_1_bn")
        return cut_output

    def pool(self, blocks: Sequence[str]) -> str:
        """Add the mean over height and width of the outputs of some blocks, side by side: `features`."""
        pooled = [self.node("GlobalAveragePool", [self.maps[name]], f"{name}_pooled") for name in blocks]
        if len(blocks) > 1:
            pooled = [self.node("Concat", pooled, "pooled", axis=1)]
        return self.node("Flatten", pooled, "features")

    def head(self, head: Head, blocks: Sequence[str]) -> None:
        """Add the head as a convolution per block: of the pooled features for `logits`, of the maps for `heat`.

        A coarser map is spread to twice its sides by bilinear interpolation, and the next finer one is added. Its edges
        are clamped, so that it keeps its mean: that of a class's heat is the logit without the bias.
        """
        sizes = pooled_sizes(self.weights, blocks)
        parts = np.split(head.weights.astype(np.float32), np.cumsum(sizes)[:-1])
        doubling = np.array([1, 1, 2, 2], np.float32)
        logits = heat = ""
        stride = HEAD_STRIDES[blocks[-1]]
        for name, part in zip(reversed(blocks), reversed(parts), strict=True):
            kernel = self.constant(f"head/{name}", part.T[:, :, None, None])
            bias = [] if logits else [self.constant("head/bias", head.bias.astype(np.float32))]
            told = self.node("Conv", [f"{name}_pooled", kernel, *bias], f"logits/{name}")
            logits = self.node("Add", [logits, told], f"logits/{name}/sum") if logits else told
            shown = self.node("Conv", [self.maps[name], kernel], f"heat/{name}")
            if stride > HEAD_STRIDES[name]:
                stride = HEAD_STRIDES[name]
                scales = self.constant(f"heat/{name}/scales", doubling)
                heat = self.node("Resize", [heat, "", scales], f"heat/{name}/spread", mode="linear")
            heat = self.node("Add", [heat, shown], f"heat/{name}/sum") if heat else shown
        self.node("Flatten", [logits], "logits")
        self.node("Transpose", [heat], "heat", perm=[0, 2, 3, 1])


def write_prefix(weights: Weights, *, size: int, cut: str) -> bytes:
    """Write the frozen network with two ways out: at the cut, a block's last layer, and the pooled HEAD_BLOCKS.

    Returns:
        An ONNX model: `image` uint8 [N, size, size, 3] -> `features` float32 [N, 3008], `cut` float16 [N, h, w, c].
    """
    writer = GraphWriter(weights)
    cut_output = _write_network(writer, cut)
    features = writer.pool(HEAD_BLOCKS)
    channels_last = writer.node("Transpose", [cut_output], "cut_channels_last", perm=[0, 2, 3, 1])
    writer.node("Cast", [channels_last], "cut", to=TensorProto.FLOAT16)
    outputs = [
        _tensor(features, ["N", sum(pooled_sizes(weights))]),
        _tensor("cut", ["N", *cut_shape(weights, size=size, cut=cut)], TensorProto.FLOAT16),
    ]
    return _serialize(writer, _image(size), outputs)


def write_suffix(weights: Weights, *, size: int, cut: str, blocks: Sequence[str]) -> bytes:
    """Write what follows the cut, up to the pooled features of those of the head's blocks that lie there.

    Returns:
        An ONNX model: `cut` float32 [N, h, w, c] -> `features` float32 [N, d]; the head's other features never change.
    """
    writer = GraphWriter(weights)
    x = writer.node("Transpose", ["cut"], "cut_channels_first", perm=[0, 3, 1, 2])
    writer.blocks(x, blocks_after(cut))
    _, changed = split_blocks(blocks, cut)
    cut_input = _tensor("cut", ["N", *cut_shape(weights, size=size, cut=cut)])
    return _serialize(writer, cut_input, [_tensor(writer.pool(changed), ["N", sum(pooled_sizes(weights, changed))])])


def write_model(weights: Weights, head: Head, *, size: int, temperature: float = 1.0) -> bytes:
    """Write the classifier that is served.

    Args:
        weights: arrays by layer name.
        head: the Dense layer, of C classes; its d features tell which blocks it reads.
        size: side of the square image in pixels.
        temperature: the logits are divided by it (Guo et al. 2017, https://arxiv.org/abs/1706.04599).

    Returns:
        An ONNX model: `image` uint8 [N, size, size, 3] -> `probabilities` float32 [N, C], `features`
        float32 [N, d], and `heat` float32 [N, h, w, C]: where in the photo each class's logit, but for the bias,
        comes from, whose mean it is (Zhou et al. 2016, https://arxiv.org/abs/1512.04150). The sides h and w are those
        of the finest map that the head reads: size / 8, or size / 32 for the last block alone.
    """
    writer = GraphWriter(weights)
    _write_network(writer)
    blocks = blocks_of_head(weights, len(head.weights))
    writer.pool(blocks)
    writer.head(head, blocks)
    divisor = writer.constant("temperature", np.float32(temperature))
    writer.node("Softmax", [writer.node("Div", ["logits", divisor], "logits/tempered")], "probabilities", axis=-1)
    side, classes = size // HEAD_STRIDES[blocks[0]], len(head.bias)
    outputs = [
        _tensor("probabilities", ["N", classes]),
        _tensor("features", ["N", len(head.weights)]),
        _tensor("heat", ["N", side, side, classes]),
    ]
    return _serialize(writer, _image(size), outputs)


def cut_shape(weights: Weights, *, size: int, cut: str) -> tuple[int, int, int]:
    """Return the shape (h, w, channels) of the activations at a cut.

    Example:
        >>> from pronk.backbone.weights import random_backbone
        >>> cut_shape(random_backbone(alpha=1.0).weights, size=224, cut="block_12_add")
        (14, 14, 96)
    """
    passed = BLOCKS[: len(BLOCKS) - len(blocks_after(cut))]
    side = size // 2 // math.prod(block.stride for block in passed)
    return side, side, int(weights[f"{passed[-1].name}_project"][0].shape[-1])


def fold_batch_norm(kernel: np.ndarray, batch_norm: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Multiply a BatchNormalization at inference into the kernel before it.

    Args:
        kernel: Keras's [h, w, in, out], or [h, w, channels, 1] of a depthwise layer.
        batch_norm: gamma, beta, moving mean and moving variance.

    Returns:
        Kernel in ONNX's order [out, in or 1, h, w] and bias [out], float32.
    """
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in batch_norm)
    factor = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
    depthwise = kernel.shape[-1] == 1
    ordered = kernel.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
    return (ordered * factor[:, None, None, None]).astype(np.float32), (beta - mean * factor).astype(np.float32)


def _write_network(writer: GraphWriter, cut: str | None = None) -> str:
    x = writer.convolution(writer.scale("image"), "Conv1", "bn_Conv1", stride=2)
    return writer.blocks(x, BLOCKS, cut=cut)


def _image(size: int) -> onnx.ValueInfoProto:
    return _tensor("image", ["N", size, size, 3], TensorProto.UINT8)


def _tensor(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _serialize(writer: GraphWriter, given: onnx.ValueInfoProto, outputs: list[onnx.ValueInfoProto]) -> bytes:
    graph = helper.make_graph(writer.nodes, "pronk", [given], outputs, writer.constants)
    model = helper.make_model(
        graph, producer_name="pronk", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    return bytes(model.SerializeToString())
