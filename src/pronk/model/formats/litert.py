"""A .tflite file -> a model opened by LiteRT."""

import threading
from typing import Any

import numpy as np

from pronk.errors import COPY_AGAIN, ModelError, need_extra
from pronk.model.formats.seam import OUTPUTS, Outputs


class LiteRtRuntime:
    """A model opened by LiteRT.

    Args:
        model: bytes of the .tflite file.

    Raises:
        ModelError: if it cannot be opened.
        MissingExtra: if LiteRT is not installed.
    """

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
        """Run uint8 pixels [n, size, size, 3]."""
        given = self._open()(image=pixels)
        # The arrays are views of the interpreter's own memory, which its next run overwrites.
        return Outputs(*(np.array(given[name]) for name in OUTPUTS))

    def _open(self) -> Any:
        if not hasattr(self._own, "runner"):
            self._own.runner = self._interpreter(model_content=self._model, num_threads=1).get_signature_runner()
        return self._own.runner
