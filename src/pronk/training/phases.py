"""Features -> two models: phase 1 fits the head on the frozen network, phase 2 fine-tunes the top blocks with it."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pronk.analysis.head import Head, choose_strength, class_weights, fit_head
from pronk.analysis.metrics import accuracy_record, log_loss
from pronk.config import Settings
from pronk.dataset.loading import Dataset, Photo
from pronk.errors import SettingsError
from pronk.model.run import ChoiceRecord, PartRecord
from pronk.progress import Progress, no_progress
from pronk.training.features import Features
from pronk.training.finetuning import Batch, FineTuning, HistoryRow


@dataclasses.dataclass(frozen=True)
class Frozen:
    """What phase 1 made: the head, and how it does on the validation photos.

    Attributes:
        head: solved to its optimum.
        history: one row per iteration of the solver.
        val_probabilities: float64 [n, C] of the validation photos.
    """

    head: Head
    history: tuple[HistoryRow, ...]
    val_probabilities: np.ndarray


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """What phase 2 made.

    Attributes:
        head: of the best epoch.
        weights: arrays by layer name of the best epoch, for the whole MobileNetV2.
        history: one row per epoch.
        val_probabilities: float64 [n, C] of the validation photos in the best epoch.
        best_epoch: the one with the lowest validation loss, counted from 1.
    """

    head: Head
    weights: Mapping[str, Sequence[np.ndarray]]
    history: tuple[HistoryRow, ...]
    val_probabilities: np.ndarray
    best_epoch: int


@dataclasses.dataclass(frozen=True)
class Kept:
    """The model that was chosen.

    Attributes:
        head: its Dense layer.
        weights: arrays by layer name of its MobileNetV2.
        val_probabilities: float64 [n, C] of the validation photos, at temperature 1.
        comparison: of the two phases: gained, lost, p, kept, why.
    """

    head: Head
    weights: Mapping[str, Sequence[np.ndarray]]
    val_probabilities: np.ndarray
    comparison: ChoiceRecord


def train_head(dataset: Dataset, features: Features, settings: Settings) -> Frozen:
    """Phase 1: choose the strength inside the training part, then solve for the head."""
    train, val = dataset.part("train"), dataset.part("val")
    targets, val_targets = dataset.targets(train), dataset.targets(val)
    classes = len(dataset.classes)
    X, val_X = features.pooled(train, views=settings.views), features.pooled(val)
    weights = class_weights(targets, classes, settings.class_weights)[targets]
    strength = choose_strength(
        X,
        targets,
        [photo.group for photo in train],
        classes=classes,
        weights=weights,
        views=settings.views,
        seed=settings.seed,
    )
    history: list[HistoryRow] = []
    repeated, started = targets.repeat(settings.views), time.perf_counter()

    def record(iteration: int, head: Head) -> None:
        nonlocal started
        fitted, judged = head.predict_proba(X), head.predict_proba(val_X)
        history.append(_row("frozen", iteration, fitted, repeated, judged, val_targets, 0.0, started))
        started = time.perf_counter()

    head = fit_head(
        X,
        repeated,
        classes=classes,
        weights=weights.repeat(settings.views),
        strength=strength,
        on_iteration=record,
    )
    return Frozen(head, tuple(history), head.predict_proba(val_X))


def fine_tune(
    network: Any,
    frozen: Frozen,
    dataset: Dataset,
    features: Features,
    settings: Settings,
    work: Path,
    on_progress: Progress = no_progress,
) -> FineTuned:
    """Phase 2: train the blocks after the cut and the head on cached activations, until the validation loss rises.

    Args:
        network: the whole Keras model; it holds the best epoch's weights afterwards.
        frozen: what phase 1 made.
        dataset: the photos.
        features: their cached rows.
        settings: learning rate, epochs, patience, batch size, seed.
        work: folder for checkpoints; where it holds some, training goes on from them.
        on_progress: called with ("fine_tune", steps done, steps of all epochs).
    """
    from pronk.backbone.keras_network import build_suffix, get_head, get_weights, set_head

    val = dataset.part("val")
    val_targets = dataset.targets(val)
    set_head(network, frozen.head)
    state = FineTuning(build_suffix(network, settings.fine_tune_from), settings)
    best = state.restore(work)
    while not state.is_done:
        started = time.perf_counter()
        state.epoch += 1
        batches = _Batches(dataset, features, settings, state.epoch)

        def report(step: int, epoch: int = state.epoch, steps: int = len(batches)) -> None:
            on_progress("fine_tune", (epoch - 1) * steps + step, settings.epochs * steps)

        loss, accuracy = state.run_epoch(batches, report)
        judged = _predict(state.suffix, features, val, settings.batch_size)
        if not np.isfinite(judged).all():
            raise SettingsError(
                f"fine-tuning came to numbers beyond all bounds in epoch {state.epoch}",
                hint=f"try a --learning-rate below {settings.learning_rate:g}, or --frozen-only",
            )
        val_loss = log_loss(judged, val_targets)
        row = _row("fine_tuned", state.epoch, None, None, judged, val_targets, settings.learning_rate, started)
        state.history.append(row | {"loss": loss, "accuracy": accuracy})
        if state.keep_if_best(val_loss):
            best = judged
        assert best is not None, "the first epoch is always the best so far"
        state.save(work, best)
    on_progress("fine_tune", state.epoch, state.epoch)
    state.suffix.set_weights(state.best)
    assert best is not None, "the first epoch is always the best so far"
    return FineTuned(get_head(network), get_weights(network), tuple(state.history), best, state.best_epoch)


class _Batches(Sequence[Batch]):
    """The batches of one epoch, read from the cache as they are asked for.

    All have the same size, so that the training step is traced once, and as few photos as possible come up twice to
    fill the last one.
    """

    def __init__(self, dataset: Dataset, features: Features, settings: Settings, epoch: int) -> None:
        self.photos = dataset.part("train")
        self.targets = dataset.targets(self.photos)
        self.weights = class_weights(self.targets, len(dataset.classes), settings.class_weights)[self.targets]
        self.features, self.view = features, epoch % settings.views
        order = np.random.default_rng([settings.seed, epoch]).permutation(len(self.photos))
        self.batches = _cut_evenly(order, settings.batch_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: Any) -> Any:
        chosen = self.batches[index]
        cuts = self.features.cuts([self.photos[i] for i in chosen], view=self.view)
        return cuts, self.targets[chosen], self.weights[chosen]


def _cut_evenly(order: np.ndarray, most: int) -> np.ndarray:
    # Batches of equal size, at most `most`; the last one is filled up from the start.
    steps = -(-len(order) // most)
    return np.resize(order, (steps, -(-len(order) // steps)))


def _predict(suffix: Any, features: Features, photos: Sequence[Photo], size: int) -> np.ndarray:
    """Predict in batches of one size, so that one trace serves all."""
    batches = (
        features.cuts([photos[i] for i in chosen], view=0) for chosen in _cut_evenly(np.arange(len(photos)), size)
    )
    outputs = [np.asarray(suffix.predict_on_batch(batch), np.float64) for batch in batches]
    return np.concatenate(outputs)[: len(photos)]


def _row(
    phase: str,
    epoch: int,
    fitted: np.ndarray | None,
    targets: np.ndarray | None,
    judged: np.ndarray,
    val_targets: np.ndarray,
    learning_rate: float,
    started: float,
) -> HistoryRow:
    row: HistoryRow = {"phase": phase, "epoch": epoch}
    if fitted is not None and targets is not None:
        row |= {"loss": log_loss(fitted, targets), "accuracy": float((fitted.argmax(axis=1) == targets).mean())}
    return row | {
        "val_loss": log_loss(judged, val_targets),
        "val_accuracy": float((judged.argmax(axis=1) == val_targets).mean()),
        "learning_rate": learning_rate,
        "seconds": round(time.perf_counter() - started, 3),
    }


def part_record(probabilities: np.ndarray, targets: np.ndarray) -> PartRecord:
    """Return accuracy with its interval, and the log-loss.

    Example:
        >>> part_record(np.array([[1.0, 0.0]]), np.array([0]))["accuracy"]["n"]
        1
    """
    correct = probabilities.argmax(axis=1) == targets
    return {"accuracy": accuracy_record(correct), "loss": log_loss(probabilities, targets)}
