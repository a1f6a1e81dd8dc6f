"""Cross-validated heads on view 0 -> the plan of a run: what the head reads, and how long phase 2 goes on.

Time is spent where it buys something: where the frozen network is nearly always right, a long phase 2 finds little to
mend, and has many good features to spoil.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pronk.analysis.head import (
    FOLDS,
    MIDDLE_STRENGTH,
    Lesson,
    class_weights,
    measure_strengths,
    measure_views,
)
from pronk.backbone.architecture import FEATURES
from pronk.config import CHANGES, USUAL, Settings
from pronk.dataset.loading import Photo
from pronk.dataset.split import take_in_turn
from pronk.training.features import Features
from pronk.training.run_folder import Run
from pronk.training.workers import follow, tell

READS = {"top": "features of the last block", "multi": "features of several blocks"}
# Steps of phase 1, as progress tells them: folds, and iterations of the solver as far as these can be foreseen.
FOLD_STEPS = len(FEATURES) * FOLDS
STEPS = FOLD_STEPS + 60
LEAST_VIEWS = 2  # all that `auto` takes where more would not pay
# Cross-validated accuracy of the frozen network, which learns from three photos of four there, from which on phase 2
# stays short. On the three sets above it (of ten, one split each) a long one lowers the test loss of none.
SOLVED = 0.92


@dataclasses.dataclass(frozen=True)
class Pace:
    """How far phase 2 goes.

    Attributes:
        views: augmented views per training photo.
        epochs: passes over the training photos.
        learning_rate: the largest step, as a share of the weights.
    """

    views: int
    epochs: int
    learning_rate: float


# A mirrored photo may be of another class; only some may be turned over, as those from above or of a microscope. Either
# shows in how well heads that never learned such photos recognise them. Of so many photos it is asked: what mirroring
# costs is less (.04 in traffic signs, .11 in hand signs, on eight other sets nothing for certain) than turning costs.
MOST_ASKED = {"mirror": 300, "upside-down": 100, "quarter-turns": 100}
ASKED = {"mirror": "mirrored", "upside-down": "turned upside down", "quarter-turns": "turned by quarters"}
CLEAR = 2.0  # standard errors

# Over the seven others the test log-loss is .63 of the frozen head's (geometric mean, one split each). Traffic signs
# come from .85 to .18: at 1e-2 to .31 (6 epochs), at 3e-3 to .33 (6 epochs), with 4 views and 6 epochs to .28, from
# block 9 on to .21. In absolute steps (Adam, 1e-4 and 3e-4) no rate suits both them and textures.
LONG = Pace(views=6, epochs=8, learning_rate=5e-3)
MOST_ROWS, MOST_STEPS = 6000, 4000  # of photos times views, and photos times epochs: of many photos each is needed less
# At 1e-3 alpaca, groceries and monkeys lose up to a tenth against the frozen head (four splits each), at this nothing.
SHORT = Pace(views=LEAST_VIEWS, epochs=1, learning_rate=3e-4)
# The network has never seen a photo. Alpaca photos, one split, validation log-loss: .53 frozen, .47 after this, .52 at
# 1e-3; in 10 epochs .49, and .50 at 1e-2.
OFFLINE = Pace(views=8, epochs=20, learning_rate=3e-3)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What was asked for, or chosen by the training photos.

    Attributes:
        features: what the head reads, a key of FEATURES.
        strength: strength of the head's regularisation.
        fine_tune_from: last layer of the frozen blocks.
        augment: what views differ in, as the setting says it.
        pace: how far phase 2 goes.
        why: the reasons, in words.
        answers: of each photo, by digest: the probability of its class, and 1 where that was the most likely, by heads
            that had not seen it; empty where there are too few photos for folds.
    """

    features: str
    strength: float
    fine_tune_from: str
    augment: str
    pace: Pace
    why: str
    answers: Mapping[str, tuple[float, float]]

    @property
    def chosen(self) -> dict[str, Any]:
        """The settings that come to the same without `auto`."""
        names = {"features": self.features, "fine_tune_from": self.fine_tune_from}
        return {**names, "augment": self.augment, **dataclasses.asdict(self.pace)}


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a head may read.

    Attributes:
        features: a key of FEATURES.
        strength: the best strength of the head's regularisation.
        loss: cross-validated log-loss, in nats; None where there are too few photos for folds, as with accuracy.
        accuracy: cross-validated accuracy.
        answers: those of the plan.
    """

    features: str
    strength: float
    loss: float | None = None
    accuracy: float | None = None
    answers: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)


def least_views(settings: Settings) -> int:
    """Return the views that are needed whatever the plan will be."""
    if settings.augment == "none":
        return 1
    views = settings.views if isinstance(settings.views, int) else LEAST_VIEWS
    return min(views, LEAST_VIEWS) if settings.augment == "auto" else views


def make_plan(features: Features, run: Run) -> Plan:
    """Choose what `auto` stands for, by the training photos alone, in workers: this process imports Keras."""
    settings, photos = run.settings, features.dataset.part("train")
    told = run.work / "head"
    task = run.pool.submit(choose_reading, features, photos, settings, told)
    reading, why = follow(task, told, lambda folds: run.on_progress("head", folds, STEPS))
    is_solved = reading.accuracy is not None and reading.accuracy >= SOLVED
    pace = SHORT if is_solved else fit_long(len(photos), settings)
    pace = dataclasses.replace(pace, views=1) if settings.augment == "none" else pace
    asked = {name: getattr(settings, name) for name in dataclasses.asdict(pace)}
    pace = dataclasses.replace(pace, **{name: value for name, value in asked.items() if value != "auto"})
    if reading.accuracy is not None and "auto" in asked.values():
        length = "short" if is_solved else "long"
        why += f"; a {length} phase 2, since the frozen network is right on {reading.accuracy:.0%} of photos left out"
    augment = ",".join(USUAL) if settings.augment == "auto" else settings.augment
    if settings.augment == "auto" and pace.views > 1 and reading.accuracy is not None and not is_solved:
        augment, reasons = choose_changes(features, reading, run)
        why += "".join(f"; {reason}" for reason in reasons)
    return Plan(reading.features, reading.strength, features.extraction.cut, augment, pace, why, reading.answers)


def choose_changes(features: Features, reading: Reading, run: Run) -> tuple[str, list[str]]:
    """Ask some training photos which changes views may differ in; return the reasons in words too."""
    measure = functools.partial(_measure_change, features.reading(reading.features), reading.strength, run.settings)
    changes, reasons = set(USUAL), []
    for change, (cost, error) in zip(ASKED, run.pool.map(measure, ASKED), strict=True):
        if change in USUAL and cost > CLEAR * error:
            changes.remove(change)
            reasons.append(
                f"views are not {ASKED[change]}: it makes photos harder to recognise, by {cost:.3f} of log-loss"
            )
        elif change not in USUAL and cost < 0:
            changes.add(change)
            reasons.append(f"views are {ASKED[change]} too: it makes photos no harder to recognise")
    return ",".join(name for name in CHANGES if name in changes), reasons


def _measure_change(features: Features, strength: float, settings: Settings, change: str) -> tuple[float, float]:
    """Return by how much the log-loss, in nats, is higher on changed photos than on plain ones, and its standard error.

    The heads that judge have learned from other photos, all of them plain.
    """
    photos = sorted(features.dataset.part("train"), key=lambda photo: photo.digest)
    by_class = [[photo for photo in photos if photo.label == name] for name in features.dataset.classes]
    lesson = make_lesson(features.changed((change,)), take_in_turn(by_class)[: MOST_ASKED[change]], settings, views=2)
    plain, changed = measure_views(lesson, strength, seed=settings.seed).T
    costs = changed - plain
    return float(costs.mean()), float(costs.std(ddof=1) / len(costs) ** 0.5)


def choose_reading(
    features: Features, photos: Sequence[Photo], settings: Settings, told: Path | None = None
) -> tuple[Reading, str]:
    """Choose what a head reads, by the lower cross-validated log-loss on view 0; return the reason in words too.

    The file `told` says how many folds are done.
    """
    asked, done = settings.features, itertools.count(1)

    def on_fold() -> None:
        if told:
            tell(told, next(done))

    names = FEATURES if asked == "auto" else (asked,)
    readings = (_measure(features, photos, settings, name, on_fold) for name in names)
    found = sorted(readings, key=lambda reading: reading.loss or 0)
    best = found[0]
    if asked != "auto":
        return best, f"{READS[asked]}: asked for with --features {asked}"
    if best.loss is None:
        return Reading("multi", best.strength), f"{READS['multi']}: too few photos to compare them with others"
    why = f"cross-validated log-loss {best.loss:.4f}, with {READS[found[1].features]} {found[1].loss:.4f}"
    return best, f"{READS[best.features]}: {why}"


def make_lesson(features: Features, photos: Sequence[Photo], settings: Settings, *, views: int = 1) -> Lesson:
    """Return some views of photos with their classes, weights and groups."""
    dataset = features.dataset
    targets, classes = dataset.targets(photos), len(dataset.classes)
    weights = class_weights(targets, classes, settings.class_weights)[targets]
    X = features.pooled(photos, views=views)
    return Lesson(X, targets, [photo.group for photo in photos], weights, classes, views)


def fit_long(photos: int, settings: Settings) -> Pace:
    """Return the pace of a long phase 2 for so many training photos."""
    if settings.weights == "offline":
        return OFFLINE
    views, epochs = MOST_ROWS // photos, MOST_STEPS // photos
    return dataclasses.replace(
        LONG, views=max(LEAST_VIEWS, min(LONG.views, views)), epochs=max(3, min(LONG.epochs, epochs))
    )


def _measure(
    features: Features, photos: Sequence[Photo], settings: Settings, name: str, on_fold: Callable[[], None]
) -> Reading:
    lesson = make_lesson(features.reading(name), photos, settings)
    # Views do not change which strength is best: by a factor of three at most, over 29 splits of ten sets.
    measured = measure_strengths(lesson, seed=settings.seed, on_fold=on_fold)
    if measured is None:
        return Reading(name, MIDDLE_STRENGTH)
    best = measured.best
    losses, right = measured.losses[best], measured.right[best]
    pairs = zip((photo.digest for photo in photos), np.exp(-losses).tolist(), right.tolist(), strict=True)
    answers = {digest: (chance, is_right) for digest, chance, is_right in pairs if not math.isnan(chance)}
    return Reading(name, measured.strength, float(np.nanmean(losses)), float(np.nanmean(right)), answers)
