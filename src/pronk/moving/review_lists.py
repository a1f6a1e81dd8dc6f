"""Review and data set -> the list of photos and labels as they ought to be; no photo is touched."""

import os
from pathlib import Path

from pronk.dataset.listing import Listing, list_photos
from pronk.errors import DataError, SettingsError, StorageError
from pronk.moving.review import Applied, check_labels, match_decisions, read_review
from pronk.storage.files import format_csv_line, storage_error, write_atomically
from pronk.storage.places import lies_in


def write_list(review: Path, data: Path, out: Path, *, split: Path | None = None) -> Applied:
    """Write a CSV that `pronk train` takes: path (relative to where it lies), label, and part where parts are known.

    Args:
        review: the review.csv.
        data: the folder or CSV that was audited.
        out: the list to write.
        split: split.csv of a run, whose parts are kept.

    Raises:
        DataError: if review, data or split cannot be used.
        SettingsError: if the list would lie among the photos.
        StorageError: if another file is there.

    Example:
        >>> write_list(Path("review.csv"), Path("photos"), Path("photos/list.csv"))
        Traceback (most recent call last):
        pronk.errors.DataError: photos is neither a folder nor a CSV file
    """
    applied, content = _correct(review, data, out, split)
    if not os.path.lexists(out):
        write_atomically(out, content)
    elif _read(out) != content:
        raise StorageError(f"{out} exists already", hint="name another --out; nothing is overwritten")
    return applied


def remove_list(review: Path, data: Path, out: Path, *, split: Path | None = None) -> None:
    """Take back what `write_list` did with the same arguments.

    Raises:
        DataError: if the list is not what it wrote.

    Example:
        >>> remove_list(Path("review.csv"), Path("photos"), Path("list.csv"))
        Traceback (most recent call last):
        pronk.errors.DataError: photos is neither a folder nor a CSV file
    """
    _, content = _correct(review, data, out, split)
    if not os.path.lexists(out):
        raise DataError(f"there is no {out} to take back", hint="name the list with --out")
    if _read(out) != content:
        raise DataError(f"{out} is not what this review makes of the photos", hint="remove it yourself if it may go")
    try:
        out.unlink()
    except OSError as error:
        raise storage_error(out, error) from error


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
    return applied, _encode("".join(lines), listing)


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
    try:
        return Path(os.path.relpath(path, home)).as_posix()
    except ValueError:  # another drive
        return path.as_posix()


def _encode(text: str, listing: Listing) -> bytes:
    for name in listing.classes:
        if any("\udc80" <= character <= "\udcff" for character in name):
            raise DataError(
                f"the class {name!r} is not UTF-8, so no list can name it", hint="rename the folder, or use --move"
            )
    return text.encode("utf-8", "surrogateescape")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}", hint="name another --out") from error
