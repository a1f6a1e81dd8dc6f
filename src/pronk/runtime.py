"""Model file -> a function from pixels to probabilities: the seam between bundle and inference engine."""

import dataclasses
import os
import platform
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pronk.bundle import COPY_AGAIN, Bundle
from pronk.errors import ModelError

# ONNX Runtime's own switch, read while it is imported: nothing about a user's machine is to leave it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What a model says about n photos.

    Attributes:
        probabilities: float32 [n, C].
        features: float32 [n, 1280].
        feature_map: float32 [n, h, w, 1280].
    """

    probabilities: np.ndarray
    features: np.ndarray
    feature_map: np.ndarray


class Runtime(Protocol):
    """An opened model."""

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
        return Outputs(*self._session.run(["probabilities", "features", "feature_map"], {"image": pixels}))


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


def open_runtime(bundle: Bundle) -> Runtime:
    """Open a bundle's model.

    Raises:
        ModelError: if it cannot be opened, or is not for the bundle's classes and image size.
    """
    runtime = OnnxRuntime(bundle.model_path.read_bytes())
    shapes = runtime.shapes
    if shapes.get("image") != [bundle.size, bundle.size, 3] or shapes.get("probabilities") != [len(bundle.classes)]:
        raise ModelError(f"{bundle.model_path} does not fit its model.json", hint=COPY_AGAIN)
    return runtime


def describe_runtime() -> str:
    """Name what computes here; the self-test is repeated when it changes.

    Example:
        >>> "onnxruntime" in describe_runtime()
        True
    """
    return f"onnxruntime {onnxruntime.__version__}, {platform.machine()}, {_processor()}"


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
