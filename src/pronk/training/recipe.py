"""Folder of photos -> run folder: the whole story, one stage after the other."""

import contextlib
import dataclasses
import gc
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from pronk.analysis.metrics import mcnemar_exact
from pronk.backbone.weights import Backbone, load_backbone
from pronk.batch.engines import check_engine
from pronk.config import Settings
from pronk.dataset.findings import Finding
from pronk.dataset.listing import Listing, list_photos
from pronk.dataset.loading import Dataset, load_dataset, read_split_file, write_split
from pronk.dataset.scan import scan_memo
from pronk.dataset.shortcuts import list_warnings
from pronk.errors import GateError, RunError
from pronk.model.run import MODEL, REPORT, SPLIT, WORK, ChoiceRecord, Metrics, read_metrics
from pronk.pools import start_beside
from pronk.progress import Progress, no_progress
from pronk.storage.cache import DEFAULT_LIMIT, default_cache, parse_size, trim
from pronk.storage.places import enclosing
from pronk.training.answers import calibrate
from pronk.training.exporters import choose_golden, compare, export
from pronk.training.features import Features, extract_features
from pronk.training.phases import FineTuned, Frozen, Kept, fine_tune, part_record, train_head
from pronk.training.results import draw_example, judge, summarise, write_results
from pronk.training.run import hold_run, new_run_folder
from pronk.training.surveys import study
from pronk.training.usage import Usage
from pronk.training.workers import start_workers


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes:
        folder: the run folder; `pronk.Predictor.load` takes it.
        metrics: the numbers of metrics.json.
        findings: what was left out or is worth a look.
        gate: the error to raise because the test interval reaches below `fail_under`; the run is whole all the same.
    """

    folder: Path
    metrics: Metrics
    findings: tuple[Finding, ...] = ()
    gate: GateError | None = None


def train(
    data: Path | str,
    *,
    out: Path | str | None = None,
    settings: Settings | None = None,
    resume: bool = False,
    cache: Path | str | None = None,
    cache_limit: str = DEFAULT_LIMIT,
    engine: str = "local",
    address: str | None = None,
    on_progress: Progress = no_progress,
) -> TrainResult:
    """Train a classifier in two phases and judge it.

    Args:
        data: a folder of class folders, of train/val/test folders of class folders, or a CSV.
        out: the run folder to make; None takes the next free `runs/<name>-<N>`, or the last one to resume.
        settings: what to do; None takes the defaults.
        resume: go on with a run that was stopped, or return it where it is done.
        cache: folder for features; None takes $PRONK_CACHE or the user's cache folder.
        cache_limit: least recently used rows above it are removed at the end.
        engine: where features are extracted: "local", or "ray" on the machines of a cluster; results are the same.
        address: of the cluster, as host:port; None takes $RAY_ADDRESS, else starts one of this machine's cores.
        on_progress: called with (stage, done, total); total is 0 where it is not known.

    Raises:
        PronkError: see `pronk.errors`; the message says what is wrong, the hint what to do.

    Example:
        >>> train("no such folder", out="run")
        Traceback (most recent call last):
        pronk.errors.DataError: no such folder is neither a folder nor a CSV file
    """
    check_engine(engine, address=address)
    listing = list_photos(Path(data))  # says what is wrong before a run folder is made
    settings = make_absolute((settings or Settings()).replace(data=str(data)))
    folder = Path(out) if out else new_run_folder(Path(data), resume=resume)
    cache, limit = Path(cache) if cache else default_cache(), parse_size(cache_limit)
    keep_out(Path(data), listing, out=folder, cache=cache)
    with hold_run(folder, settings, resume=resume) as done, Usage() as usage, contextlib.ExitStack() as at_end:
        at_end.callback(gc.unfreeze)
        if done:
            return finish(folder, read_metrics(folder), settings)
        backbone = load_backbone(settings.weights, alpha=settings.alpha)
        with start_workers() as pool:
            # The worker processes check, extract and fit the head while this one imports Keras.
            building = start_beside(lambda: import_network(backbone, len(listing.classes), settings))
            dataset, features, frozen = study_photos(
                settings, backbone, folder, cache, pool, usage, on_progress, engine=engine, address=address
            )
            golden = pool.submit(choose_golden, dataset, settings)
            studying = pool.submit(study, dataset, features, settings)
            example = pool.submit(draw_example, dataset, features.recipe, settings)
            network = building.result()
            fine_tuned = None
            if not settings.frozen_only:
                with usage.stage("fine_tune"):
                    fine_tuned = fine_tune(network, frozen, dataset, features, settings, folder / WORK, on_progress)
            kept = choose(frozen, fine_tuned, backbone, dataset, settings)
            on_progress("export", 0, 1)
            with usage.stage("export"):
                answers = calibrate(kept, backbone, dataset, features, settings, pool)
                bundle = export(
                    folder / MODEL, network, kept, answers, golden.result(), backbone, dataset.classes, settings
                )
            on_progress("export", 1, 1)
            comparing = start_beside(lambda: compare(network, bundle))
            with usage.stage("evaluate"):
                squares = features.recipe.squares
                judged = judge(bundle, dataset, squares, cache, on_progress, views=example.result())
            comparing.result()
            studied = studying.result()
        dataset = dataclasses.replace(dataset, findings=dataset.findings + judged.lost)
        metrics = summarise(dataset, settings, backbone, frozen, fine_tuned, kept, bundle, judged.rows)
        metrics = dataclasses.replace(
            metrics,
            folds=studied.folds,
            curve=studied.curve,
            seconds=usage.seconds(),
            peak_memory_mb=usage.peak_memory_mb(),
        )
        write_results(folder, metrics, dataset, settings, frozen, fine_tuned, judged, studied)
    trim(cache, limit=limit)
    return finish(folder, metrics, settings, (*dataset.findings, *list_warnings(dataset.shortcuts)))


def make_absolute(settings: Settings) -> Settings:
    """Return the settings with paths that mean the same from any folder, so that the run can be replayed.

    Example:
        >>> make_absolute(Settings(weights="offline")).weights
        'offline'
    """
    paths = {"data": settings.data, "split": settings.split}
    if settings.weights not in ("imagenet", "offline"):
        paths["weights"] = settings.weights
    return settings.replace(**{name: str(Path(path).absolute()) for name, path in paths.items() if path})


def keep_out(data: Path, listing: Listing, **folders: Path) -> None:
    """Refuse to write among the photos, where a run would become a class of the next one.

    Raises:
        RunError: naming the folder and the option.

    Example:
        >>> keep_out(Path("photos"), Listing(Path("photos"), (), (), ()), out=Path("runs/1"))
    """
    photos = {(listing.root / entry.path).parent.resolve() for entry in listing.entries}
    if data.is_dir():
        photos.add(data.resolve())
    for option, folder in folders.items():
        if photos & enclosing(folder):
            raise RunError(f"{folder} lies among the photos", hint=f"name a folder elsewhere, with --{option}")


def study_photos(
    settings: Settings,
    backbone: Backbone,
    folder: Path,
    cache: Path,
    pool: Executor,
    usage: Usage,
    on_progress: Progress,
    *,
    engine: str,
    address: str | None,
) -> tuple[Dataset, Features, Frozen]:
    """Check and split the photos, extract their features, and solve for the head: all that needs no Keras."""
    with usage.stage("check"):
        dataset = load_dataset(
            settings.data,
            val=settings.val,
            test=settings.test,
            seed=settings.seed,
            group_by=settings.group_by,
            split=settings.split,
            pool=pool,
            memo=scan_memo(cache),
            on_progress=on_progress,
        )
    with usage.stage("extract"):
        features = extract_features(
            dataset,
            backbone,
            settings,
            cache,
            folder / WORK,
            pool,
            engine=engine,
            address=address,
            on_progress=on_progress,
        )
    usage.add("decode", features.decode_seconds)
    dataset = dataset.without(features.missing)
    keep_split(folder, dataset)
    with usage.stage("head"):
        frozen = pool.submit(train_head, dataset, features, settings).result()
    on_progress("head", len(frozen.history), len(frozen.history))
    return dataset, features, frozen


def import_network(backbone: Backbone, classes: int, settings: Settings) -> Any:
    """Build the Keras model; importing the framework is most of it."""
    with pause_garbage_collection():
        from pronk.backbone.keras_network import build_network

        return build_network(backbone, classes=classes, settings=settings)


@contextlib.contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """Look for no garbage among the million objects that an import makes to stay: a quarter of its time.

    Nor is it looked for among them afterwards, until `gc.unfreeze`.

    Example:
        >>> with pause_garbage_collection():
        ...     gc.isenabled()
        False
        >>> gc.unfreeze()
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def keep_split(folder: Path, dataset: Dataset) -> None:
    """Write split.csv; a continued run must find the photos it was started with."""
    path = folder / SPLIT
    if not path.exists():
        write_split(path, dataset)
    elif read_split_file(path) != dataset.photos:
        raise RunError(
            f"the photos are not those that {folder} was started with",
            hint="start a new run; features of unchanged photos are still in the cache",
        )


def choose(
    frozen: Frozen, fine_tuned: FineTuned | None, backbone: Backbone, dataset: Dataset, settings: Settings
) -> Kept:
    """Keep the model with the lower validation log-loss, unless told which; report the exact paired test."""
    if fine_tuned is None:
        comparison = ChoiceRecord(gained=0, lost=0, p=1.0, kept="frozen", why="fine-tuning was left out")
        return Kept(frozen.head, backbone.weights, frozen.val_probabilities, comparison)
    targets = dataset.targets(dataset.part("val"))
    before = part_record(frozen.val_probabilities, targets)["loss"]
    after = part_record(fine_tuned.val_probabilities, targets)["loss"]
    better = after < before if settings.keep == "best" else settings.keep == "fine-tuned"
    why = f"validation log-loss {before:.4f} frozen, {after:.4f} fine-tuned"
    if settings.keep != "best":
        why = f"asked for with --keep {settings.keep}; {why}"
    test = mcnemar_exact(
        frozen.val_probabilities.argmax(axis=1) == targets, fine_tuned.val_probabilities.argmax(axis=1) == targets
    )
    comparison = ChoiceRecord(**test, kept="fine_tuned" if better else "frozen", why=why)
    if better:
        return Kept(fine_tuned.head, fine_tuned.weights, fine_tuned.val_probabilities, comparison)
    return Kept(frozen.head, backbone.weights, frozen.val_probabilities, comparison)


def finish(folder: Path, metrics: Metrics, settings: Settings, findings: tuple[Finding, ...] = ()) -> TrainResult:
    """Hold the result against --fail-under."""
    limit = settings.fail_under
    low = metrics.test["accuracy"]["low"] if metrics.test else 0.0
    if limit is None or low >= limit:
        return TrainResult(folder, metrics, findings)
    gate = GateError(
        f"the lower end of the test interval is {low:.3f}, below --fail-under {limit}",
        hint=f"the run is whole; see {folder / REPORT} for the mistakes",
    )
    return TrainResult(folder, metrics, findings, gate)
