"""Bundle -> the weights of its head, which heat maps need; read without a framework."""

import io
from itertools import islice

import numpy as np

from pronk.errors import COPY_AGAIN, ModelError
from pronk.model.bundle import HEAD_FILE, Bundle
from pronk.model.guards.protobuf import only, read_integers, read_parts

# Where things lie in an ONNX file (onnx.proto): ModelProto, GraphProto and TensorProto.
MODEL_GRAPH = 7
GRAPH_INITIALIZER = 5
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME, TENSOR_RAW = 1, 2, 8, 9
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
    if HEAD_FILE not in bundle.files:
        return read_head(bundle.model_path.read_bytes())
    try:
        data = (bundle.folder / HEAD_FILE).read_bytes()
        if len(data) > HEAD_BYTES * len(bundle.classes):  # NumPy makes room for what the header claims
            raise ValueError(f"{len(data)} bytes")
        kernel = np.load(io.BytesIO(data), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ModelError(f"{bundle.folder / HEAD_FILE} is damaged: {error}", hint=COPY_AGAIN) from error
    if (
        kernel.ndim != 2
        or kernel.shape[1] != len(bundle.classes)
        or kernel.dtype != np.float32
        or not np.isfinite(kernel).all()
    ):
        raise ModelError(f"{bundle.folder / HEAD_FILE} does not fit its model.json", hint=COPY_AGAIN)
    return np.asarray(kernel)


def write_head(kernel: np.ndarray) -> bytes:
    """Return the bytes of the array that lies beside a model which is not an ONNX file.

    Example:
        >>> len(write_head(np.zeros((2, 2), np.float32)))
        144
    """
    buffer = io.BytesIO()
    np.save(buffer, kernel.astype(np.float32))
    return buffer.getvalue()


def read_head(model: bytes) -> np.ndarray:
    """Read the weights of the head out of an ONNX file.

    Args:
        model: content of a model.onnx that pronk wrote.

    Returns:
        Weights of dtype float32 and shape (d, C): how much each of the d pooled features, usually 1280, speaks for each
        class.

    Raises:
        ModelError: if the file is damaged, or holds no such weights in float32.

    Example:
        >>> read_head(b"no model")
        Traceback (most recent call last):
        pronk.errors.ModelError: ...
    """
    graph = only(read_parts(model, MODEL_GRAPH), "graph")
    arrays = read_parts(graph, GRAPH_INITIALIZER)
    head = (array for array in arrays if only(read_parts(array, TENSOR_NAME), "name of an array") == HEAD_KERNEL)
    tensor = only(head, "array head/kernel")
    kind = only(read_integers(tensor, TENSOR_TYPE), "type of the head")
    shape = list(islice(read_integers(tensor, TENSOR_DIMS), 3))
    raw = only(read_parts(tensor, TENSOR_RAW), "content of the head")
    if kind != FLOAT or len(shape) != 2 or 0 in shape or 4 * shape[0] * shape[1] != len(raw):
        raise ModelError(f"the head of the model has type {kind}, shape {shape} and {len(raw)} bytes", hint=COPY_AGAIN)
    kernel = np.frombuffer(raw, "<f4").astype(np.float32).reshape(shape)
    if not np.isfinite(kernel).all():
        raise ModelError("the head of the model holds numbers that are not finite", hint=COPY_AGAIN)
    return kernel
