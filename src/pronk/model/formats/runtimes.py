"""The bytes of a model -> a function from pixels to probabilities; no training framework is needed."""

import dataclasses
import os
import platform
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pronk.errors import COPY_AGAIN, ModelError, need_extra

OUTPUTS = ("probabilities", "features", "feature_map")


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
    """A model opened by ONNX Runtime on the CPU, with one thread per call: several calls run side by side."""

    def __init__(self, model: bytes) -> None:
        self._session = open_session(model)

    @property
    def shapes(self) -> dict[str, list[Any]]:
        """As `Runtime` says."""
        return {value.name: value.shape[1:] for value in (*self._session.get_inputs(), *self._session.get_outputs())}

    def run(self, pixels: np.ndarray) -> Outputs:
        """As `Runtime` says."""
        return Outputs(*self._session.run(list(OUTPUTS), {"image": pixels}))


def open_session(model: bytes, *, threads: int = 1) -> Any:
    """Open an ONNX file in ONNX Runtime on the CPU, with so many threads per call; the one place that does."""
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions have no common public base
        raise ModelError(f"ONNX Runtime cannot open the model: {error}", hint=COPY_AGAIN) from error


def load_onnxruntime() -> Any:
    """Import ONNX Runtime with its telemetry off: nothing about a user's machine is to leave it."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read while it is imported
    import onnxruntime

    return onnxruntime


class LiteRtRuntime:
    """A model opened by LiteRT, with one thread per call; without LiteRT a MissingExtra."""

    def __init__(self, model: bytes) -> None:
        with need_extra("litert", "opening a LiteRT model"):
            from ai_edge_litert.interpreter import Interpreter
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
        """As `Runtime` says."""
        given = self._open()(image=pixels)
        # The arrays are views of the interpreter's own memory, which its next run overwrites.
        return Outputs(*(np.array(given[name]) for name in OUTPUTS))

    def _open(self) -> Any:
        if not hasattr(self._own, "runner"):
            self._own.runner = self._interpreter(model_content=self._model, num_threads=1).get_signature_runner()
        return self._own.runner


def describe_runtime(module: str) -> str:
    """Name what computes here, by its module, once a model is open; the self-test is repeated when it changes.

    The module is not its distribution: onnxruntime also comes as onnxruntime-gpu and others.
    """
    version = getattr(sys.modules.get(module), "__version__", "")
    return f"{module} {version}, {platform.machine()}, {_processor()}"


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
