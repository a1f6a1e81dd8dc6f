"""Pooled features -> how far a photo lies from what a model was trained with."""

import base64
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Novelty:
    """Placeholder until the measured one is here: cosine distance to the nearest class mean."""

    means: np.ndarray

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Return distances, float64 [n], of features [n, d]."""
        rows = features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-9)
        return np.asarray(1 - (rows @ self.means.T).max(axis=1), np.float64)

    def to_record(self) -> dict[str, Any]:
        """Return what model.json holds."""
        data = base64.b64encode(self.means.astype("<f2").tobytes()).decode()
        return {"method": "cosine", "shape": list(self.means.shape), "means": data}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Novelty":
        """Read what `to_record` made."""
        data = np.frombuffer(base64.b64decode(record["means"]), "<f2")
        return cls(data.reshape(record["shape"]).astype(np.float32))


def fit_novelty(features: np.ndarray, targets: np.ndarray, *, classes: int) -> Novelty:
    """Fit on training features [n, d] and targets [n]."""
    rows = features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-9)
    means = np.stack([rows[targets == i].mean(axis=0) for i in range(classes)]).astype("<f2").astype(np.float32)
    return Novelty(means)
