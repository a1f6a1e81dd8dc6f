"""Findings -> files moved out of the data folder, each with its way back on disk; nothing is ever deleted."""

import dataclasses
import uuid
from collections.abc import Sequence
from pathlib import Path

from pronk.dataset.checkup import Checkup
from pronk.dataset.findings import Finding, describe_fault
from pronk.errors import SettingsError
from pronk.moving.journal import open_journal
from pronk.moving.placing import Action
from pronk.storage.places import overlap
from pronk.storage.remote import is_remote

ACTIONS_AT_ONCE = 100  # on disk before the first of them is begun


@dataclasses.dataclass(frozen=True)
class Quarantined:
    """Findings whose file was moved, with its path now; those that were not, with the reason; the undo file, if any."""

    moved: tuple[tuple[Finding, str], ...] = ()
    kept: tuple[tuple[Finding, str], ...] = ()
    journal: Path | None = None


def check_folders(data: Path, folder: Path) -> None:
    """Refuse at once, by a SettingsError, a CSV, whose rows would point nowhere, and folders inside each other."""
    if is_remote(data) or data.is_file():
        what = "an address" if is_remote(data) else "a list of files or an archive"
        raise SettingsError(
            f"--fix moves files of a folder, and {str(data)!r} is {what}: it stays as it is",
            hint="take the rows out of the list, unpack the archive or download the photos; --json names the files",
        )
    if overlap(folder, data):
        shown = folder.as_posix()
        raise SettingsError(
            f"--quarantine {shown!r} must not lie inside the data, nor the data inside it",
            hint="name a folder beside the data, such as set-aside",
        )


def move_aside(checkup: Checkup, folder: Path) -> Quarantined:
    """Move the files that cannot be used, second copies and blank pictures to FOLDER/<code>/<path in the data>.

    Photos in two classes, near copies and everything about whole classes stay: these need somebody who knows.

    Raises:
        SettingsError: if it lies inside the data, or the data inside it.
        RunError: while another process uses the folder.
        StorageError: if the disk is full or cannot be written.
    """
    check_folders(checkup.root, folder)
    wanted = pick_movable(checkup.findings)
    if not wanted:
        return Quarantined()
    moved, kept = [], []
    with open_journal(folder.absolute(), uuid.uuid4().hex) as journal:
        for start in range(0, len(wanted), ACTIONS_AT_ONCE):
            planned: dict[Action, Finding] = {}
            for finding in wanted[start : start + ACTIONS_AT_ONCE]:
                source, target = checkup.root.absolute() / finding.path, folder.absolute() / finding.code / finding.path
                try:
                    planned[journal.plan("move", source, target)] = finding
                except OSError as error:
                    kept.append((finding, error.strerror or str(error)))
            failed = dict(journal.perform(planned))
            kept += [(planned[action], reason) for action, reason in failed.items()]
            moved += [(finding, action.target) for action, finding in planned.items() if action not in failed]
    return Quarantined(tuple(moved), tuple(kept), journal.path)


def pick_movable(findings: Sequence[Finding]) -> list[Finding]:
    """Return a finding per file that may be moved; of equal files, one always stays."""
    movable = [finding for finding in findings if finding.path and describe_fault(finding.code).movable]
    picked = {finding.path: finding for finding in movable if finding.code != "exact_duplicate"}
    blank = {path for path, finding in picked.items() if finding.code == "blank"}
    for finding in movable:
        # Where the first copy goes because it leaks, the second one is perhaps the last in its part.
        if finding.code == "exact_duplicate" and not set(finding.related) & (picked.keys() - blank):
            picked.setdefault(finding.path, finding)
    return list(picked.values())
