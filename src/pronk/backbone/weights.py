"""`imagenet`, `offline` or a file -> the weights of a MobileNetV2 without top, as NumPy arrays.

Read with h5py alone, so that features can be extracted while Keras is still being imported.
"""

import hashlib
import importlib.resources
import os
from pathlib import Path

import h5py
import numpy as np

from pronk.backbone.architecture import LAYERS, Backbone, check_weights, layer_shapes
from pronk.backbone.h5 import DAMAGE, open_h5
from pronk.errors import ModelError

OFFLINE_FILE = "offline_mobilenet_v2_0.35.h5"
MAX_BYTES = 100 * 2**20


def load_backbone(weights: str, *, alpha: float = 1.0) -> Backbone:
    """Load the weights that `--weights` names.

    Args:
        weights: `imagenet` (Keras's own file, downloaded once), `offline` (shipped with pronk, alpha 0.35), or the
            path of an h5 file in the layout of `keras.applications`.
        alpha: width, for `imagenet` only.

    Raises:
        ModelError: if the file cannot be had or is not a MobileNetV2 without top; the hint names the other ways.

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
        folder = importlib.resources.files("pronk.backbone") / "offline_weights"
        with importlib.resources.as_file(folder / OFFLINE_FILE) as path:
            return _read(path, "offline")
    path = Path(weights)
    if not path.is_file():
        why = ": each run starts from a network, none from another run" if path.is_dir() else ""
        raise ModelError(
            f"no weights at {weights!r}{why}", hint="name an h5 file, or use --weights imagenet or --weights offline"
        )
    return _read(path, path.name)


def random_backbone(*, alpha: float, seed: int = 0) -> Backbone:
    """Make an untrained network, for tests and comparisons.

    Kernels are drawn as by Glorot and Bengio 2010, and BatchNormalization starts as identity.
    """
    rng = np.random.default_rng(seed)
    weights: dict[str, list[np.ndarray]] = {}
    for name, shapes in layer_shapes(alpha).items():
        if len(shapes) == 1:
            (shape,) = shapes
            deviation = np.sqrt(4 / (shape[0] * shape[1] * (shape[2] + shape[3])))
            weights[name] = [rng.normal(0, deviation, shape).astype(np.float32)]
        else:
            weights[name] = [
                np.full(shape, value, np.float32) for shape, value in zip(shapes, (1, 0, 0, 1), strict=True)
            ]
    digest = hashlib.sha256(f"random:{alpha}:{seed}".encode()).hexdigest()
    return Backbone("random", digest, weights)


def imagenet_path(alpha: float) -> Path:
    """Return where Keras keeps the ImageNet weights of a width."""
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
            hint=f"save the file as {path}, or name it with --weights FILE.h5, or use the small network "
            "that comes with pronk: --weights offline",
        ) from error
    return path


def _read(path: Path, name: str) -> Backbone:
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_BYTES else b""
        with open_h5(data) as file:
            _refuse_code(file)
            prefix = "model_weights/" if "model_weights" in file else ""
            weights = {layer: _read_layer(file, prefix + layer) for layer in LAYERS}
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
