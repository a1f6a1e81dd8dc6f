"""Backbone weights -> one ordinary Keras functional model, whole or cut in two at a block."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pronk.analysis.head import Head
from pronk.backbone.h5 import read_network
from pronk.backbone.weights import Backbone, layer_names
from pronk.config import Settings
from pronk.errors import ModelError
from pronk.model.guards.schema import NOT_OURS


def build_network(backbone: Backbone, *, classes: int, settings: Settings) -> Any:
    """Build the classifier: uint8 photo -> scaling -> MobileNetV2 -> pooling -> dropout -> Dense with softmax.

    Scaling to [-1, 1] lies inside, so the model takes pixels as they are. BatchNormalization is set untrainable,
    since in Keras 3 nothing else keeps its moving statistics still during `fit`.

    Args:
        backbone: pre-trained weights.
        classes: number of classes C.
        settings: image size and dropout.

    Returns:
        A `keras.Model`: uint8 [N, size, size, 3] -> float32 [N, C].
    """
    size = settings.image_size
    image = keras.Input((size, size, 3), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(image)
    base = keras.applications.MobileNetV2(
        input_tensor=x, input_shape=(size, size, 3), alpha=backbone.alpha, include_top=False, weights=None
    )
    x = keras.layers.GlobalAveragePooling2D(name="pool")(base.output)
    x = keras.layers.Dropout(settings.dropout, seed=settings.seed, name="dropout")(x)
    output = keras.layers.Dense(classes, activation="softmax", name="head")(x)
    network = keras.Model(image, output, name="pronk")
    set_weights(network, backbone.weights)
    for layer in batch_norms(network):
        layer.trainable = False
    return network


def build_prefix(network: Any, cut: str) -> Any:
    """Return the frozen part: image -> [activations at the cut, pooled features]."""
    return keras.Model(network.input, [network.get_layer(cut).output, network.get_layer("pool").output])


def build_suffix(network: Any, cut: str) -> Any:
    """Return the part that is fine-tuned: activations at the cut -> probabilities. It shares the network's layers."""
    return keras.Model(network.get_layer(cut).output, network.output)


def with_features(network: Any) -> Any:
    """Return a model with the outputs of model.onnx: {probabilities, features, feature_map}. It shares the layers."""
    last_map, pooled = network.get_layer("out_relu").output, network.get_layer("pool").output
    return keras.Model(
        network.input, {"probabilities": network.output, "features": pooled, "feature_map": last_map}, name="pronk"
    )


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
    return {name: network.get_layer(name).get_weights() for name in layer_names()}


def set_weights(network: Any, weights: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Put arrays by layer name into the MobileNetV2."""
    for name in layer_names():
        network.get_layer(name).set_weights(list(weights[name]))


def save_network(network: Any) -> bytes:
    """Return the bytes of the network as a .keras file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        network.save(path)
        return path.read_bytes()


def load_network(path: Path) -> Any:
    """Open a .keras file after everything in it has been checked.

    Keras gets a copy of what was checked, so nobody can change the file in between.

    Args:
        path: of a file that pronk may have saved.

    Returns:
        The network, as `build_network` made it, with its weights; it is not compiled.

    Raises:
        ModelError: if pronk would not have saved such a file, or Keras cannot read it.

    Example:
        >>> load_network(Path("no such file"))
        Traceback (most recent call last):
        pronk.errors.ModelError: the model file is refused: no such file is no ordinary file
    """
    data = read_network(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.keras"
        copy.write_bytes(data)
        try:
            return keras.saving.load_model(copy, safe_mode=True, compile=False)
        except Exception as error:  # Keras and its backends raise what they like
            raise ModelError(f"Keras cannot open {path}: {error}", hint=NOT_OURS) from error


def predict_eagerly(network: Any, pixels: np.ndarray) -> np.ndarray:
    """Return probabilities [n, C] without tracing the network first, which pays for a few photos.

    Run like this, a functional model holds on to the outputs of all its layers: 50 MB for a photo of 224 pixels.
    """
    return np.asarray(keras.ops.convert_to_numpy(network(pixels, training=False)))
