"""Folder of photos -> run folder: the whole story, one stage after the other."""

import dataclasses
import time
from pathlib import Path
from typing import Any

from pronk.backbone.weights import load_backbone
from pronk.batch.engines import check_engine
from pronk.config import Settings, parse_changes
from pronk.dataset.findings import Finding
from pronk.dataset.listing import Listing, list_photos
from pronk.dataset.loading import SPLIT, Dataset, load_dataset, read_split_file, write_split
from pronk.dataset.rest_class import find_rest_class
from pronk.dataset.scan import scan_memo
from pronk.errors import GateError, RunError
from pronk.model.run import REPORT, Metrics, read_metrics, read_split
from pronk.progress import Note, Progress, no_note, no_progress
from pronk.storage.cache import DEFAULT_LIMIT, default_cache, open_cache, parse_size, trim
from pronk.storage.remote import to_path
from pronk.text import plural
from pronk.training.cross_fitting import cross_fit, refuse_given_parts
from pronk.training.features import Features, extract_features, extract_views
from pronk.training.kept_model import calibrate, choose, write_kept
from pronk.training.phase_one import Frozen, train_head
from pronk.training.phase_two import fine_tune
from pronk.training.plan import FOLD_STEPS, STEPS, Plan, least_views, make_plan
from pronk.training.results import Outcome, judge, summarise, write_results
from pronk.training.run_folder import Run, hold_run, keep_out, new_run_folder
from pronk.training.schedule import Beside
from pronk.training.usage import Usage
from pronk.training.workers import follow, start_workers


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes:
        folder: the run folder; `pronk.Predictor.load` takes it.
        metrics: the numbers of metrics.json.
        findings: photos left out, and whatever else is worth a look.
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
    on_note: Note = no_note,
) -> TrainResult:
    """Train a classifier in two phases and judge it.

    Args:
        data: a folder of class folders, of train/val/test folders of class folders, a zip or tar of such, or a CSV.
        out: the run folder to make; None takes the next free `runs/<name>-<N>`, or the last one to resume.
        settings: None takes the defaults.
        resume: go on with a run that was stopped, or return it where it is done.
        cache: folder for features; None takes $PRONK_CACHE or the user's cache folder.
        cache_limit: least recently used rows above it are removed at the end, but not those of this run.
        engine: where features are extracted: "local", or "ray" on the machines of a cluster; results are the same.
        address: of the cluster, as host:port; None takes $RAY_ADDRESS, else starts one of this machine's cores.
        on_progress: called with (stage, done, total); total is 0 where it is not known.
        on_note: called with what should be known before the work.

    Raises:
        PronkError: with a hint what to do.
    """
    started, limit = time.time(), parse_size(cache_limit)
    check_engine(engine, address=address)
    listing, settings = prepare(data, settings or Settings())
    folder, place = open_folders(to_path(data), listing, out=out, cache=cache, resume=resume)
    with hold_run(folder, settings, resume=resume) as done, Usage() as usage:
        if done:
            return _return_former(folder, listing, settings, on_note)
        backbone = load_backbone(settings.weights, alpha=settings.alpha)
        with start_workers() as pool:
            run = Run(settings, backbone, folder, place, pool, engine, address, on_progress, limit, on_note)
            answers = judge_by_others(listing, run, usage)
            outcome = take_steps(listing, run, usage).judged_by(answers)
        metrics = write_results(outcome, summarise(outcome, usage))
    trim(place, limit=limit, since=started)
    return finish(folder, metrics, settings, outcome.findings)


def take_steps(listing: Listing, run: Run, usage: Usage) -> Outcome:
    """Check, extract, train twice, choose, write and judge; `pronk.training.schedule` says what runs beside that."""
    with Beside(run) as beside:
        beside.at_start()
        with usage.stage("check"):
            dataset = split_photos(listing, run)
        with usage.stage("extract"):
            features = extract_features(dataset, run, views=least_views(run.settings))
        with usage.stage("head"):
            plan = make_plan(features, run)
        with usage.stage("extract"):
            features = features.reading(plan.features).changed(parse_changes(plan.augment))
            features = extract_views(features, run, views=plan.pace.views)
        usage.add("decode", features.decode_seconds)
        keep_split(run.folder, features.dataset)
        run = run.settle(**plan.chosen)
        with usage.stage("head"):
            frozen = solve_head(features, plan, run)
        beside.after_phase_one(features, plan.strength, run)
        network = build_classifier(beside.body.result(), features, run)
        fine_tuned = None
        if not run.settings.frozen_only:
            with usage.stage("fine_tune"):
                fine_tuned = fine_tune(network, frozen, features, plan, run)
        targets = features.dataset.targets(features.dataset.part("val"))
        kept = choose(frozen, fine_tuned, targets, run)
        run.on_progress("export", 0, 1)
        with usage.stage("export"):
            beside.after_choice(kept, features)
            calibration, golden = calibrate(kept, targets), beside.golden.result()
            names = features.dataset.classes
            bundle = write_kept(network, kept, calibration, run, classes=names, golden=golden, unknown=beside.unknown)
        run.on_progress("export", 1, 1)
        beside.after_writing(network, bundle)
        with usage.stage("evaluate"):
            judged = judge(bundle, features, run, views=beside.example.result())
        beside.comparison.result()
        dataset = dataclasses.replace(features.dataset, findings=features.dataset.findings + judged.lost)
        return Outcome(run, plan, dataset, frozen, fine_tuned, kept, bundle, judged, beside.studies.result())


def judge_by_others(listing: Listing, run: Run, usage: Usage) -> list[dict[str, Any]]:
    """Return what models that had not seen them say of all photos, where that was asked for."""
    if run.settings.judge != "cross":
        return []
    with usage.stage("check"):
        dataset = split_photos(listing, run)
    return cross_fit(dataset, run, lambda part: take_steps(listing, part, usage).judged.rows)


def open_folders(
    data: Path, listing: Listing, *, out: Path | str | None, cache: Path | str | None, resume: bool
) -> tuple[Path, Path]:
    """Return the run folder to make and the folder of the cache, once it is sure that neither lies among the photos."""
    folder = Path(out) if out else new_run_folder(data, resume=resume)
    place = Path(cache) if cache else default_cache()
    keep_out(data, listing, out=folder, cache=place)
    return folder, open_cache(place)


def prepare(data: Path | str, settings: Settings) -> tuple[Listing, Settings]:
    """List the photos and complete the settings: what is wrong is said before a run folder is made."""
    listing = list_photos(to_path(data))
    find_rest_class(listing.classes, settings.rest_class)
    if settings.judge == "cross":
        refuse_given_parts(listing)
        settings = settings.replace(test=0.0)
    return listing, make_absolute(settings.replace(data=str(data)))


def make_absolute(settings: Settings) -> Settings:
    """Return the settings with paths that mean the same from any folder, so that the run can be replayed."""
    paths = {"data": settings.data, "split": settings.split}
    if settings.weights not in ("imagenet", "offline"):
        paths["weights"] = settings.weights
    return settings.replace(**{name: str(to_path(path).absolute()) for name, path in paths.items() if path})


def split_photos(listing: Listing, run: Run) -> Dataset:
    """Check the listed photos and split them."""
    settings = run.settings
    return load_dataset(
        listing,
        val=settings.val,
        test=settings.test,
        seed=settings.seed,
        group_by=settings.group_by,
        split=settings.split,
        pool=run.pool,
        memo=scan_memo(run.cache),
        on_progress=run.on_progress,
    )


def solve_head(features: Features, plan: Plan, run: Run) -> Frozen:
    """Do phase 1 in a worker: this process is busy with the import of Keras."""
    told = run.work / "head"
    task = run.pool.submit(train_head, features, plan, run.settings, told)
    frozen = follow(task, told, lambda done: run.on_progress("head", min(FOLD_STEPS + done, STEPS - 1), STEPS))
    run.on_progress("head", STEPS, STEPS)
    return frozen


def build_classifier(body: Any, features: Features, run: Run) -> Any:
    """Put the head that was chosen on the Keras model."""
    from pronk.backbone.keras_network import add_head

    return add_head(body, features.blocks, classes=len(features.dataset.classes), settings=run.settings)


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


def _return_former(folder: Path, listing: Listing, settings: Settings, on_note: Note) -> TrainResult:
    """Return a run that was done already, and note how many files have come since."""
    known = {photo.path for photo in read_split(folder)}
    new = sum(entry.path not in known for entry in listing.entries)
    more = f" It knows nothing of {plural(new, 'file')} in the data: to learn from them, name another --out."
    on_note(f"{folder} was finished before, and nothing was trained.{more if new else ''}")
    return finish(folder, read_metrics(folder), settings)


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
