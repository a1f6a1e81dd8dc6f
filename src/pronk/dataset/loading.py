"""Folder of photos -> Dataset: every file checked, grouped with its duplicates, and assigned to a part."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from pronk.dataset.findings import Finding, find
from pronk.dataset.inspection import count_different, find_leaks, inspect_balance
from pronk.dataset.listing import PART_FOLDERS, PARTS, Listing, list_photos, read_rows
from pronk.dataset.scan import FolderScan, Scan, scan_folder
from pronk.dataset.shortcuts import Shortcut, measure_shortcuts
from pronk.dataset.split import assign_parts
from pronk.errors import DataError, ImageError, Reason
from pronk.photos.decoding import read_bytes
from pronk.progress import Progress, no_progress
from pronk.storage.files import write_csv

SPLIT_COLUMNS = ("path", "label", "part", "digest", "group")


@dataclasses.dataclass(frozen=True)
class Photo:
    """One usable photo.

    Attributes:
        path: relative to the data folder, with "/".
        label: its class.
        part: train, val or test.
        digest: sha256 of the file's bytes.
        group: names the group of duplicates (and `group_by` matches) that it belongs to.
    """

    path: str
    label: str
    part: str
    digest: str
    group: str


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A checked and split data set; `load_dataset` makes it.

    Attributes:
        root: the folder that paths are relative to.
        classes: in natural order; the position is the class's index.
        photos: usable photos in natural order of their paths.
        findings: files that were left out, and photos worth a look.
        files: how many files were looked at.
        shortcuts: how far the class can be told without looking at the subject.
    """

    root: Path
    classes: tuple[str, ...]
    photos: tuple[Photo, ...]
    findings: tuple[Finding, ...]
    files: int
    shortcuts: tuple[Shortcut, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Photos per part."""
        counted = Counter(photo.part for photo in self.photos)
        return {part: counted[part] for part in PARTS}

    @property
    def counts_by_class(self) -> dict[str, dict[str, int]]:
        """Photos per class and part."""
        counted = Counter((photo.label, photo.part) for photo in self.photos)
        return {name: {part: counted[name, part] for part in PARTS} for name in self.classes}

    def part(self, name: str) -> tuple[Photo, ...]:
        """Return the photos of `train`, `val` or `test`."""
        return tuple(photo for photo in self.photos if photo.part == name)

    def targets(self, photos: Sequence[Photo]) -> np.ndarray:
        """Return the class indices of photos: int64 of shape (n,)."""
        index = {name: number for number, name in enumerate(self.classes)}
        return np.array([index[photo.label] for photo in photos], np.int64)

    def without(self, findings: Iterable[Finding]) -> "Dataset":
        """Return the data set without the photos named by findings, which are kept in the list.

        Raises:
            DataError: if a class has none left in a part that had some, unless it is the test.
        """
        new = tuple(findings)
        gone = {finding.path for finding in new}
        photos = tuple(photo for photo in self.photos if photo.path not in gone)
        left = dataclasses.replace(self, photos=photos, findings=self.findings + new)
        parts = [part for part, count in self.counts.items() if count]
        return dataclasses.replace(left, findings=left.findings + _check_counts(left, parts)) if new else left


def load_dataset(
    data: Path | str | Listing,
    *,
    val: float = 0.15,
    test: float = 0.15,
    seed: int = 42,
    group_by: str | None = None,
    split: Path | str | None = None,
    pool: Executor | None = None,
    memo: Path | None = None,
    on_progress: Progress = no_progress,
) -> Dataset:
    """Check, group and split a folder of photos; nothing in it is changed.

    Args:
        data: a folder of class folders, of train/val/test folders of class folders, or a CSV `path,label[,part]`; or
            what `list_photos` found there.
        val: share of the photos for validation.
        test: share of the photos for the final test.
        seed: decides the split.
        group_by: regular expression looked for in each path; equal matches stay in one part.
        split: CSV with `path,label,part`; photos named there keep their part.
        pool: worker processes; None uses threads of this one.
        memo: folder that remembers what was seen in a file, by content; None looks at everything anew.
        on_progress: called with ("check", done, total).

    Raises:
        DataError: if a class has too few usable photos, or none is usable at all.
    """
    listing = data if isinstance(data, Listing) else list_photos(Path(data))
    seen = scan_folder(listing, group_by=group_by, pool=pool, memo=memo, on_progress=on_progress)
    given, shares = _given_parts(listing, seen.usable, split, {"val": val, "test": test})
    digests, paths = [scan.digest for scan in seen.usable], [scan.entry.path for scan in seen.usable]
    parts = assign_parts(seen.labels, seen.groups, digests, given, shares=shares, seed=seed)
    dataset = _make_dataset(listing, seen, parts)
    different = count_different(seen.labels, seen.groups, listing.classes)
    more = (*find_leaks(paths, seen.groups, given, parts), *inspect_balance(different), *_check_counts(dataset))
    return dataclasses.replace(dataset, findings=dataset.findings + more)


def load_unsplit(
    data: Path | str,
    *,
    group_by: str | None = None,
    pool: Executor | None = None,
    memo: Path | None = None,
    on_progress: Progress = no_progress,
) -> Dataset:
    """Check and group a folder of photos for a study of all of them, as `load_dataset`: every photo's part is train."""
    listing = list_photos(Path(data))
    seen = scan_folder(listing, group_by=group_by, pool=pool, memo=memo, on_progress=on_progress)
    dataset = _make_dataset(listing, seen, ["train"] * len(seen.usable))
    if not dataset.photos:
        raise _nothing_usable(dataset)
    return dataset


def _make_dataset(listing: Listing, seen: FolderScan, parts: Sequence[str | None]) -> Dataset:
    photos = [
        Photo(scan.entry.path, scan.entry.label, part, scan.digest, seen.usable[group].digest[:12])
        for scan, part, group in zip(seen.usable, parts, seen.groups, strict=True)
        if part is not None
    ]
    shortcuts = measure_shortcuts(seen.properties, seen.labels, seen.groups)
    return Dataset(listing.root, listing.classes, tuple(photos), seen.findings, seen.files, shortcuts)


def write_split(path: Path, dataset: Dataset) -> None:
    """Write split.csv."""
    write_csv(path, SPLIT_COLUMNS, map(dataclasses.asdict, dataset.photos))


def read_split_file(path: Path) -> tuple[Photo, ...]:
    """Read split.csv, or a list that someone made in its place: digest and group may be missing there.

    Raises:
        DataError: if it cannot be read, or has a part that does not exist.
    """
    rows = read_rows(path, "path", "label", "part")
    parts = [(row["part"] or "").lower() for row in rows]
    unknown = sorted(set(parts) - PART_FOLDERS.keys())
    if unknown:
        raise DataError(
            f"{path}: part must be train, val or test. Got {', '.join(map(repr, unknown))}", hint="correct these lines"
        )
    return tuple(
        Photo(
            path=Path(row["path"] or "").as_posix(),
            label=row["label"],
            part=PART_FOLDERS[part],
            digest=row.get("digest") or "",
            group=row.get("group") or "",
        )
        for row, part in zip(rows, parts, strict=True)
    )


def _given_parts(
    listing: Listing, usable: Sequence[Scan], split: Path | str | None, shares: dict[str, float]
) -> tuple[list[str | None], dict[str, float]]:
    """Find the parts photos must keep, and the shares that are still free to give."""
    given: dict[str, str] = {entry.path: entry.part for entry in listing.entries if entry.part}
    if len(given) == len(listing.entries):
        present = set(given.values())
        # Given train and test folders, only val is missing, and it is taken from train. A test part is never made
        # from what was given for training or validation.
        shares = {"val": 0.0 if "val" in present else shares["val"], "test": 0.0}
        if "val" not in present:
            given = {path: part for path, part in given.items() if part != "train"}
    if split is not None:
        named = {photo.path: photo.part for photo in read_split_file(Path(split))}
        if named.keys().isdisjoint(entry.path for entry in listing.entries):
            raise DataError(
                f"no photo in {listing.root} is named in {split}",
                hint="its paths are relative to the data folder, such as cat/1.jpg",
            )
        given |= named
    return [given.get(scan.entry.path) for scan in usable], shares


def _check_counts(dataset: Dataset, parts: Iterable[str] = PARTS) -> tuple[Finding, ...]:
    """Refuse a data set that cannot be trained on; warn of thin classes."""
    if not dataset.photos:
        raise _nothing_usable(dataset)
    counted = dataset.counts_by_class
    missing = {part: [name for name in dataset.classes if not counted[name][part]] for part in parts}
    for part in ("train", "val"):
        if missing.get(part):
            raise DataError(
                f"{_names(missing[part])} with no photo left for {part}",
                hint="each class needs at least 3 photos that are not copies of each other; see `pronk check`",
            )
    if missing.get("test") and dataset.counts["test"]:
        message = f"{_names(missing['test'])} with no photo left for test"
        return (find("", "thin_class", message, "add photos to judge these classes"),)
    return ()


def _nothing_usable(dataset: Dataset) -> DataError:
    reasons = Counter(finding.code for finding in dataset.findings if finding.severity == "error")
    found = ", ".join(f"{count} {code}" for code, count in reasons.most_common())
    return DataError(
        f"none of {dataset.files} files in {dataset.root} is usable: {found or 'no files'}", hint="see `pronk check`"
    )


def _names(classes: list[str]) -> str:
    shown = ", ".join(map(repr, classes[:5]))
    more = f" and {len(classes) - 5} more" if len(classes) > 5 else ""
    return f"{'class' if len(classes) == 1 else 'classes'} {shown}{more}"


def read_photo(root: Path, photo: Photo) -> bytes:
    """Return the bytes of a photo's file; ImageError if it was removed or replaced since it was split."""
    data = read_bytes(root / photo.path)
    if hashlib.sha256(data).hexdigest() != photo.digest:
        raise ImageError(Reason.CHANGED, "was replaced during the run", hint="run the command again")
    return data
