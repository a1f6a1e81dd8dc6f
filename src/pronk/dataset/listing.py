"""Folder or CSV -> the files in it with their labels, and what is wrong with their arrangement."""

import csv
import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from pronk.dataset.findings import Finding, find
from pronk.errors import DataError
from pronk.photos.formats import SUFFIXES
from pronk.storage.files import read_csv
from pronk.storage.places import SYSTEM_NAMES, UNKNOWN, is_hidden

PARTS = ("train", "val", "test")
PART_FOLDERS: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}

RENAME, MOVE = "rename it if it belongs to the data set", "move it if it belongs to the data set"


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A file that is meant to be a photo: its path relative to the data folder, its label, its part if given."""

    path: str
    label: str
    part: str | None = None


@dataclasses.dataclass(frozen=True)
class Listing:
    """What was found: the folder paths are relative to, the classes in natural order, files and findings."""

    root: Path
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    findings: tuple[Finding, ...]


def list_photos(data: Path, *, min_classes: int = 2) -> Listing:
    """List the files of a data set.

    Args:
        data: a folder of class folders, a folder of train/val/test folders of class folders, or a CSV with the
            columns `path,label` and perhaps `part`, its paths relative to the CSV.
        min_classes: fewer are an error.

    Raises:
        DataError: if there is nothing to list, or the classes cannot be told apart.
    """
    listing = _list(data)
    for problem in _find_class_problems(data, listing.classes, min_classes):
        raise DataError(problem.message, hint=problem.hint)
    return listing


def list_leniently(data: Path) -> Listing:
    """List the files of a data set as `list_photos`; classes that cannot be told apart are findings among others."""
    listing = _list(data)
    problems = _find_class_problems(data, listing.classes, 2)
    return dataclasses.replace(listing, findings=(*problems, *listing.findings))


def list_files(folder: Path) -> list[str]:
    """List every visible file below a folder, in natural order of the paths relative to it."""
    return sorted(_walk(folder, folder), key=natural_key)


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key under which "2" comes before "10"; digits are 0 to 9, of any number.

    Example:
        >>> sorted(["10", "2", "b", "a"], key=natural_key)
        ['2', '10', 'a', 'b']
    """
    pieces = re.findall(r"0*([0-9]+)|([^0-9]+)", name)
    # Without leading zeros a longer number is a larger one, and Python need not read thousands of digits.
    keys = tuple((0, len(digits), digits) if digits else (1, 0, text) for digits, text in pieces)
    return (*keys, (-1, 0, name))


def _list(data: Path) -> Listing:
    if not data.is_file() and not data.is_dir():
        raise DataError(
            f"{data} is neither a folder nor a CSV file", hint="name a folder with one sub-folder per class"
        )
    try:
        return _list_csv(data) if data.is_file() else _list_folder(data)
    except OSError as error:
        raise DataError(f"cannot list {error.filename}: {error.strerror}", hint="check its permissions") from error


def _list_folder(data: Path) -> Listing:
    folders, findings = _visible_folders(data, data)
    parts = {folder: PART_FOLDERS.get(folder.lower()) for folder in folders}
    entries: list[Entry] = []
    classes: dict[str, str] = {}  # the path of the first folder of each
    hidden: list[str] = []
    if folders and all(parts.values()):
        for part_folder, part in parts.items():
            inner, more = _visible_folders(data, data / part_folder)
            findings += more
            for label in inner:
                classes.setdefault(label, f"{part_folder}/{label}")
                entries += [Entry(path, label, part) for path in _walk(data, data / part_folder / label, hidden)]
    else:
        classes = {label: label for label in folders}
        for label in folders:
            entries += [Entry(path, label) for path in _walk(data, data / label, hidden)]
    for label in sorted(classes.keys() - {entry.label for entry in entries}, key=natural_key):
        message = f"class folder {label!r} has no files"
        findings.append(find(classes[label], "empty_class", message, "add photos or remove it"))
    for path in sorted(hidden, key=natural_key):
        findings.append(find(path, "hidden", f"hidden, so it is not part of {path.rsplit('/', 1)[0]!r}", RENAME))
    return _finish(data, entries, findings)


def read_rows(path: Path, *columns: str) -> list[dict[str, str]]:
    """Read a CSV that a person may have written; DataError if it has no rows with these columns."""
    names, hint = ",".join(columns), f"the first line reads: {','.join(columns)}"
    try:
        rows = read_csv(path)
    except (OSError, csv.Error) as error:
        raise DataError(f"cannot read {path} as CSV: {error}", hint=hint) from error
    if not rows or not set(columns) <= rows[0].keys():
        raise DataError(f"{path} has no rows with the columns {names}", hint=hint)
    return rows


def _list_csv(path: Path) -> Listing:
    rows = read_rows(path, "path", "label")
    entries, problems = [], []
    for line, row in enumerate(rows, start=2):
        name, label, part = row["path"], row["label"], (row.get("part") or "").lower()
        if not name or not label:
            problems.append(f"line {line}: path or label is missing")
        elif any("\udc80" <= character <= "\udcff" for character in label):
            problems.append(f"line {line}: the label is not UTF-8; save the file as UTF-8")
        elif part and part not in PART_FOLDERS:
            problems.append(f"line {line}: part must be train, val or test. Got {part!r}")
        else:
            entries.append(Entry(Path(name).as_posix(), label, PART_FOLDERS[part] if part else None))
    problems += [f"{name} is listed twice" for name, times in Counter(e.path for e in entries).items() if times > 1]
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise DataError(f"{path}: {'; '.join(problems[:5])}{more}", hint="correct these lines")
    return _finish(path.parent, entries, [])


def _finish(root: Path, entries: list[Entry], findings: list[Finding]) -> Listing:
    classes = sorted({entry.label for entry in entries}, key=natural_key)
    entries.sort(key=lambda entry: natural_key(entry.path))
    if classes and all(name.isdigit() for name in classes):
        order = ", ".join(classes[:4])
        message, hint = f"class names are numbers; their order is {order} ...", "name the folders after what is in them"
        findings.append(find("", "numeric_classes", message, hint))
    return Listing(root, tuple(classes), tuple(entries), tuple(findings))


def _find_class_problems(root: Path, classes: tuple[str, ...], min_classes: int) -> Iterator[Finding]:
    """Yield what makes it impossible to train on these classes."""
    if len(classes) < min_classes:
        found = f"only the class {classes[0]!r}" if classes else "no class with photos"
        hint = "make one sub-folder per class, at least two, and put the photos into them"
        yield find("", "few_classes", f"{root} has {found}", hint)
    for name in classes:
        if name.lower() == UNKNOWN:
            message = f"a class cannot be named {name!r}: predictions use it for photos that fit no class"
            yield find(name, "reserved_class", message, "rename the folder, for example to 'other'")
    by_case: dict[str, list[str]] = {}
    for name in classes:
        by_case.setdefault(name.casefold(), []).append(name)
    for names in by_case.values():
        if len(names) > 1:
            message = f"classes {', '.join(map(repr, names))} differ only in case"
            yield find(names[0], "class_case", message, "merge these folders or rename one")


def _visible_folders(root: Path, folder: Path) -> tuple[list[str], list[Finding]]:
    """Return the names of a folder's visible folders, and findings, with paths from the root, for all else in it."""
    names, findings = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path).relative_to(root).as_posix()
            if _is_folder(entry):
                if is_hidden(entry.name):
                    findings.append(find(path, "hidden", f"hidden folder {entry.name!r} is not a class", RENAME))
                else:
                    names.append(entry.name)
            elif not is_hidden(entry.name):
                findings.append(find(path, "outside_classes", f"{entry.name!r} is not in a class folder", MOVE))
    findings.sort(key=lambda finding: finding.path)
    return sorted(names, key=natural_key), findings


def _walk(root: Path, folder: Path, hidden: list[str] | None = None) -> Iterator[str]:
    """Yield each visible file below a folder, and each folder that cannot be listed: reading it will say why.

    Hidden folders and pictures are noted in `hidden`, but not what systems leave behind.
    """
    status = root.stat()
    above = frozenset() if folder == root else frozenset({(status.st_dev, status.st_ino)})
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(folder, above)]
    while waiting:
        current, above = waiting.pop()
        try:
            status = current.stat()
            with os.scandir(current) as found:
                entries = list(found)
        except OSError:
            yield current.relative_to(root).as_posix()
            continue
        identity = (status.st_dev, status.st_ino)
        if identity in above:  # a link that leads back into a folder above it
            continue
        for entry in entries:
            path = Path(entry.path)
            if is_hidden(entry.name):
                if hidden is not None and _may_be_missed(entry):
                    hidden.append(path.relative_to(root).as_posix())
            elif _is_folder(entry):
                waiting.append((path, above | {identity}))
            else:
                yield path.relative_to(root).as_posix()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _may_be_missed(entry: os.DirEntry[str]) -> bool:
    """Tell whether a hidden entry may be missed by somebody: a folder, or a picture that is not a leftover of macOS."""
    name = entry.name.lower()
    return (_is_folder(entry) or name.endswith(SUFFIXES)) and name not in SYSTEM_NAMES and name[:2] != "._"
