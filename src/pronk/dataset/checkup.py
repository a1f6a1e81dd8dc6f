"""Folder of photos -> everything that is wrong with it, before anybody trains on it. Nothing in it is changed."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

from pronk.dataset.findings import Finding, describe_fault
from pronk.dataset.inspection import count_different, inspect_counts
from pronk.dataset.listing import list_leniently
from pronk.dataset.loading import find_obstacles, split_photos
from pronk.dataset.scan import scan_folder
from pronk.dataset.shortcuts import Shortcut, list_warnings
from pronk.progress import Progress, no_progress
from pronk.storage.remote import to_path


@dataclasses.dataclass(frozen=True)
class Checkup:
    """What `check` found.

    Attributes:
        root: the folder that paths are relative to.
        files: how many files were looked at.
        classes: usable photos per class, in natural order.
        findings: everything that is wrong, about the arrangement first, then in the order of the files.
        shortcuts: how far the class can be told without looking at the subject; empty where there are too few photos.
    """

    root: Path
    files: int
    classes: dict[str, int]
    findings: tuple[Finding, ...]
    shortcuts: tuple[Shortcut, ...]

    @property
    def matters(self) -> bool:
        """Whether a finding is more than a note."""
        return any(finding.severity != "info" for finding in self.findings)


def check(data: Path | str, *, on_progress: Progress = no_progress) -> Checkup:
    """Look at every file of a data set: what cannot be used, is there twice, is badly arranged or gives the class away.

    Args:
        data: a folder of class folders, of train/val/test folders of class folders, a zip or tar of such, or a CSV
            `path,label[,part]`.
        on_progress: called with ("check", done, total), then ("compare", done, total).

    Raises:
        DataError: if there is no such folder, or the CSV cannot be read.
    """
    listing = list_leniently(to_path(data))
    seen = scan_folder(listing, on_progress=on_progress)
    dataset = split_photos(listing, seen)
    # Without classes that can be told apart, what else training would say makes no sense.
    obstacles = listing.obstacles or tuple(find_obstacles(dataset))
    counts = inspect_counts(count_different(seen.labels, seen.groups, listing.classes))
    counted = Counter(seen.labels)
    classes = {name: counted[name] for name in listing.classes}
    findings = (*obstacles, *dataset.findings, *counts, *list_warnings(dataset.shortcuts))
    return Checkup(listing.root, seen.files, classes, findings, dataset.shortcuts)


def checkup_record(checkup: Checkup) -> dict[str, Any]:
    """Return what `pronk check --json` prints: of each finding its fields, and why it matters."""
    findings = [dataclasses.asdict(finding) | {"why": describe_fault(finding.code).why} for finding in checkup.findings]
    return {
        "files": checkup.files,
        "classes": checkup.classes,
        "findings": findings,
        "shortcuts": [dataclasses.asdict(shortcut) for shortcut in checkup.shortcuts],
    }
