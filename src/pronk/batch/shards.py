"""Many photos + model -> parts, one per shard -> rows of each photo exactly once, in order; a killed run goes on.

One function predicts a shard, whichever executor calls it: the threads of this process, or the machines of a cluster.
"""

import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from pronk.batch.engines import open_engine
from pronk.batch.plans import Plan, Spec, is_current, read_part, write_part
from pronk.batch.tables import Record
from pronk.errors import ModelError, RunError, StorageError
from pronk.model.bundle import MODEL_FILE
from pronk.model.predictor import Predictor
from pronk.moving.sorting import State, read_state
from pronk.pools import run_unordered
from pronk.progress import Progress
from pronk.storage.files import digest_file
from pronk.storage.remote import is_address, join
from pronk.storage.sources import read_ahead

STATE = "state"  # what parts hold beside a record where photos are to be sorted
MOST_SHARED = 32  # folders of photos that each machine of a cluster is asked for

_loading = threading.Lock()
_loaded: dict[str, tuple[str, Predictor]] = {}


@dataclasses.dataclass(frozen=True)
class Shard:
    """Photos to predict, and the part their rows go to: small values only, since it may travel to another machine."""

    spec: Spec
    run: str
    photos: tuple[str, ...]
    part: str


def load_model(model: str, digest: str | None = None) -> tuple[str, Predictor]:
    """Open a model, once per process where it is known already; return the sha256 of its model.json with it.

    Args:
        model: a run folder, its `model/` or an export.
        digest: the sha256 it must have; None opens it anew and takes any.

    Raises:
        ModelError: if the model is missing or damaged, or is another one than the digest says.
    """
    with _loading:
        found = _loaded.get(model)
        if found is None or found[0] != digest:
            _loaded.clear()
            predictor = Predictor.load(model)
            found = _loaded[model] = (digest_file(predictor.bundle.folder / MODEL_FILE), predictor)
    if digest not in (None, found[0]):
        raise ModelError(
            f"the model {model} is not the one that this run began with", hint="put it back, or start the run anew"
        )
    return found


def predict_shard(shard: Shard) -> tuple[int, int]:
    """Predict the photos of a shard, and write its part; return how many there are, and how many cannot be used."""
    spec, part = shard.spec, Path(shard.part)
    _, predictor = load_model(spec.model, spec.digest)
    rows = []
    places = [join(spec.folder, path) for path in shard.photos]
    for path, place in zip(shard.photos, read_ahead(places), strict=True):
        # Before the photo is read: if it is replaced meanwhile, it is not the one that was predicted.
        state = _try_state(str(place)) if spec.sort_into else None
        prediction = dataclasses.replace(predictor.predict_one(place), path=path)
        rows.append(spec.record(prediction) | ({STATE: state} if spec.sort_into else {}))
    if is_current(part.parent, shard.run):
        write_part(part, shard.run, rows)
    return len(rows), _count_failed(rows)


def _count_failed(rows: list[Record]) -> int:
    return sum(row["error"] is not None for row in rows)


def read_rows(plan: Plan) -> Iterator[tuple[Record, State | None]]:
    """Yield the records of a finished plan with the states of their files; RunError for a part damaged since."""
    for shard in range(plan.shards):
        rows = read_part(plan, shard)
        if rows is None:
            raise RunError(f"{plan.part(shard)} is gone or damaged", hint="the same command computes it again")
        for row in rows:
            state = row.pop(STATE, None)
            yield row, state


def predict_missing(
    plan: Plan, engine: str, address: str | None, on_progress: Progress, tell: Callable[[str], None]
) -> int:
    """Predict the shards of a plan that have no whole part; return how many photos of the plan cannot be used."""
    failed, missing = 0, []
    for number in range(plan.shards):
        rows = read_part(plan, number)
        if rows is None:
            missing.append(number)
        else:
            failed += _count_failed(rows)
    if len(missing) < plan.shards:
        tell(f"goes on: {plan.shards - len(missing)} of {plan.shards} shards are done")
    if not missing:
        return failed
    shards = (Shard(plan.spec, plan.run, tuple(plan.photos_of(number)), str(plan.part(number))) for number in missing)
    done, total = 0, sum(len(plan.photos_of(number)) for number in missing)
    on_progress("predict", 0, total)
    try:
        with open_engine(engine, address=address, shared=[] if engine == "local" else _shared(plan)) as pool:
            for photos, bad in run_unordered(predict_shard, shards, pool=pool):
                done, failed = done + photos, failed + bad
                on_progress("predict", done, total)
    except StorageError as error:
        hint = "free some space or check the permissions; the same command goes on"
        raise StorageError(str(error), hint=hint) from error
    return failed


def _shared(plan: Plan) -> list[Path]:
    """Name what every machine has to see; on one that does not, all photos would seem to have vanished."""
    folders = {Path(plan.spec.folder, photo).parent: None for photo in plan.photos if not is_address(photo)}
    there = [folder for folder in folders if folder.is_dir()]
    return [Path(plan.spec.model), plan.work, *there[:MOST_SHARED]]


def _try_state(path: str) -> State | None:
    try:
        return read_state(path)
    except (OSError, ValueError):
        return None
