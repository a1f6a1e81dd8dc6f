"""MobileNetV2 (Sandler et al. 2018, https://arxiv.org/abs/1801.04381): its layers, named as by Keras, its weights."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pronk.config import SETTINGS
from pronk.errors import ModelError

# Channels at width 1, number of blocks, and stride of the first block: the seven stages in table 2 of the paper.
STAGES = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))


class Block(NamedTuple):
    """An inverted residual block: its name, its channels at width 1, its stride, and whether it adds its input."""

    name: str
    channels: int
    stride: int
    is_residual: bool

    @property
    def output(self) -> str:
        """The name of its last layer, at which the network can be cut."""
        return f"{self.name}_add" if self.is_residual else f"{self.name}_project_BN"


BLOCKS = tuple(
    Block(f"block_{number}" if number else "expanded_conv", channels, 1 if place else stride, place > 0)
    for number, (channels, stride, place) in enumerate(
        (channels, stride, place) for channels, count, stride in STAGES for place in range(count)
    )
)


# Where the head reads: the outputs of the widest layers at three depths and of the last, with the stride of each. The
# network computes them anyway. Errors fall most where photos are unlike those it learned from.
HEAD_STRIDES = {"block_6_expand_relu": 8, "block_13_expand_relu": 16, "block_16_expand_relu": 32, "out_relu": 32}
HEAD_BLOCKS = tuple(HEAD_STRIDES)
TOP = HEAD_BLOCKS[-1:]
FEATURES = {"top": TOP, "multi": HEAD_BLOCKS}


@functools.cache
def layer_shapes(alpha: float) -> Mapping[str, tuple[tuple[int, ...], ...]]:
    """Return the shapes of the arrays by layer name, in the network's order.

    They are one [h, w, in, out] of a convolution, one [h, w, channels, 1] of a depthwise one, and four [channels] of
    a BatchNormalization: gamma, beta, moving mean and moving variance.

    Example:
        >>> layer_shapes(1.0)["Conv1"], layer_shapes(1.0)["bn_Conv1"]
        (((3, 3, 3, 32),), ((32,), (32,), (32,), (32,)))
    """
    shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def add(name: str, batch_norm: str, *shape: int) -> None:
        shapes[name] = (shape,)
        shapes[batch_norm] = ((shape[2] if shape[3] == 1 else shape[3],),) * 4

    inputs = _round_channels(32 * alpha)
    add("Conv1", "bn_Conv1", 3, 3, 3, inputs)
    for block in BLOCKS:
        name, inner, outputs = block.name, inputs, _round_channels(block.channels * alpha)
        if block is not BLOCKS[0]:
            inner = 6 * inputs
            add(f"{name}_expand", f"{name}_expand_BN", 1, 1, inputs, inner)
        add(f"{name}_depthwise", f"{name}_depthwise_BN", 3, 3, inner, 1)
        add(f"{name}_project", f"{name}_project_BN", 1, 1, inner, outputs)
        inputs = outputs
    add("Conv_1", "Conv_1_bn", 1, 1, inputs, _round_channels(1280 * alpha) if alpha > 1 else 1280)
    return shapes


def blocks_after(cut: str) -> tuple[Block, ...]:
    """Return the blocks that follow a cut."""
    return BLOCKS[[block.output for block in BLOCKS].index(cut) + 1 :]


def split_blocks(blocks: Sequence[str], cut: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return those of the head's blocks that lie before a cut, and those after it, which change where it is fine-tuned.

    Example:
        >>> split_blocks(HEAD_BLOCKS, "block_15_add")
        (('block_6_expand_relu', 'block_13_expand_relu'), ('block_16_expand_relu', 'out_relu'))
    """
    after = {f"{block.name}_expand_relu" for block in blocks_after(cut)} | {"out_relu"}
    return tuple(name for name in blocks if name not in after), tuple(name for name in blocks if name in after)


def pooled_sizes(weights: Mapping[str, Sequence[np.ndarray]], blocks: Sequence[str] = HEAD_BLOCKS) -> tuple[int, ...]:
    """Return how many pooled features each of the head's blocks has, by the shapes of the weights.

    Example:
        >>> from pronk.backbone.weights import random_backbone
        >>> pooled_sizes(random_backbone(alpha=1.0).weights)
        (192, 576, 960, 1280)
    """
    layers = ("Conv_1" if name == "out_relu" else name.removesuffix("_relu") for name in blocks)
    return tuple(int(weights[layer][0].shape[-1]) for layer in layers)


def blocks_of_head(weights: Mapping[str, Sequence[np.ndarray]], features: int) -> tuple[str, ...]:
    """Return the blocks that a head with so many features reads; ValueError if no head of pronk has so many."""
    for blocks in FEATURES.values():
        if sum(pooled_sizes(weights, blocks)) == features:
            return blocks
    raise ValueError(f"a head on {features} features")


def _round_channels(value: float) -> int:
    # Keras's rule: a multiple of 8, and never more than 10 % below.
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A pre-trained network.

    Attributes:
        name: `imagenet`, `offline`, `random` or the file's name.
        sha256: digest of the file.
        weights: arrays by layer name: [kernel], or [gamma, beta, moving mean, moving variance].
    """

    name: str
    sha256: str
    weights: Mapping[str, Sequence[np.ndarray]]

    @property
    def alpha(self) -> float:
        """The width that the numbers of channels show."""
        names = [f"{block.name}_project" for block in BLOCKS[1:]]
        channels = [arrays[0].shape[-1] if arrays and arrays[0].ndim else 0 for arrays in map(self.weights.get, names)]
        for alpha in SETTINGS["alpha"].choices:
            if [layer_shapes(alpha)[name][0][-1] for name in names] == channels:
                return float(alpha)
        raise ModelError(
            f"{self.name}: no MobileNetV2 has blocks of {channels} channels", hint="name another file with --weights"
        )


def check_weights(weights: Mapping[str, Sequence[np.ndarray]], path: Path | str) -> None:
    """Refuse arrays by layer name that are not those of a MobileNetV2, by a ModelError that names their file."""
    expected = layer_shapes(Backbone(str(path), "", weights).alpha)
    for layer, arrays in weights.items():
        if tuple(array.shape for array in arrays) != expected[layer]:
            raise ModelError(f"{path}: layer {layer} has the shapes {[array.shape for array in arrays]}")
        if not all(np.isfinite(array).all() for array in arrays):
            raise ModelError(f"{path}: layer {layer} holds values that are not numbers")


LAYERS = tuple(layer_shapes(1.0))  # the same at every width
