"""Backbone weights -> one ordinary Keras functional model, whole or cut in two at a block."""

import contextlib
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pronk.analysis.head import Head
from pronk.backbone.architecture import HEAD_BLOCKS, LAYERS, TOP, Backbone, blocks_of_head, check_weights, split_blocks
from pronk.backbone.h5 import DAMAGE, open_h5, read_weights
from pronk.config import Settings
from pronk.model.guards.files import read_limited, refusal


def build_body(backbone: Backbone, *, size: int) -> Any:
    """Build all but the head: uint8 photo -> scaling -> MobileNetV2.

    Scaling to [-1, 1] lies inside, so the model takes pixels as they are. BatchNormalization is set untrainable,
    since in Keras 3 nothing else keeps its moving statistics still during `fit`.

    Returns:
        A `keras.Model`: uint8 [N, size, size, 3] -> float32 [N, size / 32, size / 32, 1280].
    """
    image = keras.Input((size, size, 3), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(image)
    body = keras.applications.MobileNetV2(
        input_tensor=x, input_shape=(size, size, 3), alpha=backbone.alpha, include_top=False, weights=None
    )
    set_weights(body, backbone.weights)
    for layer in batch_norms(body):
        layer.trainable = False
    return body


def add_head(body: Any, blocks: Sequence[str], *, classes: int, settings: Settings) -> Any:
    """Put a head on a body: pooling of the blocks it reads -> dropout -> Dense with softmax.

    Returns:
        An ordinary functional `keras.Model`: uint8 [N, size, size, 3] -> float32 [N, C]. It shares the body's layers.
    """
    pooled = [
        keras.layers.GlobalAveragePooling2D(name=_pool_name(name))(body.get_layer(name).output) for name in blocks
    ]
    x = pooled[0] if len(pooled) == 1 else keras.layers.Concatenate(name="pool")(pooled)
    x = keras.layers.Dropout(settings.dropout, seed=settings.seed, name="dropout")(x)
    output = keras.layers.Dense(classes, activation="softmax", name="head")(x)
    return keras.Model(body.inputs[0], output, name="pronk")


def build_network(backbone: Backbone, blocks: Sequence[str] = TOP, *, classes: int, settings: Settings) -> Any:
    """Build the whole classifier at once: see `build_body` and `add_head`."""
    return add_head(build_body(backbone, size=settings.image_size), blocks, classes=classes, settings=settings)


def build_suffix(network: Any, cut: str) -> Any:
    """Return the part that is fine-tuned, from activations at the cut to probabilities; it shares the network's layers.

    Where the head reads blocks before the cut, their pooled features, which never change, are a second input.
    """
    fixed, changed = split_blocks(_blocks_of(network), cut)
    inputs = [network.get_layer(cut).output]
    if not fixed:
        return keras.Model(inputs, network.output)
    size = sum(network.get_layer(_pool_name(name)).output.shape[-1] for name in fixed)
    inputs.append(keras.Input((size,), name="fixed"))
    x = keras.layers.Concatenate(name="pool")(
        [inputs[1], *(network.get_layer(_pool_name(name)).output for name in changed)]
    )
    return keras.Model(inputs, network.get_layer("head")(network.get_layer("dropout")(x)))


def with_features(network: Any, *, temperature: float = 1.0) -> Any:
    """Return a model with the outputs of model.onnx: {probabilities, features, heat}. It shares the layers.

    The head was divided by the temperature; heat is that of the logits before.
    """
    blocks, kernel = _blocks_of(network), get_head(network).weights * temperature
    maps = [network.get_layer(name).output for name in blocks]
    parts = np.split(kernel, np.cumsum([x.shape[-1] for x in maps])[:-1])
    heat = None
    for name, x, part in zip(reversed(blocks), reversed(maps), reversed(parts), strict=True):
        shown = keras.layers.Conv2D(kernel.shape[1], 1, use_bias=False, name=f"{name}_heat")
        told = shown(x)
        shown.set_weights([part[None, None]])
        if heat is not None and heat.shape[1] < told.shape[1]:
            heat = keras.layers.UpSampling2D(interpolation="bilinear", name=f"{name}_spread")(heat)
        heat = told if heat is None else keras.layers.Add(name=f"{name}_sum")([heat, told])
    outputs = {"probabilities": network.output, "features": network.get_layer("dropout").input, "heat": heat}
    return keras.Model(network.input, outputs, name="pronk")


def split_head(network: Any) -> Any:
    """Return what follows the scaling of pixels, with a Dense layer for each block that the head reads.

    In whole numbers each of them so has a range of its own. The network may be that of `with_features`.

    Returns:
        A `keras.Model`: float32 [N, size, size, 3] in [-1, 1] -> probabilities float32 [N, C].
    """
    head, pools = get_head(network), [network.get_layer(_pool_name(name)).output for name in _blocks_of(network)]
    parts = np.split(head.weights, np.cumsum([pool.shape[-1] for pool in pools])[:-1])
    told = []
    for number, (pool, part) in enumerate(zip(pools, parts, strict=True)):
        layer = keras.layers.Dense(part.shape[1], use_bias=not number, name=f"head_{number}")
        told.append(layer(pool))
        layer.set_weights([part] if number else [part, head.bias])
    logits = told[0] if len(told) == 1 else keras.layers.Add(name="logits")(told)
    return keras.Model(network.get_layer("scale").output, keras.layers.Softmax(name="probabilities")(logits))


class LastAnswers(keras.metrics.Metric):  # type: ignore[misc]
    """What the network said of each photo of the last batch: float32 [photos, 2].

    The probability of its class, and 1 where that is the most likely one.
    """

    def __init__(self, photos: int) -> None:
        super().__init__(name="answers")
        self.answers = self.add_variable((photos, 2), initializer="zeros", name="answers")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take a batch: class indices [photos], probabilities [photos, C]."""
        targets = keras.ops.cast(keras.ops.reshape(y_true, (-1, 1)), "int32")
        chance = keras.ops.take_along_axis(y_pred, targets, axis=1)
        is_right = chance >= keras.ops.max(y_pred, axis=1, keepdims=True)
        self.answers.assign(keras.ops.concatenate([chance, keras.ops.cast(is_right, chance.dtype)], axis=1))

    def result(self) -> Any:
        """Return the last batch's."""
        return self.answers


def batch_norms(model: Any) -> Iterator[Any]:
    """Yield the BatchNormalization layers."""
    return (layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))


def set_head(network: Any, head: Head) -> None:
    """Put a solved head into the Dense layer."""
    network.get_layer("head").set_weights([head.weights, head.bias])


def get_head(network: Any) -> Head:
    """Read the Dense layer."""
    kernel, bias = network.get_layer("head").get_weights()
    return Head(kernel, bias)


def get_weights(network: Any) -> dict[str, list[np.ndarray]]:
    """Read the arrays of every layer of the MobileNetV2, by layer name."""
    return {name: network.get_layer(name).get_weights() for name in LAYERS}


def set_weights(network: Any, weights: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Put arrays by layer name into the MobileNetV2."""
    for name in LAYERS:
        network.get_layer(name).set_weights(list(weights[name]))


def save_network(network: Any) -> bytes:
    """Return the bytes of the network as a .keras file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        network.save(path)
        return path.read_bytes()


def load_network(path: Path, *, settings: Settings) -> Any:
    """Build the network again from the weights of a .keras file; nothing else in the file is read.

    Returns:
        The network, as `build_network` made it, with its weights; it is not compiled.

    Raises:
        ModelError: if pronk would not have saved such weights.
    """
    with open_h5(read_weights(read_limited(path))) as file:
        try:
            backbone, head = _read_layers(file["layers"], path.name)
        except DAMAGE as error:
            raise refusal(f"{path.name} does not hold the layers of a MobileNetV2 with a head: {error!r}") from error
    blocks = blocks_of_head(backbone.weights, len(head.weights))
    network = build_network(backbone, blocks, classes=len(head.bias), settings=settings)
    set_head(network, head)
    return network


def _read_layers(layers: Any, name: str) -> tuple[Backbone, Head]:
    """Read a network's layers: Keras numbers those of a kind in the network's order, from 0, which it leaves out."""
    counts = Counter[str]()

    def read(kind: str) -> list[np.ndarray]:
        number, counts[kind] = counts[kind], counts[kind] + 1
        arrays = layers[f"{kind}_{number}" if number else kind]["vars"]
        return [np.asarray(arrays[key][()], np.float32) for key in sorted(arrays, key=int)]

    weights = {layer: read(_kind(layer)) for layer in LAYERS}
    check_weights(weights, name)
    kernel, bias = read("dense")
    if kernel.ndim != 2 or kernel.shape[1:] != bias.shape or not blocks_of_head(weights, len(kernel)):
        raise ValueError(f"a head of shape {kernel.shape} and {bias.shape}")
    return Backbone(name, "", weights), Head(kernel, bias)


def _blocks_of(network: Any) -> tuple[str, ...]:
    layers = {layer.name for layer in network.layers}
    return tuple(name for name in HEAD_BLOCKS if _pool_name(name) in layers)


def _pool_name(block: str) -> str:
    return f"{block}_pool"


def _kind(layer: str) -> str:
    if layer.endswith(("_BN", "_bn")) or layer.startswith("bn_"):
        return "batch_normalization"
    return "depthwise_conv2d" if layer.endswith("_depthwise") else "conv2d"


def download_imagenet(alpha: float) -> None:
    """Let Keras fetch its file of ImageNet weights: it knows where that is, and under which name it belongs."""
    with contextlib.redirect_stdout(sys.stderr):  # it tells of the download on stdout
        keras.applications.MobileNetV2((224, 224, 3), alpha=float(alpha), include_top=False, weights="imagenet")


def predict_eagerly(network: Any, pixels: np.ndarray) -> np.ndarray:
    """Return probabilities [n, C] without tracing the network first, which pays for a few photos.

    Run like this, a functional model holds on to the outputs of all its layers: 50 MB for a photo of 224 pixels.
    """
    return np.asarray(keras.ops.convert_to_numpy(network(pixels, training=False)))
