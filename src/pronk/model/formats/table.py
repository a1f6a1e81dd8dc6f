"""The formats of a model: where each lies, and how far it may differ."""

from collections.abc import Mapping

# What opens a model, and where it lies in its folder: the first is what training writes, the others are exports.
MODEL_PATHS: Mapping[str, str] = {
    "onnx": "model.onnx",
    "onnx-int8": "model.onnx",
    "litert": "model.tflite",
    "litert-int8": "model.tflite",
    "savedmodel": "saved_model",
    "keras": "model.keras",
}


# Float runtimes agree to 1e-5 or so. Where weights have eight bits, another processor may round one of them
# differently, and everything after it.
GOLDEN_TOLERANCES = {"onnx-int8": 0.05, "litert-int8": 0.05}
GOLDEN_TOLERANCE = 1e-3


MIN_AGREEMENTS = {"onnx-int8": 0.97, "litert-int8": 0.97}
MIN_AGREEMENT = 0.99
