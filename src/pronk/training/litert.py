"""A Keras network -> .tflite files: one that phone libraries understand, and one with all that pronk asks for.

Libraries for phones, such as MediaPipe's, want one graph with one output, and read from metadata how photos go in and
which class is which. pronk needs features and heat too; so there is a second file.
"""

import contextlib
import io
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from pronk.analysis.head import Head
from pronk.errors import ModelError
from pronk.model.formats.runtimes import OUTPUTS
from pronk.text import visible

PROBABILITIES = OUTPUTS[:1]
LABELS = "labels.txt"
UNSURE, COARSE = 0.02, 1 / 512  # probabilities; whole numbers have steps of 1 / 256
FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # of zip archives: the file depends on nothing but the model
# Of the schema of metadata (metadata_schema.fbs of TensorFlow Lite Support): its identifier, and numbers of its enums.
IDENTIFIER, KEY = b"M001", "TFLITE_METADATA"
FEATURE_PROPERTIES, IMAGE_PROPERTIES, NORMALIZATION, RGB, AXIS_LABELS = 1, 2, 1, 1, 2


def write_tflite(
    network: Any, *, size: int, outputs: Sequence[str] = OUTPUTS, samples: np.ndarray | None = None
) -> bytes:
    """Convert a network with the outputs of model.onnx, or with some of them.

    Args:
        network: Keras model: uint8 [N, size, size, 3] -> {probabilities, features, heat}.
        size: side of the photos.
        outputs: those of the file, which takes one photo at a time.
        samples: uint8 [n, size, size, 3], from which the ranges of 8-bit numbers are taken; None keeps floats.

    Raises:
        ModelError: unless Keras runs on TensorFlow, whose converter this is.
    """

    def answer(image: Any) -> dict[str, Any]:
        told = network(image, training=False)
        return {name: told[name] for name in outputs}

    with _open_converter(answer, outputs, size, "uint8") as converter:
        if samples is not None:
            _take_ranges(converter, samples)
        return bytes(converter.convert())


def write_integers(network: Any, *, size: int, samples: np.ndarray) -> bytes:
    """Convert a network for interpreters without floats: int8 pixels, which are uint8 ones less 128, to probabilities.

    Arguments are those of `write_tflite`. The scaling of pixels becomes the quantisation of the input.
    """
    import tensorflow as tf

    from pronk.backbone.keras_network import split_head

    body = split_head(network)

    def answer(image: Any) -> dict[str, Any]:
        return {"probabilities": body(image, training=False)}

    ends = np.zeros_like(samples[:1])
    ends[:, ::2] = 255  # so that the range is the whole one, whatever the photos are
    with _open_converter(answer, PROBABILITIES, size, "float32") as converter:
        _take_ranges(converter, np.concatenate([ends, samples]).astype(np.float32) / np.float32(127.5) - 1)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        return bytes(converter.convert())


@contextlib.contextmanager
def _open_converter(
    answer: Callable[[Any], dict[str, Any]], outputs: Sequence[str], size: int, dtype: str
) -> Iterator[Any]:
    """Give a converter of a function of one photo; its weights become constants, which it does not see to by itself."""
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ModelError("only TensorFlow's converter writes .tflite files", hint="set KERAS_BACKEND=tensorflow")
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    photo = [tf.TensorSpec([1, size, size, 3], dtype, name="image")]
    frozen = convert_variables_to_constants_v2(tf.function(answer, input_signature=photo).get_concrete_function())

    def run(image: Any) -> dict[str, Any]:
        return dict(zip(sorted(outputs), tf.nest.flatten(frozen(image)), strict=True))  # which come sorted by name

    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(tf.Module(), folder, signatures=tf.function(run, input_signature=photo))
        yield tf.lite.TFLiteConverter.from_saved_model(folder)


def _take_ranges(converter: Any, samples: np.ndarray) -> None:
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[None]] for sample in samples)


def correct_bias(network: Any, answers: np.ndarray, wanted: np.ndarray) -> None:
    """Take out of the head's bias what rounding adds to the logits on the mean (Nagel et al. 2019, arXiv:1906.04721).

    Both are probabilities of the same training photos, [n, C]: of the network in whole numbers, and as it was. Those
    near 0 and 1 say nothing of the logits, since whole numbers are too coarse there.
    """
    from pronk.backbone.keras_network import get_head, set_head

    tells = (wanted > UNSURE) & (wanted < 1 - UNSURE)
    shift = np.where(tells, np.log(np.maximum(answers, COARSE)) - np.log(np.maximum(wanted, COARSE)), 0)
    head = get_head(network)
    mean = shift.sum(axis=0) / np.maximum(tells.sum(axis=0), 1)
    set_head(network, Head(head.weights, (head.bias - mean).astype(np.float32)))


def run_tflite(model: bytes, photos: Sequence[np.ndarray]) -> np.ndarray:
    """Return what a file with one output says of photos, uint8 [size, size, 3] each: probabilities, float32 [n, C]."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=model, num_threads=1).get_signature_runner()
    (name,) = PROBABILITIES
    return np.concatenate([np.array(runner(image=photo[None])[name]) for photo in photos])


def add_metadata(model: bytes, classes: Sequence[str]) -> bytes:
    """Add to a .tflite file how photos go in and what comes out, and the labels as a zip archive behind it."""
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    whole = schema.ModelT.InitFromPackedBuf(model, 0)
    whole.metadata = [*(whole.metadata or []), schema.MetadataT()]
    whole.metadata[-1].name, whole.metadata[-1].buffer = KEY, len(whole.buffers)
    whole.buffers.append(schema.BufferT())
    whole.buffers[-1].data = np.frombuffer(_describe(), np.uint8)
    builder = flatbuffers.Builder(len(model) + 4096)
    builder.Finish(whole.Pack(builder), b"TFL3")
    buffer = io.BytesIO(bytes(builder.Output()))
    with zipfile.ZipFile(buffer, "a") as archive:
        lines = "".join(f"{visible(name)}\n" for name in classes)
        archive.writestr(zipfile.ZipInfo(LABELS, FIRST_DAY), lines)
    return buffer.getvalue()


class _Tables:
    """Builds flatbuffer tables from their fields by number: offsets of what was built before, or small numbers."""

    def __init__(self) -> None:
        import flatbuffers

        self.builder = flatbuffers.Builder(1024)

    def text(self, value: str) -> Any:
        return self.builder.CreateString(value)

    def floats(self, *values: float) -> Any:
        return self.builder.CreateNumpyVector(np.array(values, np.float32))

    def table(self, offsets: dict[int, Any], bytes_: dict[int, int] | None = None) -> Any:
        fields = {**offsets, **(bytes_ or {})}
        self.builder.StartObject(max(fields, default=-1) + 1)
        for number, offset in offsets.items():
            self.builder.PrependUOffsetTRelativeSlot(number, offset, 0)
        for number, value in (bytes_ or {}).items():
            self.builder.PrependUint8Slot(number, value, 0)
        return self.builder.EndObject()

    def tables(self, *offsets: Any) -> Any:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return self.builder.EndVector()


def _describe() -> bytes:
    """Write the metadata of the first graph: RGB pixels as they are go in, a probability per label comes out."""
    build = _Tables()
    image = build.table({}, {0: RGB})
    content = build.table({1: image}, {0: IMAGE_PROPERTIES})
    as_it_is = build.table({0: build.floats(0.0), 1: build.floats(1.0)})
    unit = build.table({1: as_it_is}, {0: NORMALIZATION})
    photo = build.table({0: build.text("image"), 3: content, 4: build.tables(unit)})
    labels = build.table({0: build.text(LABELS)}, {2: AXIS_LABELS})
    content = build.table({1: build.table({})}, {0: FEATURE_PROPERTIES})
    answer = build.table({0: build.text("probability"), 3: content, 6: build.tables(labels)})
    graph = build.table({2: build.tables(photo), 3: build.tables(answer)})
    model = build.table({0: build.text("pronk"), 3: build.tables(graph), 7: build.text("1.0.0")})
    build.builder.Finish(model, IDENTIFIER)
    return bytes(build.builder.Output())
