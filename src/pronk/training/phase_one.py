"""Features -> phase 1: the head on the frozen network, solved to its optimum."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pronk.analysis.head import Head, fit_head
from pronk.analysis.metrics import log_loss
from pronk.config import Settings
from pronk.training.features import Features
from pronk.training.plan import Plan, make_lesson
from pronk.training.workers import tell

EACH_MEASURED = 10  # iterations: after so many only each tenth is measured
MOST_WORK = 800_000  # rows times classes; of many classes the head learns fewer views
HistoryRow = dict[str, Any]  # a row of history.csv


@dataclasses.dataclass(frozen=True)
class Frozen:
    """What phase 1 made: the head, and how it does on the validation photos.

    Attributes:
        head: solved to its optimum.
        history: a row per iteration of the solver, of which later ones are measured now and then.
        val_probabilities: float64 [n, C] of the validation photos.
    """

    head: Head
    history: tuple[HistoryRow, ...]
    val_probabilities: np.ndarray


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


def train_head(features: Features, plan: Plan, settings: Settings, told: Path | None = None) -> Frozen:
    """Solve for the head on the training photos, in all views that a head reads; measure it on view 0.

    The file `told` says which iteration is done.
    """
    train, val = features.dataset.part("train"), features.dataset.part("val")
    views = max(1, min(features.read_views, MOST_WORK // (len(train) * len(features.dataset.classes))))
    lesson = make_lesson(features, train, settings, views=views)
    targets, val_targets = lesson.targets, features.dataset.targets(val)
    X, val_X = lesson.features[:: lesson.views], features.pooled(val)
    history: list[HistoryRow] = []
    started, last = time.perf_counter(), 1  # also where the solver begins at the optimum

    def record(iteration: int, head: Head) -> None:
        nonlocal started
        fits = {
            "train": measure_fit(head.predict_proba(X), targets),
            "val": measure_fit(head.predict_proba(val_X), val_targets),
        }
        history.append(history_row("frozen", iteration, **fits, learning_rate=0.0, started=started))
        started = time.perf_counter()

    def follow(iteration: int, make_head: Callable[[], Head]) -> None:
        nonlocal last
        last = iteration
        if told:
            tell(told, iteration)
        if iteration < EACH_MEASURED or iteration % EACH_MEASURED == 0:  # to measure takes half as long as to iterate
            record(iteration, make_head())

    head = fit_head(lesson, plan.strength, on_iteration=follow)
    if not history or history[-1]["epoch"] != last:
        record(last, head)
    return Frozen(head, tuple(history), head.predict_proba(val_X))
