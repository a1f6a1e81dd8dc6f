"""A network as arrays -> what it says of photos: by ONNX Runtime, as it will be served.

That takes half the time of the framework that trained it, whose own graph would have to be traced first.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from pronk.analysis.head import Head
from pronk.backbone.onnx_graphs import write_suffix
from pronk.dataset.loading import Photo
from pronk.model.formats.runtimes import open_session
from pronk.pools import run_in_order
from pronk.training.features import Features

PHOTOS_AT_ONCE = 8  # by a thread per core


@dataclasses.dataclass(frozen=True)
class Network:
    """A whole network, as arrays.

    Attributes:
        head: the Dense layer.
        weights: arrays by layer name, for the whole MobileNetV2.
    """

    head: Head
    weights: Mapping[str, Sequence[np.ndarray]]

    def mix(self, other: "Network", share: float) -> "Network":
        """Return the mean of the weights of both, in which those of the other count with a share."""

        def mean(old: np.ndarray, new: np.ndarray) -> np.ndarray:
            return np.asarray(old + np.float32(share) * (new - old))

        weights = {
            name: [mean(*pair) for pair in zip(arrays, other.weights[name], strict=True)]
            for name, arrays in self.weights.items()
        }
        head = Head(mean(self.head.weights, other.head.weights), mean(self.head.bias, other.head.bias))
        return Network(head, weights)

    def predict(self, features: Features, photos: Sequence[Photo]) -> np.ndarray:
        """Return probabilities of photos, float64 [n, C]; those of blocks before the cut are in the cache."""
        return self.head.predict_proba(pool_features(self.cut_suffix(features), features, photos))

    def cut_suffix(self, features: Features) -> bytes:
        """Return the blocks after the cut as an ONNX graph."""
        extraction = features.extraction
        return write_suffix(self.weights, size=extraction.size, cut=extraction.cut, blocks=features.blocks)


def pool_features(suffix: bytes | None, features: Features, photos: Sequence[Photo]) -> np.ndarray:
    """Return pooled features of photos as they are, float32 [n, d]: through a suffix, or the frozen network's.

    They do not depend on the number of cores, since each thread runs the graph by itself.
    """
    if suffix is None:
        return features.pooled(photos)
    session = open_session(suffix)

    def run(batch: Sequence[Photo]) -> np.ndarray:
        cuts, *fixed = features.inputs(batch)
        return np.hstack([*fixed, *session.run(["features"], {"cut": cuts})])

    batches = (photos[start : start + PHOTOS_AT_ONCE] for start in range(0, len(photos), PHOTOS_AT_ONCE))
    return np.concatenate(list(run_in_order(run, batches)))
