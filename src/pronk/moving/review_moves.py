"""Review and folder -> photos moved to the folders of their true classes, by actions of a journal."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from pronk.dataset.listing import Entry, list_photos
from pronk.errors import DataError, SettingsError
from pronk.moving.journal import Journal, Undone, find_journal, open_journal, undo
from pronk.moving.placing import Action
from pronk.moving.review import Applied, Decision, check_labels, match_decisions, read_review
from pronk.storage.files import find_digest, read_csv
from pronk.storage.places import find_free, is_single_name, overlap
from pronk.text import fold


def move_photos(review: Path, data: Path, quarantine: Path) -> Applied:
    """Move photos into the folders of their true classes, and dropped ones out of the data set.

    Nothing is overwritten: where a name is taken, the photo gets a number. The undo file is written before the first
    photo moves. After a kill the same call goes on, and `undo_moves` takes everything back.

    Args:
        review: the review.csv.
        data: the folder that was audited.
        quarantine: folder for dropped photos and the undo file, outside of `data`; made where it is missing.

    Raises:
        DataError: if review or data cannot be used.
        SettingsError: if `data` is no folder, or one of the two lies in the other.
        StorageError: if the disk is full; the same call goes on.

    Example:
        >>> move_photos(Path("review.csv"), Path("photos.csv"), Path("bad"))
        Traceback (most recent call last):
        pronk.errors.SettingsError: --move needs a folder of class folders. Got 'photos.csv'
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
        taken: set[str] = set()
        for entry, decision in matched:
            source = _source(data, entry.path)
            if decision.action == "keep" or (decision.action == "move" and decision.label == entry.label):
                continue
            if Path(source).is_symlink():
                left.append((entry.path, "it is a link, and moving a link would break it"))
                continue
            wanted = _target(entry, decision, data, quarantine)
            target = os.fspath(find_free(wanted, lambda name: fold(name) in taken or journal.placed(name)))
            taken.add(fold(target))
            planned[decision] = Action("move", source, target, decision.digest)
        failed = dict(journal.perform(list(planned.values())))
    left += [(decision.path, failed[action]) for decision, action in planned.items() if action in failed]
    done = [decision.action for decision, action in planned.items() if action not in failed]
    kept = sum(decision not in planned for _, decision in matched)
    return Applied(journal.path, kept, done.count("move"), done.count("drop"), tuple(left))


def undo_moves(review: Path, data: Path, quarantine: Path) -> Undone:
    """Take back what `move_photos` did with the same arguments.

    Raises:
        DataError: if there is nothing, or nothing any more, to take back.

    Example:
        >>> undo_moves(Path("review.csv"), Path("photos.csv"), Path("bad"))
        Traceback (most recent call last):
        pronk.errors.SettingsError: --move needs a folder of class folders. Got 'photos.csv'
    """
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
    if not data.is_dir():
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


def _source(data: Path, path: str) -> str:
    return os.fspath(data.absolute() / path)


def _find_begun(decisions: Sequence[Decision], data: Path, journal: Journal) -> dict[Decision, Action]:
    """Find what a killed call has recorded: it may be done, half done, or not begun."""
    by_content = {row["digest"]: row["source"] for row in read_csv(journal.path) if row["action"] == "move"}
    begun: dict[Decision, Action] = {}
    claimed = set()
    for by_path in (True, False):
        for decision in decisions:
            source = _source(data, decision.path) if by_path else by_content.get(decision.digest, "")
            action = journal.find(source)
            if action and decision not in begun and source not in claimed and decision.action != "keep":
                # Of a photo that is still there, and was changed meanwhile, nothing was begun.
                if os.path.lexists(source) and find_digest(Path(source)) != action.digest:
                    continue
                begun[decision] = action
                claimed.add(source)
    return begun


def _target(entry: Entry, decision: Decision, data: Path, quarantine: Path) -> Path:
    if decision.action == "drop":
        return quarantine.absolute() / entry.path
    pieces = entry.path.split("/")
    pieces[1 if entry.part else 0] = decision.label
    return data.absolute().joinpath(*pieces)
