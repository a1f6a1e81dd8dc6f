"""Two phases -> the kept model: chosen, calibrated on validation photos, written for ONNX and Keras, and proven."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits

from pronk.analysis.calibration import SetScores, Unknown, conformal_threshold, fit_temperature, temper
from pronk.analysis.head import Head
from pronk.analysis.metrics import log_loss, mcnemar_exact
from pronk.analysis.novelty import PHOTOS, fit_novelty
from pronk.backbone.architecture import FEATURES
from pronk.backbone.onnx_graphs import write_model
from pronk.config import Settings
from pronk.dataset.loading import Dataset
from pronk.dataset.rest_class import find_rest_class
from pronk.dataset.split import take_in_turn
from pronk.errors import DataError, ImageError, ModelError
from pronk.model.bundle import GOLDEN_SIDE, Bundle, golden_photo, write_bundle
from pronk.model.formats.runtimes import OnnxRuntime
from pronk.model.run import MODEL, ChoiceRecord
from pronk.photos.decoding import load_image, load_pixels
from pronk.pools import start_beside
from pronk.training.features import Features
from pronk.training.networks import Network, pool_features
from pronk.training.phase_one import Frozen
from pronk.training.phase_two import FineTuned
from pronk.training.run_folder import Run

GOLDEN_PHOTOS = 8
COMPARED_PHOTOS = 2  # each layer by layer, which takes longer than all the rest of the export
EXPORT_TOLERANCE = 1e-4
PHOTOS_AT_ONCE = 32


@dataclasses.dataclass(frozen=True)
class Kept:
    """The model that was chosen.

    Attributes:
        network: its weights.
        val_probabilities: float64 [n, C] of the validation photos, at temperature 1.
        comparison: gained, lost, p, kept and why of the two phases.
    """

    network: Network
    val_probabilities: np.ndarray
    comparison: ChoiceRecord


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What is put between a model's numbers and its predictions; all of it from validation photos.

    Attributes:
        temperature: the logits are divided by it.
        sets: tells several classes of which one is right.
    """

    temperature: float
    sets: SetScores


def choose(frozen: Frozen, fine_tuned: FineTuned | None, targets: np.ndarray, run: Run) -> Kept:
    """Keep the model with the lower validation log-loss, unless told which; report the exact paired test.

    Where phase 2 was left out, `fine_tuned` is None; the targets are class indices of the validation photos.
    """
    before, network = frozen.val_probabilities, Network(frozen.head, run.backbone.weights)
    if fine_tuned is None:
        comparison = ChoiceRecord(gained=0, lost=0, p=1.0, kept="frozen", why="fine-tuning was left out", share=1.0)
        return Kept(network, before, comparison)
    after, asked = fine_tuned.val_probabilities, run.settings.keep
    losses = log_loss(before, targets), log_loss(after, targets)
    better = losses[1] < losses[0] if asked == "best" else asked == "fine-tuned"
    share, name = fine_tuned.share, "fine-tuned"
    if share < 1:
        name = f"with {100 * share:.0f} % of what fine-tuning changed"
    why = f"validation log-loss {losses[0]:.4f} frozen, {losses[1]:.4f} {name}"
    if asked != "best":
        why = f"asked for with --keep {asked}; {why}"
    test = mcnemar_exact(before.argmax(axis=1) == targets, after.argmax(axis=1) == targets)
    kept = "fine_tuned" if share == 1 else "mixed"
    comparison = ChoiceRecord(**test, kept=kept if better else "frozen", why=why, share=share)
    if better:
        return Kept(fine_tuned.network, after, comparison)
    return Kept(network, before, comparison)


def calibrate(kept: Kept, targets: np.ndarray) -> Calibration:
    """Fit the temperature and the sets to the validation photos, whose class indices are given."""
    temperature = fit_temperature(kept.val_probabilities, targets)
    return Calibration(temperature, SetScores.fit(temper(kept.val_probabilities, temperature), targets))


def fit_unknown(suffix: bytes | None, features: Features, settings: Settings) -> Unknown | None:
    """Fit the distance to the training photos, and set its threshold with the validation photos.

    The suffix is that of the fine-tuned network, None of the frozen one. None is returned where there are too few
    validation photos to promise the `coverage` of the settings, or where a class is that of all the rest.
    """
    dataset, coverage = features.dataset, settings.coverage
    if find_rest_class(dataset.classes, settings.rest_class):
        return None
    train, val = dataset.part("train"), dataset.part("val")
    if conformal_threshold(np.zeros(len(val)), coverage) is None:
        return None
    by_class = [[photo for photo in train if photo.label == name] for name in dataset.classes]
    most = max(1, PHOTOS // len(by_class))  # as many as it keeps
    asked = [photo for some in by_class for photo in sorted(some, key=lambda photo: photo.digest)[:most]]
    rows = pool_features(suffix, features, asked)
    # On one thread, so that what is kept does not depend on the number of cores.
    with threadpool_limits(1):
        novelty = fit_novelty(rows, dataset.targets(asked))
    judged = pool_features(suffix, features, val)
    threshold = conformal_threshold(novelty.distance(judged), coverage)
    assert threshold is not None
    return Unknown(novelty, threshold, coverage, len(val))


def choose_golden(dataset: Dataset, settings: Settings) -> dict[str, bytes]:
    """Choose 8 photos that the model folder carries, classes in turn; drawn ones where the user's must not travel.

    Returns:
        Encoded photos by file name.
    """
    if settings.golden == "drawn":
        return draw_golden(settings.seed)
    photos = (*dataset.part("val"), *dataset.part("train"))
    golden: dict[str, bytes] = {}
    for photo in take_in_turn([[photo for photo in photos if photo.label == name] for name in dataset.classes]):
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


def draw_golden(seed: int) -> dict[str, bytes]:
    """Draw 8 photos that are nobody's: encoded, by file name."""
    from pronk.photos.drawing import KINDS, draw_photo

    rng = np.random.default_rng(seed)
    pictures: list[Image.Image] = [draw_photo(KINDS[i % len(KINDS)], rng, (512, 384)) for i in range(GOLDEN_PHOTOS)]
    return {f"{i}.jpg": golden_photo(picture) for i, picture in enumerate(pictures, start=1)}


def write_kept(
    network: Any,
    kept: Kept,
    calibration: Calibration,
    run: Run,
    *,
    classes: Sequence[str],
    golden: Mapping[str, bytes],
    unknown: Future[Unknown | None],
) -> Bundle:
    """Write the model folder: model.keras, model.onnx, golden photos and what the latter says of them.

    The Keras model `network` takes the kept weights. `classes` are in the order of the probabilities, `golden` is what
    `choose_golden` returns, and `unknown` is asked for when all else is done.
    """
    from pronk.backbone.keras_network import save_network, set_head, set_weights

    settings, temperature = run.settings, calibration.temperature
    weights, head = kept.network.weights, kept.network.head
    set_weights(network, weights)
    # Divided here, so that the Keras model needs no layer of its own for the temperature.
    set_head(network, Head(head.weights / temperature, head.bias / temperature))
    saving = start_beside(lambda: save_network(network))
    onnx = write_model(weights, head, size=settings.image_size, temperature=temperature)
    contents = {f"golden/{name}": data for name, data in golden.items()}
    contents["golden/expected.json"] = json.dumps(_predict_golden(onnx, golden, settings)).encode()
    contents |= {"model.keras": saving.result(), "model.onnx": onnx}
    return write_bundle(
        run.folder / MODEL,
        contents,
        classes=classes,
        size=settings.image_size,
        fit=settings.fit,
        weights={"name": run.backbone.name, "sha256": run.backbone.sha256},
        temperature=temperature,
        blocks=FEATURES[settings.features],
        unknown=unknown.result(),
        rest_class=find_rest_class(classes, settings.rest_class),
        sets=calibration.sets,
    )


def _predict_golden(onnx: bytes, golden: Mapping[str, bytes], settings: Settings) -> dict[str, list[float]]:
    runtime = OnnxRuntime(onnx)
    pixels = {name: load_pixels(photo, size=settings.image_size, fit=settings.fit) for name, photo in golden.items()}
    return {name: runtime.run(photo[None]).probabilities[0].tolist() for name, photo in pixels.items()}


def compare_frameworks(network: Any, bundle: Bundle) -> None:
    """Make sure that the Keras model says of some golden photos what model.onnx did.

    Raises:
        ModelError: if any probability differs by more than 1e-4.
    """
    from pronk.backbone.keras_network import predict_eagerly

    golden = dict(list(bundle.golden().items())[:COMPARED_PHOTOS])
    photos = [
        load_pixels(bundle.folder / name, size=bundle.size, fit=bundle.fit, version=bundle.decoding) for name in golden
    ]
    difference = float(np.abs(predict_eagerly(network, np.stack(photos)) - np.array(list(golden.values()))).max())
    if not difference <= EXPORT_TOLERANCE:
        raise ModelError(
            f"model.onnx and model.keras differ by {difference:.2g} on the golden photos",
            hint="train again with another version of keras or onnxruntime",
        )
