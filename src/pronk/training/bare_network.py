"""Weights of a network as it is -> features of photos, for those who want no model of their own."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pronk.backbone.onnx_graphs import write_prefix
from pronk.backbone.weights import load_backbone
from pronk.config import Settings
from pronk.model.embedding import Embedded, embed_frozen
from pronk.model.formats.runtimes import open_session

CUT = "block_15_add"  # a prefix has one, and here nobody asks for it
WIDTH = 1280  # features of the last block, which come last


def embed_with_weights(settings: Settings, photos: Sequence[Path]) -> Iterator[Embedded]:
    """Yield photos in order with the features of the last block, float32 [1280], of the network that settings name."""
    backbone = load_backbone(settings.weights, alpha=settings.alpha)
    session = open_session(write_prefix(backbone.weights, size=settings.image_size, cut=CUT))

    def run(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(["features"], {"image": pixels})[0][:, -WIDTH:])

    return embed_frozen(run, photos, size=settings.image_size, fit=settings.fit)
