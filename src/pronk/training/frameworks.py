"""Exports that only their framework opens -> functions from pixels to probabilities, to be compared once."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pronk.config import Settings
from pronk.errors import COPY_AGAIN, ModelError, need_extra
from pronk.model.bundle import Bundle
from pronk.model.formats.runtimes import OUTPUTS, Outputs


class KerasRuntime:
    """A keras export, run by whatever backend Keras has."""

    def __init__(self, bundle: Bundle) -> None:
        from pronk.backbone.keras_network import load_network, with_features

        network = load_network(bundle.model_path, settings=Settings(image_size=bundle.size))
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
    """A savedmodel export, opened by TensorFlow alone."""

    def __init__(self, bundle: Bundle) -> None:
        with need_extra("train", "opening a SavedModel"):
            import tensorflow as tf
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
