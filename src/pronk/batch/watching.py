"""Folders that photos arrive in -> the row of each photo, once it is complete, and its place in a class folder."""

import contextlib
import csv
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from pronk.batch.plans import Request
from pronk.batch.tables import Record, format_record, read_rows_written
from pronk.dataset.listing import list_files
from pronk.errors import DataError
from pronk.model.predictor import Prediction, Predictor
from pronk.moving.journal import Journal, cut_torn_row, open_journal
from pronk.moving.placing import is_untouched
from pronk.moving.sorting import Planner, Sorted, State, read_state
from pronk.storage.files import format_csv_line, storage_error, sync_folder

SECONDS = 1.0  # between two looks
PATIENCE = 10  # looks at an unusable photo that does not change, before it is said to be unusable
FORMS = ("csv", "jsonl")

Wait = Callable[[], None]


@dataclasses.dataclass
class Seen:
    """What is known of a path: its state at the last look, for how many looks, and whether its row is written."""

    state: State | None
    looks: int = 0
    done: bool = False
    there: bool = True


def pause() -> None:
    """Wait until it is time for the next look."""
    time.sleep(SECONDS)


def watch_photos(
    predictor: Predictor,
    folders: Sequence[Path],
    *,
    known: Iterable[str] = (),
    ignored: Iterable[Path] = (),
    wait: Wait = pause,
) -> Iterator[tuple[Prediction, State | None]]:
    """Yield predictions of the photos in some folders and of those that arrive, for ever, with their files' states.

    A photo is complete when two looks find the same size and time of change. One that cannot be used is given
    longer, since its copying may only have paused. A path is predicted once, however its file changes; if it goes and
    comes back as another file, that is a new photo.

    Args:
        predictor: an opened model.
        folders: looked into with everything below them.
        known: paths that were predicted before; those that are not there are forgotten.
        ignored: files that are no photos.
        wait: called between two looks.

    Raises:
        DataError: naming a folder that is none.

    Example:
        >>> next(watch_photos(None, [Path("no such folder")]))
        Traceback (most recent call last):
        pronk.errors.DataError: 'no such folder' is no folder
    """
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{str(folder)!r} is no folder", hint="--watch looks into folders")
    seen = {path: Seen(None, done=True) for path in known if os.path.lexists(path)}
    left_out = {path.absolute() for path in ignored}
    while True:
        ready = _look(folders, seen, left_out)
        for path, prediction in zip(ready, predictor.stream(ready), strict=True):
            entry = seen[path]
            if prediction.error is None or entry.looks >= PATIENCE:
                entry.done = True
                yield prediction, entry.state
        wait()


def follow(
    predictor: Predictor,
    folders: Sequence[Path],
    request: Request,
    *,
    write: Callable[[Record], None],
    former: Iterable[Record] = (),
    ignored: Iterable[Path] = (),
    tell: Callable[[str], None] = lambda text: None,
    wait: Wait = pause,
) -> None:
    """Write the row of each photo that arrives, then put it into its class folder if that is wanted; never returns.

    Args:
        predictor: an opened model.
        folders: to watch.
        request: options.
        write: is given each record.
        former: rows that were written by the same command before it was stopped: path, label and error.
        ignored: files that are no photos.
        tell: is told about photos that were left where they are.
        wait: called between two looks.

    Raises:
        DataError: naming a folder that is none.
        StorageError: if the disk is full; the same command goes on.

    Example:
        >>> follow(None, [Path("no such folder")], Request("/model", "e3b0", "", ""), write=print)
        Traceback (most recent call last):
        pronk.errors.DataError: 'no such folder' is no folder
    """
    rows = {row["path"]: row for row in former}
    base, found = Path(request.folder), Sorted()
    with contextlib.ExitStack() as stack:
        planner = None
        if request.sort_into:
            journal = stack.enter_context(open_journal(Path(request.sort_into), _name_run(request)))
            planner = Planner(journal, Path(request.sort_into), request.mode, base, found)
            trusted = list(_trust(rows, predictor, request, journal))
            planner.place(trusted)
            rows = {row["path"]: row for row, _ in trusted}
        for prediction, state in watch_photos(predictor, folders, known=rows, ignored=ignored, wait=wait):
            record = prediction.record(request.top, unknown=request.unknown, coverage=request.coverage)
            write(record)  # before the photo is touched: a killed run then finds out here what is left to do
            if planner:
                planner.place([(record, state)])
            for path, why in found.left:
                tell(f"left where it is: {path}: {why}")
            found.left.clear()


class Appender:
    """A file that rows are appended to, each on disk before the next; `open_appender` makes it.

    Attributes:
        former: path, label and error of each row that it had before.
    """

    def __init__(self, path: Path, file: BinaryIO, form: str, columns: list[str], former: list[Record]) -> None:
        self.former = former
        self._path = path
        self._file = file
        self._form = form
        self._columns = columns

    def append(self, record: Record) -> None:
        """Write a row and wait until the disk holds it.

        Raises:
            StorageError: if it is full.
        """
        try:
            _write_durably(self._file, format_record(self._form, record, self._columns))
        except OSError as error:
            raise storage_error(self._path, error) from error


@contextlib.contextmanager
def open_appender(path: Path, form: str, columns: list[str]) -> Iterator[Appender]:
    """Open a file to append rows to; a last row that was torn by a power cut is removed.

    Args:
        path: made where it is missing, with the columns as first line of CSV.
        form: csv or jsonl.
        columns: of CSV.

    Raises:
        DataError: if it has other columns, or is no such file.
        StorageError: if it cannot be written.

    Example:
        >>> import tempfile
        >>> with open_appender(Path(tempfile.mkdtemp()) / "rows.csv", "csv", ["path"]) as rows:
        ...     rows.former
        []
    """
    header = format_csv_line(columns) if form == "csv" else ""
    begin = (header or '{"path": ').encode("utf-8", "surrogateescape")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("r+b" if path.exists() else "x+b")
    except OSError as error:
        raise storage_error(path, error) from error
    with file:
        try:
            # Looked at before anything is cut off: it may be a file of quite another kind.
            if not begin.startswith(file.read(len(begin))):
                raise ValueError("it begins otherwise")
            cut_torn_row(file) if form == "csv" else _cut_torn_line(file)
            if header and not file.tell():
                _write_durably(file, header)
                sync_folder(path.parent)
            former = list(read_rows_written(path, form))
        except (ValueError, LookupError, TypeError, csv.Error) as error:
            raise DataError(
                f"{path} is no file of predictions with the same columns",
                hint="use the same --top and --sets as before, or name another --out",
            ) from error
        except OSError as error:
            raise storage_error(path, error) from error
        yield Appender(path, file, form, columns, former)


def _write_durably(file: BinaryIO, text: str) -> None:
    file.write(text.encode("utf-8", "surrogateescape"))
    file.flush()
    os.fsync(file.fileno())


def _cut_torn_line(file: BinaryIO) -> None:
    file.seek(0)
    end = position = 0
    for line in file:
        position += len(line)
        end = position if line.endswith(b"\n") else end
    file.seek(end)
    file.truncate()


def _name_run(request: Request) -> str:
    """Name the journal's run after what was asked for, so that the same command goes on with it."""
    return hashlib.sha256(json.dumps(dataclasses.asdict(request)).encode("ascii")).hexdigest()[:32]


def _trust(
    rows: dict[str, Record], predictor: Predictor, request: Request, journal: Journal
) -> Iterator[tuple[Record, State | None]]:
    """Yield the rows whose photos still lie at their paths: others may have come while nobody watched.

    What has a row and no place is predicted again, and with another answer it is another photo.
    """
    for path, row in rows.items():
        place = Path(request.folder, path)
        if not os.path.lexists(place):
            continue
        state, action = _state(place), journal.find(os.fspath(place))
        if action:
            if is_untouched(action):
                yield row, state
            continue
        record = predictor.predict_one(place).record(request.top, unknown=request.unknown)
        if (record["label"] or "", bool(record["error"])) == (row["label"] or "", bool(row["error"])):
            yield row, state


def _look(folders: Sequence[Path], seen: dict[str, Seen], ignored: set[Path]) -> list[str]:
    """Compare what is there with what was there at the last look; return the paths that are to be predicted."""
    there: dict[str, State | None] = {}
    away: list[str] = []
    own = {path.name for path in ignored}
    for folder in folders:
        try:
            names = list_files(folder)
        except OSError:  # as a network folder can be, for the moment
            away.append(os.fspath(folder))
            continue
        for path in (folder / name for name in names):
            if path.name not in own or path.absolute() not in ignored:
                there[os.fspath(path)] = _state(path)
    for known, entry in seen.items():
        if known not in there and not known.startswith(tuple(away)):
            entry.there = False
    return [path for path, state in there.items() if _is_ready(path, state, seen)]


def _is_ready(path: str, state: State | None, seen: dict[str, Seen]) -> bool:
    entry = seen.get(path)
    if entry is None or (entry.done and not entry.there and entry.state is not None and entry.state != state):
        seen[path] = Seen(state)
        return False
    entry.there = True
    if entry.done or entry.state != state:
        entry.state, entry.looks = state, 0
        return False
    entry.looks += 1
    return entry.looks in (1, PATIENCE)


def _state(path: Path) -> State | None:
    try:
        return read_state(os.fspath(path))
    except OSError:
        return None
