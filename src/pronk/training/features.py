"""Photos -> features: the frozen prefix run once per view, on all cores, kept in the cache."""

import dataclasses
import hashlib
import itertools
import os
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import loky
import numpy as np
import onnxruntime

from pronk.cache import RowStore, ensure_space
from pronk.config import Settings
from pronk.dataset import Dataset, Photo
from pronk.errors import DataError, ImageError, PronkError
from pronk.files import available_cores, write_atomically
from pronk.images import decode, read_bytes
from pronk.listing import Finding
from pronk.scan import Progress, changed, left_out
from pronk.training.backbone import Backbone
from pronk.training.graphs import cut_shape, pooled_size, write_prefix
from pronk.views import draw_views

# Raise it when images.py, views.py or the prefix change the numbers: old rows are then not used again.
RECIPE_VERSION = 1
PHOTOS_PER_JOB = 4
JOBS_AHEAD = 4


@dataclasses.dataclass(frozen=True)
class Job:
    """One photo and the views of it that are missing in the cache."""

    photo: Photo
    numbers: tuple[int, ...]


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


@dataclasses.dataclass(frozen=True)
class Features:
    """Access to the cached rows of a data set's photos.

    Attributes:
        recipe: how they were made, and where they are.
        computed: number of rows that were not in the cache before.
        decode_seconds: wall time that decoding and drawing took, as a share of the workers' time.
        missing: findings for photos that changed or vanished meanwhile.
    """

    recipe: Recipe
    computed: int
    decode_seconds: float
    missing: tuple[Finding, ...]

    def pooled(self, photos: Sequence[Photo], *, views: int = 1) -> np.ndarray:
        """Return pooled features of views 0 .. views - 1: float32 [n * views, 1280], a photo's views side by side."""
        rows = [self.row(photo, number)[0] for photo in photos for number in range(views)]
        return np.stack(rows)

    def cuts(self, photos: Sequence[Photo], *, view: int) -> np.ndarray:
        """Return activations at the cut of one view of each photo: float32 [n, h, w, c], stored as float16."""
        return np.stack([self.row(photo, view)[1] for photo in photos]).astype(np.float32)

    def row(self, photo: Photo, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return one row; a damaged one is computed again."""
        key = row_key(photo, number, self.recipe.seed)
        row = self.recipe.store.read(key)
        if row is None:
            compute_rows(self.recipe, _open_prefix(self.recipe.prefix), [Job(photo, (number,))])
            row = self.recipe.store.read(key)
            if row is None:
                raise DataError(f"{photo.path} changed during the run", hint="run the same command with --resume")
        return row


def extract_features(
    dataset: Dataset,
    backbone: Backbone,
    settings: Settings,
    cache: Path,
    *,
    on_progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> Features:
    """Compute the rows that the cache lacks: all views of training photos, view 0 of the others.

    Args:
        dataset: the photos.
        backbone: the network.
        settings: image size, fit, views, cut and seed.
        cache: folder of the cache.
        on_progress: called with ("extract", photos done, photos to do).
        stop: when set, the work ends early with a PronkError.

    Raises:
        StorageError: if the disk has too little room; checked before the first row.
    """
    recipe = make_recipe(dataset.root, backbone, settings, cache)
    jobs = list(_missing_jobs(dataset, recipe, settings.views))
    computed = sum(len(job.numbers) for job in jobs)
    ensure_space(cache, computed * recipe.store.row_bytes)
    run = _run_on_gpu if jobs and has_gpu() else _run_on_cores
    findings: list[Finding] = []
    decode_seconds = 0.0
    for done, worked in enumerate(run(recipe, backbone, settings, jobs), start=1):
        findings += worked.findings
        decode_seconds += worked.decode_seconds / available_cores()
        if on_progress:
            on_progress("extract", min(done * PHOTOS_PER_JOB, len(jobs)), len(jobs))
        if stop and stop.is_set():
            raise PronkError("stopped")
    return Features(recipe, computed, decode_seconds, tuple(findings))


def make_recipe(root: Path, backbone: Backbone, settings: Settings, cache: Path) -> Recipe:
    """Write the prefix into the cache and name the folder of its rows."""
    size, cut = settings.image_size, settings.fine_tune_from
    key = _key(RECIPE_VERSION, backbone.sha256, size, cut)
    prefix = cache / "prefix" / f"{key}.onnx"
    if not prefix.is_file():
        write_atomically(prefix, write_prefix(backbone.weights, size=size, cut=cut))
    os.utime(prefix)
    rows = cache / "rows" / _key(key, settings.fit)
    shapes = (pooled_size(backbone.weights),), cut_shape(backbone.weights, size=size, cut=cut)
    return Recipe(root.absolute(), prefix, RowStore(rows, *shapes), size, settings.fit, settings.seed)


def row_key(photo: Photo, number: int, seed: int) -> str:
    """Name a row: by the photo's content and the view; view 0 is the same for every seed.

    Example:
        >>> row_key(Photo("a/1.jpg", "a", "train", "ff00", "g"), 0, 42)
        'ff00-0'
    """
    return f"{photo.digest}-{number}-{seed}" if number else f"{photo.digest}-0"


def compute_rows(recipe: Recipe, session: Any, jobs: Sequence[Job]) -> Worked:
    """Decode photos, draw their missing views, and store what the prefix makes of them.

    Each view runs as a batch of one, so a row does not depend on which others were missing.
    """
    findings, decode_seconds = [], 0.0
    for job in jobs:
        started = time.perf_counter()
        drawn = _draw(recipe, job)
        decode_seconds += time.perf_counter() - started
        if isinstance(drawn, Finding):
            findings.append(drawn)
            continue
        for number, view in zip(job.numbers, drawn, strict=True):
            pooled, cut = session.run(["features", "cut"], {"image": view[None]})
            recipe.store.write(row_key(job.photo, number, recipe.seed), pooled[0], cut[0])
    return Worked(tuple(findings), decode_seconds)


def has_gpu() -> bool:
    """Tell whether Keras's backend sees a GPU; looks for a driver first, since importing Keras takes seconds."""
    drivers = ("/dev/nvidiactl", "/dev/kfd")
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" or not any(map(os.path.exists, drivers)):
        return False
    import keras

    try:
        return bool(keras.distribution.list_devices("gpu"))
    except Exception:  # backends that cannot list devices run on the CPU here
        return False


def _draw(recipe: Recipe, job: Job) -> np.ndarray | Finding:
    try:
        data = read_bytes(recipe.root / job.photo.path)
        if hashlib.sha256(data).hexdigest() != job.photo.digest:
            return changed(job.photo.path)
        image = decode(data, min_side=recipe.size).image
    except ImageError as error:
        return left_out(job.photo.path, error)
    return draw_views(
        image, size=recipe.size, fit=recipe.fit, numbers=job.numbers, digest=job.photo.digest, seed=recipe.seed
    )


def _missing_jobs(dataset: Dataset, recipe: Recipe, views: int) -> Iterator[Job]:
    seen: set[str] = set()
    for photo in dataset.photos:
        wanted = range(views if photo.part == "train" else 1)
        keys = {number: row_key(photo, number, recipe.seed) for number in wanted}
        numbers = tuple(n for n, key in keys.items() if key not in seen and not recipe.store.has(key))
        seen.update(keys.values())
        if numbers:
            yield Job(photo, numbers)


def _run_on_cores(recipe: Recipe, backbone: Backbone, settings: Settings, jobs: list[Job]) -> Iterator[Worked]:
    """Run jobs in one worker process per core: processes, since decoding threads fight for the interpreter lock."""
    if not jobs:
        return
    batches = [jobs[i : i + PHOTOS_PER_JOB] for i in range(0, len(jobs), PHOTOS_PER_JOB)]
    workers = min(available_cores(), len(batches))
    pool = loky.ProcessPoolExecutor(
        workers, initializer=_start_worker, initargs=(recipe, os.getpid()), env={"OMP_NUM_THREADS": "1"}
    )
    try:
        waiting = iter(batches)
        running: set[Future[Worked]] = set()
        while True:
            for batch in itertools.islice(waiting, JOBS_AHEAD * workers - len(running)):
                running.add(pool.submit(_work, batch))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except loky.process_executor.BrokenProcessPool as error:
        raise PronkError(
            "a worker process was killed, most likely for lack of memory",
            hint="close other programs, then run the same command with --resume",
        ) from error
    finally:
        pool.shutdown(wait=True, kill_workers=True)


def _run_on_gpu(recipe: Recipe, backbone: Backbone, settings: Settings, jobs: list[Job]) -> Iterator[Worked]:
    """Run jobs through the Keras prefix in this process, photos decoded by threads beside it."""
    from pronk.training.network import build_network, build_prefix

    prefix = build_prefix(build_network(backbone, classes=2, settings=settings), settings.fine_tune_from)
    batches = [jobs[i : i + PHOTOS_PER_JOB] for i in range(0, len(jobs), PHOTOS_PER_JOB)]
    with ThreadPoolExecutor(available_cores()) as pool:
        for batch, drawn in zip(
            batches, pool.map(lambda jobs: [_draw(recipe, job) for job in jobs], batches), strict=True
        ):
            whole = [(job, views) for job, views in zip(batch, drawn, strict=True) if not isinstance(views, Finding)]
            if whole:
                cut, pooled = map(np.asarray, prefix.predict_on_batch(np.concatenate([views for _, views in whole])))
                rows = zip(((job, number) for job, _ in whole for number in job.numbers), pooled, cut, strict=True)
                for (job, number), pooled_row, cut_row in rows:
                    recipe.store.write(row_key(job.photo, number, recipe.seed), pooled_row, cut_row)
            yield Worked(tuple(views for views in drawn if isinstance(views, Finding)), 0.0)


_worker: tuple[Recipe, Any] | None = None


def _start_worker(recipe: Recipe, parent: int) -> None:
    global _worker
    warnings.simplefilter("ignore")
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _worker = recipe, _open_prefix(recipe.prefix)


def _end_with(parent: int) -> None:
    # A parent that was killed cannot stop its workers.
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _work(batch: list[Job]) -> Worked:
    assert _worker is not None, "the pool starts each worker with _start_worker"
    recipe, session = _worker
    return compute_rows(recipe, session, batch)


def _open_prefix(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])


def _key(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]
