"""Pooled features -> how far a photo lies from those a model was trained with.

Deep nearest neighbours (Sun et al. 2022, https://arxiv.org/abs/2204.06507): the cosine distance to the three nearest
training photos, seen from half-way between the origin and their mean, so that what all photos share counts less.
Photos are seen in a few principal components, at their whole length: what these cannot express makes them strange.
"""

import base64
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

METHOD = "part-centred-cosine"
CENTRE_SHARE, NEIGHBOURS = 0.5, 3  # flat optima over ten sets; 1 neighbour and no centre let .01 more strange ones pass
PHOTOS, COMPONENTS = 512, 64  # at most: 1,280 features take 310 kB of model.json, 3,008 features 600 kB
LIMITS = {"features": 1 << 16, "components": COMPONENTS, "points": 1024, "neighbours": 5, "claims": 256}  # of records
ARRAYS = ("centre", "basis", "points", "claims")


@dataclasses.dataclass(frozen=True)
class Novelty:
    """What is kept of the training photos; `fit_novelty` makes it.

    Attributes:
        centre: where features of unit length are seen from, float32 [d].
        basis: principal components, float32 [r, d].
        points: training photos in those components, float32 [m, r].
        neighbours: how many of the nearest points are averaged.
        claims: each class's answer to the components, then its constant, float32 [C, r + 1]. There are none but in
            bundles of format 1, where a photo that no class claims is farther.
        claim_weight: weight of the claims beside the distance.
    """

    centre: np.ndarray
    basis: np.ndarray
    points: np.ndarray
    neighbours: int
    claims: np.ndarray
    claim_weight: float

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Return how far photos lie from the training photos: float64 [n], larger is stranger.

        Compare it with a threshold from photos that were not trained on. Raises ValueError unless features are finite.
        """
        unit = _unit(features)
        if unit.shape[1] != self.centre.size:
            raise ValueError(f"features must be n x {self.centre.size}. Got shape {unit.shape}")
        seen = _unit(unit - self.centre) @ self.basis.T.astype(np.float64)
        alike = np.sort(seen @ self.points.T, axis=1)[:, -self.neighbours :].mean(axis=1)
        claim = (seen @ self.claims[:, :-1].T + self.claims[:, -1]).max(axis=1, initial=0.0)
        return np.asarray(1 - alike + self.claim_weight * (1 - claim))

    def to_record(self) -> dict[str, Any]:
        """Return what model.json holds; `from_record` makes the same distances of it, bit for bit."""
        sizes = (self.centre.size, len(self.basis), len(self.points), self.neighbours, len(self.claims))
        record = {"method": METHOD, **dict(zip(LIMITS, sizes, strict=True)), "claim_weight": self.claim_weight}
        halves = {name: getattr(self, name).astype("<f2").tobytes() for name in ARRAYS}
        return record | {f"{name}_f2": base64.b64encode(data).decode("ascii") for name, data in halves.items()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Novelty":
        """Read what `to_record` made; TypeError or ValueError is raised if that cannot have made it."""
        sizes: dict[str, Any] = {name: record.get(name) for name in LIMITS}
        if any(type(size) is not int or not (name != "claims") <= size <= LIMITS[name] for name, size in sizes.items()):
            raise ValueError(f"sizes must be whole numbers up to {LIMITS}. Got {sizes!s:.200}")
        d, r, m, neighbours, claims = sizes.values()
        method, weight = record.get("method"), float(record["claim_weight"])
        if method != METHOD or not 0 <= weight <= 1e6 or neighbours > m:
            raise ValueError(f"no {method!s:.80} of {neighbours} neighbours of {m} with claims that weigh {weight}")
        shapes = zip(ARRAYS, ((d,), (r, d), (m, r), (claims, r + 1)), strict=True)
        arrays = {name: _decode(record.get(f"{name}_f2"), shape) for name, shape in shapes}
        return cls(**arrays, neighbours=neighbours, claim_weight=weight)


def fit_novelty(features: np.ndarray, targets: np.ndarray) -> Novelty:
    """Learn what the training photos look like, from their pooled features [n, d] and class indices [n].

    At most 512 photos are kept, or one of each of 1,024 classes; their order does not matter, and none is drawn by lot.
    Raises ValueError if shapes do not fit, there is no photo, or a value is not a finite number.
    """
    unit, labels = _unit(features), np.asarray(targets)
    if labels.shape != (len(unit),) or not labels.size:
        raise ValueError(f"targets must be {len(unit)} class indices, at least one. Got shape {labels.shape}")
    # By class and content, so that the same photos are left out wherever they stood.
    order = np.lexsort((unit @ np.cos(np.arange(unit.shape[1])), labels))
    groups = np.split(order, np.unique(labels[order], return_index=True)[1][1:])
    chosen = np.concatenate([_thin(group, max(1, PHOTOS // len(groups))) for group in groups])
    unit = unit[_thin(chosen, LIMITS["points"])]
    # Each array is rounded as the record rounds it before the next one is computed from it.
    centre = _rounded(CENTRE_SHARE * unit.mean(axis=0))
    seen = _unit(unit - centre)
    basis = _rounded(np.linalg.svd(seen, full_matrices=False)[2][:COMPONENTS])  # of largest squares, not variances
    k, no_claims = min(NEIGHBOURS, max(1, len(unit) // len(groups))), np.empty((0, len(basis) + 1), np.float32)
    return Novelty(centre, basis, _rounded(seen @ basis.T), k, no_claims, 0.0)


def _thin(items: np.ndarray, most: int) -> np.ndarray:
    return np.asarray(items[np.linspace(0, len(items) - 1, min(len(items), most)).astype(int)])


def _unit(features: np.ndarray) -> np.ndarray:
    rows = np.asarray(features, np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ValueError(f"features must be finite numbers, n x d. Got shape {rows.shape}, or NaN or infinity")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 1e-12, lengths, 1.0))


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.asarray(values.astype("<f2").astype(np.float32))


def _decode(text: Any, shape: tuple[int, ...]) -> np.ndarray:
    values = np.frombuffer(base64.b64decode(text, validate=True), "<f2").astype(np.float32).reshape(shape)
    if not np.isfinite(values).all():
        raise ValueError("a number is not finite")
    return values
