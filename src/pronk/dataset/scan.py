"""Listing -> one look at each file: whole or not, its digest, its properties; and which of them are copies."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np

from pronk.dataset.families import find_families
from pronk.dataset.findings import Finding, find, left_out
from pronk.dataset.inspection import inspect_names, inspect_photo
from pronk.dataset.listing import Entry, Listing
from pronk.errors import DataError, ImageError, StorageError
from pronk.photos.decoding import DECODING_VERSION, decode, read_bytes
from pronk.photos.duplicates import BITS, HASH_VERSION, chain_equal, find_similar, group_indices, perceptual_hash
from pronk.photos.properties import PROPERTIES_VERSION, PhotoProperties, describe_picture, shrink
from pronk.pools import run_in_order
from pronk.progress import Progress, no_progress
from pronk.storage.cache import CacheKind
from pronk.storage.segments import Segments
from pronk.storage.sources import read_ahead

FILES_PER_TASK = 8
LEAST_GROUPS, FEWEST_OF_SCENE = 3, 6  # one for each part; photos of a class that can be cut into runs for them
RUNS_OF_SCENE = 10
# Pixels, of which decoding leaves twice as many: small enough for JPEG's quick decoding. With 48, a blur has to be half
# as strong again to be noticed, and one look takes 7 % less time.
LOOK_SIDE = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """What the bytes of a usable picture told: properties, and signs of both its perceptual hashes, int8 (2, 255)."""

    properties: PhotoProperties
    signs: np.ndarray


@dataclasses.dataclass(frozen=True, slots=True)
class Scan:
    """What one look at a file told: its digest, its content if it is usable, and findings."""

    entry: Entry
    digest: str = ""
    content: Content | None = None
    findings: tuple[Finding, ...] = ()


@dataclasses.dataclass(frozen=True)
class FolderScan:
    """What looking at all files of a data set told.

    Attributes:
        usable: the photos that can be used, in natural order.
        groups: for each of them the index of the first one of its group, see `group_photos`.
        findings: about arrangement, files and copies.
        files: how many files were looked at.
    """

    usable: tuple[Scan, ...]
    groups: tuple[int, ...]
    findings: tuple[Finding, ...]
    files: int

    @property
    def labels(self) -> list[str]:
        """The usable photos' labels."""
        return [scan.entry.label for scan in self.usable]

    @property
    def properties(self) -> list[PhotoProperties]:
        """The usable photos' properties."""
        return [scan.content.properties for scan in self.usable if scan.content]


def scan_folder(
    listing: Listing,
    *,
    group_by: str | None = None,
    pool: Executor | None = None,
    memo: Path | None = None,
    on_progress: Progress = no_progress,
) -> FolderScan:
    """Look at every listed file once, and find copies, with the arguments of `load_dataset`."""
    scans = scan_photos(listing, pool=pool, memo=memo, on_progress=on_progress)
    usable = tuple(scan for scan in scans if scan.content is not None)
    groups, copies = group_photos(usable, group_by, on_progress=on_progress)
    in_files = (finding for scan in scans for finding in scan.findings)
    by_name = find_families(listing.entries, is_grouped=group_by is not None)
    findings = (*listing.findings, *inspect_names(listing.entries, listing.classes), *by_name, *in_files, *copies)
    return FolderScan(usable, tuple(groups), findings, len(scans))


def scan_photos(
    listing: Listing, *, pool: Executor | None = None, memo: Path | None = None, on_progress: Progress = no_progress
) -> list[Scan]:
    """Look at every listed file once, on all cores; the other arguments are those of `load_dataset`."""
    scans: list[Scan] = []
    starts = range(0, len(listing.entries), FILES_PER_TASK)
    batches = (listing.entries[start : start + FILES_PER_TASK] for start in starts)
    for some in run_in_order(functools.partial(_scan_batch, listing.root, memo), batches, pool=pool):
        for scan in some:
            scans.append(scan)
            on_progress("check", len(scans), len(listing.entries))
    return scans


def _scan_batch(root: Path, memo: Path | None, entries: Sequence[Entry]) -> list[Scan]:
    paths = read_ahead(root / entry.path for entry in entries)
    return [scan_photo(path, entry, memo) for path, entry in zip(paths, entries, strict=True)]


def scan_photo(path: Path, entry: Entry, memo: Path | None = None) -> Scan:
    """Look at the file of an entry: is it whole, what is its digest, its perceptual hash."""
    try:
        data = read_bytes(path)
        digest = hashlib.sha256(data).hexdigest()
        content = look(data, digest, memo)
    except ImageError as error:
        return Scan(entry, findings=(left_out(entry.path, error),))
    return Scan(entry, digest, content, tuple(inspect_photo(entry.path, content.properties)))


def look(data: bytes, digest: str = "", memo: Path | None = None) -> Content:
    """Decode a picture far enough to know that it is whole, or remember what that told the last time.

    What is kept lies in the folder `memo`, by the content's digest; ImageError is raised again each time.
    """
    records = Segments(memo) if memo else None
    if records and records.find(digest):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            return _recall(json.loads(records.read(digest, 0) or b""))
    decoded = decode(data, min_side=LOOK_SIDE, in_srgb=False)
    small = shrink(decoded.image)
    small = decoded.convert(small) if decoded.convert else small
    content = Content(describe_picture(decoded, small, len(data)), perceptual_hash(small))
    if records:
        record = {"signs": content.signs.tobytes().hex(), "properties": dataclasses.asdict(content.properties)}
        with contextlib.suppress(StorageError):  # then the next run looks again
            records.append(digest, json.dumps(record).encode())
    return content


def _recall(record: dict[str, Any]) -> Content:
    signs = np.frombuffer(bytes.fromhex(record["signs"]), np.int8).reshape(2, BITS)
    kept = {name: tuple(value) if isinstance(value, list) else value for name, value in record["properties"].items()}
    return Content(PhotoProperties(**cast(dict[str, Any], kept)), signs)


def scan_memo(cache: Path) -> Path:
    """Return the folder of a cache that remembers what was seen in files; other versions of what looks have others."""
    return CacheKind.SCANS.within(cache) / f"{DECODING_VERSION}.{PROPERTIES_VERSION}.{HASH_VERSION}-{version('pillow')}"


def group_photos(
    usable: Sequence[Scan], group_by: str | None, *, on_progress: Progress = no_progress
) -> tuple[list[int], list[Finding]]:
    """Group photos that must stay together: copies, near copies, and matches of `group_by` in their paths.

    Where all photos of a class are near copies of each other, as those of a camera that was not moved, they could be
    learned from or judged by, not both: then they are cut into runs of consecutive photos instead, and a finding says
    so. Progress is reported as ("compare", done, total).

    Returns:
        For each photo the index of its group's first photo, and a finding per copy: of a hundred copies each is named
        once for its own class and once for another, not each pair.

    Raises:
        DataError: if `group_by` is not a regular expression, or matches no path.
    """
    labels, digests = [scan.entry.label for scan in usable], [scan.digest for scan in usable]
    keys = [_group_key(scan.entry, group_by) for scan in usable]
    if group_by is not None and usable and not any(keys):
        raise DataError(f"--group-by {group_by!r} matches no path", hint=f"a path is {usable[0].entry.path}")
    first: dict[tuple[int, bool], int] = {}

    def note(pairs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        for i, j in pairs:
            key = j, labels[i] != labels[j]
            first[key] = min(i, first.get(key, i))
            yield i, j

    exact = [*chain_equal(digests), *chain_equal(list(zip(digests, labels, strict=True)))]
    similar = _find_near(usable, lambda done, total: on_progress("compare", done, total))
    groups = group_indices(len(usable), itertools.chain(note(exact), note(similar), chain_equal(keys)))
    scenes = _find_scenes(groups, labels) if not any(keys) else {}
    in_scenes = {scene for found in scenes.values() for scene in found}
    copies = [
        _duplicate(usable[i], usable[j])
        for (j, _), i in sorted(first.items())
        if groups[j] not in in_scenes or digests[i] == digests[j]
    ]
    if scenes:
        groups = group_indices(len(usable), itertools.chain(_cut_scenes(groups, labels, in_scenes), exact))
        copies.insert(0, _describe_scenes(scenes))
    return groups, copies


def _find_scenes(groups: Sequence[int], labels: Sequence[str]) -> dict[str, set[int]]:
    """Return the classes that cannot be divided, though they have photos enough, with the groups of their photos."""
    different = Counter(label for label, _ in set(zip(labels, groups, strict=True)))
    own = Counter(max(sorted(counted), key=counted.__getitem__) for counted in _count_labels(groups, labels).values())
    crowded = {label for label, number in Counter(labels).items() if number >= FEWEST_OF_SCENE}
    return {
        label: {group for group, other in zip(groups, labels, strict=True) if other == label}
        for label in sorted(crowded)
        if min(different[label], own[label]) < LEAST_GROUPS
    }


def _count_labels(groups: Sequence[int], labels: Sequence[str]) -> dict[int, Counter[str]]:
    counted: dict[int, Counter[str]] = defaultdict(Counter)
    for group, label in zip(groups, labels, strict=True):
        counted[group][label] += 1
    return counted


def _cut_scenes(groups: Sequence[int], labels: Sequence[str], scenes: set[int]) -> Iterator[tuple[int, int]]:
    """Link what stays together: all of another group, and the consecutive photos that a run of a scene has."""
    members: dict[tuple[int, str], list[int]] = defaultdict(list)
    for index, (group, label) in enumerate(zip(groups, labels, strict=True)):
        members[group, label if group in scenes else ""].append(index)
    for (group, _), joined in members.items():
        size = max(1, len(joined) // RUNS_OF_SCENE) if group in scenes else len(joined)
        for place, index in enumerate(joined):
            yield joined[place - place % size], index


def _describe_scenes(scenes: Iterable[str]) -> Finding:
    names = ", ".join(map(repr, scenes))
    message = f"all photos of {names} look alike, so the test has photos like those that are learned from"
    return find("", "one_scene", message, "take photos in at least three other places, in other light")


def _find_near(usable: Sequence[Scan], on_rows: Callable[[int, int], None]) -> Iterator[tuple[int, int]]:
    """Pair photos that are almost the same; of equal files only the first is compared."""
    first: dict[str, int] = {}
    for i, scan in enumerate(usable):
        first.setdefault(scan.digest, i)
    originals = list(first.values())
    contents = [content for i in originals if (content := usable[i].content)]
    signs = np.array([content.signs for content in contents], np.int8).reshape(-1, 2, BITS)
    colours = np.array([content.properties.colour for content in contents], np.uint8).reshape(-1, 3)
    for i, j in find_similar(signs[:, 0], signs[:, 1], colours, on_rows=on_rows):
        yield originals[i], originals[j]


def _group_key(entry: Entry, group_by: str | None) -> str | None:
    if group_by is None:
        return entry.group
    try:
        match = re.search(group_by, entry.path)
    except re.error as error:
        raise DataError(
            f"--group-by {group_by!r} is not a regular expression: {error}", hint=r"for example --group-by '(.*)_frame'"
        ) from error
    return None if match is None else "\0".join(group or "" for group in match.groups()) or match.group()


def _duplicate(first: Scan, second: Scan) -> Finding:
    exact = first.digest == second.digest
    message = f"{'has the same content as' if exact else 'is almost the same picture as'} {first.entry.path}"
    path, related = second.entry.path, (first.entry.path,)
    if first.entry.label != second.entry.label:
        message += f", which is labelled {first.entry.label!r}, not {second.entry.label!r}"
        hint = f"keep it in one class only{'' if exact else ', unless something small tells them apart'}"
        return find(path, "label_conflict", message, hint, related)
    code = "exact_duplicate" if exact else "near_duplicate"
    return find(path, code, message, "remove one of the two if it was a mistake", related)
