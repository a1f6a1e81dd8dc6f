"""review.csv and a data set -> each decision with its photo, and those whose photo is not what was reviewed.

The file holds what a person decided about suspicious labels, in the columns path, digest, given, action (keep, move or
drop) and label. A photo is known by its path and content together: one that was changed since is left alone and named.
"""

import csv
import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from pronk.dataset.listing import Entry, Listing
from pronk.errors import DataError
from pronk.storage.files import find_digest

COLUMNS = ("path", "digest", "given", "action", "label")
ACTIONS = ("keep", "move", "drop")
MOST_PROBLEMS = 10
# A spreadsheet would run what begins like a formula: the page puts an apostrophe before it, and one more before such.
GUARDED = re.compile(r"'+[=+\-@\t\r]")


@dataclasses.dataclass(frozen=True)
class Decision:
    """What a person decided about one photo.

    Attributes:
        path: relative to the data folder.
        digest: sha256 of the file's bytes.
        given: the label it had.
        action: keep, move or drop.
        label: the one it gets; without meaning for other actions than move.
    """

    path: str
    digest: str
    given: str
    action: str
    label: str


@dataclasses.dataclass(frozen=True)
class Applied:
    """What applying a review did.

    Attributes:
        file: the corrected list, or the undo file of the moves.
        kept: how many labels stay.
        moved: how many photos got another label.
        dropped: how many photos are left out.
        left: path and reason of photos that could not be treated as decided.
    """

    file: Path
    kept: int
    moved: int
    dropped: int
    left: tuple[tuple[str, str], ...]


def read_review(path: Path) -> tuple[Decision, ...]:
    r"""Read the decisions of a review.

    Raises:
        DataError: naming everything that is wrong with it, by line.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "review.csv"
        >>> _ = file.write_text(f"path,digest,given,action,label\ncat/1.jpg,{'0' * 64},cat,move,dog\n")
        >>> read_review(file)[0].label
        'dog'
    """
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
        raise DataError(f"cannot read the review {path}: {error}", hint="name a saved review.csv") from error
    if problems:
        more = f"; and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
        raise DataError(f"{path}: {'; '.join(problems[:MOST_PROBLEMS])}{more}", hint="correct these lines")
    return tuple(decisions)


def match_decisions(
    decisions: Sequence[Decision], listing: Listing
) -> tuple[list[tuple[Entry, Decision]], list[tuple[str, str]]]:
    """Find the photo of each decision: by its path, else by its content, for not every program keeps every name.

    Returns:
        Photos with their decisions, and path and reason of decisions whose photo is gone or is another by now.

    Example:
        >>> match_decisions([Decision("cat/1.jpg", "0" * 64, "cat", "drop", "")], Listing(Path("."), (), (), ()))
        ([], [('cat/1.jpg', 'it is no longer there')])
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
    """Refuse labels that are no classes: a slip of the pen would make a new one.

    Raises:
        DataError: naming them.

    Example:
        >>> check_labels([Decision("cat/1.jpg", "0" * 64, "cat", "move", "dgo")], ["cat", "dog"])
        Traceback (most recent call last):
        pronk.errors.DataError: no class is named 'dgo'
    """
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
