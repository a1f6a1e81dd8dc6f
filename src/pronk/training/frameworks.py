"""Exports that need the training framework -> the same function from pixels to probabilities as any other model."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pronk.backbone.h5 import read_network
from pronk.errors import COPY_AGAIN, MissingExtra, ModelError
from pronk.model.bundle import Bundle
from pronk.model.formats.seam import OUTPUTS, Outputs, Runtime
from pronk.model.guards.savedmodel import check_saved_model


def open_with_framework(bundle: Bundle) -> Runtime:
    """Open a keras or savedmodel export.

    Raises:
        ModelError: if it cannot be opened.
        MissingExtra: if the Keras backend in use cannot open a SavedModel.
    """
    if bundle.runtime == "savedmodel":
        check_saved_model(bundle.model_path)
        return SavedModelRuntime(bundle)
    read_network(bundle.model_path)  # refuses a hostile file before the seconds that importing Keras takes
    from pronk.backbone.keras_network import load_network

    return KerasRuntime(load_network(bundle.model_path))


class KerasRuntime:
    """A Keras model of ours, run by whatever backend Keras has."""

    def __init__(self, network: Any) -> None:
        from pronk.backbone.keras_network import with_features

        whole = with_features(network)
        self._predict = whole
        self.shapes: Mapping[str, list[Any]] = {"image": list(network.input.shape[1:])} | {
            name: list(whole.output[name].shape[1:]) for name in OUTPUTS
        }

    def run(self, pixels: np.ndarray) -> Outputs:
        """Run uint8 pixels [n, size, size, 3]."""
        given = self._predict.predict_on_batch(pixels)
        return Outputs(*(np.asarray(given[name], np.float32) for name in OUTPUTS))


class SavedModelRuntime:
    """A TensorFlow SavedModel, opened by TensorFlow alone."""

    def __init__(self, bundle: Bundle) -> None:
        try:
            import tensorflow as tf
        except ImportError as error:
            raise MissingExtra("train", "opening a SavedModel") from error
        try:
            self._model = tf.saved_model.load(str(bundle.model_path))
            self._run = self._model.signatures["serving_default"]
            _, inputs = self._run.structured_input_signature
            self.shapes: Mapping[str, list[Any]] = {
                name: list(spec.shape[1:]) for name, spec in (*inputs.items(), *self._run.structured_outputs.items())
            }
        except (OSError, ValueError, KeyError, AttributeError, tf.errors.OpError) as error:
            raise ModelError(f"TensorFlow cannot open {bundle.model_path}: {error}", hint=COPY_AGAIN) from error
        self._constant = tf.constant

    def run(self, pixels: np.ndarray) -> Outputs:
        """Run uint8 pixels [n, size, size, 3]."""
        given = self._run(image=self._constant(pixels))
        return Outputs(*(np.asarray(given[name]) for name in OUTPUTS))
