"""Photos -> features: the frozen prefix run once per view, on all cores, kept in the cache."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from pronk.backbone.onnx_graphs import PREFIX_VERSION, cut_shape, pooled_size, write_prefix
from pronk.backbone.weights import Backbone
from pronk.batch.engines import open_engine
from pronk.batch.ray_cluster import SHARE
from pronk.config import Settings
from pronk.dataset.findings import Finding
from pronk.dataset.loading import Dataset, Photo, read_photo
from pronk.errors import DataError, ImageError
from pronk.photos.decoding import DECODING_VERSION
from pronk.photos.views import VIEWS_VERSION
from pronk.pools import TASKS_AHEAD, count_workers, run_unordered
from pronk.progress import Progress, no_progress
from pronk.storage.cache import ensure_space
from pronk.storage.files import write_atomically
from pronk.training.row_store import RowStore
from pronk.training.rows import Job, Recipe, Worked, compute_rows, draw_job, row_key

PHOTOS_PER_JOB = 4
MOST_PHOTOS_PER_JOB = 64  # on other machines, where a job costs more than the call of a function
SQUARES_BYTES = 512 * 1024**2  # of pixels that wait in the run folder to be judged


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
            compute_rows(self.recipe, [Job(photo, (number,))])
            row = self.recipe.store.read(key)
            if row is None:
                raise DataError(f"{photo.path} changed during the run", hint="run the same command with --resume")
        return row


def extract_features(
    dataset: Dataset,
    backbone: Backbone,
    settings: Settings,
    cache: Path,
    work: Path,
    pool: Executor,
    *,
    engine: str = "local",
    address: str | None = None,
    on_progress: Progress = no_progress,
) -> Features:
    """Compute the rows that the cache lacks: all views of training photos, view 0 of the others.

    The photos that are judged at the end are kept as pixels too, so that none is decoded twice, and a second run
    decodes them while it waits for the import of Keras. Not so by the machines of a cluster: they need to see the
    photos and the cache, but not the folder of the run.

    Args:
        dataset: the photos.
        backbone: the network.
        settings: image size, fit, views, cut and seed.
        cache: folder of the cache.
        work: folder of the run for what it needs until its end.
        pool: of worker processes.
        engine: "local" computes in the pool, another one elsewhere; see `pronk.batch.engines.open_engine`.
        address: of a cluster.
        on_progress: called with ("extract", photos done, photos to do).

    Raises:
        StorageError: if the disk has too little room; checked before the first row.
        DataError: if a machine of the cluster does not see the photos that this one sees.
    """
    recipe = make_recipe(dataset.root, backbone, settings, cache, work)
    shutil.rmtree(recipe.squares, ignore_errors=True)  # of a run that was stopped; a power cut may have torn them
    local = engine == "local"
    jobs = list(_missing_jobs(dataset, recipe, settings.views, SQUARES_BYTES if local else 0))
    computed = sum(len(job.numbers) for job in jobs)
    ensure_space(cache, computed * recipe.store.row_bytes)
    findings: list[Finding] = []
    decode_seconds, done = 0.0, 0
    with contextlib.nullcontext(pool) if local or not jobs else _open_machines(engine, address, recipe) as workers:
        share = len(jobs) // (TASKS_AHEAD * count_workers(workers))
        step = PHOTOS_PER_JOB if local else max(PHOTOS_PER_JOB, min(share, MOST_PHOTOS_PER_JOB))
        batches = [jobs[i : i + step] for i in range(0, len(jobs), step)]
        if jobs and local and has_gpu():
            results = run_on_gpu(recipe, backbone, settings, batches)
        else:
            results = run_unordered(functools.partial(compute_rows, recipe), batches, pool=workers)
        for worked in results:
            findings += worked.findings
            decode_seconds += worked.decode_seconds / count_workers(workers)
            done = min(done + step, len(jobs))
            on_progress("extract", done, len(jobs))
    if not local:
        _doubt(findings, dataset, recipe)
    return Features(recipe, computed, decode_seconds, tuple(findings))


@contextlib.contextmanager
def _open_machines(engine: str, address: str | None, recipe: Recipe) -> Iterator[Executor]:
    # Only who sees this very file works in the same cache, and not in one of its own at the same path.
    mark = recipe.store.folder / f".{secrets.token_hex(8)}.tmp"
    write_atomically(mark, b"", durable=False)
    try:
        with open_engine(engine, address=address, shared=[recipe.root, mark]) as machines:
            yield machines
    finally:
        mark.unlink(missing_ok=True)


def _doubt(findings: Sequence[Finding], dataset: Dataset, recipe: Recipe) -> None:
    photos = {photo.path: photo for photo in dataset.photos}
    for finding in findings:
        with contextlib.suppress(ImageError):
            read_photo(recipe.root, photos[finding.path])
            raise DataError(f"{finding.path}: {finding.code} on another machine, but not here", hint=SHARE)


def make_recipe(root: Path, backbone: Backbone, settings: Settings, cache: Path, work: Path) -> Recipe:
    """Write the prefix into the cache, and name the folders of its rows and of the pixels to be judged."""
    size, cut = settings.image_size, settings.fine_tune_from
    key = _key(PREFIX_VERSION, DECODING_VERSION, VIEWS_VERSION, backbone.sha256, size, cut)
    prefix = cache / "prefix" / f"{key}.onnx"
    if not prefix.is_file():
        write_atomically(prefix, write_prefix(backbone.weights, size=size, cut=cut))
    os.utime(prefix)
    rows = cache / "rows" / _key(key, settings.fit)
    shapes = (pooled_size(backbone.weights),), cut_shape(backbone.weights, size=size, cut=cut)
    return Recipe(root.absolute(), prefix, RowStore(rows, *shapes), size, settings.fit, settings.seed, work / "squares")


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


def _missing_jobs(dataset: Dataset, recipe: Recipe, views: int, square_bytes: int) -> Iterator[Job]:
    seen: set[str] = set()
    squares = square_bytes // (recipe.size**2 * 3)
    for photo in dataset.photos:
        wanted = range(views if photo.part == "train" else 1)
        keys = {number: row_key(photo, number, recipe.seed) for number in wanted}
        numbers = tuple(n for n, key in keys.items() if key not in seen and not recipe.store.has(key))
        seen.update(keys.values())
        judged = photo.part != "train" and squares > 0
        squares -= judged
        if numbers or judged:
            yield Job(photo, numbers, square=judged)


def run_on_gpu(
    recipe: Recipe, backbone: Backbone, settings: Settings, batches: Sequence[Sequence[Job]]
) -> Iterator[Worked]:
    """Run jobs through the Keras prefix in this process, photos decoded by threads beside it."""
    from pronk.backbone.keras_network import build_network, build_prefix

    prefix = build_prefix(build_network(backbone, classes=2, settings=settings), settings.fine_tune_from)

    def draw(batch: Sequence[Job]) -> list[tuple[Job, np.ndarray | Finding]]:
        return [(job, draw_job(recipe, job)) for job in batch]

    for drawn in run_unordered(draw, batches):
        whole = [(job, views) for job, views in drawn if not isinstance(views, Finding) and len(views)]
        if whole:
            cut, pooled = map(np.asarray, prefix.predict_on_batch(np.concatenate([views for _, views in whole])))
            rows = zip(((job, number) for job, _ in whole for number in job.numbers), pooled, cut, strict=True)
            for (job, number), pooled_row, cut_row in rows:
                recipe.store.write(row_key(job.photo, number, recipe.seed), pooled_row, cut_row)
        yield Worked(tuple(views for _, views in drawn if isinstance(views, Finding)), 0.0)


def _key(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]
