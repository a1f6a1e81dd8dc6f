"""An ONNX file -> a model opened by ONNX Runtime."""

import os
from typing import Any

import numpy as np

from pronk.errors import COPY_AGAIN, ModelError
from pronk.model.formats.seam import OUTPUTS, Outputs


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


def load_onnxruntime() -> Any:
    """Import ONNX Runtime, with its telemetry off: nothing about a user's machine is to leave it.

    Example:
        >>> load_onnxruntime().__name__
        'onnxruntime'
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # its own switch, read while it is imported
    import onnxruntime

    return onnxruntime


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
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions have no common public base
        raise ModelError(f"ONNX Runtime cannot open the model: {error}", hint=COPY_AGAIN) from error
