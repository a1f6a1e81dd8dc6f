"""Files -> one look at each: whole or not, its digest, its perceptual hash, its copies."""

import contextlib
import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pronk.duplicates import BITS, chain_equal, find_similar, group_indices, perceptual_hash
from pronk.errors import DataError, ImageError, Reason, StorageError
from pronk.files import available_cores, write_atomically
from pronk.formats import SUFFIXES
from pronk.images import decode, read_bytes
from pronk.listing import Entry, Finding, Listing, list_photos
from pronk.text import count

FILES_PER_TASK = 8
MIN_PER_CLASS = 3  # one each for training, validation and test
NEEDED = f"training needs at least {MIN_PER_CLASS} in each class"
# Raise it when decoding or hashing change what they tell.
LOOK_VERSION = 1
HASH_SIDE = 48  # pixels; small enough for JPEG's quick decoding, larger than the hash's grid

Progress = Callable[[str, int, int], None]


def no_progress(stage: str, done: int, total: int) -> None:
    """Report nothing; the default of every `on_progress`.

    Example:
        >>> no_progress("check", 1, 2)
    """


@dataclasses.dataclass(frozen=True)
class Content:
    """What the bytes of a usable picture told: format, remarks, and signs of the perceptual hash, int8 (255,)."""

    format: str
    notes: tuple[str, ...]
    signs: np.ndarray


@dataclasses.dataclass(frozen=True)
class Scan:
    """What one look at a file told: its digest and perceptual hash, or the finding that says why not."""

    entry: Entry
    digest: str = ""
    signs: np.ndarray | None = None
    findings: tuple[Finding, ...] = ()


@dataclasses.dataclass(frozen=True)
class Checked:
    """What `pronk check` found: the number of files, usable photos per class, and findings."""

    files: int
    classes: dict[str, int]
    findings: tuple[Finding, ...]


def check_dataset(data: Path | str, *, on_progress: Progress = no_progress) -> Checked:
    """Look at every file of a data set without splitting it.

    Raises:
        DataError: if there are no classes to tell apart.

    Example:
        >>> check_dataset("no such folder")
        Traceback (most recent call last):
        pronk.errors.DataError: no such folder is neither a folder nor a CSV file
    """
    listing = list_photos(Path(data))
    scans = scan_photos(listing, on_progress=on_progress)
    usable = [scan for scan in scans if scan.signs is not None]
    groups, copies = group_photos(usable, None)
    findings = (*listing.findings, *(finding for scan in scans for finding in scan.findings), *copies)
    counted = Counter(scan.entry.label for scan in usable)
    different = Counter(label for label, _ in {(usable[i].entry.label, groups[i]) for i in range(len(usable))})
    thin = [
        Finding(name, "too_few", "warning", f"{name!r} has {count(different[name], 'photo')} apart from copies", NEEDED)
        for name in listing.classes
        if different[name] < MIN_PER_CLASS
    ]
    return Checked(len(scans), {name: counted[name] for name in listing.classes}, (*findings, *thin))


def scan_photos(
    listing: Listing, *, pool: Executor | None = None, memo: Path | None = None, on_progress: Progress = no_progress
) -> list[Scan]:
    """Look at every listed file once, on all cores.

    Args:
        listing: from `list_photos`.
        pool: of worker processes; None uses threads of this one.
        memo: folder that remembers what was seen, by content; None looks at everything anew.
        on_progress: called with ("check", done, total).

    Example:
        >>> scan_photos(Listing(Path("photos"), (), (), ()))
        []
    """
    paths = [(listing.root, entry, memo) for entry in listing.entries]
    scans: list[Scan] = []
    with ThreadPoolExecutor(available_cores()) if pool is None else contextlib.nullcontext(pool) as executor:
        for scan in executor.map(_scan, paths, chunksize=FILES_PER_TASK):
            scans.append(scan)
            on_progress("check", len(scans), len(paths))
    return scans


def _scan(arguments: tuple[Path, Entry, Path | None]) -> Scan:
    return scan_photo(*arguments)


def scan_photo(root: Path, entry: Entry, memo: Path | None = None) -> Scan:
    """Look at one file: is it whole, what is its digest, its perceptual hash.

    Args:
        root: the data folder.
        entry: the file.
        memo: folder that remembers what was seen, by content.

    Example:
        >>> scan_photo(Path("."), Entry("gone.jpg", "cat")).findings[0].code
        'vanished'
    """
    try:
        data = read_bytes(root / entry.path)
        digest = hashlib.sha256(data).hexdigest()
        content = look(data, memo and memo / digest[:2] / f"{digest}.json")
    except ImageError as error:
        return Scan(entry, findings=(left_out(entry.path, error),))
    notes = list(content.notes)
    if not entry.path.lower().endswith(SUFFIXES[content.format]):
        notes.append(f"the content is {content.format}, whatever its name says")
    findings = tuple(Finding(entry.path, Reason.OK_WITH_WARNING.value, "info", note) for note in notes)
    return Scan(entry, digest, content.signs, findings)


def look(data: bytes, memo: Path | None = None) -> Content:
    """Decode a picture far enough to know that it is whole, or remember what that told the last time.

    Args:
        data: the bytes of a picture file.
        memo: file to keep the answer in; it must be named by the content.

    Raises:
        ImageError: if the picture cannot be used; that is not remembered.

    Example:
        >>> look(b"no picture")
        Traceback (most recent call last):
        pronk.errors.ImageError: the content is not a picture
    """
    if memo:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(memo.read_bytes())
            signs = np.frombuffer(bytes.fromhex(record["signs"]), np.int8)
            if len(signs) == BITS:
                return Content(record["format"], tuple(record["notes"]), signs)
    decoded = decode(data, min_side=HASH_SIDE)
    content = Content(decoded.format, decoded.notes, perceptual_hash(decoded.image))
    if memo:
        record = {"format": content.format, "notes": content.notes, "signs": content.signs.tobytes().hex()}
        with contextlib.suppress(StorageError):  # then the next run looks again
            write_atomically(memo, json.dumps(record).encode(), durable=False)
    return content


def left_out(path: str, error: ImageError) -> Finding:
    """Turn the reason why a file cannot be used into a finding.

    Example:
        >>> left_out("cat/a.jpg", ImageError(Reason.ZERO_BYTE, "empty")).code
        'zero_byte'
    """
    return Finding(path, error.reason.value, "error", str(error), error.hint)


def changed(path: str) -> Finding:
    """Describe a photo that was replaced while pronk was at work.

    Example:
        >>> changed("cat/a.jpg").code
        'changed'
    """
    return Finding(path, Reason.CHANGED.value, "error", "was replaced during the run", "run the command again")


def group_photos(usable: Sequence[Scan], group_by: str | None) -> tuple[list[int], list[Finding]]:
    """Group photos that must stay together: copies, near copies, and matches of `group_by`.

    Returns:
        For each photo the index of its group's first photo, and a finding per copy.

    Raises:
        DataError: if `group_by` is no regular expression.

    Example:
        >>> group_photos([], None)
        ([], [])
    """
    exact = list(chain_equal([scan.digest for scan in usable]))
    signs = np.array([scan.signs for scan in usable], np.int8).reshape(len(usable), BITS)
    similar = sorted(find_similar(signs)) if len(usable) else []
    keys = [_group_key(scan.entry.path, group_by) for scan in usable]
    first: dict[int, int] = {}
    for i, j in (*exact, *similar):  # of a hundred copies each is named once, not each pair
        first.setdefault(j, i)
    findings = [_duplicate(usable[i], usable[j]) for j, i in sorted(first.items())]
    return group_indices(len(usable), (*exact, *similar, *chain_equal(keys))), findings


def _group_key(path: str, group_by: str | None) -> str | None:
    if group_by is None:
        return None
    try:
        match = re.search(group_by, path)
    except re.error as error:
        raise DataError(
            f"--group-by {group_by!r} is no regular expression: {error}", hint=r"for example --group-by '(.*)_frame'"
        ) from error
    return None if match is None else "\0".join(group or "" for group in match.groups()) or match.group()


def _duplicate(first: Scan, second: Scan) -> Finding:
    kind = "exact" if first.digest == second.digest else "near"
    same = "has the same content as" if kind == "exact" else "is almost the same picture as"
    message = f"{same} {first.entry.path}"
    if first.entry.label != second.entry.label:
        message += f", which is labelled {first.entry.label!r}, not {second.entry.label!r}"
        hint = "keep it in one class only"
        return Finding(second.entry.path, "label_conflict", "warning", message, hint, (first.entry.path,))
    hint = "both stay in the same part; remove one if it was a mistake"
    severity = "warning" if kind == "exact" else "info"
    return Finding(second.entry.path, f"{kind}_duplicate", severity, message, hint, (first.entry.path,))
