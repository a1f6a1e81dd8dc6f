"""Model file -> a function from pixels to probabilities: the seam between bundle and inference engine."""

import hashlib
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from pronk.errors import COPY_AGAIN, ModelError, need_extra
from pronk.model.bundle import Bundle
from pronk.model.formats.litert import LiteRtRuntime
from pronk.model.formats.onnx import OnnxRuntime
from pronk.model.formats.seam import Runtime
from pronk.model.formats.table import MODEL_PATHS
from pronk.model.guards.files import read_limited
from pronk.model.guards.onnx import check_onnx
from pronk.model.guards.tflite import check_tflite

# Modules, not distributions: onnxruntime also comes as onnxruntime-gpu and under other names.
RUNTIME_MODULES = {
    "onnx": ("onnxruntime",),
    "onnx-int8": ("onnxruntime",),
    "litert": ("ai_edge_litert",),
    "litert-int8": ("ai_edge_litert",),
}
FRAMEWORKS = ("keras", "tensorflow", "torch", "jax")


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
        with need_extra("train", f"opening a {bundle.runtime} export"):
            from pronk.training.frameworks import open_with_framework

            runtime = open_with_framework(bundle)
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
        runtime: a key of `pronk.model.formats.table.MODEL_PATHS`.

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
