"""Standardised rows with a class each -> weights of multinomial logistic regression, at the optimum.

The loss is the mean cross-entropy plus strength / 2 times the squared norm of the weights, minimised by L-BFGS (Byrd et
al. 1995). It is solved on principal axes where these cost little: there each weight can be measured by the curvature
that it meets, for which Boehning (1992, "Multinomial logistic regression algorithm") gives a bound, and a third to a
fifth of the steps are needed.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor

import numpy as np

from pronk.pools import check_stopped

MAX_ITERATIONS = 300
PRECISIONS, ROUGH_PRECISIONS = (1e-3, 1e-5, 1e-7), (1e-3, 1e-5)  # of the loss
TOLERANCE = 1e-5  # of the gradient
# Rows are worked through in lanes, side by side, and in blocks that stay in a processor's cache. Their number does not
# depend on the cores, so that the sums, and with them the solution, are the same on any number of them.
LANES, LANE_ROWS, BLOCK = 8, 512, 256
MOST_ROWS = 1000  # of which principal axes are found in less time than they save, whatever the number of classes
SEVERAL = 30  # classes, from which on they save more than they take from any number of rows
MANY = 100  # classes, of more than which only the strongest axes are taken
MOST_AXES = 1500  # 99.3 % of the variance of 3,008 features of 2,600 photos: the test log-loss rises by .5 %
LEAST = 1e-6  # of the largest variance along an axis; below it rounding shows


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is to be solved; `pose` makes it.

    Attributes:
        X: float32 [n, a], rows in coordinates along the axes.
        targets: class indices, int [n].
        share: float32 [n], the rows' weights; their sum is 1.
        classes: number of classes.
        axes: float32 [d, a], orthonormal; None where the coordinates are the features.
        spread: float64 [a], the mean square along each axis; None without axes.
    """

    X: np.ndarray
    targets: np.ndarray
    share: np.ndarray
    classes: int
    axes: np.ndarray | None = None
    spread: np.ndarray | None = None

    @classmethod
    def pose(cls, X: np.ndarray, targets: np.ndarray, weights: np.ndarray, classes: int) -> "Problem":
        """Take rows, float32 [n, d], with a class index and a weight each."""
        share = (weights / weights.sum()).astype(np.float32)
        if len(X) > min(X.shape[1], MOST_ROWS) and classes < SEVERAL:
            return cls(X, targets, share, classes)
        axes = find_axes(X, most=MOST_AXES if classes > MANY else None)
        along = X @ axes
        return cls(along, targets, share, classes, axes, (share @ along**2).astype(np.float64))

    def solve(
        self,
        strength: float,
        *,
        start: np.ndarray | None = None,
        precisions: Sequence[float] = PRECISIONS,
        pool: Executor | None = None,
        on_solution: Callable[[np.ndarray], None] = lambda solution: None,
    ) -> np.ndarray:
        """Return weights over bias, float64 [a + 1, C], from zero or a former solution.

        It is done when a step lowers the loss by less than the last of the precisions; at each of them the axes are
        measured anew, by the answers so far. A pool of threads works on the rows.
        """
        from threadpoolctl import threadpool_limits

        solution = np.zeros((self.X.shape[1] + 1, self.classes)) if start is None else start
        # One thread a product: these matrices are tall and narrow, so that more would only wait for each other.
        with threadpool_limits(1):
            for precision in precisions if self.spread is not None else precisions[-1:]:
                solution = self._descend(strength, solution, precision, map if pool is None else pool.map, on_solution)
        return solution

    def _descend(
        self,
        strength: float,
        start: np.ndarray,
        precision: float,
        run: Callable[..., Iterable[tuple[float, np.ndarray]]],
        on_solution: Callable[[np.ndarray], None],
    ) -> np.ndarray:
        # Imported here, because only the worker process that solves needs it.
        from scipy.optimize import minimize

        scale = self._measure_scale(strength, start)

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            solution = flat.reshape(start.shape) / scale
            check_stopped()
            losses, gradients = zip(*run(self._differentiate(solution), self._cut_lanes()), strict=True)
            gradient = np.sum(gradients, axis=0).astype(np.float64)
            gradient[:-1] += strength * solution[:-1]
            penalty = strength / 2 * float(np.vdot(solution[:-1], solution[:-1]))
            return sum(losses) + penalty, (gradient / scale).ravel()

        result = minimize(
            objective,
            (start * scale).ravel(),
            jac=True,
            method="L-BFGS-B",
            callback=lambda flat: on_solution(flat.reshape(start.shape) / scale),
            options={"maxiter": MAX_ITERATIONS, "gtol": TOLERANCE, "ftol": precision},
        )
        return np.asarray(result.x.reshape(start.shape) / scale)

    def unfold(self, solution: np.ndarray) -> np.ndarray:
        """Turn a solution along the axes into one for the features: [d + 1, C]."""
        return solution if self.axes is None else np.vstack([self.axes @ solution[:-1], solution[-1:]])

    def predict_proba(self, solution: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Return what a solution says of other rows, in features, float32 [m, d]: float64 [m, C]."""
        along = X if self.axes is None else X @ self.axes
        return softmax(np.asarray(along @ solution[:-1] + solution[-1], np.float64))

    def _measure_scale(self, strength: float, solution: np.ndarray) -> np.ndarray:
        """Return the square root of the curvature along each axis, and along the bias: float64 [a + 1, 1]."""
        if self.spread is None:
            return np.ones((self.X.shape[1] + 1, 1))
        # Of sure answers hardly anything is left of the bound.
        answers = softmax(self.X @ solution[:-1].astype(np.float32) + solution[-1].astype(np.float32))
        unsure = float(self.share @ (1 - (answers**2).sum(axis=1)))
        bound = max(unsure, 1e-4) / self.classes
        return np.asarray(np.sqrt(np.append(bound * self.spread + strength, bound))[:, None])

    def _cut_lanes(self) -> list[tuple[int, int]]:
        lanes = min(LANES, -(-len(self.X) // LANE_ROWS))
        cuts = np.linspace(0, len(self.X), lanes + 1).astype(int).tolist()
        return list(itertools.pairwise(cuts))

    def _differentiate(self, solution: np.ndarray) -> Callable[[tuple[int, int]], tuple[float, np.ndarray]]:
        """Return what gives the cross-entropy of a lane, and its gradient, float32 [a + 1, C]."""
        weights, bias = solution[:-1].astype(np.float32), solution[-1].astype(np.float32)

        def differentiate(lane: tuple[int, int]) -> tuple[float, np.ndarray]:
            loss, gradient = 0.0, np.zeros(solution.shape, np.float32)
            for start in range(*lane, BLOCK):
                rows = slice(start, min(start + BLOCK, lane[1]))
                X, share = self.X[rows], self.share[rows]
                answers = softmax(X @ weights + bias)
                given = np.arange(len(X)), self.targets[rows]
                loss -= float(share @ np.log(np.maximum(answers[given], 1e-30)))
                answers[given] -= 1
                answers *= share[:, None]
                gradient[:-1] += X.T @ answers
                gradient[-1] += answers.sum(axis=0)
            return loss, gradient

        return differentiate


def softmax(logits: np.ndarray) -> np.ndarray:
    """Turn logits [n, C] into probabilities."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    exponentials /= exponentials.sum(axis=1, keepdims=True)
    return np.asarray(exponentials)


def find_axes(X: np.ndarray, *, most: int | None = None) -> np.ndarray:
    """Return the principal axes that rows, [n, d], vary along, float32 [d, a], at most so many.

    The optimal weights are a sum of rows, so nothing is lost but for axes that are left out.
    """
    n, d = X.shape
    values, vectors = np.linalg.eigh(X @ X.T if n <= d else X.T @ X)
    chosen = np.flatnonzero(values > LEAST * max(values[-1], 1e-30))[-most if most else None :]
    vectors = vectors[:, chosen]
    axes = X.T @ vectors if n <= d else vectors
    return np.asarray(axes / np.linalg.norm(axes, axis=0), np.float32)
