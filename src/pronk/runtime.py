"""Model file -> a function from pixels to probabilities: the seam between bundle and inference engine."""

import dataclasses
import hashlib
import os
import platform
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pronk.bundle import Bundle
from pronk.config import MODEL_PATHS
from pronk.errors import COPY_AGAIN, MissingExtra, ModelError
from pronk.safety import check_onnx, check_tflite, read_limited

# ONNX Runtime's own switch, read while it is imported: nothing about a user's machine is to leave it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

OUTPUTS = ("probabilities", "features", "feature_map")
# Modules, not distributions: onnxruntime also comes as onnxruntime-gpu and under other names.
RUNTIME_MODULES = {
    "onnx": ("onnxruntime",),
    "onnx-int8": ("onnxruntime",),
    "litert": ("ai_edge_litert",),
    "litert-int8": ("ai_edge_litert",),
}
FRAMEWORKS = ("keras", "tensorflow", "torch", "jax")


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What a model says about n photos.

    Attributes:
        probabilities: float32 [n, C].
        features: float32 [n, d]; d is 1280, and more where the network is wider than usual.
        feature_map: float32 [n, h, w, d].
    """

    probabilities: np.ndarray
    features: np.ndarray
    feature_map: np.ndarray


class Runtime(Protocol):
    """An opened model."""

    @property
    def shapes(self) -> Mapping[str, list[Any]]:
        """Shapes of the inputs and outputs by name, without the number of photos."""

    def run(self, pixels: np.ndarray) -> Outputs:
        """Run uint8 pixels [n, size, size, 3]; may be called from several threads at once."""


class OnnxRuntime:
    """A model opened by ONNX Runtime on the CPU.

    Args:
        model: bytes of the ONNX file.
        threads: per call; 1 where several calls run side by side.
    """

    def __init__(self, model: bytes, *, threads: int = 1) -> None:
        self._session = open_session(model, threads=threads)

    @property
    def shapes(self) -> dict[str, list[Any]]:
        """Shapes of the inputs and outputs by name, without the number of photos."""
        return {value.name: value.shape[1:] for value in (*self._session.get_inputs(), *self._session.get_outputs())}

    def run(self, pixels: np.ndarray) -> Outputs:
        """Run uint8 pixels [n, size, size, 3]."""
        return Outputs(*self._session.run(list(OUTPUTS), {"image": pixels}))


class LiteRtRuntime:
    """A model opened by LiteRT.

    Args:
        model: bytes of the .tflite file.

    Raises:
        ModelError: if it cannot be opened.
        MissingExtra: if LiteRT is not installed.
    """

    def __init__(self, model: bytes) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise MissingExtra("litert", "opening a LiteRT model") from error
        self._model = model
        self._interpreter = Interpreter
        self._own = threading.local()  # an interpreter serves one thread at a time
        try:
            details = self._open().get_input_details()
            outputs = self._open().get_output_details()
        except (ValueError, RuntimeError, KeyError) as error:
            raise ModelError(f"LiteRT cannot open the model: {error}", hint=COPY_AGAIN) from error
        named = [*details.items(), *outputs.items()]
        self.shapes = {name: [int(side) for side in detail["shape_signature"][1:]] for name, detail in named}

    def run(self, pixels: np.ndarray) -> Outputs:
        """Run uint8 pixels [n, size, size, 3]."""
        given = self._open()(image=pixels)
        # The arrays are views of the interpreter's own memory, which its next run overwrites.
        return Outputs(*(np.array(given[name]) for name in OUTPUTS))

    def _open(self) -> Any:
        if not hasattr(self._own, "runner"):
            self._own.runner = self._interpreter(model_content=self._model, num_threads=1).get_signature_runner()
        return self._own.runner


def open_session(model: bytes, *, threads: int = 1) -> Any:
    """Open an ONNX file in ONNX Runtime on the CPU; the one place that does.

    Args:
        model: bytes of the ONNX file.
        threads: per call.

    Raises:
        ModelError: if it cannot be opened.

    Example:
        >>> open_session(b"no model")
        Traceback (most recent call last):
        pronk.errors.ModelError: ...
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions have no common public base
        raise ModelError(f"ONNX Runtime cannot open the model: {error}", hint=COPY_AGAIN) from error


def open_runtime(bundle: Bundle, *, threads: int = 1) -> Runtime:
    """Open a bundle's model.

    Args:
        bundle: with a model for any of the runtimes.
        threads: per call, where the runtime lets one choose.

    Raises:
        ModelError: if it cannot be opened, or is not for the bundle's classes, image size and distance.
        MissingExtra: if what opens it is not installed.
    """
    runtime: Runtime
    if bundle.runtime.startswith("litert"):
        runtime = LiteRtRuntime(_read_model(bundle, check_tflite))
    elif bundle.runtime.startswith("onnx"):
        runtime = OnnxRuntime(_read_model(bundle, check_onnx), threads=threads)
    else:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow greets with a screenful
        try:
            from pronk.training.runtimes import open_with_framework

            runtime = open_with_framework(bundle)
        except ImportError as error:
            raise MissingExtra("train", f"opening a {bundle.runtime} export") from error
    wanted = {"image": [bundle.size, bundle.size, 3], "probabilities": [len(bundle.classes)]}
    if bundle.unknown:
        wanted["features"] = [bundle.unknown.novelty.centre.size]
    if any(runtime.shapes.get(name) != shape for name, shape in wanted.items()):
        raise ModelError(f"{bundle.model_path} does not fit its model.json", hint=COPY_AGAIN)
    return runtime


def _read_model(bundle: Bundle, check: Callable[[bytes], None]) -> bytes:
    # The bytes that are opened are those that are checked, whatever becomes of the file meanwhile.
    data = read_limited(bundle.model_path)
    check(data)
    if hashlib.sha256(data).hexdigest() != bundle.files[MODEL_PATHS[bundle.runtime]]:
        raise ModelError(f"{bundle.model_path} was altered", hint=COPY_AGAIN)
    return data


def describe_runtime(runtime: str = "onnx") -> str:
    """Name what computes here, once a model is open; the self-test is repeated when it changes.

    Args:
        runtime: a key of `pronk.config.MODEL_PATHS`.

    Example:
        >>> "onnxruntime" in describe_runtime()
        True
    """
    modules = RUNTIME_MODULES.get(runtime, FRAMEWORKS)
    used = ", ".join(f"{name} {found}" for name in modules if (found := version_of(name)))
    return f"{used}, {platform.machine()}, {_processor()}"


def version_of(module: str) -> str:
    """Return the version of a module as it was imported; an empty string where it was not.

    Example:
        >>> version_of("numpy") == np.__version__
        True
    """
    return str(getattr(sys.modules.get(module), "__version__", ""))


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
