"""The run's model -> the same model for another runtime, and what opens it once, to be compared."""

import contextlib
import dataclasses
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pronk.config import Settings
from pronk.errors import COPY_AGAIN, ModelError, need_extra
from pronk.model.bundle import HEAD_FILE, Bundle, open_runtime
from pronk.model.formats.runtimes import OUTPUTS, Outputs, Runtime, load_onnxruntime
from pronk.model.formats.table import FORMATS
from pronk.model.head_weights import load_head, write_head

# The head keeps its float32 weights, which are few and read by heat maps, and probabilities finer steps than 1 / 256.
HEAD_NODES = ["logits", "logits_tempered", "probabilities"]
Contents = Mapping[str, bytes]


def convert(bundle: Bundle, to: str, samples: np.ndarray) -> dict[str, bytes]:
    """Convert a run's model.

    Args:
        bundle: a run's model, with model.onnx and model.keras.
        to: a key of CONVERSIONS.
        samples: uint8 [n, size, size, 3], of training photos; the formats with eight bits take the range of every
            activation from them.

    Returns:
        Bytes by path in the folder of the export.

    Raises:
        ModelError: if the model cannot be converted.
    """
    contents = dict(CONVERSIONS[to].write(bundle, samples))
    if not to.startswith("onnx"):
        contents[HEAD_FILE] = write_head(load_head(bundle))
    return contents


def quantize_onnx(bundle: Bundle, samples: np.ndarray) -> Contents:
    """Write weights and activations as 8-bit integers (QDQ), each output channel with a scale of its own.

    Both are unsigned: with signed weights the AVX2 instructions of older processors run over, and one photo in 25
    of the alpaca photos changes its class.
    """
    load_onnxruntime()
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / FORMATS["onnx-int8"].path
        quantize_static(
            bundle.model_path,
            path,
            _Samples(samples),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QUInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=HEAD_NODES,
        )
        return {path.name: path.read_bytes()}


def convert_litert(bundle: Bundle, samples: np.ndarray) -> Contents:
    """Write a .tflite file of float32 numbers, for phones and small computers."""
    return _write_litert(bundle)


def quantize_litert(bundle: Bundle, samples: np.ndarray) -> Contents:
    """Write a .tflite file of 8-bit integers."""
    import tensorflow as tf  # LiteRT's converter is TensorFlow's; no other backend has one for eight bits

    def representative() -> Iterator[list[np.ndarray]]:
        for sample in samples:
            yield [sample[None]]

    return _write_litert(bundle, optimizations=[tf.lite.Optimize.DEFAULT], representative_dataset=representative)


def save_savedmodel(bundle: Bundle, samples: np.ndarray) -> Contents:
    """Write a SavedModel folder, for TensorFlow and TensorFlow Serving."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / FORMATS["savedmodel"].path
        _export(bundle, folder, format="tf_saved_model")
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return {path.relative_to(temporary).as_posix(): path.read_bytes() for path in files}


def copy_keras(bundle: Bundle, samples: np.ndarray) -> Contents:
    """Take the Keras file that training wrote."""
    return {FORMATS["keras"].path: _keras_file(bundle).read_bytes()}


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


@dataclasses.dataclass(frozen=True)
class Conversion:
    """How an export is made, and opened once to be compared while the framework is there anyway.

    Attributes:
        write: makes bytes by path of the run's model and photos, uint8 [n, size, size, 3].
        open: makes of the export what runs it.
    """

    write: Callable[[Bundle, np.ndarray], Contents]
    open: Callable[[Bundle], Runtime] = open_runtime


CONVERSIONS: Mapping[str, Conversion] = {
    "onnx-int8": Conversion(quantize_onnx),
    "litert": Conversion(convert_litert),
    "litert-int8": Conversion(quantize_litert),
    "savedmodel": Conversion(save_savedmodel, SavedModelRuntime),
    "keras": Conversion(copy_keras, KerasRuntime),
}


class _Samples:
    """Photos in the form that ONNX Runtime's calibration asks for."""

    def __init__(self, samples: np.ndarray) -> None:
        self._rest = iter(samples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        sample = next(self._rest, None)
        return None if sample is None else {"image": sample[None]}


def _write_litert(bundle: Bundle, **options: Any) -> Contents:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FORMATS["litert"].path
        _export(bundle, path, format="litert", **options)
        return {path.name: path.read_bytes()}


def _export(bundle: Bundle, path: Path, **options: Any) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from pronk.backbone.keras_network import load_network, with_features

    network = with_features(load_network(_keras_file(bundle), settings=Settings(image_size=bundle.size)))
    try:
        with _quiet():
            network.export(path, verbose=False, **options)
    except (ImportError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"Keras cannot write {options['format']} here: {error}",
            hint="export with the TensorFlow backend: KERAS_BACKEND=tensorflow",
        ) from error


def _keras_file(bundle: Bundle) -> Path:
    if FORMATS["keras"].path not in bundle.files:
        raise ModelError(f"{bundle.folder} has no model.keras to convert", hint="name the run that pronk train made")
    return bundle.folder / FORMATS["keras"].path


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # The converters report on both streams, also past Python; stdout is for data, and what matters is an exception.
    logging.disable(logging.WARNING)
    with Path(os.devnull).open("w") as nowhere, contextlib.ExitStack() as at_end:
        at_end.callback(logging.disable, logging.NOTSET)
        for number in (1, 2):
            kept = os.dup(number)
            at_end.callback(os.close, kept)
            at_end.callback(os.dup2, kept, number)
            os.dup2(nowhere.fileno(), number)
        yield
