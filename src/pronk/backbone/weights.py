"""`imagenet`, `offline` or a file -> the weights of a MobileNetV2 without top, as NumPy arrays.

Read with h5py alone, so that features can be extracted while Keras is still being imported.
"""

import dataclasses
import functools
import hashlib
import importlib.resources
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from pronk.backbone.h5 import DAMAGE, open_h5
from pronk.backbone.onnx_graphs import LAST_BLOCK
from pronk.config import SETTINGS
from pronk.errors import ModelError

OFFLINE_FILE = "offline_mobilenet_v2_0.35.h5"
MAX_BYTES = 100 * 2**20
# (channels at alpha 1, number of blocks) of the seven stages in table 2 of Sandler et al. 2018.
STAGES = ((16, 1), (24, 2), (32, 3), (64, 4), (96, 3), (160, 3), (320, 1))


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
        """The width, told from the number of channels."""
        channels = [_last_side(self.weights[f"block_{number}_project"]) for number in range(1, LAST_BLOCK + 1)]
        for alpha in SETTINGS["alpha"].choices:
            if [c for _, c in _block_channels(alpha)][1:] == channels:
                return float(alpha)
        raise ModelError(
            f"{self.name}: no MobileNetV2 has blocks of {channels} channels", hint="name another file with --weights"
        )


def load_backbone(weights: str, *, alpha: float = 1.0) -> Backbone:
    """Load the weights that `--weights` names.

    Args:
        weights: `imagenet` (Keras's own file, downloaded once), `offline` (shipped with pronk, alpha 0.35), or the
            path of an h5 file in the layout of `keras.applications`.
        alpha: width, for `imagenet` only.

    Raises:
        ModelError: if the file cannot be had or is no MobileNetV2 without top; the hint names the other ways.

    Example:
        >>> load_backbone("offline").alpha
        0.35
    """
    if weights == "imagenet":
        path = _imagenet_file(alpha)
        backbone = _read(path, "imagenet")
        if backbone.alpha != alpha:
            raise ModelError(
                f"{path} has alpha {backbone.alpha}, not {alpha}", hint="remove it, so that it is replaced"
            )
        return backbone
    if weights == "offline":
        with importlib.resources.as_file(
            importlib.resources.files("pronk.backbone") / "offline_weights" / OFFLINE_FILE
        ) as path:
            return _read(path, "offline")
    path = Path(weights)
    if not path.is_file():
        raise ModelError(
            f"no weights at {weights!r}", hint="name an h5 file, or use --weights imagenet or --weights offline"
        )
    return _read(path, path.name)


def random_backbone(*, alpha: float, seed: int = 0) -> Backbone:
    """Make an untrained network, for tests and comparisons.

    Kernels are drawn as by Glorot and Bengio 2010, and BatchNormalization starts as identity.

    Example:
        >>> random_backbone(alpha=0.35).alpha
        0.35
    """
    rng = np.random.default_rng(seed)
    weights: dict[str, list[np.ndarray]] = {}

    def add(name: str, batch_norm: str, shape: tuple[int, int, int, int]) -> None:
        channels = shape[2] if shape[3] == 1 else shape[3]
        fan = shape[0] * shape[1] * (shape[2] + shape[3])
        weights[name] = [rng.normal(0, np.sqrt(4 / fan), shape).astype(np.float32)]
        weights[batch_norm] = [np.full(channels, value, np.float32) for value in (1, 0, 0, 1)]

    first = _round_channels(32 * alpha)
    add("Conv1", "bn_Conv1", (3, 3, 3, first))
    for number, (inputs, outputs) in enumerate([(first, first), *_block_channels(alpha)][1:]):
        name = f"block_{number}" if number else "expanded_conv"
        inner = inputs
        if number:
            inner = 6 * inputs
            add(f"{name}_expand", f"{name}_expand_BN", (1, 1, inputs, inner))
        add(f"{name}_depthwise", f"{name}_depthwise_BN", (3, 3, inner, 1))
        add(f"{name}_project", f"{name}_project_BN", (1, 1, inner, outputs))
    add("Conv_1", "Conv_1_bn", (1, 1, outputs, _round_channels(1280 * alpha) if alpha > 1 else 1280))
    digest = hashlib.sha256(f"random:{alpha}:{seed}".encode()).hexdigest()
    return Backbone("random", digest, weights)


@functools.cache
def _block_channels(alpha: float) -> tuple[tuple[int, int], ...]:
    outputs = [_round_channels(channels * alpha) for channels, count in STAGES for _ in range(count)]
    return tuple(zip([_round_channels(32 * alpha), *outputs], outputs, strict=False))


def _round_channels(value: float) -> int:
    # Keras's rule: a multiple of 8, and never more than 10 % below.
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


def _last_side(arrays: Sequence[np.ndarray]) -> int:
    return arrays[0].shape[-1] if arrays and arrays[0].ndim else 0


def layer_names() -> list[str]:
    """Name the layers with weights, in the network's order.

    Example:
        >>> layer_names()[:2]
        ['Conv1', 'bn_Conv1']
    """
    names = ["Conv1", "bn_Conv1"]
    for number in range(LAST_BLOCK + 1):
        block = f"block_{number}" if number else "expanded_conv"
        for step in ("expand", "depthwise", "project") if number else ("depthwise", "project"):
            names += [f"{block}_{step}", f"{block}_{step}_BN"]
    return [*names, "Conv_1", "Conv_1_bn"]


def imagenet_path(alpha: float) -> Path:
    """Return where Keras keeps the ImageNet weights of a width.

    Example:
        >>> imagenet_path(1.0).name
        'mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5'
    """
    home = os.environ.get("KERAS_HOME")
    folder = Path(home) if home else Path.home() / ".keras"
    return folder / "models" / f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{float(alpha)}_224_no_top.h5"


def _imagenet_file(alpha: float) -> Path:
    path = imagenet_path(alpha)
    if path.is_file():
        return path
    try:
        from pronk.backbone.keras_network import download_imagenet

        download_imagenet(alpha)
    except Exception as error:  # whatever the network does; Keras raises a bare Exception
        path.unlink(missing_ok=True)
        raise ModelError(
            f"the ImageNet weights {path.name} are not on this machine and cannot be downloaded: {error}",
            hint=f"put the file into {path.parent}, or name it with --weights FILE.h5, or use the small network "
            "that comes with pronk: --weights offline",
        ) from error
    return path


def _read(path: Path, name: str) -> Backbone:
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_BYTES else b""
        with open_h5(data) as file:
            _refuse_code(file)
            prefix = "model_weights/" if "model_weights" in file else ""
            weights = {layer: _read_layer(file, prefix + layer) for layer in layer_names()}
    except (ModelError, *DAMAGE) as error:
        raise ModelError(
            f"{path} holds no MobileNetV2 without top: {error}",
            hint="name an h5 file in the layout of keras.applications, or use --weights offline",
        ) from error
    check_weights(weights, path)
    return Backbone(name, hashlib.sha256(data).hexdigest(), weights)


def _read_layer(file: h5py.File, layer: str) -> list[np.ndarray]:
    arrays = []
    for name in file[layer].attrs["weight_names"]:
        text = name.decode() if isinstance(name, bytes) else name
        arrays.append(np.asarray(file[f"{layer}/{text}"][()], np.float32))
    return arrays


def _refuse_code(file: h5py.File) -> None:
    # Nothing here would run it; but what else is in a file that carries code is not to be trusted either.
    config = file.attrs.get("model_config", "")
    if '"Lambda"' in (config.decode("utf-8", "replace") if isinstance(config, bytes) else str(config)):
        raise ValueError("it carries code, a Lambda layer")


def check_weights(weights: Mapping[str, Sequence[np.ndarray]], path: Path | str) -> None:
    """Refuse arrays by layer name that are not those of a MobileNetV2.

    Raises:
        ModelError: naming the file they come from.
    """
    expected = random_backbone(alpha=Backbone(str(path), "", weights).alpha).weights
    for layer, arrays in weights.items():
        if [array.shape for array in arrays] != [array.shape for array in expected[layer]]:
            raise ModelError(f"{path}: layer {layer} has the shapes {[array.shape for array in arrays]}")
        if not all(np.isfinite(array).all() for array in arrays):
            raise ModelError(f"{path}: layer {layer} holds values that are not numbers")
