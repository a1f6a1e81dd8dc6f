"""Changes to a user's files -> a list on disk of what is about to be done, so that it can be gone on with or undone.

Each action is on disk before it is begun. A kill at any moment leaves at most some that were recorded and not done,
and doing one twice is the same as doing it once. Nothing is ever overwritten, and undoing removes a file only while
the same content lies where it came from.
"""

import contextlib
import csv
import dataclasses
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from pronk.errors import DataError
from pronk.moving.placing import DISK_ERRORS, KINDS, Action, place, take_back
from pronk.storage.files import digest_file, format_csv_line, guard_writes, lock_folder, storage_error, write_atomically
from pronk.storage.places import find_free
from pronk.text import cause, fold

COLUMNS = ("action", "source", "target", "digest")
NAME = "undo"


@dataclasses.dataclass(frozen=True)
class Undone:
    """What undoing a journal did: how many actions were reversed, and each that was not with its reason."""

    reversed: int
    kept: tuple[tuple[Action, str], ...]


class Journal:
    """An open journal; `open_journal` makes it."""

    def __init__(self, path: Path, run: str, file: BinaryIO) -> None:
        self.path = path
        self._run = run
        self._file = file
        actions = _read_actions(path)
        self._by_source = {action.source: action for action in actions}
        self._targets = {fold(action.target) for action in actions}

    def find(self, source: str) -> Action | None:
        """Return the latest action on a file."""
        return self._by_source.get(source)

    def has_taken(self, target: str) -> bool:
        """Tell whether this journal put, or is about to put, a file there; names that differ in case are one."""
        return fold(target) in self._targets

    def plan(self, kind: str, source: Path, target: Path, *, digest: str = "") -> Action:
        """Plan an action, and take a name for it: the target's, or one with a number where that is not free.

        Both paths are absolute; the digest, a sha256, is that of the file where it is known already. An OSError says
        why the file cannot be moved or read.
        """
        refuse_link(kind, source)
        digest = digest or digest_file(source)
        free = os.fspath(find_free(target, self.has_taken))
        self._targets.add(fold(free))
        return Action(kind, os.fspath(source), free, digest)

    def perform(self, actions: Collection[Action]) -> list[tuple[Action, str]]:
        """Record actions, then do them; return those that failed, with the reason.

        After a StorageError, from a disk that is full or cannot be written, they can be performed again.
        """
        fresh = [action for action in actions if self._by_source.get(action.source) != action]
        self.append([*_missing_folders(fresh), *map(dataclasses.astuple, fresh)])
        failed = []
        for action in actions:
            self._by_source[action.source] = action
            self._targets.add(fold(action.target))
            try:
                place(action, self._run)
            except OSError as error:
                if error.errno in DISK_ERRORS:
                    raise storage_error(Path(action.target), error) from error
                failed.append((action, error.strerror or str(error)))
                self.append([("failed", action.source, action.target, action.digest)])
                del self._by_source[action.source]
        return failed

    def append(self, rows: Sequence[tuple[str, ...]]) -> None:
        """Write rows and wait until the disk holds them."""
        if not rows:
            return
        with guard_writes(self.path):
            self._file.write("".join(map(format_csv_line, rows)).encode("utf-8", "surrogateescape"))
            self._file.flush()
            os.fsync(self._file.fileno())


def refuse_link(kind: str, source: Path) -> None:
    """Raise an OSError for what cannot be moved, since it is not a file itself."""
    if kind == "move" and not stat.S_ISREG(source.lstat().st_mode):
        raise OSError("it is a link, and moving a link would break it" if source.is_symlink() else "it is not a file")


@contextlib.contextmanager
def open_journal(folder: Path, run: str) -> Iterator[Journal]:
    """Open a run's journal in a folder, or begin one under the next free name: undo.csv, undo-2.csv and so on.

    Args:
        folder: made where it is missing, and held for this process.
        run: a name without meaning; who opens with the same one goes on with the same journal.

    Raises:
        RunError: if another process holds the folder.
        StorageError: if nothing can be written there.
    """
    with guard_writes(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder):
        path = find_journal(folder, run)
        if path is None:
            path = find_free(folder / f"{NAME}.csv")
            begin = format_csv_line(COLUMNS) + format_csv_line(["run", run, "", ""])
            write_atomically(path, begin.encode())
        with guard_writes(path):
            file = path.open("r+b")
        with file:
            _cut_torn_row(file)
            yield Journal(path, run, file)


def find_journal(folder: Path, run: str) -> Path | None:
    """Return the path of a run's journal in a folder, unless none is there or it was undone."""
    for path in sorted(folder.glob(f"{NAME}*.csv")):
        with contextlib.suppress(OSError, DataError):
            rows = _read_rows(path)
            if next(rows, None) == ["run", run, "", ""] and all(row[0] != "undone" for row in rows):
                return path
    return None


def undo(path: Path) -> Undone:
    """Reverse what a journal tells, last action first; what was reversed before stays so.

    Raises:
        DataError: if it is not a journal.
        RunError: while its folder is in use.
    """
    path = path.absolute()
    rows = list(_read_rows(path))
    run = rows[0][1] if rows and rows[0][0] == "run" else ""
    with lock_folder(path.parent), path.open("r+b") as file:
        _cut_torn_row(file)
        journal = Journal(path, run, file)
        done, kept = [], []
        for action in reversed(_read_actions(path)):
            try:
                why = take_back(action, run)
            except OSError as error:
                why = error.strerror or str(error)
            if why:
                kept.append((action, why))
            else:
                done.append(("undone", action.source, action.target, action.digest))
        journal.append(done)
    for folder in (Path(row[2]) for row in reversed(rows) if row[0] == "folder"):
        with contextlib.suppress(OSError):  # it is not empty, or no longer there
            folder.rmdir()
    return Undone(len(done), tuple(kept))


def _cut_torn_row(file: BinaryIO) -> None:
    """Shorten an opened CSV file to its whole rows, and go to its end: a power cut can tear the last one."""
    file.seek(0)
    end = position = quotes = 0
    for line in file:
        position += len(line)
        quotes += line.count(b'"')
        # A quote within a value is doubled, so within a value their number is odd.
        if line.endswith(b"\n") and quotes % 2 == 0:
            end = position
    file.seek(end)
    file.truncate()


def _read_rows(path: Path) -> Iterator[list[str]]:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file)
            if next(reader, None) != list(COLUMNS):
                raise DataError(f"{path} is not an undo file", hint="name the undo.csv that pronk wrote")
            # What is torn was not begun.
            yield from (row for row in reader if len(row) == len(COLUMNS))
    except (OSError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {cause(error)}", hint="name the undo.csv that pronk wrote") from error


def _read_actions(path: Path) -> list[Action]:
    actions: dict[tuple[str, ...], Action] = {}
    for kind, *rest in _read_rows(path):
        if kind in KINDS:
            actions[tuple(rest)] = Action(kind, *rest)
        elif kind in ("undone", "failed"):
            actions.pop(tuple(rest), None)
    return list(actions.values())


def _missing_folders(actions: Sequence[Action]) -> list[tuple[str, str, str, str]]:
    missing: dict[Path, None] = {}
    for parent in {Path(action.target).parent: None for action in actions}:
        above = [folder for folder in (parent, *parent.parents) if not os.path.lexists(folder)]
        missing |= dict.fromkeys(reversed(above))
    return [("folder", "", os.fspath(folder), "") for folder in missing]
