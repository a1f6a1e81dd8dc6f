"""One photo -> its features in the cache, a row per view, kept by content: what each worker process does."""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pronk.config import Changes
from pronk.dataset.findings import Finding, left_out
from pronk.dataset.loading import Photo, read_photo
from pronk.errors import ImageError, StorageError
from pronk.model.formats.runtimes import open_session
from pronk.photos.decoding import convert_views, decode, load_pixels
from pronk.photos.views import draw_views
from pronk.storage.files import write_atomically
from pronk.storage.segments import Segments
from pronk.storage.sources import read_ahead


@dataclasses.dataclass(frozen=True)
class RowStore:
    """Rows of one recipe (network, image size, cut): pooled features and activations at the cut.

    Rows of views that no head reads have no pooled features; `features` says whether they are needed.

    Attributes:
        folder: where the rows are.
        pooled: number of float32 pooled features by block, in order.
        cut_shape: shape of the float16 activations, such as (14, 14, 96).
    """

    folder: Path
    pooled: Mapping[str, int]
    cut_shape: tuple[int, ...]

    def row_bytes(self, *, features: bool = True) -> int:
        """Bytes of one row."""
        return 4 * sum(self.pooled.values()) * features + 2 * math.prod(self.cut_shape)

    def refresh(self) -> None:
        """Learn of rows that other processes have added or removed."""
        self._records.refresh()

    def has(self, key: str, *, features: bool = True) -> bool:
        """Tell whether a row is there in full size, and mark it as used."""
        place = self._records.find(key)
        return place is not None and sum(place.sizes) in {self.row_bytes(), self.row_bytes(features=features)}

    def write(self, key: str, pooled: np.ndarray, cut: np.ndarray) -> None:
        """Keep one row: `pooled` as float32, or empty, and `cut` as float16."""
        self._records.append(key, pooled.astype("<f4").tobytes(), cut.astype("<f2").tobytes())

    def read_pooled(self, key: str) -> np.ndarray | None:
        """Return pooled features, float32 [d], or None where they are missing or damaged."""
        return self._read(key, 0, "<f4", (sum(self.pooled.values()),))

    def read_cut(self, key: str) -> np.ndarray | None:
        """Return activations at the cut, float16 [h, w, c], or None where they are missing or damaged."""
        return self._read(key, 1, "<f2", self.cut_shape)

    @property
    def _records(self) -> Segments:
        return Segments(self.folder)

    def _read(self, key: str, part: int, kind: str, shape: tuple[int, ...]) -> np.ndarray | None:
        data = self._records.read(key, part)
        values = np.frombuffer(data or b"", kind)
        return values.reshape(shape) if values.size == math.prod(shape) else None


@dataclasses.dataclass(frozen=True)
class PhotoViews:
    """What is wanted of one photo.

    Attributes:
        photo: the photo.
        numbers: its views that are missing in the cache.
        square: keep view 0 as pixels too, for the judging at the end; then no other view is asked for.
    """

    photo: Photo
    numbers: tuple[int, ...]
    square: bool = False


@dataclasses.dataclass(frozen=True)
class Extracted:
    """What became of some photos: those that cannot be used any more, and the seconds spent on pixels."""

    photos: int
    findings: tuple[Finding, ...]
    decode_seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Extraction:
    """How photos become rows, and where these are; travels to worker processes and to other machines.

    Attributes:
        root: the folder that paths of photos are relative to.
        prefix: file of the frozen blocks, as an ONNX graph.
        store: the rows.
        cut: last layer of the frozen blocks.
        size: side of the square the network sees, in pixels.
        fit: how a photo becomes that square.
        seed: the seed of the views.
        changes: what the views differ in.
        squares: folder of pixels that wait to be judged.
        read_views: number of views whose pooled features a head reads; None where it is all.
    """

    root: Path
    prefix: Path
    store: RowStore
    cut: str
    size: int
    fit: str
    seed: int
    changes: Changes
    squares: Path
    read_views: int | None = None

    def is_read(self, number: int) -> bool:
        """Tell whether a view's pooled features are needed."""
        return self.read_views is None or number < self.read_views

    def row_key(self, photo: Photo, number: int) -> str:
        """Name a row: by the photo's content and the view; view 0 is the same for every seed and all changes."""
        return f"{photo.digest}-{number}-{self.seed}-{'+'.join(self.changes)}" if number else f"{photo.digest}-0"


def compute_rows(extraction: Extraction, batch: Sequence[PhotoViews]) -> Extracted:
    """Decode photos, draw their missing views, and store what the prefix makes of them.

    Each view runs as a batch of one, so a row does not depend on which others were missing.
    """
    session = open_prefix(extraction.prefix)
    findings, decode_seconds = [], 0.0
    paths = read_ahead(extraction.root / wanted.photo.path for wanted in batch)
    for _, wanted in zip(paths, batch, strict=True):
        started = time.perf_counter()
        drawn = draw_wanted(extraction, wanted)
        decode_seconds += time.perf_counter() - started
        if isinstance(drawn, Finding):
            findings.append(drawn)
            continue
        for number, view in zip(wanted.numbers, drawn, strict=True):
            # What is not asked for is not computed: to the cut is less than half of the network.
            names = ["cut", "features"] if extraction.is_read(number) else ["cut"]
            cut, *pooled = session.run(names, {"image": view[None]})
            extraction.store.write(extraction.row_key(wanted.photo, number), np.array(pooled), cut[0])
    return Extracted(len(batch), tuple(findings), decode_seconds)


def draw_wanted(extraction: Extraction, wanted: PhotoViews) -> np.ndarray | Finding:
    """Decode a photo and draw its missing views: uint8 [n, size, size, 3]; or say why it cannot be used any more."""
    photo, size = wanted.photo, extraction.size
    try:
        decoded = decode(read_photo(extraction.root, photo), min_side=size, in_srgb=False)
    except ImageError as error:
        return left_out(photo.path, error)
    numbers, fit, seed = wanted.numbers or (0,), extraction.fit, extraction.seed
    picture, changes = decoded.image, extraction.changes
    drawn = draw_views(picture, changes, size=size, fit=fit, numbers=numbers, digest=photo.digest, seed=seed)
    views = convert_views(decoded, drawn)
    if wanted.square:
        with contextlib.suppress(StorageError):  # then the photo is decoded once more
            write_atomically(extraction.squares / photo.digest, views[0].tobytes(), durable=False)
    return views[: len(wanted.numbers)]


def time_view(extraction: Extraction, photos: Sequence[Photo]) -> float:
    """Return the seconds that a view of a photo takes one core, from its file to its features."""
    session, times = open_prefix(extraction.prefix), []
    for photo in photos:
        started = time.perf_counter()
        drawn = draw_wanted(extraction, PhotoViews(photo, (0,)))
        if not isinstance(drawn, Finding):  # of what is gone by now the work itself tells
            session.run(["cut", "features"], {"image": drawn})
            times.append(time.perf_counter() - started)
    measured = times[1:] or times  # the first one waits for the network
    return sum(measured) / max(1, len(measured))


def load_square(extraction: Extraction, photo: Photo) -> np.ndarray:
    """Return a photo as the network sees it: as a worker of this run left it, else decoded in the same way.

    Raises:
        ImageError: if the photo is not what it was, or cannot be read any more.
    """
    size = extraction.size
    with contextlib.suppress(OSError, ValueError):
        return np.frombuffer((extraction.squares / photo.digest).read_bytes(), np.uint8).reshape(size, size, 3)
    return load_pixels(read_photo(extraction.root, photo), size=size, fit=extraction.fit)


@functools.lru_cache(maxsize=1)
def open_prefix(path: Path) -> Any:
    """Open a prefix, once per process; one thread, since there is a process per core."""
    return open_session(path.read_bytes())
