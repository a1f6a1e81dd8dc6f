"""The formats of a model, one value each: where it lies, how it is checked and opened, and how far it may differ."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pronk.model.formats.runtimes import Runtime


@dataclasses.dataclass(frozen=True)
class Engine:
    """What opens a model for prediction.

    Attributes:
        module: the runtime's module, whose version is part of the self-test.
        check: refuses bytes that pronk would not have written.
        open: makes a runtime of them.
    """

    module: str
    check: Callable[[bytes], None]
    open: Callable[[bytes], "Runtime"]


@dataclasses.dataclass(frozen=True)
class Program:
    """The lines of an example program that know the format.

    Attributes:
        package: the packages to install.
        library: the import line.
        open: opens the model that lies in the folder `here`.
        run: gives the probabilities of `pixels`, uint8 [1, size, size, 3].
    """

    package: str
    library: str
    open: str
    run: str


@dataclasses.dataclass(frozen=True)
class Format:
    """What a model can be written as.

    Attributes:
        name: its name in model.json and on the command line.
        path: the model's file or folder within its own folder.
        engine: loads what opens it for prediction; None where only its own framework does, outside of pronk.
        program: for the example program beside an export; None where the export is a program itself.
        opened: the file that pronk opens, where that is another: phone libraries want less than pronk. It is missing in
            exports of earlier versions, whose one file has all.
        tolerance: how much a golden photo's probability may differ elsewhere.
        min_agreement: the least share of photos that must get the same class as from the run's model.
    """

    name: str
    path: str
    engine: Callable[[], Engine] | None
    program: Program | None
    opened: str | None = None
    tolerance: float = 1e-3  # float runtimes agree to 1e-5 or so
    min_agreement: float = 0.99


def load_onnx() -> Engine:
    """Load what opens ONNX files."""
    from pronk.model.formats.runtimes import OnnxRuntime
    from pronk.model.guards.onnx import check_onnx

    return Engine("onnxruntime", check_onnx, OnnxRuntime)


def load_litert() -> Engine:
    """Load what opens .tflite files."""
    from pronk.model.formats.runtimes import LiteRtRuntime
    from pronk.model.guards.tflite import check_tflite

    return Engine("ai_edge_litert", check_tflite, LiteRtRuntime)


def load_micro() -> Engine:
    """Load what opens .tflite files of integers alone, as microcontrollers run them."""
    from pronk.model.formats.runtimes import IntegerRuntime
    from pronk.model.guards.tflite import check_tflite

    return Engine("ai_edge_litert", check_tflite, IntegerRuntime)


# Where weights have eight bits, another processor may round one of them differently, and everything after it.
EIGHT_BITS: dict[str, Any] = {"tolerance": 0.05, "min_agreement": 0.97}
# Where activations have them too, up to the probabilities, photos between two classes may change sides.
WHOLE_NUMBERS: dict[str, Any] = {"tolerance": 0.05, "min_agreement": 0.95}
ONNX_PROGRAM = Program(
    package="onnxruntime",
    library="import onnxruntime",
    open='session = onnxruntime.InferenceSession(here / "model.onnx")',
    run='session.run(["probabilities"], {"image": pixels})[0][0]',
)
LITERT_PROGRAM = Program(
    package="ai-edge-litert",
    library="from ai_edge_litert.interpreter import Interpreter",
    open='run = Interpreter(str(here / "model.tflite")).get_signature_runner()',
    run='run(image=pixels)["probabilities"][0]',
)
SAVEDMODEL_PROGRAM = Program(
    package="tensorflow",
    library="import tensorflow as tf",
    open='run = tf.saved_model.load(here / "saved_model").signatures["serving_default"]',
    run='run(image=tf.constant(pixels))["probabilities"].numpy()[0]',
)
KERAS_PROGRAM = Program(
    package="keras tensorflow",
    library="import keras",
    open='model = keras.saving.load_model(here / "model.keras", compile=False)',
    run="model.predict(pixels, verbose=0)[0]",
)
WITH_FEATURES = "model-with-features.tflite"
TRAINED = "onnx"  # what training writes; the others are exports, made by training/conversions.py
FORMATS: Mapping[str, Format] = {
    form.name: form
    for form in (
        Format(TRAINED, "model.onnx", load_onnx, ONNX_PROGRAM),
        Format("onnx-int8", "model.onnx", load_onnx, ONNX_PROGRAM, **EIGHT_BITS),
        Format("web", "model.onnx", load_onnx, None),
        Format("web-int8", "model.onnx", load_onnx, None, **EIGHT_BITS),
        Format("litert", "model.tflite", load_litert, LITERT_PROGRAM, WITH_FEATURES),
        Format("litert-int8", "model.tflite", load_litert, LITERT_PROGRAM, WITH_FEATURES, **EIGHT_BITS),
        Format("micro", "model.tflite", load_micro, None, **WHOLE_NUMBERS),
        Format("savedmodel", "saved_model", None, SAVEDMODEL_PROGRAM),
        Format("keras", "model.keras", None, KERAS_PROGRAM),
    )
}
