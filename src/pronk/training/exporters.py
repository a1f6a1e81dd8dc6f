"""The kept model -> the model folder: ONNX and Keras files of the same numbers, and golden photos to prove it later."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pronk.analysis.head import Head
from pronk.backbone.onnx_graphs import write_model
from pronk.backbone.weights import Backbone
from pronk.config import Settings
from pronk.dataset.loading import Dataset
from pronk.errors import DataError, ImageError, ModelError
from pronk.model.bundle import GOLDEN_SIDE, Bundle, golden_photo, write_bundle
from pronk.model.formats.onnx import OnnxRuntime
from pronk.photos.decoding import load_image, load_pixels
from pronk.pools import start_beside
from pronk.training.answers import Answers
from pronk.training.phases import Kept

GOLDEN_PHOTOS = 8
COMPARED_PHOTOS = 2  # each layer by layer, which takes longer than all the rest of the export
EXPORT_TOLERANCE = 1e-4


def export(
    folder: Path,
    network: Any,
    kept: Kept,
    answers: Answers,
    golden: Mapping[str, bytes],
    backbone: Backbone,
    classes: Sequence[str],
    settings: Settings,
) -> Bundle:
    """Write the kept model as model.keras and model.onnx, with golden photos and what the latter says of them.

    Args:
        folder: the model folder to write.
        network: the Keras model, which takes the kept weights.
        kept: what was chosen.
        answers: what its answers are worth.
        golden: encoded photos by file name, from `choose_golden`.
        backbone: where the weights came from, for the record.
        classes: in the order of the probabilities.
        settings: image size and fit.
    """
    from pronk.backbone.keras_network import save_network, set_head, set_weights

    set_weights(network, kept.weights)
    set_head(network, cool_head(kept.head, answers.temperature))
    saving = start_beside(lambda: save_network(network))
    onnx = write_model(
        kept.weights, kept.head.kernel, kept.head.bias, size=settings.image_size, temperature=answers.temperature
    )
    runtime = OnnxRuntime(onnx)
    expected = {
        name: runtime.run(load_pixels(photo, size=settings.image_size, fit=settings.fit)[None]).probabilities[0]
        for name, photo in golden.items()
    }
    contents = {f"golden/{name}": data for name, data in golden.items()}
    contents["golden/expected.json"] = json.dumps({name: row.tolist() for name, row in expected.items()}).encode()
    contents["model.keras"] = saving.result()
    contents["model.onnx"] = onnx
    return write_bundle(
        folder,
        contents,
        classes=classes,
        size=settings.image_size,
        fit=settings.fit,
        weights={"name": backbone.name, "sha256": backbone.sha256},
        temperature=answers.temperature,
        unknown=answers.unknown.result(),
        sets=answers.sets,
    )


def cool_head(head: Head, temperature: float) -> Head:
    """Divide a head's logits by a temperature: a Keras model then needs no layer of its own for it.

    Example:
        >>> cool_head(Head(np.ones((1, 2)), np.zeros(2)), 2.0).kernel
        array([[0.5, 0.5]])
    """
    return Head(head.kernel / temperature, head.bias / temperature, head.strength)


def choose_golden(dataset: Dataset, settings: Settings) -> dict[str, bytes]:
    """Choose 8 photos that the model folder carries, classes in turn; drawn ones where the user's must not travel.

    Returns:
        Encoded photos by file name.
    """
    if settings.golden == "drawn":
        return _draw_golden(settings.seed)
    photos = (*dataset.part("val"), *dataset.part("train"))
    by_class = [[photo for photo in photos if photo.label == name] for name in dataset.classes]
    in_turn = [same[i] for i in range(max(map(len, by_class))) for same in by_class if i < len(same)]
    golden: dict[str, bytes] = {}
    for photo in in_turn:
        try:
            image = load_image(dataset.root / photo.path, min_side=GOLDEN_SIDE // 2)
        except ImageError:  # gone since it was checked; another one does as well
            continue
        golden[f"{len(golden) + 1}.jpg"] = golden_photo(image)
        if len(golden) == GOLDEN_PHOTOS:
            break
    if not golden:
        raise DataError("none of the photos can be read any more", hint="check the data folder")
    return golden


def _draw_golden(seed: int) -> dict[str, bytes]:
    from pronk.photos.drawing import KINDS, draw_photo

    rng = np.random.default_rng(seed)
    pictures: list[Image.Image] = [draw_photo(KINDS[i % len(KINDS)], rng, (512, 384)) for i in range(GOLDEN_PHOTOS)]
    return {f"{i}.jpg": golden_photo(picture) for i, picture in enumerate(pictures, start=1)}


def compare(network: Any, bundle: Bundle) -> None:
    """Make sure that the Keras model says of some golden photos what model.onnx did.

    Raises:
        ModelError: if any probability differs by more than 1e-4.
    """
    from pronk.backbone.keras_network import predict_eagerly

    golden = dict(list(bundle.golden().items())[:COMPARED_PHOTOS])
    photos = [load_pixels(bundle.folder / name, size=bundle.size, fit=bundle.fit) for name in golden]
    difference = float(np.abs(predict_eagerly(network, np.stack(photos)) - np.array(list(golden.values()))).max())
    if not difference <= EXPORT_TOLERANCE:
        raise ModelError(
            f"model.onnx and model.keras differ by {difference:.2g} on the golden photos",
            hint="train again with another version of keras or onnxruntime",
        )
