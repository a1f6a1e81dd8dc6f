"""Model of the first format -> heat, from its last map and its head's weights; later ones give it themselves."""

import dataclasses
import functools
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pronk.errors import COPY_AGAIN, ModelError
from pronk.model.formats.runtimes import Outputs, Runtime
from pronk.model.guards.onnx import GRAPH, MAX_PARTS, MODEL, TENSOR
from pronk.model.guards.protobuf import integers_of, only, parts_of, read_message, text_of

FLOAT = 1
HEAD_KERNEL = b"head/kernel"
HEAD_FILE = "head.npy"  # beside a model that is not an ONNX file
HEAD_BYTES = 2**14  # for each class: up to 4,096 features


class FirstFormat:
    """A model of the first format, opened.

    Args:
        runtime: runs it, and gives its last map, float32 [n, h, w, d], in the place of heat.
        file: holds the weights of its head: the model itself, or the array beside it; read when heat is asked for.
        classes: number of classes.
    """

    def __init__(self, runtime: Runtime, file: Path, *, classes: int) -> None:
        self.shapes: Mapping[str, list[Any]] = runtime.shapes
        self._runtime = runtime
        self._head = functools.cache(lambda: load_head(file, classes=classes))

    def run(self, pixels: np.ndarray, *, heat: bool = False) -> Outputs:
        """As `Runtime` says."""
        outputs = self._runtime.run(pixels, heat=heat)
        return dataclasses.replace(outputs, heat=outputs.heat @ self._head()) if heat else outputs


def load_head(path: Path, *, classes: int) -> np.ndarray:
    """Read a head from an ONNX file, or from the array beside a model of another kind, or raise a ModelError.

    Its weights, float32 (d, C), say how much each of the d pooled features speaks for each class.
    """
    try:
        data = path.read_bytes()
        if path.name != HEAD_FILE:
            weights = read_head(data)
        elif len(data) > HEAD_BYTES * classes:  # NumPy makes room for what the header claims
            raise ValueError(f"{len(data)} bytes")
        else:
            weights = np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise ModelError(f"{path} is damaged: {error}", hint=COPY_AGAIN) from error
    is_whole = weights.dtype == np.float32 and np.isfinite(weights).all()
    if weights.ndim != 2 or weights.shape[1] != classes or not is_whole:
        raise ModelError(f"{path} does not fit its model.json", hint=COPY_AGAIN)
    return weights


def read_head(model: bytes) -> np.ndarray:
    """Read the weights of the head out of a model.onnx: float32 [d, C]; ModelError where there are none."""
    budget = iter(range(MAX_PARTS))
    graph = read_message(only(parts_of(read_message(model, MODEL, budget), 7), "graph"), GRAPH, budget)
    arrays = [read_message(array, TENSOR, budget) for array in parts_of(graph, 5)]
    tensor = only([array for array in arrays if text_of(array, 8) == HEAD_KERNEL], "array head/kernel")
    kind, shape = only(integers_of(tensor, 2), "type of the head"), integers_of(tensor, 1)
    raw = only(parts_of(tensor, 9), "content of the head")
    if kind != FLOAT or len(shape) != 2 or min(shape) < 1 or 4 * shape[0] * shape[1] != len(raw):
        raise ModelError(f"the head of the model has type {kind}, shape {shape} and {len(raw)} bytes", hint=COPY_AGAIN)
    return np.frombuffer(raw, "<f4").astype(np.float32).reshape(shape)
