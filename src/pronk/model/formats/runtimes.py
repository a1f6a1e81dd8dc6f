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

OUTPUTS = ("probabilities", "features", "heat")
FIRST_MAP = "feature_map"  # in the place of heat in models of the first format; see `pronk.model.first_format`


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What a model says about n photos.

    Attributes:
        probabilities: float32 [n, C].
        features: float32 [n, d], the pooled features that the head reads.
        heat: where each class's logit comes from, float32 [n, h, w, C]; its mean over h and w is the logit, before
            the temperature, without the bias. Of no photo where nobody asked.
    """

    probabilities: np.ndarray
    features: np.ndarray
    heat: np.ndarray = dataclasses.field(default_factory=lambda: np.empty((0, 0, 0, 0), np.float32))


class Runtime(Protocol):
    """An opened model."""

    @property
    def shapes(self) -> Mapping[str, list[Any]]:
        """Shapes of the inputs and outputs by name, without the number of photos."""

    def run(self, pixels: np.ndarray, *, heat: bool = False) -> Outputs:
        """Run uint8 pixels [n, size, size, 3], with heat or without; several threads may call at once."""


class OnnxRuntime:
    """A model opened by ONNX Runtime on the CPU, with one thread per call: several calls run side by side."""

    def __init__(self, model: bytes) -> None:
        self._session = open_session(model)
        named = (*self._session.get_inputs(), *self._session.get_outputs())
        self.shapes = {value.name: value.shape[1:] for value in named}
        self._options = load_onnxruntime().RunOptions()
        self._options.only_execute_path_to_fetches = True  # heat takes time, too

    def run(self, pixels: np.ndarray, *, heat: bool = False) -> Outputs:
        """As `Runtime` says."""
        return Outputs(*self._session.run(name_outputs(self.shapes, heat=heat), {"image": pixels}, self._options))


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

    def run(self, pixels: np.ndarray, *, heat: bool = False) -> Outputs:
        """As `Runtime` says."""
        given = self._open()(image=pixels)
        # The arrays are views of the interpreter's own memory, which its next run overwrites.
        return Outputs(*(np.array(given[name]) for name in name_outputs(self.shapes, heat=heat)))

    def _open(self) -> Any:
        if not hasattr(self._own, "runner"):
            self._own.runner = self._interpreter(model_content=self._model, num_threads=1).get_signature_runner()
        return self._own.runner


class IntegerRuntime(LiteRtRuntime):
    """A model of integers alone, opened by LiteRT: pixels less 128 go in, and probabilities come out, nothing else."""

    def __init__(self, model: bytes) -> None:
        super().__init__(model)
        (details,) = self._open().get_output_details().values()
        self._scale, self._zero = details["quantization"]

    def run(self, pixels: np.ndarray, *, heat: bool = False) -> Outputs:
        """As `Runtime` says, without features.

        Raises:
            ModelError: where heat is asked for.
        """
        if heat:
            raise ModelError("a model for microcontrollers has no heat maps", hint="name the run that it was made of")
        (name,) = self._open().get_output_details()
        told = self._open()(image=(pixels.astype(np.int16) - 128).astype(np.int8))[name]
        probabilities = self._scale * (told.astype(np.float32) - self._zero)
        return Outputs(probabilities.astype(np.float32), np.empty((len(pixels), 0), np.float32))


def name_outputs(shapes: Mapping[str, list[Any]], *, heat: bool) -> list[str]:
    """Name what to ask a model for, with the map that heat is made of in the place of heat where it has none."""
    *names, last = OUTPUTS
    return [*names, last if last in shapes else FIRST_MAP] if heat else names


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
