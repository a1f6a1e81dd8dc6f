"""Bundle -> the weights of its head, which heat maps need; read without a framework."""

import io

import numpy as np

from pronk.errors import COPY_AGAIN, ModelError
from pronk.model.bundle import HEAD_FILE, Bundle
from pronk.model.guards.onnx import GRAPH, MAX_PARTS, MODEL, TENSOR
from pronk.model.guards.protobuf import integers_of, only, parts_of, read_message, text_of

FLOAT = 1
HEAD_KERNEL = b"head/kernel"
HEAD_BYTES = 2**14  # for each class: up to 4,096 features


def load_head(bundle: Bundle) -> np.ndarray:
    """Read the weights of a bundle's head: from its ONNX file, or from the array beside a model of another kind.

    Returns:
        Weights of dtype float32 and shape (d, C): how much each of the d pooled features, usually 1280, speaks for each
        class.

    Raises:
        ModelError: if it is damaged or does not fit the classes.
    """
    path = bundle.folder / HEAD_FILE
    if HEAD_FILE not in bundle.files:
        path = bundle.model_path
        weights = read_head(path.read_bytes())
    else:
        try:
            data = path.read_bytes()
            if len(data) > HEAD_BYTES * len(bundle.classes):  # NumPy makes room for what the header claims
                raise ValueError(f"{len(data)} bytes")
            weights = np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise ModelError(f"{path} is damaged: {error}", hint=COPY_AGAIN) from error
    is_whole = weights.dtype == np.float32 and np.isfinite(weights).all()
    if weights.ndim != 2 or weights.shape[1] != len(bundle.classes) or not is_whole:
        raise ModelError(f"{path} does not fit its model.json", hint=COPY_AGAIN)
    return weights


def write_head(weights: np.ndarray) -> bytes:
    """Return the bytes of the array that lies beside a model which is not an ONNX file."""
    buffer = io.BytesIO()
    np.save(buffer, weights.astype(np.float32))
    return buffer.getvalue()


def read_head(model: bytes) -> np.ndarray:
    """Read the weights of the head, as `load_head` returns them, out of the bytes of a model.onnx.

    Raises:
        ModelError: if the file is damaged, or holds no such weights in float32.
    """
    budget = iter(range(MAX_PARTS))
    graph = read_message(only(parts_of(read_message(model, MODEL, budget), 7), "graph"), GRAPH, budget)
    arrays = [read_message(array, TENSOR, budget) for array in parts_of(graph, 5)]
    tensor = only([array for array in arrays if text_of(array, 8) == HEAD_KERNEL], "array head/kernel")
    kind, shape = only(integers_of(tensor, 2), "type of the head"), integers_of(tensor, 1)
    raw = only(parts_of(tensor, 9), "content of the head")
    if kind != FLOAT or len(shape) != 2 or min(shape) < 1 or 4 * shape[0] * shape[1] != len(raw):
        raise ModelError(f"the head of the model has type {kind}, shape {shape} and {len(raw)} bytes", hint=COPY_AGAIN)
    return np.frombuffer(raw, "<f4").astype(np.float32).reshape(shape)
