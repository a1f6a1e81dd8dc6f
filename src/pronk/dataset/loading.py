"""Folder of photos -> Dataset: every file checked, grouped with its duplicates, and assigned to a part."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from pronk.dataset.findings import Finding, find
from pronk.dataset.inspection import count_different, find_leaks, inspect_balance
from pronk.dataset.layout import PARTS
from pronk.dataset.listing import Listing, list_photos
from pronk.dataset.lists import read_list
from pronk.dataset.scan import FolderScan, Scan, scan_folder
from pronk.dataset.shortcuts import Shortcut, measure_shortcuts
from pronk.dataset.split import assign_parts, keep_given
from pronk.errors import DataError, ImageError, Reason
from pronk.photos.decoding import read_bytes
from pronk.progress import Progress, no_progress
from pronk.storage.files import write_csv
from pronk.storage.remote import to_path

SPLIT = "split.csv"
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

    def adding(self, findings: Iterable[Finding]) -> "Dataset":
        """Return the data set with more findings."""
        return dataclasses.replace(self, findings=(*self.findings, *findings))

    def without(self, findings: Iterable[Finding]) -> "Dataset":
        """Return the data set without the photos named by findings, which are kept in the list.

        Raises:
            DataError: if a class has none left in a part that had some, unless it is the test.
        """
        new = tuple(findings)
        gone = {finding.path for finding in new}
        photos = tuple(photo for photo in self.photos if photo.path not in gone)
        left = dataclasses.replace(self, photos=photos).adding(new)
        parts = [part for part, count in self.counts.items() if count]
        return _refuse_obstacles(left, parts=parts).adding(find_thin_classes(left)) if new else left


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
        split: CSV with `path,label,part`, or a run folder: its photos keep their part, moved or renamed ones by the
            digest that split.csv has of them.
        pool: worker processes; None uses threads of this one.
        memo: folder that remembers what was seen in a file, by content; None looks at everything anew.
        on_progress: called with ("check", done, total).

    Raises:
        DataError: if a class has too few usable photos, or none is usable at all.
    """
    listing = data if isinstance(data, Listing) else list_photos(to_path(data))
    seen = scan_folder(listing, group_by=group_by, pool=pool, memo=memo, on_progress=on_progress)
    dataset = split_photos(listing, seen, val=val, test=test, seed=seed, split=split)
    different = count_different(seen.labels, seen.groups, listing.classes)
    return _refuse_obstacles(dataset).adding((*inspect_balance(different), *find_thin_classes(dataset)))


def split_photos(
    listing: Listing,
    seen: FolderScan,
    *,
    val: float = 0.15,
    test: float = 0.15,
    seed: int = 42,
    split: Path | str | None = None,
) -> Dataset:
    """Split photos that were looked at, as `load_dataset` does; leaks between given parts are findings."""
    named = _read_named(listing, seen.usable, split)
    given = [part or scan.entry.part for part, scan in zip(named, seen.usable, strict=True)]
    fixed, shares = _fix_parts(listing, seen.usable, named, {"val": val, "test": test})
    digests, paths = [scan.digest for scan in seen.usable], [scan.entry.path for scan in seen.usable]
    assigned = assign_parts(seen.labels, seen.groups, digests, fixed, shares=shares, seed=seed)
    # A copy of what was given for the test is not given for the test.
    kept = keep_given(seen.groups, given)
    leaks = [own is not None and keep is None for own, keep in zip(given, kept, strict=True)]
    parts = [None if leak else part for part, leak in zip(assigned, leaks, strict=True)]
    return _make_dataset(listing, seen, parts).adding(find_leaks(paths, seen.groups, given, parts))


def load_unsplit(
    data: Path | str,
    *,
    group_by: str | None = None,
    pool: Executor | None = None,
    memo: Path | None = None,
    on_progress: Progress = no_progress,
) -> Dataset:
    """Check and group a folder of photos for a study of all of them, as `load_dataset`: every photo's part is train."""
    listing = list_photos(to_path(data))
    seen = scan_folder(listing, group_by=group_by, pool=pool, memo=memo, on_progress=on_progress)
    return _refuse_obstacles(_make_dataset(listing, seen, ["train"] * len(seen.usable)), parts=())


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


def read_split_file(path: Path, *, root: Path | None = None) -> tuple[Photo, ...]:
    """Read split.csv, or a list that someone made in its place: digest and group may be missing there.

    Where `root`, the folder of the photos, is given, paths are looked for there, as `read_list` says.

    Raises:
        DataError: if it cannot be read, or has a part that does not exist.
    """
    rows, _ = read_list(path, root=root, needs_part=True)
    return tuple(Photo(row.path, row.label, row.part or "", row.digest, row.group) for row in rows)


def _read_named(listing: Listing, usable: Sequence[Scan], split: Path | str | None) -> list[str | None]:
    """Return the part that a split gives to each photo: by its path, or where it was moved, by its content."""
    if not split:
        return [None] * len(usable)
    file = Path(split) / SPLIT if Path(split).is_dir() else Path(split)
    photos = read_split_file(file, root=listing.root)
    by_path = {photo.path: photo.part for photo in photos}
    by_content = {photo.digest: photo.part for photo in photos if photo.digest}
    named = [by_path.get(scan.entry.path) or by_content.get(scan.digest) for scan in usable]
    if not any(named):
        raise DataError(
            f"no photo in {listing.root} is named in {split}",
            hint="its paths are relative to the data folder, such as cat/1.jpg",
        )
    return named


def _fix_parts(
    listing: Listing, usable: Sequence[Scan], named: Sequence[str | None], shares: dict[str, float]
) -> tuple[list[str | None], dict[str, float]]:
    """Return the parts that photos must keep, and the shares that are still free to give."""
    present = {entry.part for entry in listing.entries}
    own: list[str | None] = [scan.entry.part for scan in usable]
    if None not in present:
        # Given train and test folders, only val is missing, and it is taken from train. A test part is never made
        # from what was given for training or validation.
        shares = {"val": 0.0 if "val" in present else shares["val"], "test": 0.0}
        own = own if "val" in present else [None if part == "train" else part for part in own]
    return [name or part for name, part in zip(named, own, strict=True)], shares


def find_obstacles(dataset: Dataset, parts: Iterable[str] = PARTS) -> Iterator[Finding]:
    """Yield what makes it impossible to train on a data set, and to choose by it; asked are the parts that it has."""
    if not dataset.photos:
        reasons = Counter(finding.code for finding in dataset.findings if finding.severity == "error")
        found = ", ".join(f"{count} {code}" for code, count in reasons.most_common())
        message = f"none of {dataset.files} files in {dataset.root} is usable: {found or 'no files'}"
        yield find("", "nothing_usable", message, "see `pronk check`")
        return
    for part in (part for part in ("train", "val") if part in parts):
        if missing := _find_missing(dataset, part):
            hint = "each class needs at least 3 photos that are not copies of each other; see `pronk check`"
            yield find("", "empty_part", f"{_names(missing)} with no photo left for {part}", hint)


def find_thin_classes(dataset: Dataset) -> Iterator[Finding]:
    """Yield the classes that cannot be judged, where others can."""
    missing = _find_missing(dataset, "test")
    if missing and dataset.counts["test"]:
        message = f"{_names(missing)} with no photo left for test"
        yield find("", "thin_class", message, "add photos to judge these classes")


def _find_missing(dataset: Dataset, part: str) -> list[str]:
    return [name for name, counts in dataset.counts_by_class.items() if not counts[part]]


def _refuse_obstacles(dataset: Dataset, parts: Iterable[str] = PARTS) -> Dataset:
    for obstacle in find_obstacles(dataset, parts):
        raise DataError(obstacle.message, hint=obstacle.hint)
    return dataset


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
