"""Pooled features -> the Dense head: phase 1, a convex problem solved to its optimum.

Multinomial logistic regression on standardised features. The loss is the mean cross-entropy plus strength / 2 times
the squared norm of the kernel, minimised by L-BFGS (Byrd et al. 1995) and checked against scikit-learn in the tests.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

# From 3e-4 to 0.3 on standardised features; the optimum of every data set tried lies well inside.
STRENGTHS = (3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4)
FOLDS = 4
MAX_ITERATIONS = 300
MAX_CROSS_VALIDATED = 2000
TOLERANCE = 1e-5
LEAST_DEVIATION = 1e-3  # of the features' mean deviation
MOST_UNEQUAL = 3.0  # ratio of class sizes above which --class-weights auto balances

OnIteration = Callable[[int, "Head"], None]


@dataclasses.dataclass(frozen=True)
class Head:
    """A Dense layer on pooled features.

    Attributes:
        kernel: float32 [1280, C].
        bias: float32 [C].
        strength: of the regularisation it was fitted with.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strength: float = 0.0

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Return probabilities, float64 [n, C], for pooled features [n, 1280]."""
        return softmax((features @ self.kernel + self.bias).astype(np.float64))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Turn logits [n, C] into probabilities.

    Example:
        >>> softmax(np.zeros((1, 2)))
        array([[0.5, 0.5]])
    """
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def class_weights(targets: np.ndarray, classes: int, mode: str) -> np.ndarray:
    """Return one weight per class.

    Args:
        targets: class indices of the training photos, int [n].
        classes: number of classes C.
        mode: `none`, `balanced` (as in scikit-learn), or `auto`: balanced above 3:1.

    Returns:
        float64 [C]; the mean over the photos is 1.

    Example:
        >>> class_weights(np.array([0, 0, 0, 1]), 2, "balanced")
        array([0.66666667, 2.        ])
    """
    counts = np.bincount(targets, minlength=classes)
    unequal = counts.max() > MOST_UNEQUAL * counts.min()
    if mode == "none" or (mode == "auto" and not unequal):
        return np.ones(classes)
    return np.asarray(len(targets) / (classes * np.maximum(counts, 1)))


def fit_head(
    features: np.ndarray,
    targets: np.ndarray,
    *,
    classes: int,
    weights: np.ndarray,
    strength: float,
    on_iteration: OnIteration | None = None,
    start: np.ndarray | None = None,
) -> Head:
    """Fit a head at one strength, from zero or a former solution.

    Args:
        features: float32 [n, d].
        targets: class indices, int [n].
        classes: number of classes C.
        weights: of each row, float [n]; their mean is taken out.
        strength: of the regularisation.
        on_iteration: called with the number of each finished iteration and the head so far.
        start: kernel over bias in standardised features, [d + 1, C].

    Example:
        >>> X, y = np.array([[-1.0], [1.0]], np.float32), np.array([0, 1])
        >>> fit_head(X, y, classes=2, weights=np.ones(2), strength=0.1).predict_proba(X).argmax(axis=1)
        array([0, 1])
    """
    scaler = Scaler.fit(features)
    solution = _solve(scaler.transform(features), targets, classes, weights, strength, start, scaler, on_iteration)
    return scaler.unfold(solution, strength)


def choose_strength(
    features: np.ndarray,
    targets: np.ndarray,
    groups: Sequence[str],
    *,
    classes: int,
    weights: np.ndarray,
    views: int,
    seed: int,
) -> float:
    """Choose the strength with the lowest cross-validated log-loss on the training photos.

    Folds never divide a group of duplicates; all views of the fitted photos are used, and view 0 of those left out.

    Args:
        features: float32 [n * views, d], a photo's views side by side.
        targets: int [n], one per photo.
        groups: n names.
        classes: number of classes.
        weights: float [n], one per photo.
        views: per photo.
        seed: of the folds.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(40) % 2
        >>> X = (rng.normal(size=(40, 3)) + y[:, None]).astype(np.float32)
        >>> choose_strength(X, y, [str(i) for i in range(40)], classes=2, weights=np.ones(40), views=1, seed=0) > 0
        True
    """
    rng = np.random.default_rng(seed)
    names = np.unique(np.asarray(groups))
    if len(names) < 2 * FOLDS:
        return STRENGTHS[len(STRENGTHS) // 2]
    fold_of = dict(zip(rng.permutation(names), np.arange(len(names)) % FOLDS, strict=True))
    folds = np.array([fold_of[name] for name in groups])
    chosen = np.sort(rng.permutation(len(targets))[:MAX_CROSS_VALIDATED])
    by_photo = features.reshape(len(targets), views, -1)[chosen]
    targets, folds, weights = targets[chosen], folds[chosen], weights[chosen]
    losses = np.zeros(len(STRENGTHS))
    for fold in range(FOLDS):
        fitted, left = folds != fold, folds == fold
        if left.any() and fitted.any():
            losses += _losses_of_fold(by_photo, targets, weights, fitted, left, classes)
    return STRENGTHS[int(losses.argmin())]


@dataclasses.dataclass(frozen=True)
class Scaler:
    """Mean and deviation of each feature, which the finished head takes back into its kernel and bias."""

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
        kernel = solution[:-1] / self.scale[:, None]
        bias = solution[-1] - self.mean @ kernel
        return Head(kernel.astype(np.float32), bias.astype(np.float32), strength)


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

    Args:
        X: float32 [n, d], the rows to fit.
        targets: their class indices, int [n].
        left_out: float32 [m, d], the rows to predict.
        classes: number of classes C.
        weights: of each fitted row, float [n].
        strengths: from strong to weak, S of them; each solution starts at the one before.

    Returns:
        Probabilities, float64 [S, m, C].

    Example:
        >>> X, y = np.array([[-1.0], [1.0]], np.float32), np.array([0, 1])
        >>> predict_left_out(X, y, X, classes=2, weights=np.ones(2), strengths=[0.1]).argmax(axis=2)
        array([[0, 1]])
    """
    from threadpoolctl import threadpool_limits

    scaler = Scaler.fit(X)
    start, predicted = None, []
    with threadpool_limits(1):  # for the reasons that `_solve` has
        rows, axes = _reduce(scaler.transform(X))
        judged = scaler.transform(left_out)
        judged = judged if axes is None else judged @ axes
        for strength in strengths:
            start = _solve(rows, targets, classes, weights, strength, start)
            predicted.append(softmax((judged @ start[:-1] + start[-1]).astype(np.float64)))
    return np.stack(predicted)


def _reduce(X: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Turn fewer rows than features into coordinates in the space they span, where the same problem is small.

    The optimal kernel is a sum of rows, so nothing is lost, and its norm stays the same.
    """
    if len(X) >= X.shape[1]:
        return X, None
    values, vectors = np.linalg.eigh(X.astype(np.float64) @ X.T.astype(np.float64))
    is_part = values > 1e-9 * max(values[-1], 1e-30)
    axes = X.T @ (vectors[:, is_part] / np.sqrt(values[is_part]))
    return (vectors[:, is_part] * np.sqrt(values[is_part])).astype(np.float32), axes.astype(np.float32)


def _losses_of_fold(
    by_photo: np.ndarray, targets: np.ndarray, weights: np.ndarray, fitted: np.ndarray, left: np.ndarray, classes: int
) -> np.ndarray:
    views = by_photo.shape[1]
    X = by_photo[fitted].reshape(-1, by_photo.shape[2])
    y, row_weights = targets[fitted].repeat(views), weights[fitted].repeat(views)
    predicted = predict_left_out(X, y, by_photo[left, 0], classes=classes, weights=row_weights)
    given = predicted[:, np.arange(left.sum()), targets[left]]
    return np.asarray(-np.log(np.clip(given, 1e-7, None)).sum(axis=1))


def _solve(
    X: np.ndarray,
    targets: np.ndarray,
    classes: int,
    weights: np.ndarray,
    strength: float,
    start: np.ndarray | None = None,
    scaler: Scaler | None = None,
    on_iteration: OnIteration | None = None,
) -> np.ndarray:
    truth = np.eye(classes, dtype=np.float32)[targets]
    share = (weights / weights.sum()).astype(np.float32)[:, None]
    shape = (X.shape[1] + 1, classes)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        solution = flat.reshape(shape)
        probabilities = softmax(X @ solution[:-1].astype(np.float32) + solution[-1].astype(np.float32))
        cross_entropy = -(share[:, 0] * np.log(np.maximum((probabilities * truth).sum(axis=1), 1e-30))).sum()
        error = (probabilities - truth) * share
        gradient = np.vstack([X.T @ error, error.sum(axis=0)]).astype(np.float64)
        gradient[:-1] += strength * solution[:-1]
        return float(cross_entropy + strength / 2 * (solution[:-1] ** 2).sum()), gradient.ravel()

    iteration = 0

    def callback(flat: np.ndarray) -> None:
        nonlocal iteration
        iteration += 1
        if on_iteration and scaler:
            on_iteration(iteration, scaler.unfold(flat.reshape(shape), strength))

    # Imported here, because only the worker process that solves needs it.
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits

    initial = np.zeros(shape) if start is None else start
    options = {"maxiter": MAX_ITERATIONS, "gtol": TOLERANCE, "ftol": 1e-9}
    # These matrices are tall and narrow: more threads only wait for each other (10 times slower on two cores), and
    # one thread makes the sums, and so the head, the same on any number of cores.
    with threadpool_limits(1):
        result = minimize(objective, initial.ravel(), jac=True, method="L-BFGS-B", callback=callback, options=options)
    return np.asarray(result.x).reshape(shape)
