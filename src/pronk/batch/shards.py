"""Many photos + model -> parts, one per shard -> rows of each photo exactly once, in order; a killed run goes on.

One function predicts a shard, whichever executor calls it: the threads of this process, or the machines of a cluster.
"""

import dataclasses
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from pronk.batch.engines import open_engine
from pronk.batch.plans import (
    Plan,
    Request,
    clear_work,
    hold_work,
    is_current,
    mark_finished,
    open_plan,
    read_finished,
    read_part,
    write_part,
)
from pronk.batch.tables import Record
from pronk.errors import ModelError, RunError, StorageError
from pronk.model.manifest import MODEL_FILE
from pronk.model.predictor import Predictor
from pronk.moving.sorting import Sorted, State, read_state, sort_photos
from pronk.pools import run_unordered
from pronk.progress import Progress, no_progress
from pronk.storage.files import digest_file

STATE = "state"  # what parts hold beside a record where photos are to be sorted
MOST_SHARED = 32  # folders of photos that each machine of a cluster is asked for

_loading = threading.Lock()
_loaded: dict[str, tuple[str, Predictor]] = {}


@dataclasses.dataclass(frozen=True)
class Job:
    """A shard to predict: small values only, since it may travel to another machine.

    Attributes:
        request: what was asked for.
        run: the plan it belongs to.
        photos: paths.
        part: where the rows go.
    """

    request: Request
    run: str
    photos: tuple[str, ...]
    part: str


@dataclasses.dataclass(frozen=True)
class Counts:
    """How many photos were predicted, and how many of them cannot be used."""

    photos: int
    failed: int


@dataclasses.dataclass(frozen=True)
class Batch:
    """What became of a batch.

    Attributes:
        photos: rows.
        failed: rows with an error.
        sorted: what sorting did, if it was asked for.
    """

    photos: int
    failed: int
    sorted: Sorted | None = None


def load_model(model: str, digest: str | None = None) -> tuple[str, Predictor]:
    """Open a model once per process; return the sha256 of its model.json with it.

    Args:
        model: a run folder, its `model/` or an export.
        digest: what it must have; None takes what is there.

    Raises:
        ModelError: if the model is missing or damaged, or is another one than the digest says.

    Example:
        >>> load_model("no such run")
        Traceback (most recent call last):
        pronk.errors.ModelError: no model at no such run
    """
    with _loading:
        found = _loaded.get(model)
        if found is None or digest not in (None, found[0]):
            _loaded.clear()
            predictor = Predictor.load(model)
            found = _loaded[model] = (digest_file(predictor.bundle.folder / MODEL_FILE), predictor)
    if digest not in (None, found[0]):
        raise ModelError(
            f"the model {model} is not the one that this run began with", hint="put it back, or start the run anew"
        )
    return found


def predict_shard(job: Job) -> Counts:
    """Predict the photos of a shard one after the other, and write its part.

    Raises:
        ModelError: if the model is another one by now.
        StorageError: if the part cannot be written.

    Example:
        >>> predict_shard(Job(Request("no such run", "", "", ""), "1", ("a.jpg",), "part-00000.jsonl"))
        Traceback (most recent call last):
        pronk.errors.ModelError: no model at no such run
    """
    request, part = job.request, Path(job.part)
    _, predictor = load_model(request.model, request.digest)
    rows, failed = [], 0
    for path in job.photos:
        place = os.fspath(Path(request.folder, path))
        # Before the photo is read: if it is replaced meanwhile, it is not the one that was predicted.
        state = _try_state(place) if request.sort_into else None
        prediction = dataclasses.replace(predictor.predict_one(place), path=path)
        record = prediction.record(request.top, unknown=request.unknown, coverage=request.coverage)
        rows.append(record | ({STATE: state} if request.sort_into else {}))
        failed += prediction.error is not None
    if is_current(part.parent, job.run):
        write_part(part, job.run, rows, failed=failed)
    return Counts(len(rows), failed)


def predict_batch(
    request: Request,
    work: Path,
    *,
    list_photos: Callable[[], list[str]],
    deliver: Callable[[Iterator[Record]], None],
    out: Path | None = None,
    engine: str = "local",
    address: str | None = None,
    on_progress: Progress = no_progress,
    tell: Callable[[str], None] = lambda text: None,
) -> Batch:
    """Predict photos, write their rows, sort them; after a kill, the same call goes on.

    Args:
        request: what is wanted.
        work: folder for the plan and its parts; it goes when all is done.
        list_photos: lists the photos, when a run begins.
        deliver: is given the records in order; it may be given them again after a kill.
        out: the file that `deliver` writes, if it writes one; where it is gone, a finished run begins anew.
        engine: what runs the shards, see `open_engine`.
        address: of a cluster.
        on_progress: called with (stage, done, total).
        tell: called with remarks for a person.

    Raises:
        RunError: if another process does the same.
        StorageError: if the disk is full; what is done stays done.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> predict_batch(Request("m", "", "", ""), folder / "w", list_photos=list, deliver=list)
        Batch(photos=0, failed=0, sorted=None)
    """
    with hold_work(work):
        plan = open_plan(work, request, list_photos=list_photos, tell=tell)
        finished = read_finished(plan)
        if finished and out and not out.exists():  # nobody has the answers any more
            clear_work(work)
            plan, finished = open_plan(work, request, list_photos=list_photos, tell=tell), None
        if finished:
            tell("everything was done already")
            batch = Batch(finished["photos"], finished["failed"])
        else:
            failed = _predict_missing(plan, engine, address, on_progress, tell)
            deliver(record for record, _ in read_rows(plan))
            batch = Batch(len(plan.photos), failed, _sort(plan, on_progress) if request.sort_into else None)
            mark_finished(plan, {"photos": batch.photos, "failed": batch.failed})
        clear_work(work)
    return batch


def read_rows(plan: Plan) -> Iterator[tuple[Record, State | None]]:
    """Yield the records of a plan whose shards are all done, with the states of their files.

    Raises:
        RunError: where a part was damaged since it was written.

    Example:
        >>> list(read_rows(Plan(Path("nowhere"), "1", Request("/model", "e3b0", "", ""), [], 1)))
        []
    """
    for shard in range(plan.shards):
        part = read_part(plan, shard)
        if part is None:
            raise RunError(f"{plan.part(shard)} is gone or damaged", hint="the same command computes it again")
        for row in part.rows:
            state = row.pop(STATE, None)
            yield row, state


def _predict_missing(
    plan: Plan, engine: str, address: str | None, on_progress: Progress, tell: Callable[[str], None]
) -> int:
    failed, missing = 0, []
    for shard in range(plan.shards):
        part = read_part(plan, shard)
        if part is None:
            missing.append(shard)
        else:
            failed += part.failed
    if len(missing) < plan.shards:
        tell(f"goes on: {plan.shards - len(missing)} of {plan.shards} shards are done")
    if not missing:
        return failed
    jobs = (Job(plan.request, plan.run, tuple(plan.photos_of(shard)), str(plan.part(shard))) for shard in missing)
    done, total = 0, sum(len(plan.photos_of(shard)) for shard in missing)
    on_progress("predict", 0, total)
    shared = [] if engine == "local" else _shared(plan)
    try:
        with open_engine(engine, address=address, shared=shared) as pool:
            for counts in run_unordered(predict_shard, jobs, pool=pool):
                done, failed = done + counts.photos, failed + counts.failed
                on_progress("predict", done, total)
    except StorageError as error:
        raise StorageError(
            str(error), hint="free some space or check the permissions; the same command goes on"
        ) from error
    return failed


def _shared(plan: Plan) -> list[Path]:
    """Name what every machine has to see; on one that does not, all photos would seem to have vanished."""
    folders = {Path(plan.request.folder, photo).parent: None for photo in plan.photos}
    there = [folder for folder in folders if folder.is_dir()]
    return [Path(plan.request.model), plan.work, *there[:MOST_SHARED]]


def _sort(plan: Plan, on_progress: Progress) -> Sorted:
    request, total = plan.request, len(plan.photos)
    return sort_photos(
        read_rows(plan),
        Path(request.sort_into or ""),
        run=plan.run,
        mode=request.mode,
        base=Path(request.folder),
        on_done=lambda done: on_progress("sorting photos", done, total),
    )


def _try_state(path: str) -> State | None:
    try:
        return read_state(path)
    except (OSError, ValueError):
        return None
