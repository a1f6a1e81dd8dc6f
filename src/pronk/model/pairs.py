"""What two models said of labelled photos -> pairs of answers to the same photo, fair to both."""

import csv
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pronk.dataset.findings import Finding
from pronk.dataset.listing import natural_key
from pronk.errors import ModelError, Reason, RunError
from pronk.model.bundle import Bundle
from pronk.model.evaluation import Evaluation, read_rows
from pronk.model.guards.files import check_ordinary
from pronk.model.run import PREDICTIONS, SPLIT, read_split
from pronk.storage.files import digest_file, read_csv

NAME_DATA = (
    "name labelled photos that neither was trained with: pronk compare RUN_A RUN_B DATA; "
    "or train the second with --split RUN_A/split.csv, so that both set aside the same photos"
)

Row = dict[str, Any]  # of predictions.csv
Pair = tuple[Row, Row]


@dataclasses.dataclass(frozen=True)
class Answers:
    """What one model says of labelled photos.

    Attributes:
        classes: in the order of its probabilities.
        rows: as in predictions.csv, by digest of the photo; copies of a photo share one.
        known: digests of the photos that it was trained or chosen with.
    """

    classes: tuple[str, ...]
    rows: Mapping[str, Sequence[Row]]
    known: frozenset[str]


def read_answers(bundle: Bundle) -> Answers:
    """Read what a run wrote down about its test photos.

    Args:
        bundle: the run's own model; an export may answer otherwise than what was written down.

    Raises:
        ModelError: if there is nothing to read, or it cannot be true.
    """
    folder = bundle.run_folder
    predictions = folder / PREDICTIONS
    if bundle.runtime != "onnx":
        raise ModelError(f"{bundle.folder} is an export, whose own answers are not written down", hint=NAME_DATA)
    for path in (predictions, folder / SPLIT):
        if not path.exists():
            raise ModelError(f"{folder} has no {path.name} to compare by", hint=NAME_DATA)
    try:
        check_ordinary(predictions)
        split, rows = read_split(folder), read_csv(predictions)
    except (OSError, csv.Error, ModelError, RunError) as error:
        raise ModelError(f"cannot read predictions.csv and split.csv of {folder}: {error}", hint=NAME_DATA) from error
    try:
        digests = {photo.path: photo.digest for photo in split if photo.digest}
        tested = [row for row in rows if row["part"] == "test"]
        if tested:
            _check_rows(tested, bundle.classes)
        answered = _by_digest((digests[row["path"]], row) for row in tested)
        known = frozenset(photo.digest for photo in split if photo.digest and photo.part != "test")
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{predictions} does not fit the run: {error!r}", hint=NAME_DATA) from error
    return Answers(bundle.classes, answered, known)


def collect_answers(a: Evaluation, b: Evaluation) -> tuple[Answers, Answers, list[Finding]]:
    """Arrange the evaluations of two models on the same folder as `read_answers` does, so that either can be paired.

    Returns:
        The answers of each, and the photos that could not be used.
    """
    digests = {path: digest_file(a.root / path) for path in {row["path"] for row in (*a.rows, *b.rows)}}
    unusable = {finding.path: finding for finding in (*a.findings, *b.findings) if finding.path not in digests}
    return _answers_of(a, digests), _answers_of(b, digests), list(unusable.values())


def match_answers(a: Answers, b: Answers) -> tuple[list[Pair], list[Finding]]:
    """Pair the answers to each photo that is fair to both models; of copies the first stands for all.

    Returns:
        Pairs in natural order of their paths, and a finding for each photo that is left out.

    Example:
        >>> said = Answers(("cat", "dog"), {"12ab": [{"path": "cat/1.jpg", "label": "cat"}]}, frozenset())
        >>> trained = Answers(("cat", "dog"), {}, frozenset({"12ab"}))
        >>> pairs, left_out = match_answers(said, trained)
        >>> len(pairs), left_out[0].message
        (0, 'B was trained or chosen with it')
    """
    pairs: list[Pair] = []
    findings: list[Finding] = []
    for digest in a.rows.keys() | b.rows.keys():
        first, *copies = a.rows.get(digest) or b.rows[digest]
        problem = _find_unfair(digest, a, b)
        if problem is None:
            pairs.append((first, b.rows[digest][0]))
            problem = "exact_duplicate", f"has the same content as {first['path']}"
            unused = copies
        else:
            unused = [first, *copies]
        findings += [Finding(row["path"], problem[0], "error", problem[1]) for row in unused]
    pairs.sort(key=lambda pair: natural_key(pair[0]["path"]))
    findings.sort(key=lambda finding: natural_key(finding.path))
    return pairs, findings


def _find_unfair(digest: str, a: Answers, b: Answers) -> tuple[str, str] | None:
    """Say why a photo tells nothing about the two models: a code and a message."""
    trained = [name for name, side in (("A", a), ("B", b)) if digest in side.known]
    if trained:
        return (
            Reason.LEAK.value,
            f"{' and '.join(trained)} {'was' if len(trained) == 1 else 'were'} trained or chosen with it",
        )
    missing = [name for name, side in (("A", a), ("B", b)) if digest not in side.rows]
    if missing:
        return "untested", f"{missing[0]} was not tested with it"
    labels = sorted({row["label"] for row in (*a.rows[digest], *b.rows[digest])})
    return ("label_conflict", f"it is labelled {' and '.join(map(repr, labels))}") if len(labels) > 1 else None


def _answers_of(evaluation: Evaluation, digests: Mapping[str, str]) -> Answers:
    known = {digests[finding.path] for finding in evaluation.findings if finding.code == Reason.LEAK.value}
    rows = _by_digest((digests[row["path"]], row) for row in evaluation.rows)
    return Answers(evaluation.classes, rows, frozenset(known))


def _check_rows(rows: Sequence[Row], classes: tuple[str, ...]) -> None:
    """Refuse numbers that are no probabilities: the file may have been edited, or come from another run."""
    with np.errstate(all="ignore"):
        probabilities, _ = read_rows(rows, classes)
    if not (np.isfinite(probabilities).all() and (probabilities >= 0).all()):
        raise ValueError("probabilities must be finite and not negative")


def _by_digest(rows: Iterable[tuple[str, Row]]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for digest, row in rows:
        found.setdefault(digest, []).append(row)
    return found
