"""Pooled features -> the Dense head: phase 1, a convex problem solved to its optimum.

Multinomial logistic regression on standardised features. The loss is the mean cross-entropy plus strength / 2 times
the squared norm of the weights, minimised by L-BFGS (Byrd et al. 1995) and checked against scikit-learn in the tests.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from pronk.analysis.dealing import deal_groups

# On standardised features; from the strongest, which is solved in the fewest steps, to the weakest.
STRENGTHS = (1.0, 3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4)
MIDDLE_STRENGTH = 1e-2
FOLDS = 4
MAX_ITERATIONS = 300
MAX_CROSS_VALIDATED = 1000  # photos
TOLERANCE = 1e-5
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


def softmax(logits: np.ndarray) -> np.ndarray:
    """Turn logits [n, C] into probabilities."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


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

    Photos that took no part, where there are more than MAX_CROSS_VALIDATED, have NaN.
    """

    losses: np.ndarray
    right: np.ndarray

    @property
    def best(self) -> int:
        """The place of the strength with the lowest mean log-loss."""
        return int(np.nanmean(self.losses, axis=1).argmin())


def fit_head(
    lesson: Lesson,
    strength: float,
    *,
    on_iteration: Callable[[int, "Head"], None] = lambda number, head: None,
) -> Head:
    """Fit a head to all views of all photos, at one strength of the regularisation.

    `on_iteration` is called with the number of each finished iteration and the head so far.
    """
    from threadpoolctl import threadpool_limits

    scaler, iterations = Scaler.fit(lesson.features), itertools.count(1)
    with threadpool_limits(1):  # for the reasons that `_Problem.solve` has
        rows, axes = _reduce(scaler.transform(lesson.features))

        def finish(solution: np.ndarray) -> Head:
            weights = solution[:-1] if axes is None else axes @ solution[:-1]
            return scaler.unfold(np.vstack([weights, solution[-1:]]), strength)

        def tell(solution: np.ndarray) -> None:
            on_iteration(next(iterations), finish(solution))

        targets, weights = lesson.targets.repeat(lesson.views), lesson.weights.repeat(lesson.views)
        problem = _Problem(rows, targets, weights, lesson.classes)
        return finish(problem.solve(strength, on_solution=tell))


def choose_strength(lesson: Lesson, *, seed: int) -> float:
    """Choose the strength with the lowest cross-validated log-loss; where photos are too few, the middle one."""
    measured = measure_strengths(lesson, seed=seed)
    return MIDDLE_STRENGTH if measured is None else STRENGTHS[measured.best]


def measure_strengths(lesson: Lesson, *, seed: int) -> Strengths | None:
    """Cross-validate a head at each strength.

    The lesson has one view of each photo. Folds never divide a group of duplicates; the seed and the groups alone deal
    them, so losses of other features of the same photos can be compared.

    None is returned where there are too few photos for folds.
    """
    rng = np.random.default_rng(seed)
    if len(set(lesson.groups)) < 2 * FOLDS:
        return None
    folds = deal_groups(lesson.groups, k=FOLDS, rng=rng)
    folds[rng.permutation(len(folds))[MAX_CROSS_VALIDATED:]] = -1
    losses, right = _judge_folds(lesson, folds, STRENGTHS)
    return Strengths(losses[:, :, 0], right[:, :, 0])


def measure_views(lesson: Lesson, strength: float, *, seed: int) -> np.ndarray:
    """Cross-validate heads that learn view 0 of photos by their log-loss on each view of others: float64 [n, views]."""
    folds = deal_groups(lesson.groups, k=FOLDS, rng=np.random.default_rng(seed))
    return np.asarray(_judge_folds(lesson, folds, [strength])[0][0])


def _judge_folds(lesson: Lesson, folds: np.ndarray, strengths: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return log-loss and rightness, [S, n, views]; NaN of photos that have no fold: theirs is -1."""
    X = lesson.features.reshape(len(folds), lesson.views, -1)
    losses, right = np.full((2, len(strengths), len(folds), lesson.views), np.nan)
    for fold in range(FOLDS):
        fitted, left = (folds != fold) & (folds >= 0), folds == fold
        if left.any() and fitted.any():
            targets = lesson.targets[left].repeat(lesson.views)
            predicted = predict_left_out(
                X[fitted, 0],
                lesson.targets[fitted],
                X[left].reshape(-1, X.shape[2]),
                classes=lesson.classes,
                weights=lesson.weights[fitted],
                strengths=strengths,
            )
            given = predicted[:, np.arange(len(targets)), targets]
            losses[:, left] = -np.log(np.clip(given, 1e-7, None)).reshape(len(strengths), -1, lesson.views)
            right[:, left] = (predicted.argmax(axis=2) == targets).reshape(len(strengths), -1, lesson.views)
    return losses, right


@dataclasses.dataclass(frozen=True)
class Scaler:
    """Mean and deviation of each feature, which the finished head takes back into its weights and bias."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray) -> "Scaler":
        """Measure features [n, d]; a feature that hardly varies is left as it is, or its weight would be huge."""
        deviation = features.std(axis=0, dtype=np.float64)
        return cls(
            features.mean(axis=0, dtype=np.float64),
            np.where(deviation > LEAST_DEVIATION * deviation.mean() + 1e-6, deviation, 1.0),
        )

    def transform(self, features: np.ndarray) -> np.ndarray:
        """Standardise features, float32 [n, d]."""
        return ((features - self.mean.astype(np.float32)) / self.scale.astype(np.float32)).astype(np.float32)

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
    from threadpoolctl import threadpool_limits

    scaler = Scaler.fit(X)
    start, predicted = None, []
    with threadpool_limits(1):  # for the reasons that `_Problem.solve` has
        rows, axes = _reduce(scaler.transform(X))
        problem = _Problem(rows, targets, weights, classes)
        judged = scaler.transform(left_out)
        judged = judged if axes is None else judged @ axes
        for strength in strengths:
            start = problem.solve(strength, start=start)
            predicted.append(softmax((judged @ start[:-1] + start[-1]).astype(np.float64)))
    return np.stack(predicted)


def _reduce(X: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Turn fewer rows than features into coordinates in the space they span, where the same problem is small.

    The optimal weights are a sum of rows, so nothing is lost, and their norm stays the same.
    """
    if len(X) >= X.shape[1]:
        return X, None
    values, vectors = np.linalg.eigh(X.astype(np.float64) @ X.T.astype(np.float64))
    is_part = values > 1e-9 * max(values[-1], 1e-30)
    axes = X.T @ (vectors[:, is_part] / np.sqrt(values[is_part]))
    return (vectors[:, is_part] * np.sqrt(values[is_part])).astype(np.float32), axes.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class _Problem:
    """Rows to learn from, X float32 [n, d] and targets int [n], with a weight each, float [n]."""

    X: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    classes: int

    def solve(
        self,
        strength: float,
        *,
        start: np.ndarray | None = None,
        on_solution: Callable[[np.ndarray], None] = lambda solution: None,
    ) -> np.ndarray:
        """Return weights over bias, float64 [d + 1, C], from zero or a former solution."""
        # Imported here, because only the worker process that solves needs it.
        from scipy.optimize import minimize
        from threadpoolctl import threadpool_limits

        X, truth = self.X, np.eye(self.classes, dtype=np.float32)[self.targets]
        share = (self.weights / self.weights.sum()).astype(np.float32)[:, None]
        shape = (X.shape[1] + 1, self.classes)

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            solution = flat.reshape(shape)
            probabilities = softmax(X @ solution[:-1].astype(np.float32) + solution[-1].astype(np.float32))
            cross_entropy = -(share[:, 0] * np.log(np.maximum((probabilities * truth).sum(axis=1), 1e-30))).sum()
            error = (probabilities - truth) * share
            gradient = np.vstack([X.T @ error, error.sum(axis=0)]).astype(np.float64)
            gradient[:-1] += strength * solution[:-1]
            return float(cross_entropy + strength / 2 * (solution[:-1] ** 2).sum()), gradient.ravel()

        initial = np.zeros(shape) if start is None else start
        # These matrices are tall and narrow: more threads only wait for each other (10 times slower on two cores), and
        # one thread makes the sums, and so the head, the same on any number of cores.
        with threadpool_limits(1):
            result = minimize(
                objective,
                initial.ravel(),
                jac=True,
                method="L-BFGS-B",
                callback=lambda flat: on_solution(flat.reshape(shape)),
                options={"maxiter": MAX_ITERATIONS, "gtol": TOLERANCE, "ftol": 1e-9},
            )
        return np.asarray(result.x).reshape(shape)
