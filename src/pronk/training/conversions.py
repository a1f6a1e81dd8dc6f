"""The run's model -> the same model for another runtime, and what opens it once, to be compared."""

import contextlib
import dataclasses
import functools
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pronk.config import Settings
from pronk.errors import ModelError
from pronk.model.agreement import run_all
from pronk.model.bundle import Bundle, open_runtime
from pronk.model.formats.runtimes import OUTPUTS, IntegerRuntime, Outputs, Runtime, load_onnxruntime
from pronk.model.formats.table import FORMATS
from pronk.training.litert import PROBABILITIES, add_metadata, correct_bias, write_integers, write_tflite
from pronk.training.micro import write_program
from pronk.training.web_export import write_web
from pronk.training.web_runtime import WebRuntime

# The head keeps its float32 weights, which are few, and probabilities and heat finer steps than 1 / 256; features of
# different blocks have ranges of their own.
HEAD_NODES = ("pooled", "logits", "probabilities", "heat")  # by the first part of a node's name
Contents = Mapping[str, bytes]


def convert(
    bundle: Bundle, to: str, samples: np.ndarray, *, runtime: Mapping[str, bytes] | None = None
) -> dict[str, bytes]:
    """Convert a run's model.

    Args:
        bundle: a run's model, with model.onnx and model.keras.
        to: a key of CONVERSIONS.
        samples: uint8 [n, size, size, 3], of training photos; the formats with eight bits take the range of every
            activation from them.
        runtime: files of `load_runtime`, for a page.

    Returns:
        Bytes by path in the folder of the export.

    Raises:
        ModelError: if the model cannot be converted.
    """
    contents = CONVERSIONS[to].write(bundle, samples)
    return dict(contents) if runtime is None else write_web(bundle, contents[FORMATS[to].path], runtime)


def copy_onnx(bundle: Bundle, samples: np.ndarray) -> Contents:
    """Take the ONNX file that training wrote."""
    return {FORMATS["web"].path: bundle.model_path.read_bytes()}


def quantize_onnx(bundle: Bundle, samples: np.ndarray) -> Contents:
    """Write weights and activations as 8-bit integers (QDQ), each output channel with a scale of its own.

    Both are unsigned: with signed weights the AVX2 instructions of older processors run over, and one photo in 25
    of the alpaca photos changes its class.
    """
    load_onnxruntime()
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    nodes = [node.name for node in onnx.load(bundle.model_path).graph.node]
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
            nodes_to_exclude=[name for name in nodes if name.split("/")[0] in HEAD_NODES],
        )
        return {path.name: path.read_bytes()}


def convert_litert(bundle: Bundle, samples: np.ndarray) -> Contents:
    """Write a .tflite file of float32 numbers for phones and small computers."""
    return _write_tflite(bundle)


def quantize_litert(bundle: Bundle, samples: np.ndarray) -> Contents:
    """Write a .tflite file of 8-bit integers."""
    return _write_tflite(bundle, samples)


def _write_tflite(bundle: Bundle, samples: np.ndarray | None = None) -> Contents:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    network, form = _load_network(_keras_file(bundle), bundle), FORMATS["litert"]
    write = functools.partial(write_tflite, network, size=bundle.size, samples=samples)
    with _quiet():
        phone = add_metadata(write(outputs=PROBABILITIES), bundle.classes)
        return {form.path: phone, str(form.opened): write()}


def write_micro(bundle: Bundle, samples: np.ndarray) -> Contents:
    """Write a .tflite file of integers alone, and what a microcontroller's program needs beside it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    network, wanted = _load_network(_keras_file(bundle), bundle), run_all(open_runtime(bundle), list(samples))[0]
    with _quiet():
        model = write_integers(network, size=bundle.size, samples=samples)
        correct_bias(network, run_all(IntegerRuntime(model), list(samples))[0], wanted)
        model = write_integers(network, size=bundle.size, samples=samples)
    return {FORMATS["micro"].path: model} | write_program(model, bundle.classes, size=bundle.size)


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


class FrameworkRuntime:
    """An export that its training framework runs, right after it was made; nobody asks for its shapes.

    Args:
        predict: makes outputs by name of uint8 pixels [n, size, size, 3].
    """

    def __init__(self, predict: Callable[[np.ndarray], Mapping[str, Any]]) -> None:
        self.shapes: Mapping[str, list[Any]] = {}
        self._predict = predict

    def run(self, pixels: np.ndarray, *, heat: bool = False) -> Outputs:
        """Run uint8 pixels [n, size, size, 3]."""
        given = self._predict(pixels)
        return Outputs(*(np.asarray(given[name], np.float32) for name in OUTPUTS[: 2 + heat]))


def open_keras(bundle: Bundle) -> Runtime:
    """Open a keras export with whatever backend Keras has."""
    return FrameworkRuntime(_load_network(bundle.model_path, bundle).predict_on_batch)


def open_savedmodel(bundle: Bundle) -> Runtime:
    """Open a savedmodel export with TensorFlow alone."""
    import tensorflow as tf

    model = tf.saved_model.load(str(bundle.model_path))
    return FrameworkRuntime(lambda pixels: model.signatures["serving_default"](image=tf.constant(pixels)))


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
    "web": Conversion(copy_onnx, WebRuntime),
    "web-int8": Conversion(quantize_onnx, WebRuntime),
    "litert": Conversion(convert_litert),
    "litert-int8": Conversion(quantize_litert),
    "micro": Conversion(write_micro),
    "savedmodel": Conversion(save_savedmodel, open_savedmodel),
    "keras": Conversion(copy_keras, open_keras),
}


class _Samples:
    """Photos in the form that ONNX Runtime's calibration asks for."""

    def __init__(self, samples: np.ndarray) -> None:
        self._rest = iter(samples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        sample = next(self._rest, None)
        return None if sample is None else {"image": sample[None]}


def _export(bundle: Bundle, path: Path, **options: Any) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    network = _load_network(_keras_file(bundle), bundle)
    try:
        with _quiet():
            network.export(path, verbose=False, **options)
    except (ImportError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"Keras cannot write {options['format']} here: {error}",
            hint="export with the TensorFlow backend: KERAS_BACKEND=tensorflow",
        ) from error


def _load_network(path: Path, bundle: Bundle) -> Any:
    from pronk.backbone.keras_network import load_network, with_features

    network = load_network(path, settings=Settings(image_size=bundle.size))
    return with_features(network, temperature=bundle.temperature)


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
