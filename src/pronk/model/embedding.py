"""Photos -> their pooled features, for search, clustering and whatever else works on vectors."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from pronk.errors import ImageError
from pronk.model.formats.runtimes import Outputs
from pronk.model.predictor import Prediction, Predictor
from pronk.photos.decoding import load_pixels, read_bytes
from pronk.pools import run_in_order
from pronk.storage.sources import read_ahead


@dataclasses.dataclass(frozen=True)
class Embedded:
    """One photo and its features.

    Attributes:
        path: as it was given.
        digest: sha256 of the file's bytes; empty where it cannot be read.
        features: float32 [d]; None where the photo cannot be used.
        prediction: what a model says of it; None where there is only a network.
        error: why it cannot be used.
    """

    path: str
    digest: str
    features: np.ndarray | None = None
    prediction: Prediction | None = None
    error: ImageError | None = None


def embed(predictor: Predictor, paths: Iterable[Path]) -> Iterator[Embedded]:
    """Yield photos in order with the features that a model's head reads, and its answers; all cores work."""
    bundle = predictor.bundle
    load = functools.partial(load_pixels, size=bundle.size, fit=bundle.fit, version=bundle.decoding)
    return run_in_order(lambda path: _embed(path, load, predictor.runtime.run, predictor.answer), read_ahead(paths))


def embed_frozen(
    run: Callable[[np.ndarray], np.ndarray], paths: Iterable[Path], *, size: int, fit: str
) -> Iterator[Embedded]:
    """Yield photos in order with the features that a network gives of pixels, uint8 [1, size, size, 3]."""

    def look(pixels: np.ndarray) -> Outputs:
        return Outputs(np.empty((1, 0), np.float32), run(pixels))

    load = functools.partial(load_pixels, size=size, fit=fit)
    return run_in_order(lambda path: _embed(path, load, look), read_ahead(paths))


def _embed(
    path: Path,
    load: Callable[[bytes], np.ndarray],
    run: Callable[[np.ndarray], Outputs],
    answer: Callable[[str, Outputs], Prediction] | None = None,
) -> Embedded:
    digest = ""
    try:
        data = read_bytes(path)
        digest = hashlib.sha256(data).hexdigest()
        outputs = run(load(data)[None])
    except ImageError as error:
        return Embedded(str(path), digest, error=error)
    return Embedded(str(path), digest, outputs.features[0], answer(str(path), outputs) if answer else None)
