"""Images -> feature maps: MobileNetV2 in torch, laid out as in keras.applications, and its Keras h5 file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

BLOCKS = (  # filters, stride, residual expansion follow keras.applications.mobilenet_v2
    (16, 1), (24, 2), (24, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1), (64, 1),
    (96, 1), (96, 1), (96, 1), (160, 2), (160, 1), (160, 1), (320, 1),
)  # fmt: skip
EPSILON = 1e-3
FEATURES = 1280


def round_channels(value: float, *, divisor: int = 8) -> int:
    """Round a channel count the way MobileNetV2 does.

    Example:
        >>> round_channels(0.35 * 96)
        32
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


class Pointwise(nn.Module):
    """A 1x1 convolution whose kernel is a matrix, so that matrix optimisers can see it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * inputs**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h, w)."""
        return functional.conv2d(x, self.weight[:, :, None, None])


class Spatial(nn.Module):
    """A 3x3 convolution (full or depthwise) with Keras's padding."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, depthwise: bool) -> None:
        super().__init__()
        self.stride = stride
        self.groups = inputs if depthwise else 1
        fan_in = 9 * inputs // self.groups
        self.weight = nn.Parameter(torch.randn(outputs, inputs // self.groups, 3, 3) * (2.0 / fan_in) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h / stride, w / stride), rounded up."""
        if self.stride == 1:
            return functional.conv2d(x, self.weight, padding=1, groups=self.groups)
        rows, columns = x.shape[2] % 2, x.shape[3] % 2
        x = functional.pad(x, (columns, 1, rows, 1))
        return functional.conv2d(x, self.weight, stride=2, groups=self.groups)


class Block(nn.Module):
    """An inverted residual block; the children carry the suffixes of Keras's layer names."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        if expansion > 1:
            self.expand = Pointwise(inputs, hidden)
            self.expand_BN = nn.BatchNorm2d(hidden, eps=EPSILON, momentum=0.02)
        self.depthwise = Spatial(hidden, hidden, stride=stride, depthwise=True)
        self.depthwise_BN = nn.BatchNorm2d(hidden, eps=EPSILON, momentum=0.02)
        self.project = Pointwise(hidden, outputs)
        self.project_BN = nn.BatchNorm2d(outputs, eps=EPSILON, momentum=0.02)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the block's output and its expanded input (the richest map before its stride)."""
        wide = functional.relu6(self.expand_BN(self.expand(x))) if hasattr(self, "expand") else x
        y = functional.relu6(self.depthwise_BN(self.depthwise(wide)))
        y = self.project_BN(self.project(y))
        return (x + y if self.residual else y), wide


class MobileNetV2(nn.Module):
    """MobileNetV2 without top.

    Args:
        alpha: width multiplier.
    """

    def __init__(self, *, alpha: float = 0.35) -> None:
        super().__init__()
        channels = round_channels(32 * alpha)
        self.Conv1 = Spatial(3, channels, stride=2, depthwise=False)
        self.bn_Conv1 = nn.BatchNorm2d(channels, eps=EPSILON, momentum=0.02)
        for number, (filters, stride) in enumerate(BLOCKS):
            outputs = round_channels(int(filters * alpha))
            block = Block(channels, outputs, stride=stride, expansion=6 if number else 1)
            self.add_module(f"block_{number}" if number else "expanded_conv", block)
            channels = outputs
        last = round_channels(FEATURES * alpha) if alpha > 1 else FEATURES
        self.Conv_1 = Pointwise(channels, last)
        self.Conv_1_bn = nn.BatchNorm2d(last, eps=EPSILON, momentum=0.02)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map images in [-1, 1], (n, 3, h, w), to maps at stride 8, 16 and 32.

        The first two are block_6_expand_relu and block_13_expand_relu, the last is out_relu.
        """
        x = functional.relu6(self.bn_Conv1(self.Conv1(x)))
        wide = {}
        for number in range(len(BLOCKS)):
            block = self.get_submodule(f"block_{number}" if number else "expanded_conv")
            x, wide[number] = block(x)
        return wide[6], wide[13], functional.relu6(self.Conv_1_bn(self.Conv_1(x)))


def keras_layers(network: MobileNetV2) -> list[tuple[str, list[tuple[str, Tensor]]]]:
    """List (layer name, [(weight name, array in Keras's axis order)]) in Keras's order."""
    layers = []
    for path, module in network.named_modules():
        name = path.replace(".", "_")
        if isinstance(module, Pointwise):
            layers.append((name, [("kernel:0", module.weight.T[None, None])]))
        elif isinstance(module, Spatial) and module.groups == 1:
            layers.append((name, [("kernel:0", module.weight.permute(2, 3, 1, 0))]))
        elif isinstance(module, Spatial):
            layers.append((name, [("depthwise_kernel:0", module.weight.permute(2, 3, 0, 1))]))
        elif isinstance(module, nn.BatchNorm2d):
            values = (module.weight, module.bias, module.running_mean, module.running_var)
            names = ("gamma:0", "beta:0", "moving_mean:0", "moving_variance:0")
            layers.append((name, list(zip(names, values, strict=True))))
    return layers


def export_h5(network: MobileNetV2, path: Path) -> None:
    """Write the weights as a Keras h5 file, renamed into place.

    Kernels are stored as float16, BatchNorm's small vectors as float32.
    """
    import h5py
    import numpy as np

    temporary = path.with_name(path.name + ".part")
    with h5py.File(temporary, "w") as file:
        layers = keras_layers(network)
        file.attrs["layer_names"] = np.array([name.encode() for name, _ in layers])
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.1.6"
        for name, weights in layers:
            group = file.create_group(name)
            group.attrs["weight_names"] = np.array([f"{name}/{weight}".encode() for weight, _ in weights])
            for weight, value in weights:
                array = value.detach().float().contiguous().cpu().numpy()
                dtype = np.float16 if "kernel" in weight else np.float32
                group.create_dataset(f"{name}/{weight}", data=array.astype(dtype))
    temporary.replace(path)


def import_h5(network: MobileNetV2, path: Path) -> None:
    """Read weights written by export_h5 (or by Keras in the same layout) into the network."""
    import h5py

    with h5py.File(path, "r") as file, torch.no_grad():
        for name, weights in keras_layers(network):
            for weight, value in weights:
                value.copy_(torch.from_numpy(file[name][f"{name}/{weight}"][()]).float())
