"""Photos -> features: the frozen prefix run once per view, on all cores, kept in the cache."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from pronk.backbone.architecture import FEATURES, HEAD_BLOCKS, pooled_sizes, split_blocks
from pronk.backbone.onnx_graphs import PREFIX_VERSION, cut_shape, write_prefix
from pronk.batch.engines import open_engine
from pronk.batch.ray_cluster import SHARE
from pronk.config import Changes, Settings, parse_changes
from pronk.dataset.findings import Finding
from pronk.dataset.loading import Dataset, Photo, read_photo
from pronk.errors import DataError, ImageError
from pronk.photos.decoding import DECODING_VERSION
from pronk.photos.views import VIEWS_VERSION
from pronk.pools import TASKS_AHEAD, count_workers, run_unordered
from pronk.storage.cache import CacheKind, ensure_space
from pronk.storage.files import write_atomically
from pronk.text import say_time
from pronk.training.rows import Extracted, Extraction, PhotoViews, RowStore, compute_rows, time_view
from pronk.training.run_folder import Run

MANY_ROWS, TRIED = 2000, 6  # to say how long they take; photos that are timed, but for the first, which waits
PHOTOS_AT_ONCE = 4
MOST_PHOTOS_AT_ONCE = 64  # on other machines, where a task costs more than the call of a function
READ_VIEWS = 2  # of each training photo: those that the head learns where phase 2 goes on from it
SQUARES_BYTES = 512 * 1024**2  # of pixels that wait in the run folder to be judged


@dataclasses.dataclass(frozen=True)
class Features:
    """A data set and access to the cached rows of its photos.

    Attributes:
        dataset: the photos, without those that changed or vanished meanwhile.
        extraction: how the rows were made, and where they are.
        computed: number of rows that were not in the cache before.
        decode_seconds: wall time that decoding and drawing took, as a share of the workers' time.
        views: number of views of each training photo.
        blocks: those whose pooled features are read, of HEAD_BLOCKS.
    """

    dataset: Dataset
    extraction: Extraction
    computed: int
    decode_seconds: float
    views: int
    blocks: tuple[str, ...] = HEAD_BLOCKS

    @property
    def read_views(self) -> int:
        """The number of views of each training photo whose pooled features are there."""
        return min(self.views, self.extraction.read_views or self.views)

    def reading(self, name: str) -> "Features":
        """Return the same, read as one of FEATURES says."""
        return dataclasses.replace(self, blocks=FEATURES[name])

    def changed(self, changes: Changes) -> "Features":
        """Return the same with views that differ in other ways."""
        return dataclasses.replace(self, extraction=dataclasses.replace(self.extraction, changes=changes))

    def pooled(self, photos: Sequence[Photo], *, views: int = 1) -> np.ndarray:
        """Return pooled features of views 0 .. views - 1: float32 [n * views, d], a photo's views side by side."""
        columns = self._columns(self.blocks)
        read = self.extraction.store.read_pooled
        return np.stack([self._read(read, photo, view)[columns] for photo in photos for view in range(views)])

    def inputs(self, photos: Sequence[Photo], views: Iterable[int] = itertools.repeat(0)) -> list[np.ndarray]:
        """Return what the blocks after the cut and the head take of photos, each in one of its views.

        Activations at the cut, float32 [n, h, w, c], stored as float16; and where the head reads blocks before the cut,
        their pooled features, float32 [n, d].
        """
        fixed, _ = split_blocks(self.blocks, self.extraction.cut)
        places, store = list(zip(photos, views, strict=False)), self.extraction.store
        cuts = np.stack([self._read(store.read_cut, *place) for place in places]).astype(np.float32)
        if not fixed:
            return [cuts]
        columns = self._columns(fixed)
        return [cuts, np.stack([self._read(store.read_pooled, *place)[columns] for place in places])]

    def _columns(self, blocks: Sequence[str]) -> slice:
        """Return where in a row the features of some blocks lie that follow each other."""
        sizes = self.extraction.store.pooled
        ends = dict(zip(sizes, itertools.accumulate(sizes.values()), strict=True))
        return slice(ends[blocks[0]] - sizes[blocks[0]], ends[blocks[-1]])

    def _read(self, read: Callable[[str], np.ndarray | None], photo: Photo, view: int) -> np.ndarray:
        """Return a part of a row; a damaged one is computed again."""
        key = self.extraction.row_key(photo, view)
        part = read(key)
        if part is None:
            compute_rows(self.extraction, [PhotoViews(photo, (view,))])
            part = read(key)
            if part is None:
                raise DataError(f"{photo.path} changed during the run", hint="run the same command with --resume")
        return part


def extract_features(dataset: Dataset, run: Run, *, views: int) -> Features:
    """Compute the rows that the cache lacks: some views of training photos, view 0 of the others.

    The photos that are judged at the end are kept as pixels too, so that none is decoded twice, and a second run
    decodes them while it waits for the import of Keras. Not so by the machines of a cluster: they need to see the
    photos and the cache, but not the folder of the run.
    Progress is told as ("extract", photos done, photos to do).

    Raises:
        StorageError: if the disk has too little room; checked before the first row.
        DataError: if a machine of the cluster does not see the photos that this one sees.
    """
    extraction = plan_extraction(dataset.root, run)
    shutil.rmtree(extraction.squares, ignore_errors=True)  # of a run that was stopped; a power cut may have torn them
    square_bytes = SQUARES_BYTES if run.engine == "local" else 0
    _note_limit(dataset, extraction, run, views=views)
    wanted = list(find_missing(dataset.photos, extraction, views, square_bytes))
    _note_time(wanted, extraction, run)
    return _compute_missing(wanted, Features(dataset, extraction, 0, 0.0, views), run)


def extract_views(features: Features, run: Run, *, views: int) -> Features:
    """Compute the views of the training photos that are missing still, after `extract_features` and like it."""
    _note_limit(features.dataset, features.extraction, run, views=views, former=features.views)
    wanted = list(find_missing(features.dataset.part("train"), features.extraction, views, 0))
    return _compute_missing(wanted, dataclasses.replace(features, views=views), run)


def _note_limit(dataset: Dataset, extraction: Extraction, run: Run, *, views: int, former: int = 0) -> None:
    """Say that the features of this run are more than the cache may hold, unless that was so with fewer views."""
    counts = dataset.counts

    def measure(number: int) -> int:
        return (counts["train"] * number + counts["val"] + counts["test"]) * extraction.store.row_bytes()

    limit = run.cache_limit
    if limit is not None and measure(views) > limit >= (measure(former) if former else 0):
        sizes = f"{measure(views) / 1e6:,.0f} MB, and --cache-limit is {limit / 1e6:,.0f} MB"
        run.on_note(f"The features of this run take {sizes}: another run may remove some of them when it ends.")


def _note_time(wanted: Sequence[PhotoViews], extraction: Extraction, run: Run) -> None:
    """Say before the work how long it takes, where that is worth knowing: a few of the photos are timed."""
    rows = sum(len(one.numbers) for one in wanted)
    if rows < MANY_ROWS or run.engine != "local":
        return
    tried = [one.photo for one in wanted[:: max(1, len(wanted) // TRIED)][:TRIED]]
    seconds = rows * run.pool.submit(time_view, extraction, tried).result() / count_workers(run.pool)
    run.on_note(f"Features of {rows:,} views are to be computed, once: about {say_time(seconds)}.")


def _compute_missing(wanted: Sequence[PhotoViews], features: Features, run: Run) -> Features:
    extraction = features.extraction
    computed = sum(len(one.numbers) for one in wanted)
    ensure_space(run.cache, computed * extraction.store.row_bytes())
    findings: list[Finding] = []
    decode_seconds, done = 0.0, 0
    for extracted, workers in _extract(wanted, extraction, run):
        findings += extracted.findings
        decode_seconds += extracted.decode_seconds / workers
        done += extracted.photos
        run.on_progress("extract", done, len(wanted))
    if run.engine != "local":
        _doubt(findings, features.dataset, extraction)
    return dataclasses.replace(
        features,
        dataset=features.dataset.without(findings),
        computed=features.computed + computed,
        decode_seconds=features.decode_seconds + decode_seconds,
    )


def plan_extraction(root: Path, run: Run) -> Extraction:
    """Write the prefix into the cache, and name the folders of its rows and of the pixels to be judged."""
    weights, settings = run.backbone.weights, run.settings
    size, cut = settings.image_size, find_cut(settings)
    key = _key(PREFIX_VERSION, DECODING_VERSION, VIEWS_VERSION, run.backbone.sha256, size, cut)
    prefix = CacheKind.PREFIX.within(run.cache) / f"{key}.onnx"
    if not prefix.is_file():
        write_atomically(prefix, write_prefix(weights, size=size, cut=cut))
    os.utime(prefix)
    store = RowStore(
        CacheKind.ROWS.within(run.cache) / _key(key, settings.fit),
        dict(zip(HEAD_BLOCKS, pooled_sizes(weights), strict=True)),
        cut_shape(weights, size=size, cut=cut),
    )
    return Extraction(
        root.absolute(),
        prefix,
        store,
        cut,
        size,
        settings.fit,
        settings.seed,
        parse_changes(settings.augment),
        run.work / "squares",
        # Of blocks before the cut phase 2 reads them too.
        read_views=None if settings.frozen_only or split_blocks(HEAD_BLOCKS, cut)[0] else READ_VIEWS,
    )


def find_cut(settings: Settings) -> str:
    """Return the layer after which blocks are fine-tuned; it must be known before any photo is looked at."""
    if settings.fine_tune_from != "auto":
        return settings.fine_tune_from
    return "block_2_add" if settings.weights == "offline" else "block_5_add"


def find_missing(
    photos: Sequence[Photo], extraction: Extraction, views: int, square_bytes: int
) -> Iterator[PhotoViews]:
    """Yield the views that the cache lacks, by photo, and photos whose pixels may wait, in so many bytes."""
    extraction.store.refresh()
    seen: set[str] = set()
    squares = square_bytes // (extraction.size**2 * 3)
    for photo in photos:
        wanted = range(views if photo.part == "train" else 1)
        keys = {number: extraction.row_key(photo, number) for number in wanted}
        has = extraction.store.has
        numbers = tuple(n for n in wanted if keys[n] not in seen and not has(keys[n], features=extraction.is_read(n)))
        seen.update(keys.values())
        judged = photo.part != "train" and squares > 0
        squares -= judged
        if numbers or judged:
            yield PhotoViews(photo, numbers, square=judged)


def _extract(wanted: Sequence[PhotoViews], extraction: Extraction, run: Run) -> Iterator[tuple[Extracted, int]]:
    """Yield what became of the photos, a few at a time, and how many workers there were."""
    if not wanted:  # a cluster is not even asked
        return
    is_local = run.engine == "local"
    with contextlib.nullcontext(run.pool) if is_local else _open_machines(extraction, run) as pool:
        share = len(wanted) // (TASKS_AHEAD * count_workers(pool))
        step = PHOTOS_AT_ONCE if is_local else max(PHOTOS_AT_ONCE, min(share, MOST_PHOTOS_AT_ONCE))
        batches = [wanted[i : i + step] for i in range(0, len(wanted), step)]
        for extracted in run_unordered(functools.partial(compute_rows, extraction), batches, pool=pool):
            yield extracted, count_workers(pool)


@contextlib.contextmanager
def _open_machines(extraction: Extraction, run: Run) -> Iterator[Executor]:
    # Only who sees this very file works in the same cache, and not in one of its own at the same path.
    mark = extraction.store.folder / f".{secrets.token_hex(8)}.tmp"
    write_atomically(mark, b"", durable=False)
    try:
        with open_engine(run.engine, address=run.address, shared=[extraction.root, mark]) as machines:
            yield machines
    finally:
        mark.unlink(missing_ok=True)


def _doubt(findings: Sequence[Finding], dataset: Dataset, extraction: Extraction) -> None:
    photos = {photo.path: photo for photo in dataset.photos}
    for finding in findings:
        with contextlib.suppress(ImageError):
            read_photo(extraction.root, photos[finding.path])
            raise DataError(f"{finding.path}: {finding.code} on another machine, but not here", hint=SHARE)


def _key(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]
