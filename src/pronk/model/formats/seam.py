"""Pixels -> what a model says of them: what every opened model can do."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

OUTPUTS = ("probabilities", "features", "feature_map")


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What a model says about n photos.

    Attributes:
        probabilities: float32 [n, C].
        features: float32 [n, d]; d is 1280, and more where the network is wider than usual.
        feature_map: float32 [n, h, w, d].
    """

    probabilities: np.ndarray
    features: np.ndarray
    feature_map: np.ndarray


class Runtime(Protocol):
    """An opened model."""

    @property
    def shapes(self) -> Mapping[str, list[Any]]:
        """Shapes of the inputs and outputs by name, without the number of photos."""

    def run(self, pixels: np.ndarray) -> Outputs:
        """Run uint8 pixels [n, size, size, 3]; may be called from several threads at once."""
