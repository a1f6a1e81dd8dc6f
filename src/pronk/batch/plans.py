"""What to predict -> a plan on disk, cut into shards, with a part for each that is done.

The plan fixes the list of photos when a run begins, so that a run that was stopped goes on with the very same list.
"""

import contextlib
import dataclasses
import hashlib
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pronk.batch.tables import Record
from pronk.errors import RunError
from pronk.model.predictor import Prediction
from pronk.moving.journal import find_journal
from pronk.pools import available_cores
from pronk.storage.files import guard_writes, lock_folder, remove_leftovers, write_atomically, write_json

FORMAT = 1
MOST_PER_SHARD = 64  # about a second of one core: little to do again, and waiting for the disk is 1 % of it
SHARDS_PER_CORE = 16  # so that all cores end together where photos are few
PLAN, PHOTOS, FINISHED = "plan.json", "photos.jsonl", "finished.json"


@dataclasses.dataclass(frozen=True)
class Spec:
    """A request made definite, its paths absolute: whoever asks for the same goes on with an unfinished plan.

    Attributes:
        digest: sha256 of the model's model.json.
        asked: sha256 of the paths of photos, as typed or listed on standard input.
        folder: base of relative paths; empty where there are none.
    """

    model: str
    digest: str
    asked: str
    folder: str
    top: int
    unknown: str = "keep"
    coverage: float | None = None
    sort_into: str | None = None
    mode: str = "link"

    def record(self, prediction: Prediction) -> Record:
        """Return the row of a prediction."""
        return prediction.record(self.top, unknown=self.unknown, coverage=self.coverage)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A spec with its list of photos.

    Attributes:
        work: folder with the plan and its parts.
        run: a name without meaning, different for each plan.
        spec: the request made definite.
        photos: paths, in the order of the rows.
        per_shard: photos in each shard.
    """

    work: Path
    run: str
    spec: Spec
    photos: Sequence[str]
    per_shard: int

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-len(self.photos) // self.per_shard)

    def part(self, shard: int) -> Path:
        """Return where the rows of a shard go."""
        return self.work / f"part-{shard:05}.jsonl"

    def photos_of(self, shard: int) -> Sequence[str]:
        """Return the photos of a shard."""
        return self.photos[shard * self.per_shard : (shard + 1) * self.per_shard]


@contextlib.contextmanager
def lock_work(work: Path) -> Iterator[None]:
    """Hold a work folder, as `lock_folder` does; where it is empty afterwards, it is removed."""
    with guard_writes(work):
        work.mkdir(parents=True, exist_ok=True)
    try:
        with lock_folder(work):
            remove_leftovers(work)
            yield
    finally:
        with contextlib.suppress(OSError):
            work.rmdir()


def open_plan(work: Path, spec: Spec, *, list_photos: Callable[[], list[str]], tell: Callable[[str], None]) -> Plan:
    """Go on with the plan in a work folder if it is for the same request, else make a new one.

    Args:
        work: held by `lock_work`.
        spec: the request made definite.
        list_photos: called where a new plan is made.
        tell: called with a remark on what became of a former plan.

    Raises:
        RunError: if another request has begun to move photos and was stopped: only it knows their rows.
    """
    former = _read_plan(work)
    if former:
        moved = _has_moved(former)
        differs = _compare(former.spec, spec, moved=moved)
        if not differs:
            return former
        if moved:
            raise RunError(
                f"an unfinished run in {work} has begun to move photos, and was given {differs}",
                hint="repeat its command to finish it, or undo what it moved: pronk undo DIR/undo.csv",
            )
        tell(f"starts anew: the unfinished run in {work} was given {differs}")
    photos = list_photos()
    clear_work(work)
    per_shard = max(1, min(MOST_PER_SHARD, len(photos) // (SHARDS_PER_CORE * available_cores())))
    plan = Plan(work, secrets.token_hex(16), spec, photos, per_shard)
    listed = "".join(json.dumps(photo) + "\n" for photo in photos).encode("ascii")
    write_atomically(work / PHOTOS, listed)
    written = {"run": plan.run, "request": dataclasses.asdict(spec), "per_shard": per_shard}
    write_json(work / PLAN, {"format": FORMAT, **written, "photos": hashlib.sha256(listed).hexdigest()})
    return plan


def is_pending(work: Path, spec: Spec) -> bool:
    """Tell whether a plan is one that `open_plan` goes on with, or refuses to discard."""
    former = _read_plan(work)
    return former is not None and (former.spec == spec or _has_moved(former))


def write_part(path: Path, run: str, rows: Sequence[Record]) -> None:
    """Write the rows of a shard, and in a last line what tells that they are whole."""
    data = "".join(json.dumps(row) + "\n" for row in rows).encode("ascii")
    end = {"rows": len(rows), "run": run, "sha256": hashlib.sha256(data).hexdigest()}
    write_atomically(path, data + json.dumps(end).encode("ascii") + b"\n")


def read_part(plan: Plan, shard: int) -> list[Record] | None:
    """Read the rows of a shard; None where they are not there, not whole, or those of another plan."""
    try:
        lines = plan.part(shard).read_bytes().splitlines(keepends=True)
        end = json.loads(lines[-1])
        digest = hashlib.sha256(b"".join(lines[:-1])).hexdigest()
        if (end["run"], end["sha256"], end["rows"]) == (plan.run, digest, len(plan.photos_of(shard))):
            return [json.loads(line) for line in lines[:-1]]
    except (OSError, ValueError, LookupError, TypeError):
        pass  # a power cut can leave anything
    return None


def is_current(work: Path, run: str) -> bool:
    """Tell whether a plan still stands: on another machine a task may outlive the process that wanted it."""
    return bool(run) and _read_json(work / PLAN).get("run") == run


def mark_finished(plan: Plan, counts: dict[str, int]) -> None:
    """Note that nothing is left to do but to remove the plan."""
    write_json(plan.work / FINISHED, {"run": plan.run, **counts})


def read_finished(plan: Plan) -> dict[str, int] | None:
    """Return the counts that `mark_finished` noted, unless there is something left to do."""
    found = _read_json(plan.work / FINISHED)
    return found if found.pop("run", None) == plan.run else None


def clear_work(work: Path) -> None:
    """Remove a plan and its parts."""
    with guard_writes(work):
        for part in work.glob("part-*.jsonl"):
            part.unlink(missing_ok=True)
        # A finished plan without parts must not seem to have everything before it, so the mark goes last.
        for name in (PLAN, PHOTOS, FINISHED):
            (work / name).unlink(missing_ok=True)


def _read_plan(work: Path) -> Plan | None:
    found = _read_json(work / PLAN)
    try:
        spec = Spec(**found["request"])
        listed = (work / PHOTOS).read_bytes()
        whole = found["format"] == FORMAT and hashlib.sha256(listed).hexdigest() == found["photos"]
        photos = [json.loads(line) for line in listed.splitlines()]
        return Plan(work, found["run"], spec, photos, found["per_shard"]) if whole else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _read_json(path: Path) -> Record:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _has_moved(plan: Plan) -> bool:
    folder = plan.spec.sort_into
    return folder is not None and plan.spec.mode == "move" and find_journal(Path(folder), plan.run) is not None


def _compare(former: Spec, spec: Spec, *, moved: bool) -> str:
    """Say in which way two requests differ; where photos have been moved, a pattern finds fewer than before."""
    different = {
        field.name for field in dataclasses.fields(Spec) if getattr(former, field.name) != getattr(spec, field.name)
    } - ({"asked", "folder"} if moved else set())
    if not different:
        return ""
    if "digest" in different:
        return "another model"
    return "other photos" if different & {"asked", "folder"} else "other options"
