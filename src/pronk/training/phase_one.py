"""Features -> phase 1: what the head reads, and the head on the frozen network, solved to its optimum."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pronk.analysis.head import Head, Lesson, choose_strength, class_weights, fit_head, measure_strengths
from pronk.analysis.metrics import log_loss
from pronk.backbone.architecture import FEATURES
from pronk.config import Settings
from pronk.dataset.loading import Photo
from pronk.training.features import Features

READS = {"top": "features of the last block", "multi": "features of several blocks"}
MOST_COMPARED = 1000  # photos by which features are chosen
HistoryRow = dict[str, Any]  # a row of history.csv


@dataclasses.dataclass(frozen=True)
class Frozen:
    """What phase 1 made: the head, and how it does on the validation photos.

    Attributes:
        head: solved to its optimum.
        history: one row per iteration of the solver.
        val_probabilities: float64 [n, C] of the validation photos.
        features: what the head reads, a key of FEATURES.
        why: the reason for that, in words.
    """

    head: Head
    history: tuple[HistoryRow, ...]
    val_probabilities: np.ndarray
    features: str = "top"
    why: str = ""


class Fit(NamedTuple):
    """Mean log-loss and accuracy over some photos."""

    loss: float
    accuracy: float


def measure_fit(probabilities: np.ndarray, targets: np.ndarray) -> Fit:
    """Measure probabilities [n, C] against class indices [n]."""
    return Fit(log_loss(probabilities, targets), float((probabilities.argmax(axis=1) == targets).mean()))


def history_row(phase: str, epoch: int, *, train: Fit, val: Fit, learning_rate: float, started: float) -> HistoryRow:
    """Return a row of history.csv for an epoch, or an iteration, that was started at a moment of `perf_counter`."""
    return {
        "phase": phase,
        "epoch": epoch,
        "loss": train.loss,
        "accuracy": train.accuracy,
        "val_loss": val.loss,
        "val_accuracy": val.accuracy,
        "learning_rate": learning_rate,
        "seconds": round(time.perf_counter() - started, 3),
    }


def choose_features(features: Features, photos: Sequence[Photo], settings: Settings) -> tuple[str, str]:
    """Choose what a head reads: by the lower cross-validated log-loss on view 0, each at its best strength.

    Returns:
        A key of FEATURES, and the reason in words.
    """
    if settings.features != "auto":
        return settings.features, f"{READS[settings.features]}: asked for with --features {settings.features}"
    lessons = {name: _make_lesson(features.reading(name), photos, settings, views=1) for name in FEATURES}
    measured = {
        name: measure_strengths(lesson, seed=settings.seed, most=MOST_COMPARED) for name, lesson in lessons.items()
    }
    losses = {name: float(found.min()) for name, found in measured.items() if found is not None}
    if not losses:
        return "multi", f"{READS['multi']}: too few photos to compare them with others"
    best, other = sorted(losses, key=losses.__getitem__)
    why = f"cross-validated log-loss {losses[best]:.4f}, with {READS[other]} {losses[other]:.4f}"
    return best, f"{READS[best]}: {why}"


def train_head(features: Features, settings: Settings) -> Frozen:
    """Choose features and strength inside the training part, then solve for the head."""
    dataset = features.dataset
    train, val = dataset.part("train"), dataset.part("val")
    chosen, why = choose_features(features, train, settings)
    features = features.reading(chosen)
    lesson = _make_lesson(features, train, settings, views=settings.views)
    targets, val_X, val_targets = lesson.targets.repeat(lesson.views), features.pooled(val), dataset.targets(val)
    strength = choose_strength(lesson, seed=settings.seed)
    history: list[HistoryRow] = []
    started = time.perf_counter()

    def record(iteration: int, head: Head) -> None:
        nonlocal started
        fits = {
            "train": measure_fit(head.predict_proba(lesson.features), targets),
            "val": measure_fit(head.predict_proba(val_X), val_targets),
        }
        history.append(history_row("frozen", iteration, **fits, learning_rate=0.0, started=started))
        started = time.perf_counter()

    head = fit_head(lesson, strength, on_iteration=record)
    return Frozen(head, tuple(history), head.predict_proba(val_X), chosen, why)


def _make_lesson(features: Features, photos: Sequence[Photo], settings: Settings, *, views: int) -> Lesson:
    dataset = features.dataset
    targets, classes = dataset.targets(photos), len(dataset.classes)
    weights = class_weights(targets, classes, settings.class_weights)[targets]
    X = features.pooled(photos, views=views)
    return Lesson(X, targets, [photo.group for photo in photos], weights, classes, views)
