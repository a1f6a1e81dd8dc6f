"""Pooled features -> how far a photo lies from those a model was trained with.

Two signs of a strange photo, added up. First, deep nearest neighbours (Sun et al. 2022,
https://arxiv.org/abs/2204.06507): the cosine distance to the five nearest training photos, seen from a point on the
way from the origin to the mean of the training photos, so that what all photos share counts less. Second, no class
claims the photo: one minus the highest answer of a ridge regression onto the classes, much as ViM adds the logits
(Wang et al. 2022, https://arxiv.org/abs/2203.10807). Photos are kept in a few principal components, but a photo's
length is that of all its features: what the components cannot express makes it strange, like ViM's residual.
"""

import base64
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

METHOD = "part-centred-cosine"
# Measured on the alpaca photos. The optima are flat: shares of .3 to .5, 3 to 8 neighbours, weights of .2 to .3,
# strengths of .01 to .1 and 30 to 100 components differ by less than the seeds do. Strong networks like a share of .5
# better than none, weak ones none better than .5.
CENTRE_SHARE = 0.4
NEIGHBOURS = 5
CLAIM_WEIGHT = 0.25  # for a standard deviation of the claim, in standard deviations of the distance
RIDGE_STRENGTH = 0.03
FOLDS = 5
# Limits that keep model.json small: 1280 features take 150 kB for 2 classes, 240 kB for 20, and never above 310 kB.
COMPONENTS, MOST_COMPONENTS = 28, 48  # and one for each class
POINTS, MOST_POINTS = 512, 1024  # the latter where there are that many classes
MOST_CLAIMS = 256  # with more classes than this, claims say little in so few components
MOST_PHOTOS = 5_000  # that are looked at, and 10 of each class at least
MOST_FEATURES = 1 << 16
ROUNDS = 20  # of k-means


@dataclasses.dataclass(frozen=True)
class Novelty:
    """What is kept of the training photos; `fit_novelty` makes it.

    Attributes:
        centre: where features of unit length are seen from, float32 [d].
        basis: principal components, float32 [r, d].
        points: training photos, or means of similar ones, in those components, float32 [m, r].
        claims: each class's answer to the components, then its constant, float32 [C, r + 1] or [0, r + 1].
        claim_weight: weight of the claim beside the distance.
        neighbours: how many of the nearest points are averaged.
    """

    centre: np.ndarray
    basis: np.ndarray
    points: np.ndarray
    claims: np.ndarray
    claim_weight: float
    neighbours: int

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Return how far photos lie from the training photos: float64 [n], larger is stranger.

        Only its order has a meaning: compare it with a threshold from photos that were not trained on. Raises
        ValueError if features are not of shape (n, d) or hold a value that is not a finite number.
        """
        near, claim = self._signs(_checked(features, self.centre.size))
        return np.asarray(near + self.claim_weight * claim)

    def to_record(self) -> dict[str, Any]:
        """Return what model.json holds; `from_record` makes the same distances of it, bit for bit."""
        sizes = {"features": self.centre.size, "components": len(self.basis), "points": len(self.points)}
        scalars = {"claims": len(self.claims), "claim_weight": self.claim_weight, "neighbours": self.neighbours}
        names = ("centre", "basis", "points", "claims")
        halves = {f"{name}_f2": getattr(self, name).astype("<f2").tobytes() for name in names}
        arrays = {name: base64.b64encode(data).decode("ascii") for name, data in halves.items()}
        return {"method": METHOD, **sizes, **scalars, **arrays}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Novelty":
        """Read what `to_record` made.

        Raises ValueError if it is not such a record: another method, a missing field, a size out of bounds or another
        than that of the data, or a value that is not a finite number.
        """
        if not isinstance(record, Mapping) or record.get("method") != METHOD:
            raise ValueError(f"the method must be {METHOD!r}. Got {record!s:.80}")
        d = _whole(record, "features", 1, MOST_FEATURES)
        r = _whole(record, "components", 1, MOST_COMPONENTS)
        m = _whole(record, "points", 1, MOST_POINTS)
        claims = _whole(record, "claims", 0, MOST_CLAIMS)
        weight: Any = record.get("claim_weight")
        if type(weight) not in (int, float) or not 0 <= weight <= 1e6:
            raise ValueError(f"claim_weight must be a number from 0 to a million. Got {weight!s:.80}")
        neighbours = _whole(record, "neighbours", 1, min(m, NEIGHBOURS))
        shapes = {"centre": (d,), "basis": (r, d), "points": (m, r), "claims": (claims, r + 1)}
        arrays = {name: _decode(record, f"{name}_f2", shape) for name, shape in shapes.items()}
        return cls(**arrays, claim_weight=float(weight), neighbours=neighbours)

    def _signs(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Distance from the nearest points, and how little the most willing class claims each photo.
        seen = _unit(_unit(rows) - self.centre) @ self.basis.T.astype(np.float64)
        first = len(self.points) - self.neighbours
        near = 1 - np.sort(seen @ self.points.T, axis=1)[:, first:].mean(axis=1)
        # Answers add up to 1, so with claims the highest is above 0 anyway.
        return near, 1 - (seen @ self.claims[:, :-1].T + self.claims[:, -1]).max(axis=1, initial=0.0)


def fit_novelty(features: np.ndarray, targets: np.ndarray, *, classes: int) -> Novelty:
    """Learn what the training photos look like, from their pooled features [n, d] and class indices [n].

    The order of the photos does not matter, and nothing is drawn at random; some classes may have no photo. How much a
    claim weighs is told from photos left out of the fit, fold by fold: about its own photos a fit of so many features
    is always sure. ValueError is raised if shapes do not fit, a value is not a finite number, or a target is not a
    class.
    """
    given, labels = _checked(features), np.asarray(targets)
    if labels.shape != given.shape[:1] or labels.dtype.kind not in "iu" or not labels.size:
        raise ValueError(f"targets must be {len(given)} whole numbers, at least one. Got {labels.dtype} {labels.shape}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"targets must be 0 to {classes - 1}. Got {labels.min()} to {labels.max()}")
    order, folds = _choose(given, labels)
    rows, labels = _unit(given[order]), labels[order]
    novelty = _fit(rows, labels)
    if folds.max() == 0 or not len(novelty.claims):
        return novelty
    near, claim = np.empty(len(rows)), np.empty(len(rows))
    for fold in range(folds.max() + 1):
        out = folds == fold
        near[out], claim[out] = _fit(rows[~out], labels[~out])._signs(rows[out])
    weight = min(10.0, CLAIM_WEIGHT * float(near.std() / max(claim.std(), 1e-6)))
    return dataclasses.replace(novelty, claim_weight=round(weight, 6))


def _fit(unit: np.ndarray, labels: np.ndarray) -> Novelty:
    # Each array is rounded as the record rounds it before the next one is computed from it.
    present, labels = np.unique(labels, return_inverse=True)
    centre = _rounded(CENTRE_SHARE * unit.mean(axis=0))
    seen = _unit(unit - centre)
    basis = _rounded(_principal(seen, min(COMPONENTS + present.size, MOST_COMPONENTS)))
    seen = seen @ basis.T
    if present.size > MOST_POINTS:
        points = _rounded(_condense(seen, MOST_POINTS))
    else:
        groups = (seen[labels == label] for label in range(present.size))
        points = _rounded(np.concatenate([_condense(group, max(1, POINTS // present.size)) for group in groups]))
    claims = _claims(seen, labels) if 1 < present.size <= MOST_CLAIMS else np.empty((0, len(basis) + 1))
    neighbours = min(NEIGHBOURS, max(1, len(points) // (2 * present.size)))
    return Novelty(centre, basis, points, _rounded(claims), 0.0, neighbours)


def _principal(rows: np.ndarray, count: int) -> np.ndarray:
    # Directions of the largest squares, not of the largest variance: the centre is not the mean on purpose.
    wide = len(rows) <= rows.shape[1]
    values, vectors = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    count = max(1, min(count, int((values > 1e-9 * values[-1]).sum())))
    basis = vectors[:, ::-1][:, :count].T
    return _unit(basis @ rows) if wide else basis


def _condense(rows: np.ndarray, count: int) -> np.ndarray:
    # Spherical k-means, from the row nearest the mean and those farthest from all before. Means stay shorter than 1:
    # the less alike the photos behind one are, the less it says.
    if len(rows) <= count:
        return rows
    chosen = [int(np.argmax(rows @ rows.mean(axis=0)))]
    alike = rows @ rows[chosen[0]]
    for _ in range(count - 1):
        chosen.append(int(np.argmin(alike)))
        alike = np.maximum(alike, rows @ rows[chosen[-1]])
    points = rows[chosen]
    for _ in range(ROUNDS):
        owners = np.argmax(rows @ _unit(points).T, axis=1)
        owned = np.equal.outer(np.arange(count), owners).astype(np.float64)
        sizes = owned.sum(axis=1, keepdims=True)
        points = np.where(sizes > 0, owned @ rows / np.maximum(sizes, 1), points)
    return points


def _claims(seen: np.ndarray, labels: np.ndarray) -> np.ndarray:
    # Ridge regression onto one-hot classes, each class weighing the same however many photos it has.
    sizes = np.bincount(labels)
    weights = 1 / (sizes.size * sizes[labels])
    mean = weights @ seen
    spread = (seen - mean).T * weights
    square = spread @ (seen - mean)
    square += np.eye(len(square)) * max(RIDGE_STRENGTH * np.trace(square), 1e-9)
    answer = np.linalg.solve(square, spread @ np.eye(sizes.size)[labels])
    return np.column_stack([answer.T, 1 / sizes.size - mean @ answer])


def _choose(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Photos by class and content, evenly thinned where a class has very many; and their folds.
    content = (_unit(rows) * np.cos(np.arange(rows.shape[1]))).sum(axis=1)
    order = np.lexsort((content, labels))
    starts = np.unique(labels[order], return_index=True)[1]
    most, groups = max(10, MOST_PHOTOS // starts.size), np.split(order, starts[1:])
    thin = [group[np.linspace(0, len(group) - 1, min(len(group), most)).astype(int)] for group in groups]
    return np.concatenate(thin), np.concatenate([np.arange(len(group)) % FOLDS for group in thin])


def _unit(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 1e-12, lengths, 1.0))


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.asarray(values.astype("<f2").astype(np.float32))


def _decode(record: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> np.ndarray:
    text, size = record.get(name), 2 * math.prod(shape)
    if not isinstance(text, str) or len(text) != 4 * math.ceil(size / 3):
        raise ValueError(f"{name} must be {size} bytes in base64")
    values = np.frombuffer(base64.b64decode(text, validate=True), "<f2").astype(np.float32).reshape(shape)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds values that are not finite numbers")
    return values


def _whole(record: Mapping[str, Any], name: str, low: int, high: int) -> int:
    value: Any = record.get(name)
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}. Got {value!s:.80}")
    return int(value)


def _checked(features: np.ndarray, size: int | None = None) -> np.ndarray:
    rows = np.asarray(features, np.float64)
    if rows.ndim != 2 or not 1 <= rows.shape[1] <= MOST_FEATURES or size not in (None, rows.shape[1]):
        raise ValueError(f"features must be n x {size or 'd'}. Got shape {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError("features must be finite numbers. Got NaN or infinity")
    return rows
