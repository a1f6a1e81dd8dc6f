"""The kept model + validation photos -> what its answers are worth: temperature, `unknown`, sets of classes."""

import dataclasses
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from pronk.analysis.calibration import SetScores, Unknown, conformal_threshold, fit_temperature, temper
from pronk.analysis.novelty import fit_novelty
from pronk.backbone.onnx_graphs import write_suffix
from pronk.backbone.weights import Backbone
from pronk.config import Settings
from pronk.dataset.loading import Dataset, Photo
from pronk.model.formats.onnx import open_session
from pronk.pools import available_cores
from pronk.training.features import Features
from pronk.training.phases import Kept

PHOTOS_AT_ONCE = 32


@dataclasses.dataclass(frozen=True)
class Answers:
    """What is put between a model's numbers and its answers; all of it from validation photos.

    Attributes:
        temperature: the logits are divided by it.
        sets: several classes of which one is right.
        unknown: tells photos of other things, once it is fitted; None where too few photos can promise nothing.
    """

    temperature: float
    sets: SetScores
    unknown: Future[Unknown | None]


def calibrate(
    kept: Kept, backbone: Backbone, dataset: Dataset, features: Features, settings: Settings, pool: Executor
) -> Answers:
    """Fit the temperature, the distance and its threshold, and the sets.

    Args:
        kept: the model that was chosen.
        backbone: where its weights came from.
        dataset: the photos.
        features: their cached rows.
        settings: the coverage that is promised, and the cut.
        pool: of worker processes; one of them fits the distance, while this process writes the model.
    """
    targets = dataset.targets(dataset.part("val"))
    temperature = fit_temperature(kept.val_probabilities, targets)
    sets = SetScores.fit(temper(kept.val_probabilities, temperature), targets)
    suffix = None
    if kept.weights is not backbone.weights:
        suffix = write_suffix(kept.weights, size=settings.image_size, cut=settings.fine_tune_from)
    return Answers(temperature, sets, pool.submit(fit_unknown, suffix, dataset, features, settings.coverage))


def fit_unknown(suffix: bytes | None, dataset: Dataset, features: Features, coverage: float) -> Unknown | None:
    """Fit the distance to the training photos, and set its threshold with the validation photos.

    Args:
        suffix: the fine-tuned blocks as an ONNX graph; None for the frozen network.
        dataset: the photos.
        features: their cached rows.
        coverage: share of genuine photos that shall keep below the threshold.

    Returns:
        None where too few validation photos can promise nothing.
    """
    train, val = dataset.part("train"), dataset.part("val")
    if conformal_threshold(np.zeros(len(val)), coverage) is None:
        return None
    pool = FeaturePool(suffix, features)
    rows = pool.read(train)
    # Its many small products take forty times as long where several threads wait for each other.
    with threadpool_limits(1):
        novelty = fit_novelty(rows, dataset.targets(train), classes=len(dataset.classes))
    threshold = conformal_threshold(novelty.distance(pool.read(val)), coverage)
    assert threshold is not None
    return Unknown(novelty, threshold, coverage, len(val))


class FeaturePool:
    """Pooled features of the kept model: as cached where it is the frozen one, else through its fine-tuned blocks."""

    def __init__(self, suffix: bytes | None, features: Features) -> None:
        self.features = features
        self.suffix: Any = None if suffix is None else open_session(suffix, threads=available_cores())

    def read(self, photos: tuple[Photo, ...]) -> np.ndarray:
        """Return float32 [n, 1280] of the photos as they are."""
        if self.suffix is None:
            return self.features.pooled(photos)
        chunks = (photos[i : i + PHOTOS_AT_ONCE] for i in range(0, len(photos), PHOTOS_AT_ONCE))
        return np.concatenate(
            [self.suffix.run(["features"], {"cut": self.features.cuts(chunk, view=0)})[0] for chunk in chunks]
        )
