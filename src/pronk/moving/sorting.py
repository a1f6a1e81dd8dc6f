"""Photos with their predictions -> one folder per class, by actions of a journal."""

import dataclasses
import itertools
import os
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pronk.errors import SettingsError
from pronk.moving.journal import Journal, open_journal, refuse_link
from pronk.moving.placing import Action, is_placed
from pronk.storage.files import digest_file, format_csv_line, write_atomically
from pronk.storage.places import FORBIDDEN, UNKNOWN, can_be_folder, enclosing, lies_in, number_names
from pronk.text import fold, visible

LONGEST_FOLDER = 200  # bytes of a name that is made; a number may follow
NAMES_FILE = "folders.csv"
SORTED_AT_ONCE = 64  # recorded together, since each waiting for the disk takes milliseconds

State = list[int]


@dataclasses.dataclass
class Sorted:
    """What sorting did: files placed, and those left where they are with the reason; `undo` names the journal."""

    undo: str = ""
    placed: int = 0
    unusable: int = 0
    left: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def read_state(path: str) -> State:
    """Return what tells whether a file is still the same: size, time of change in ns, inode; OSError if gone."""
    status = Path(path).stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def name_folders(classes: Sequence[str], *, windows: bool = os.name == "nt") -> dict[str, str]:
    """Return the name of a folder for each class: its own, or one like it where no folder can have that.

    Example:
        >>> name_folders(["cat", "n/a", "n:a", ".."], windows=True)
        {'cat': 'cat', 'n/a': 'n_a', 'n:a': 'n_a-2', '..': 'class'}
    """
    folders: dict[str, str] = {}
    taken: set[str] = set()  # folded: one folder, on systems that do not tell case
    # Names that are fine come first, so that no other takes them.
    for name in sorted(classes, key=lambda name: not _is_folder_name(name, windows)):
        base = name if _is_folder_name(name, windows) else _make_folder_name(name)
        folders[name] = next(
            numbered for n in itertools.count(1) if fold(numbered := f"{base}-{n}" if n > 1 else base) not in taken
        )
        taken.add(fold(folders[name]))
    return {name: folders[name] for name in classes}


def _make_folder_name(name: str) -> str:
    plain = "".join("_" if letter in FORBIDDEN or visible(letter) != letter else letter for letter in name)
    short = plain.encode("utf-8", "replace")[:LONGEST_FOLDER].decode("utf-8", "ignore").strip(" .")
    return short if _is_folder_name(short, windows=True) else f"class{'-' if short else ''}{short}"


def check_place(folder: Path, *, arguments: Iterable[str], photos: Iterable[str], folders: Iterable[str]) -> None:
    """Refuse to sort into a folder where photos to predict and sorted ones would mix.

    No folder among the arguments (paths as typed) may hold it, or the next run would predict what this one sorted; and
    no photo may lie in one of its class folders. The SettingsError names both.
    """
    place = folder.resolve()
    for argument in filter(os.path.isdir, arguments):
        if lies_in(folder, Path(argument)):
            raise SettingsError(
                f"--sort-into must lie outside of the folder of photos {argument!r}. Got {str(folder)!r}",
                hint="name a folder beside it",
            )
    taken = {place / name for name in (*folders, UNKNOWN)}
    for path in taken:
        if path.is_symlink():
            raise SettingsError(f"{path} is a link to another folder", hint="name another folder to sort into")
    for parent in {Path(photo).parent: None for photo in photos}:
        if taken & enclosing(parent):
            raise SettingsError(
                f"photos in {str(parent)!r} lie in a class folder of --sort-into {str(folder)!r}",
                hint="name another folder to sort into",
            )


def sort_photos(
    rows: Iterable[tuple[dict[str, Any], State | None]],
    folder: Path,
    *,
    run: str,
    mode: str,
    base: Path,
    folders: Mapping[str, str] = types.MappingProxyType({}),
    on_done: Callable[[int], None] = lambda done: None,
) -> Sorted:
    """Put photos into folder/<label>/; those that cannot be used stay.

    Where labels have folders of other names, `folders.csv` there says which.

    Args:
        rows: records, each with the state of its file when it was predicted.
        folder: made where it is missing; the journal lies in it.
        run: a name without meaning; with the same one a killed run goes on.
        mode: link, copy or move.
        base: folder of relative paths.
        folders: names of the folders of labels, where they differ.
        on_done: called with the number of rows that are done.

    Raises:
        StorageError: if the disk is full; the same call goes on.
        RunError: if another process sorts into the folder.
    """
    found, done, waiting = Sorted(), 0, iter(rows)
    with open_journal(folder.absolute(), run) as journal:
        found.undo = os.fspath(journal.path)
        if other := [(label, name) for label, name in folders.items() if label != name]:
            lines = (format_csv_line(row) for row in [("label", "folder"), *other])
            write_atomically(folder / NAMES_FILE, "".join(lines).encode())
        sorter = _Sorter(journal, folder.absolute(), mode, base, folders)
        while chunk := list(itertools.islice(waiting, SORTED_AT_ONCE)):
            sorter.place(chunk, found)
            done += len(chunk)
            on_done(done)
    return found


class _Sorter:
    def __init__(self, journal: Journal, folder: Path, mode: str, base: Path, folders: Mapping[str, str]) -> None:
        self.journal = journal
        self.folder = folder
        self.mode = mode
        self.base = base
        self.folders = folders
        self.numbers: dict[tuple[Path, str], int] = {}

    def place(self, rows: Sequence[tuple[dict[str, Any], State | None]], found: Sorted) -> None:
        """Place some photos; they are recorded together before the first is touched."""
        planned: dict[str, Action] = {}
        for record, state in rows:
            if record["error"]:
                found.unusable += 1
                continue
            source = os.fspath(self.base / record["path"])
            try:
                if source not in planned:
                    action = self.plan(source, record["label"], state)
                    planned |= {source: action} if action else {}
                    found.placed += action is None
            except OSError as error:
                found.left.append((record["path"], error.strerror or str(error)))
        failed = self.journal.perform(planned.values())
        found.placed += len(planned) - len(failed)
        found.left += [(action.source, why) for action, why in failed]

    def plan(self, source: str, label: str, state: State | None) -> Action | None:
        """Plan where a photo goes; None where it is there already."""
        known = self.journal.find(source)
        if known and not os.path.lexists(source) and os.path.lexists(known.target):
            return None  # it was moved there
        refuse_link(self.mode, Path(source))
        if state and read_state(source) != state:
            raise OSError("it was changed since it was predicted")
        digest = digest_file(Path(source))
        if known and known.digest == digest:
            return known  # a killed run recorded it, and may have done it, or half of it
        target = self._find_target(self.folder / self.folders.get(label, label), Path(source), digest)
        return self.journal.plan(self.mode, Path(source), target, digest=digest) if target else None

    def _find_target(self, folder: Path, source: Path, digest: str) -> Path | None:
        """Return a free name; None where the photo itself is there already, from a former run."""
        key = (folder, fold(source.name))
        start = self.numbers.get(key, 1)  # among thousands of one name, those before it are not looked at again
        for number, target in enumerate(number_names(folder / source.name, start), start):
            self.numbers[key] = number
            taken = self.journal.has_taken(os.fspath(target))
            if not taken and not os.path.lexists(target):
                return target
            same = Action(self.mode, os.fspath(source), os.fspath(target), digest)
            if self.mode != "move" and not taken and is_placed(same):
                return None
        raise AssertionError("numbers do not end")


def _is_folder_name(name: str, windows: bool) -> bool:
    is_journal = re.fullmatch(r"(?i)undo.*\.csv", name)
    return can_be_folder(name, windows=windows) and name.casefold() not in (UNKNOWN, NAMES_FILE) and not is_journal
