"""review.csv and a data set -> a corrected list, or photos moved to their true classes, each with its way back.

The file holds what a person decided about suspicious labels, in the columns path, digest, given, action (keep, move or
drop) and label. A photo is known by its path and content together: one that was changed since is left alone and named.
"""

import csv
import dataclasses
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from pronk.dataset.listing import Entry, Listing, list_photos
from pronk.errors import DataError, SettingsError, StorageError
from pronk.moving.journal import Journal, Undone, find_journal, open_journal, undo
from pronk.moving.placing import Action
from pronk.storage.files import find_digest, format_csv_line, guard_writes, read_csv, write_atomically
from pronk.storage.places import is_single_name, lies_in, overlap
from pronk.storage.remote import is_remote
from pronk.text import cause

COLUMNS = ("path", "digest", "given", "action", "label")
ACTIONS = ("keep", "move", "drop")
MOST_PROBLEMS = 10
# A spreadsheet would run what begins like a formula: the page puts an apostrophe before it, and one more before such.
GUARDED = re.compile(r"'+[=+\-@\t\r]")


@dataclasses.dataclass(frozen=True)
class Decision:
    """What a person decided about one photo: a row of review.csv; its label means nothing unless it is to move."""

    path: str
    digest: str
    given: str
    action: str
    label: str


@dataclasses.dataclass(frozen=True)
class Applied:
    """What applying a review did: numbers of photos, those `left` with the reason, the list or the undo file."""

    file: Path
    kept: int
    moved: int
    dropped: int
    left: tuple[tuple[str, str], ...]


def read_review(path: Path) -> tuple[Decision, ...]:
    """Read the decisions of a review, or raise a DataError that names everything that is wrong with it, by line."""
    decisions: list[Decision] = []
    problems = []
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = csv.DictReader(file)
            if not set(COLUMNS) <= set(rows.fieldnames or ()):
                raise DataError(f"{path} lacks the columns {','.join(COLUMNS)}", hint="name a saved review.csv")
            seen: set[tuple[str, str]] = set()
            for row in rows:
                decision = Decision(*(_unguard(row[name] or "") for name in COLUMNS))
                if problem := _find_problem(decision, seen):
                    problems.append(f"line {rows.line_num}: {problem}")
                seen.add((Path(decision.path).as_posix(), decision.digest))
                decisions.append(decision)
    except (OSError, csv.Error) as error:
        raise DataError(f"cannot read the review {path}: {cause(error)}", hint="name a saved review.csv") from error
    if problems:
        more = f"; and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
        raise DataError(f"{path}: {'; '.join(problems[:MOST_PROBLEMS])}{more}", hint="correct these lines")
    return tuple(decisions)


def match_decisions(
    decisions: Sequence[Decision], listing: Listing
) -> tuple[list[tuple[Entry, Decision]], list[tuple[str, str]]]:
    """Find the photo of each decision: by its path, else by its content, for not every program keeps every name.

    Returns photos with their decisions, and path and reason of decisions whose photo is gone or is another by now.
    """
    by_path = {entry.path: entry for entry in listing.entries}
    paths = [Path(decision.path).as_posix() for decision in decisions]
    others: dict[str, list[Entry]] | None = None
    matched, left = [], []
    for path, decision in zip(paths, decisions, strict=True):
        entry = by_path.get(path)
        if entry is None:
            if others is None:
                others = _find_contents(listing, besides=paths)
            same = [other for other in others[decision.digest] if other.label == decision.given]
            if len(same) == 1:
                matched.append((same[0], decision))
            else:
                left.append((decision.path, "several photos have its content" if same else "it is no longer there"))
        elif entry.label != decision.given:
            left.append((decision.path, f"it is labelled {entry.label!r}, not {decision.given!r}"))
        elif find_digest(listing.root / entry.path) != decision.digest:
            left.append((decision.path, "it was changed since it was reviewed"))
        else:
            matched.append((entry, decision))
    return matched, left


def check_labels(decisions: Iterable[Decision], classes: Iterable[str]) -> None:
    """Refuse labels that are not classes, by a DataError that names them: a slip of the pen would make a new one."""
    known = set(classes)
    unknown = {decision.label for decision in decisions if decision.action == "move"} - known
    if unknown:
        names = ", ".join(map(repr, sorted(known)[:MOST_PROBLEMS]))
        raise DataError(f"no class is named {', '.join(map(repr, sorted(unknown)))}", hint=f"the classes are {names}")


def _unguard(value: str) -> str:
    return value[1:] if GUARDED.match(value) else value


def _find_problem(decision: Decision, seen: set[tuple[str, str]]) -> str:
    if not decision.path:
        return "the path is missing"
    if not re.fullmatch("[0-9a-f]{64}", decision.digest):
        return f"digest must be a sha256. Got {decision.digest!r}"
    if decision.action not in ACTIONS:
        return f"action must be keep, move or drop. Got {decision.action!r}"
    if decision.action == "move" and not decision.label:
        return "move needs a label"
    again = (Path(decision.path).as_posix(), decision.digest) in seen
    return f"{decision.path!r} is decided twice" if again else ""


def _find_contents(listing: Listing, *, besides: Sequence[str]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = defaultdict(list)
    named = set(besides)
    for entry in listing.entries:
        if entry.path not in named:
            found[find_digest(listing.root / entry.path)].append(entry)
    return found


def write_list(review: Path, data: Path, out: Path, *, split: Path | None = None) -> Applied:
    """Write a CSV that `pronk train` takes: path (relative to where it lies), label, and part where parts are known.

    Known are the parts of a data set that has them, and of a run by its split.csv.

    Raises:
        DataError: if review, data or split cannot be used.
        SettingsError: if the list would lie among the photos.
        StorageError: if another file is there.
    """
    applied, content = _correct(review, data, out, split)
    if not os.path.lexists(out):
        write_atomically(out, content)
    elif _read(out) != content:
        raise StorageError(f"{out} exists already", hint="name another --out; nothing is overwritten")
    return applied


def remove_list(review: Path, data: Path, out: Path, *, split: Path | None = None) -> None:
    """Take back what `write_list` did with the same arguments; DataError if the list is not what it wrote."""
    _, content = _correct(review, data, out, split)
    if not os.path.lexists(out):
        raise DataError(f"there is no {out} to take back", hint="name the list with --out")
    if _read(out) != content:
        raise DataError(f"{out} is not what this review makes of the photos", hint="remove it yourself if it may go")
    with guard_writes(out):
        out.unlink()


def _correct(review: Path, data: Path, out: Path, split: Path | None) -> tuple[Applied, bytes]:
    """Return what is done, and the content of the list."""
    listing = list_photos(data)
    if data.is_dir() and lies_in(out, data):
        raise SettingsError(
            f"--out must lie outside of the photos in {data}. Got {str(out)!r}", hint="for example corrected.csv"
        )
    decisions = read_review(review)
    check_labels(decisions, listing.classes)
    matched, left = match_decisions(decisions, listing)
    decided = {entry.path: decision for entry, decision in matched}
    parts = {entry.path: entry.part or "" for entry in listing.entries}
    parts |= _read_parts(split, listing) if split else {}
    # Links resolved on both sides, or ".." would lead elsewhere.
    root, home = listing.root.resolve(), out.parent.resolve()
    columns = ("path", "label", "part") if any(parts.values()) else ("path", "label")
    lines = [format_csv_line(columns)]
    for entry in listing.entries:
        decision = decided.get(entry.path)
        if decision is None or decision.action != "drop":
            label = decision.label if decision and decision.action == "move" else entry.label
            row = (_relate(root / entry.path, home), label, parts[entry.path])
            lines.append(format_csv_line(row[: len(columns)]))
    done = [decision.action for decision in decided.values()]
    applied = Applied(out, done.count("keep"), done.count("move"), done.count("drop"), tuple(left))
    return applied, "".join(lines).encode("utf-8", "surrogateescape")


def _read_parts(split: Path, listing: Listing) -> dict[str, str]:
    paths = {entry.path for entry in listing.entries}
    parts = {entry.path: entry.part or "" for entry in list_photos(split, min_classes=1).entries if entry.path in paths}
    if not parts:
        raise DataError(
            f"no photo in {listing.root} is named in {split}",
            hint="its paths are relative to the data folder, such as cat/1.jpg",
        )
    return parts


def _relate(path: Path, home: Path) -> str:
    if is_remote(path):
        return str(path)
    try:
        return Path(os.path.relpath(path, home)).as_posix()
    except ValueError:  # another drive
        return path.as_posix()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}", hint="name another --out") from error


def move_photos(review: Path, data: Path, quarantine: Path) -> Applied:
    """Move photos into the folders of their true classes, and dropped ones to `quarantine`, outside of `data`.

    Nothing is overwritten: where a name is taken, the photo gets a number. The undo file in `quarantine` is written
    before the first photo moves. After a kill the same call goes on, and `undo_moves` takes everything back.

    Raises:
        DataError: if review or data cannot be used.
        SettingsError: if `data` is not a folder, or one of the two lies in the other.
        StorageError: if the disk is full; the same call goes on.
    """
    _check_folders(data, quarantine)
    decisions = read_review(review)
    listing = list_photos(data, min_classes=1)
    # Also a class whose last photo this review has moved, before it was killed, and is still to get others.
    emptied = {decision.given for decision in decisions if _is_class_folder(data, decision.given)}
    check_labels(decisions, {*listing.classes, *emptied})
    with open_journal(quarantine.absolute(), _name_run(review, data)) as journal:
        planned = _find_begun(decisions, data, journal)
        matched, left = match_decisions([decision for decision in decisions if decision not in planned], listing)
        for entry, decision in matched:
            if decision.action == "drop" or (decision.action == "move" and decision.label != entry.label):
                source = data.absolute() / entry.path
                target = _target(entry, decision, data, quarantine, listing.class_step)
                try:
                    planned[decision] = journal.plan("move", source, target, digest=decision.digest)
                except OSError as error:
                    left.append((entry.path, error.strerror or str(error)))
        failed = dict(journal.perform(planned.values()))
    left += [(decision.path, failed[action]) for decision, action in planned.items() if action in failed]
    done = [decision.action for decision, action in planned.items() if action not in failed]
    kept = sum(decision not in planned for _, decision in matched)
    return Applied(journal.path, kept, done.count("move"), done.count("drop"), tuple(left))


def undo_moves(review: Path, data: Path, quarantine: Path) -> Undone:
    """Take back what `move_photos` did with the same arguments; DataError if nothing is left of it."""
    _check_folders(data, quarantine)
    read_review(review)
    journal = find_journal(quarantine.absolute(), _name_run(review, data))
    if journal is None:
        raise DataError(
            f"nothing that {review} did is left to take back in {quarantine}",
            hint=f"for what an undo file there tells: pronk undo {quarantine / 'undo.csv'}",
        )
    return undo(journal)


def _check_folders(data: Path, quarantine: Path) -> None:
    if is_remote(data) or not data.is_dir():
        raise SettingsError(
            f"--move needs a folder of class folders. Got {str(data)!r}", hint="leave it out: a corrected list is made"
        )
    if overlap(quarantine, data):
        raise SettingsError(
            f"--quarantine must be a folder beside {data}. Got {str(quarantine)!r}", hint="for example dropped"
        )


def _is_class_folder(data: Path, name: str) -> bool:
    """Tell whether a class has a folder, though it may hold nothing any more; a name from a file may be a path."""
    return is_single_name(name) and any(
        (folder / name).is_dir() for folder in (data, *filter(Path.is_dir, data.iterdir()))
    )


def _name_run(review: Path, data: Path) -> str:
    return hashlib.sha256(review.read_bytes() + os.fsencode(data.resolve())).hexdigest()[:32]


def _find_begun(decisions: Sequence[Decision], data: Path, journal: Journal) -> dict[Decision, Action]:
    """Find what a killed call has recorded: it may be done, half done, or not begun."""
    by_content = {row["digest"]: row["source"] for row in read_csv(journal.path) if row["action"] == "move"}
    begun: dict[Decision, Action] = {}
    claimed = set()
    for by_path in (True, False):
        for decision in decisions:
            source = os.fspath(data.absolute() / decision.path) if by_path else by_content.get(decision.digest, "")
            action = journal.find(source)
            if action and decision not in begun and source not in claimed and decision.action != "keep":
                # Of a photo that is still there, and was changed meanwhile, nothing was begun.
                if os.path.lexists(source) and find_digest(Path(source)) != action.digest:
                    continue
                begun[decision] = action
                claimed.add(source)
    return begun


def _target(entry: Entry, decision: Decision, data: Path, quarantine: Path, class_step: int) -> Path:
    if decision.action == "drop":
        return quarantine.absolute() / entry.path
    pieces = entry.path.split("/")
    pieces[class_step] = decision.label
    return data.absolute().joinpath(*pieces)
