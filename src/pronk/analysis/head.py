"""Pooled features -> the Dense head: phase 1, a convex problem solved to its optimum.

Multinomial logistic regression on standardised features, checked against scikit-learn in the tests. How strong its
regularisation is, cross-validation tells.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from pronk.analysis.dealing import deal_groups
from pronk.analysis.solver import MANY, PRECISIONS, ROUGH_PRECISIONS, Problem, softmax
from pronk.pools import start_threads

# On standardised features; from the strongest, which is solved in the fewest steps, to the weakest.
STRENGTHS = (1.0, 3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4)
MIDDLE_STRENGTH = 1e-2
FOLDS = 4
MAX_CROSS_VALIDATED = 1000  # photos
SCALED_AT_ONCE = 512  # rows
LEAST_DEVIATION = 1e-3  # of the features' mean deviation
MOST_UNEQUAL = 3.0  # ratio of class sizes above which --class-weights auto balances


@dataclasses.dataclass(frozen=True)
class Head:
    """A Dense layer on pooled features.

    Attributes:
        weights: float32 [d, C].
        bias: float32 [C].
        strength: strength of the regularisation it was fitted with.
    """

    weights: np.ndarray
    bias: np.ndarray
    strength: float = 0.0

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Return probabilities, float64 [n, C], for pooled features [n, d]."""
        return softmax((features @ self.weights + self.bias).astype(np.float64))


def class_weights(targets: np.ndarray, classes: int, mode: str) -> np.ndarray:
    """Return one weight per class, float64 [C], whose mean over the photos is 1.

    The mode is `none`, `balanced` (as in scikit-learn), or `auto`: balanced above 3:1.

    Example:
        >>> class_weights(np.array([0, 0, 0, 1]), 2, "balanced")
        array([0.66666667, 2.        ])
    """
    counts = np.bincount(targets, minlength=classes)
    unequal = counts.max() > MOST_UNEQUAL * counts.min()
    if mode == "none" or (mode == "auto" and not unequal):
        return np.ones(classes)
    return np.asarray(len(targets) / (classes * np.maximum(counts, 1)))


@dataclasses.dataclass(frozen=True)
class Lesson:
    """Labelled photos to learn from.

    Attributes:
        features: float32 [n * views, d], a photo's views side by side.
        targets: class indices, int [n].
        groups: n names; photos with equal ones are copies of each other, or belong together.
        weights: one per photo, float [n]; their mean is taken out.
        classes: number of classes.
        views: number of views of each photo.
    """

    features: np.ndarray
    targets: np.ndarray
    groups: Sequence[str]
    weights: np.ndarray
    classes: int
    views: int = 1


class Strengths(NamedTuple):
    """Cross-validated log-loss and rightness of each photo at each of STRENGTHS, float64 [S, n].

    Photos that took no part, of more than MAX_CROSS_VALIDATED photos or more than MANY classes, have NaN. Where only so
    many classes took part, the same strength would be `times` as strong among all: a class's share of the mean loss is
    smaller among more, but not the penalty of its weights.
    """

    losses: np.ndarray
    right: np.ndarray
    times: float = 1.0

    @property
    def best(self) -> int:
        """The place of the strength with the lowest mean log-loss."""
        return int(np.nanmean(self.losses, axis=1).argmin())

    @property
    def strength(self) -> float:
        """The strength to fit all classes with."""
        return STRENGTHS[self.best] / self.times


def fit_head(
    lesson: Lesson,
    strength: float,
    *,
    on_iteration: Callable[[int, Callable[[], Head]], None] = lambda number, make_head: None,
) -> Head:
    """Fit a head to all views of all photos, at one strength of the regularisation.

    `on_iteration` is called with the number of each finished iteration and what makes the head so far.
    """
    from threadpoolctl import threadpool_limits

    scaler, iterations = Scaler.fit(lesson.features), itertools.count(1)
    targets, weights = lesson.targets.repeat(lesson.views), lesson.weights.repeat(lesson.views)
    with threadpool_limits(1):  # or the axes would differ in their last bits from machine to machine
        problem = Problem.pose(scaler.transform(lesson.features), targets, weights, lesson.classes)

    def finish(solution: np.ndarray) -> Head:
        return scaler.unfold(problem.unfold(solution), strength)

    def tell(solution: np.ndarray) -> None:
        on_iteration(next(iterations), functools.partial(finish, solution))

    precisions = ROUGH_PRECISIONS if lesson.classes > MANY else PRECISIONS
    with start_threads() as pool:
        return finish(problem.solve(strength, precisions=precisions, pool=pool, on_solution=tell))


def choose_strength(lesson: Lesson, *, seed: int) -> float:
    """Choose the strength with the lowest cross-validated log-loss; where photos are too few, the middle one."""
    measured = measure_strengths(lesson, seed=seed)
    return MIDDLE_STRENGTH if measured is None else measured.strength


def measure_strengths(lesson: Lesson, *, seed: int, on_fold: Callable[[], None] = lambda: None) -> Strengths | None:
    """Cross-validate a head at each strength.

    The lesson has one view of each photo. Folds never divide a group of duplicates; the seed, groups and classes alone
    deal them, so losses of other features of the same photos can be compared.

    None is returned where there are too few photos for folds.
    """
    rng = np.random.default_rng(seed)
    if len(set(lesson.groups)) < 2 * FOLDS:
        return None
    folds = deal_groups(lesson.groups, k=FOLDS, rng=rng)
    if lesson.classes > MANY:
        folds[~np.isin(lesson.targets, rng.permutation(lesson.classes)[:MANY])] = -1
    dealt = rng.permutation(np.flatnonzero(folds >= 0))
    folds[dealt[MAX_CROSS_VALIDATED:]] = -1
    losses, right = _judge_folds(lesson, folds, STRENGTHS, on_fold)
    return Strengths(losses[:, :, 0], right[:, :, 0], max(1.0, lesson.classes / MANY))


def measure_views(lesson: Lesson, strength: float, *, seed: int) -> np.ndarray:
    """Cross-validate heads that learn view 0 of photos by their log-loss on each view of others: float64 [n, views]."""
    folds = deal_groups(lesson.groups, k=FOLDS, rng=np.random.default_rng(seed))
    return np.asarray(_judge_folds(lesson, folds, [strength])[0][0])


def _judge_folds(
    lesson: Lesson, folds: np.ndarray, strengths: Sequence[float], on_fold: Callable[[], None] = lambda: None
) -> tuple[np.ndarray, np.ndarray]:
    """Return log-loss and rightness, [S, n, views]; NaN of photos that have no fold: theirs is -1."""
    from threadpoolctl import threadpool_limits

    losses, right = np.full((2, len(strengths), len(folds), lesson.views), np.nan)
    judge = functools.partial(_judge_fold, lesson, folds, strengths)
    # Set once around all threads: the limit is the whole process's, and each thread would lift it for the others.
    with threadpool_limits(1), start_threads() as pool:
        for left, (lost, was_right) in zip(_list_left(folds), pool.map(judge, _list_left(folds)), strict=True):
            losses[:, left], right[:, left] = lost, was_right
            on_fold()
    return losses, right


def _list_left(folds: np.ndarray) -> list[np.ndarray]:
    """Return the places of the photos that each fold leaves out."""
    left = [np.flatnonzero(folds == fold) for fold in range(FOLDS)]
    return [places for places in left if 0 < len(places) < (folds >= 0).sum()]


def _judge_fold(
    lesson: Lesson, folds: np.ndarray, strengths: Sequence[float], left: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return log-loss and rightness of the photos left out, [S, m, views]."""
    taking_part = folds >= 0
    fitted = taking_part.copy()
    fitted[left] = False
    X = lesson.features.reshape(len(folds), lesson.views, -1)
    present, targets = np.unique(lesson.targets[taking_part], return_inverse=True)
    places = np.zeros(len(folds), int)
    places[taking_part] = targets
    predicted = predict_left_out(
        X[fitted, 0],
        places[fitted],
        X[left].reshape(-1, X.shape[2]),
        classes=len(present),
        weights=lesson.weights[fitted],
        strengths=strengths,
    )
    wanted = places[left].repeat(lesson.views)
    given = predicted[:, np.arange(len(wanted)), wanted]
    shape = len(strengths), len(left), lesson.views
    losses = -np.log(np.clip(given, 1e-7, None)).reshape(shape)
    return losses, (predicted.argmax(axis=2) == wanted).reshape(shape)


@dataclasses.dataclass(frozen=True)
class Scaler:
    """Mean and deviation of each feature, which the finished head takes back into its weights and bias."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray) -> "Scaler":
        """Measure features [n, d]; a feature that hardly varies is left as it is, or its weight would be huge."""
        mean, squares = features.mean(axis=0, dtype=np.float64), np.zeros(features.shape[1])
        for start in range(0, len(features), SCALED_AT_ONCE):  # or it would take three times the memory of all
            squares += ((features[start : start + SCALED_AT_ONCE] - mean) ** 2).sum(axis=0)
        deviation = np.sqrt(squares / len(features))
        return cls(
            mean,
            np.where(deviation > LEAST_DEVIATION * deviation.mean() + 1e-6, deviation, 1.0),
        )

    def transform(self, features: np.ndarray) -> np.ndarray:
        """Standardise features, float32 [n, d]."""
        standardised = features.astype(np.float32)
        standardised -= self.mean.astype(np.float32)
        standardised /= self.scale.astype(np.float32)
        return standardised

    def unfold(self, solution: np.ndarray, strength: float) -> Head:
        """Turn a solution [d + 1, C] for standardised features into a head for raw ones."""
        weights = solution[:-1] / self.scale[:, None]
        bias = solution[-1] - self.mean @ weights
        return Head(weights.astype(np.float32), bias.astype(np.float32), strength)


def predict_left_out(
    X: np.ndarray,
    targets: np.ndarray,
    left_out: np.ndarray,
    *,
    classes: int,
    weights: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
) -> np.ndarray:
    """Fit a head at several strengths, and predict other rows with each: what cross-validation does in every fold.

    X, float32 [n, d], are the rows to fit, with a class index and a weight each; left out are float32 [m, d]. The S
    strengths go from strong to weak, and each solution starts at the one before.

    Returns:
        Probabilities, float64 [S, m, C].
    """
    scaler = Scaler.fit(X)
    problem, judged = Problem.pose(scaler.transform(X), targets, weights, classes), scaler.transform(left_out)
    start, predicted = None, []
    for strength in strengths:
        precisions = ROUGH_PRECISIONS if start is None else ROUGH_PRECISIONS[-1:]
        start = problem.solve(strength, start=start, precisions=precisions)
        predicted.append(problem.predict_proba(start, judged))
    return np.stack(predicted)
