"""One photo -> rows of the cache: what each worker process does."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pronk.dataset.findings import Finding, changed, left_out
from pronk.dataset.loading import Photo, read_photo
from pronk.errors import ImageError, Reason, StorageError
from pronk.model.formats.onnx import open_session
from pronk.photos.decoding import decode, load_pixels
from pronk.photos.views import draw_views
from pronk.storage.files import write_atomically
from pronk.training.row_store import RowStore


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to be done with one photo.

    Attributes:
        photo: which one.
        numbers: its views that are missing in the cache.
        square: whether to keep view 0 as pixels too, for the judging at the end; then no other view is asked for.
    """

    photo: Photo
    numbers: tuple[int, ...]
    square: bool = False


@dataclasses.dataclass(frozen=True)
class Worked:
    """What a batch of jobs came to: photos that cannot be used any more, and seconds spent on pixels."""

    findings: tuple[Finding, ...]
    decode_seconds: float


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a worker needs to turn photos into rows; travels to worker processes."""

    root: Path
    prefix: Path
    store: RowStore
    size: int
    fit: str
    seed: int
    squares: Path


def row_key(photo: Photo, number: int, seed: int) -> str:
    """Name a row: by the photo's content and the view; view 0 is the same for every seed.

    Example:
        >>> row_key(Photo("a/1.jpg", "a", "train", "ff00", "g"), 0, 42)
        'ff00-0'
    """
    return f"{photo.digest}-{number}-{seed}" if number else f"{photo.digest}-0"


def compute_rows(recipe: Recipe, jobs: Sequence[Job]) -> Worked:
    """Decode photos, draw their missing views, and store what the prefix makes of them.

    Each view runs as a batch of one, so a row does not depend on which others were missing.
    """
    session = open_prefix(recipe.prefix)
    findings, decode_seconds = [], 0.0
    for job in jobs:
        started = time.perf_counter()
        drawn = draw_job(recipe, job)
        decode_seconds += time.perf_counter() - started
        if isinstance(drawn, Finding):
            findings.append(drawn)
            continue
        for number, view in zip(job.numbers, drawn, strict=True):
            pooled, cut = session.run(["features", "cut"], {"image": view[None]})
            recipe.store.write(row_key(job.photo, number, recipe.seed), pooled[0], cut[0])
    return Worked(tuple(findings), decode_seconds)


def draw_job(recipe: Recipe, job: Job) -> np.ndarray | Finding:
    """Decode a photo and draw its missing views: uint8 [n, size, size, 3]; or say why it cannot be used any more."""
    try:
        data = read_photo(recipe.root, job.photo)
        image = decode(data, min_side=recipe.size).image
    except ImageError as error:
        return changed(job.photo.path) if error.reason is Reason.CHANGED else left_out(job.photo.path, error)
    numbers = job.numbers or (0,)
    views = draw_views(
        image, size=recipe.size, fit=recipe.fit, numbers=numbers, digest=job.photo.digest, seed=recipe.seed
    )
    if job.square:
        with contextlib.suppress(StorageError):  # then the photo is decoded once more
            write_atomically(recipe.squares / job.photo.digest, views[0].tobytes(), durable=False)
    return views[: len(job.numbers)]


def load_square(squares: Path, root: Path, photo: Photo, *, size: int, fit: str) -> np.ndarray:
    """Return a photo as the network sees it: as a worker of this run left it, else decoded in the same way.

    Raises:
        ImageError: if the photo is not what it was, or cannot be read any more.
    """
    with contextlib.suppress(OSError, ValueError):
        return np.frombuffer((squares / photo.digest).read_bytes(), np.uint8).reshape(size, size, 3)
    return load_pixels(read_photo(root, photo), size=size, fit=fit)


@functools.lru_cache(maxsize=1)
def open_prefix(path: Path) -> Any:
    """Open a prefix, once per process; one thread, since there is a process per core."""
    return open_session(path.read_bytes())
