"""What to predict, and where answers go -> a row of each photo exactly once, also after a kill; photos in folders.

The command `pronk predict` is this with a terminal around it.
"""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pronk.batch.engines import check_engine
from pronk.batch.plans import (
    FINISHED,
    Plan,
    Spec,
    clear_work,
    is_pending,
    lock_work,
    mark_finished,
    open_plan,
    read_finished,
)
from pronk.batch.shards import load_model, predict_missing, read_rows
from pronk.batch.tables import Record, choose_form, list_columns, require_parquet, save_records, write_text
from pronk.errors import DataError, SettingsError
from pronk.model.predictor import Predictor, expand_paths, names_archive
from pronk.moving.sorting import Sorted, check_place, name_folders, sort_photos
from pronk.progress import Progress, no_progress
from pronk.storage.cache import default_cache
from pronk.storage.remote import is_address, is_remote, to_path


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """Photos to predict, and where their rows and they themselves go.

    With `out` or `sort_into` the work is cut into shards that survive a kill: the same request goes on.

    Attributes:
        model: a run folder, its `model/` or an export.
        paths: files, folders, patterns, or "-" for `lines`.
        lines: paths that stand in for "-", one per line; read once.
        top: classes per photo.
        unknown: keep labels photos of other things `unknown`, off gives them the most likely class.
        coverage: probability with which the set of classes in each row holds the right one; None writes no sets.
        out: file to write; it must not exist.
        form: one of FORMS; None takes that of the suffix of `out`, else a table.
        sort_into: folder to put photos into, as <label>/<name>.
        mode: how they get there: link, copy or move.
        engine: local for the threads of this process, or ray for a cluster.
        address: the cluster's, as host:port; None takes $RAY_ADDRESS, else starts one of this machine's cores.
        shard: (K, N) predicts the K-th of N parts of the photos, from 1 on; their rows, one part after the other, are
            those of all. So that many machines, which need know nothing of each other, share the work.

    Example:
        >>> BatchRequest(model=Path("runs/first"), paths=["inbox"], out=Path("answers.csv")).mode
        'link'
    """

    model: Path
    paths: Sequence[str]
    lines: Iterable[str] = ()
    top: int = 3
    unknown: str = "keep"
    coverage: float | None = None
    out: Path | None = None
    form: str | None = None
    sort_into: Path | None = None
    mode: str = "link"
    engine: str = "local"
    address: str | None = None
    shard: tuple[int, int] | None = None

    @property
    def work(self) -> Path | None:
        """Folder for the plan and its parts, which goes when all is done; None where nothing of a run would be kept."""
        if self.out and is_remote(self.out):
            return default_cache() / "batches" / hashlib.sha256(str(self.out).encode()).hexdigest()[:16]
        if self.out:
            return self.out.with_name(f".{self.out.name}.parts")
        return self.sort_into / ".parts" if self.sort_into else None


@dataclasses.dataclass(frozen=True)
class BatchResult:
    """What became of a batch: its rows, those of them with an error, and the result of sorting, if it was asked for."""

    photos: int
    failed: int
    sorted: Sorted | None = None


def say_nothing(text: str) -> None:
    """Ignore a text; the default of what `predict_batch` tells."""


def predict_batch(
    request: BatchRequest,
    *,
    write: Callable[[str], None] = say_nothing,
    on_progress: Progress = no_progress,
    tell: Callable[[str], None] = say_nothing,
) -> BatchResult:
    """Predict photos, write their rows, sort them; after a kill, the same call goes on.

    Args:
        request: photos, model, and places for the answers.
        write: called with the rows as text, piece by piece, where they go to no file.
        on_progress: called with (stage, done, total).
        tell: called with remarks for a person.

    Raises:
        SettingsError: if the request makes no sense, or `out` exists and is not of an unfinished run of it.
        DataError: if there is no photo.
        ModelError: if the model cannot be used.
        RunError: if another process does the same.
        StorageError: if the disk is full; what is done stays done.

    Example:
        >>> request = BatchRequest(model=Path("runs/first"), paths=["inbox"], out=Path("answers.csv"))
        >>> predict_batch(request).failed  # doctest: +SKIP
        0
    """
    form = _check(request)
    digest, predictor = load_model(os.fspath(request.model.absolute()))
    lines = list(_read_lines(request)) if "-" in request.paths else []
    spec = _specify(request, lines, digest, predictor)
    list_photos = functools.partial(_list_photos, request, lines, predictor)
    deliver = functools.partial(_deliver, request, form, list_columns(spec.top, sets=spec.coverage is not None), write)
    if request.work is None:
        return _stream(predictor, spec, list_photos(), deliver, on_progress)
    if request.out and request.out.exists() and not is_pending(request.work, spec):
        raise SettingsError(f"--out {str(request.out)!r} exists", hint="name another --out, or remove that file")
    with lock_work(request.work):
        if request.out and not request.out.exists() and (request.work / FINISHED).exists():
            clear_work(request.work)  # nobody has the answers any more
        plan = open_plan(request.work, spec, list_photos=list_photos, tell=tell)
        result = _finish(plan, request, deliver, on_progress, tell, folders=name_folders(predictor.classes))
        clear_work(request.work)
    return result


def _check(request: BatchRequest) -> str:
    """Refuse at once what would fail after hours of work, or lose something; return the form of the rows."""
    form = choose_form(request.form, request.out)
    if request.out and request.out.exists() and not request.out.is_file():
        raise SettingsError(f"--out must be a file. Got {str(request.out)!r}", hint="name a file that does not exist")
    if request.engine != "local" and request.work is None:
        raise SettingsError(f"--engine {request.engine} needs --out or --sort-into", hint="add --out FILE")
    if request.shard and not 1 <= request.shard[0] <= request.shard[1]:
        shard = "/".join(map(str, request.shard))
        raise SettingsError(f"--shard must be K/N with K from 1 to N. Got {shard}", hint="for example --shard 1/8")
    if request.shard and request.sort_into:
        raise SettingsError("--shard and --sort-into exclude each other", hint="sort the photos in one command")
    elsewhere = next((path for path in request.paths if is_address(path) or names_archive(path)), None)
    if request.sort_into and elsewhere:
        what = "an address" if is_address(elsewhere) else "an archive"
        hint = "download it" if is_address(elsewhere) else "unpack it"
        raise SettingsError(f"--sort-into takes photos from folders, and {elsewhere!r} is {what}", hint=hint)
    check_engine(request.engine, address=request.address)
    if form == "parquet":
        require_parquet()
    return form


def _read_lines(request: BatchRequest) -> Iterator[str]:
    """Yield the listed paths, without what an earlier run of the same request left among them."""
    own = {path.absolute() for path in (request.work, request.out) if path}
    for line in request.lines:
        path = Path(line.rstrip("\r\n")).absolute()
        if own.isdisjoint((path, *path.parents)):
            yield line


def _specify(request: BatchRequest, lines: list[str], digest: str, predictor: Predictor) -> Spec:
    if request.sort_into:  # looked at before a folder is made
        folders = name_folders(predictor.classes).values()
        check_place(request.sort_into, arguments=request.paths, photos=(), folders=folders)
    asked = json.dumps([list(request.paths), lines, *([request.shard] if request.shard else [])])
    return Spec(
        model=os.fspath(request.model.absolute()),
        digest=digest,
        asked=hashlib.sha256(asked.encode("ascii")).hexdigest(),
        folder="" if all(map(os.path.isabs, request.paths)) else os.fspath(Path.cwd()),
        top=min(request.top, len(predictor.classes)),
        unknown=request.unknown,
        coverage=request.coverage,
        sort_into=os.fspath(request.sort_into.absolute()) if request.sort_into else None,
        mode=request.mode,
    )


def _list_photos(request: BatchRequest, lines: list[str], predictor: Predictor) -> list[str]:
    photos = list(map(str, expand_paths(request.paths, lines)))
    if not photos:
        raise DataError(f"no photo at {', '.join(map(repr, request.paths))}", hint="name a folder with photos")
    if request.sort_into:
        folders = name_folders(predictor.classes).values()
        check_place(request.sort_into, arguments=request.paths, photos=photos, folders=folders)
    return take_shard(photos, *request.shard) if request.shard else photos


def take_shard(photos: list[str], number: int, shards: int) -> list[str]:
    """Return one of so many parts of a list, counted from 1; all of them, in order, are the list.

    Example:
        >>> [take_shard(["a", "b", "c", "d", "e"], number, 3) for number in (1, 2, 3)]
        [['a'], ['b', 'c'], ['d', 'e']]
    """
    return photos[len(photos) * (number - 1) // shards : len(photos) * number // shards]


def _deliver(
    request: BatchRequest, form: str, columns: list[str], write: Callable[[str], None], records: Iterator[Record]
) -> None:
    if request.out and request.work:
        save_records(request.out, form, records, columns, work=request.work)
        return
    for piece in write_text(form, records, columns):
        write(piece)


def _stream(
    predictor: Predictor,
    spec: Spec,
    photos: Sequence[str],
    deliver: Callable[[Iterator[Record]], None],
    on_progress: Progress,
) -> BatchResult:
    """Answer photo by photo; nothing is kept."""
    failed = 0

    def records() -> Iterator[Record]:
        nonlocal failed
        for done, prediction in enumerate(predictor.stream(map(to_path, photos)), start=1):
            failed += prediction.error is not None
            on_progress("predict", done, len(photos))
            yield spec.record(prediction)

    deliver(records())
    return BatchResult(len(photos), failed)


def _finish(
    plan: Plan,
    request: BatchRequest,
    deliver: Callable[[Iterator[Record]], None],
    on_progress: Progress,
    tell: Callable[[str], None],
    *,
    folders: Mapping[str, str],
) -> BatchResult:
    """Do what is left of a plan; what is delivered may be delivered again after a kill."""
    if counts := read_finished(plan):
        tell("everything was done already")
        return BatchResult(counts["photos"], counts["failed"])
    failed = predict_missing(plan, request.engine, request.address, on_progress, tell)
    deliver(record for record, _ in read_rows(plan))
    found, total = None, len(plan.photos)
    if plan.spec.sort_into:
        found = sort_photos(
            read_rows(plan),
            Path(plan.spec.sort_into),
            run=plan.run,
            mode=plan.spec.mode,
            base=Path(plan.spec.folder),
            folders=folders,
            on_done=lambda done: on_progress("sorting photos", done, total),
        )
    mark_finished(plan, {"photos": total, "failed": failed})
    return BatchResult(total, failed, found)
