"""Listing -> overview: every file looked at, and copies grouped, each with a finding."""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from pronk.dataset.findings import Finding, find
from pronk.dataset.inspection import inspect_names
from pronk.dataset.listing import Listing
from pronk.dataset.scan import Scan, scan_photos
from pronk.errors import DataError
from pronk.photos.duplicates import BITS, chain_equal, find_similar, group_indices
from pronk.photos.properties import Facts
from pronk.progress import Progress, no_progress


@dataclasses.dataclass(frozen=True)
class Overview:
    """What looking at all files told.

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
    def facts(self) -> list[Facts]:
        """The usable photos' facts."""
        return [scan.content.facts for scan in self.usable if scan.content]


def look_over(
    listing: Listing,
    *,
    group_by: str | None = None,
    pool: Executor | None = None,
    memo: Path | None = None,
    on_progress: Progress = no_progress,
) -> Overview:
    """Look at every listed file once, and find copies.

    Arguments are those of `scan_photos` and `group_photos`.

    Example:
        >>> look_over(Listing(Path("photos"), (), (), ())).files
        0
    """
    scans = scan_photos(listing, pool=pool, memo=memo, on_progress=on_progress)
    usable = tuple(scan for scan in scans if scan.content is not None)
    groups, copies = group_photos(usable, group_by, on_progress=on_progress)
    in_files = (finding for scan in scans for finding in scan.findings)
    findings = (*listing.findings, *inspect_names(listing.entries, listing.classes), *in_files, *copies)
    return Overview(usable, tuple(groups), findings, len(scans))


def group_photos(
    usable: Sequence[Scan], group_by: str | None, *, on_progress: Progress = no_progress
) -> tuple[list[int], list[Finding]]:
    """Group photos that must stay together: copies, near copies, and matches of `group_by`.

    Args:
        usable: scans that have a content.
        group_by: regular expression looked for in each path.
        on_progress: called with ("compare", done, total).

    Returns:
        For each photo the index of its group's first photo, and a finding per copy: of a hundred copies each is named
        once for its own class and once for another, not each pair.

    Raises:
        DataError: if `group_by` is no regular expression.

    Example:
        >>> group_photos([], None)
        ([], [])
    """
    labels, digests = [scan.entry.label for scan in usable], [scan.digest for scan in usable]
    keys = [_group_key(scan.entry.path, group_by) for scan in usable]
    first: dict[tuple[int, bool], int] = {}

    def note(pairs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        for i, j in pairs:
            key = j, labels[i] != labels[j]
            first[key] = min(i, first.get(key, i))
            yield i, j

    exact = itertools.chain(chain_equal(digests), chain_equal(list(zip(digests, labels, strict=True))))
    similar = _find_near(usable, lambda done, total: on_progress("compare", done, total))
    groups = group_indices(len(usable), itertools.chain(note(exact), note(similar), chain_equal(keys)))
    return groups, [_duplicate(usable[i], usable[j]) for (j, _), i in sorted(first.items())]


def _find_near(usable: Sequence[Scan], on_rows: Callable[[int, int], None]) -> Iterator[tuple[int, int]]:
    """Pair photos that are almost the same; of equal files only the first is compared."""
    first: dict[str, int] = {}
    for i, scan in enumerate(usable):
        first.setdefault(scan.digest, i)
    originals = list(first.values())
    contents = [content for i in originals if (content := usable[i].content)]
    signs = np.array([content.signs for content in contents], np.int8).reshape(-1, 2, BITS)
    colours = np.array([content.facts.colour for content in contents], np.uint8).reshape(-1, 3)
    for i, j in find_similar(signs[:, 0], signs[:, 1], colours, on_rows=on_rows):
        yield originals[i], originals[j]


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
    exact = first.digest == second.digest
    message = f"{'has the same content as' if exact else 'is almost the same picture as'} {first.entry.path}"
    path, related = second.entry.path, (first.entry.path,)
    if first.entry.label != second.entry.label:
        message += f", which is labelled {first.entry.label!r}, not {second.entry.label!r}"
        return find(path, "label_conflict", message, "keep it in one class only", related)
    code = "exact_duplicate" if exact else "near_duplicate"
    return find(path, code, message, "remove one of the two if it was a mistake", related)
