"""Two models + the same labelled photos -> which is better, as far as these photos can tell."""

import csv
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pronk.analysis.metrics import (
    AccuracyRecord,
    DifferenceRecord,
    accuracy_record,
    log_loss,
    mcnemar_exact,
    paired_difference,
)
from pronk.dataset.findings import Finding
from pronk.dataset.listing import natural_key
from pronk.dataset.loading import SPLIT
from pronk.errors import DataError, ModelError, Reason, RunError
from pronk.model.bundle import Bundle, open_bundle
from pronk.model.evaluation import Evaluation, evaluate, read_rows
from pronk.model.guards.files import check_ordinary
from pronk.model.run import PREDICTIONS, read_split
from pronk.progress import Progress, no_progress
from pronk.storage.files import digest_file, read_csv
from pronk.text import plural

# With fewer, the exact test cannot come below .05 even if all answers change to the same side.
FEWEST = 6
SIGNIFICANT = 0.05
MOST_NAMED = 5
NAME_DATA = (
    "name labelled photos that neither was trained with: pronk compare RUN_A RUN_B DATA; "
    "or train the second with --split RUN_A/split.csv, so that both set aside the same photos"
)

PredictionRow = dict[str, Any]  # of predictions.csv
Pair = tuple[PredictionRow, PredictionRow]


@dataclasses.dataclass(frozen=True)
class Side:
    """How one of the two models does: its name, accuracy and log-loss."""

    name: str
    accuracy: AccuracyRecord
    log_loss: float


@dataclasses.dataclass(frozen=True)
class Change:
    """A photo that one model gets right and the other wrong: its path, its label, and what each says."""

    path: str
    label: str
    a: str
    b: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two models on the same photos; `compare` makes it.

    Attributes:
        a: the first model.
        b: the second model.
        difference: accuracy of b minus that of a, with its 95 % interval for paired answers.
        gained: photos that only b gets right.
        lost: photos that only a gets right.
        p: p value of the exact McNemar test.
        changed: the photos gained and lost.
        left_out: photos that could not be used or would not be fair.
    """

    a: Side
    b: Side
    difference: DifferenceRecord
    gained: int
    lost: int
    p: float
    changed: tuple[Change, ...]
    left_out: tuple[Finding, ...]

    @property
    def n(self) -> int:
        """How many photos both were judged by."""
        return self.a.accuracy["n"]

    @property
    def verdict(self) -> str:
        """What the numbers allow to say, in one sentence."""
        low, high = self.difference["low"], self.difference["high"]
        if low <= 0 <= high:
            return (
                f"These {self.n:,} photos cannot tell which is better: B may be up to {_points(high)} points better or "
                f"up to {_points(-low)} points worse; four times as many photos would about halve that range."
            )
        better = "B" if low > 0 else "A"
        nearer, farther = sorted((abs(low), abs(high)))
        size = f"{_points(abs(self.difference['value']))} points ({_points(nearer)} to {_points(farther)})"
        if self.p < SIGNIFICANT:
            return f"{better} is better by {size} on photos like these {self.n:,}."
        return (
            f"These {self.n:,} photos hint that {better} is better, by {size}, but do not show it: that few answers "
            f"differ by chance too (p = {self.p:.2g})."
        )

    def record(self) -> dict[str, Any]:
        """Return the fields that `pronk compare --json` writes."""
        record = dataclasses.asdict(self)
        changed, left_out = list(record.pop("changed")), len(record.pop("left_out"))
        return record | {"n": self.n, "left_out": left_out, "verdict": self.verdict, "changed": changed}


@dataclasses.dataclass(frozen=True)
class Answers:
    """What one model says of photos, by their digests; `known` are those that it was trained or chosen with."""

    classes: tuple[str, ...]
    rows: Mapping[str, Sequence[PredictionRow]]
    known: frozenset[str]


def compare(
    run_a: Path | str, run_b: Path | str, data: Path | str | None = None, *, on_progress: Progress = no_progress
) -> Comparison:
    """Compare two models on the same photos, none of which either was trained or chosen with.

    A photo that is there twice counts once, as its second answer tells nothing new.

    Args:
        run_a: a run folder, its `model/`, or an export.
        run_b: another.
        data: labelled photos, as for `evaluate`; None takes the photos that both runs set aside for test, and what
            the runs wrote down about them.
        on_progress: called with ("evaluate", done, total) where there is data.

    Raises:
        DataError: if the models know different classes, or fewer than 6 photos are fair to both.
        ModelError: if a model, or what its run wrote down, is missing or damaged.
    """
    bundles = open_bundle(run_a), open_bundle(run_b)
    _check_classes(bundles[0].classes, bundles[1].classes)
    if data is None:
        a, b = map(read_answers, bundles)
        unusable: list[Finding] = []
    else:
        judged = [evaluate(run, data, on_progress=_half(on_progress, i)) for i, run in enumerate((run_a, run_b))]
        a, b, unusable = collect_answers(*judged)
    pairs, unfair = match_answers(a, b)
    left_out = (*unusable, *unfair)
    if len(pairs) < FEWEST:
        raise DataError(
            f"{plural(len(pairs), 'photo')} would be fair to both models, and fewer than {FEWEST} cannot tell them "
            f"apart ({len(left_out):,} left out)",
            hint=NAME_DATA if data is None else "add photos that neither model was trained with",
        )
    return _compare_pairs((str(run_a), str(run_b)), (a, b), pairs, left_out)


def read_answers(bundle: Bundle) -> Answers:
    """Read what a run wrote down about its test photos; ModelError where that is nothing, or cannot be true.

    The bundle is the run's own model: an export may answer otherwise than what was written down.
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
    """Arrange the evaluations of two models on one folder as `read_answers` does, and name the photos of no use."""
    digests = {path: digest_file(a.root / path) for path in {row["path"] for row in (*a.rows, *b.rows)}}
    unusable = {finding.path: finding for finding in (*a.findings, *b.findings) if finding.path not in digests}
    return _answers_of(a, digests), _answers_of(b, digests), list(unusable.values())


def match_answers(a: Answers, b: Answers) -> tuple[list[Pair], list[Finding]]:
    """Pair the answers to each photo that is fair to both models; of copies the first stands for all.

    Returns pairs in natural order of their paths, and a finding for each photo that is left out.
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


def _check_rows(rows: Sequence[PredictionRow], classes: tuple[str, ...]) -> None:
    """Refuse numbers that are not probabilities: the file may have been edited, or come from another run."""
    with np.errstate(all="ignore"):
        probabilities, _ = read_rows(rows, classes)
    if not (np.isfinite(probabilities).all() and (probabilities >= 0).all()):
        raise ValueError("probabilities must be finite and not negative")


def _by_digest(rows: Iterable[tuple[str, PredictionRow]]) -> dict[str, list[PredictionRow]]:
    found: dict[str, list[PredictionRow]] = {}
    for digest, row in rows:
        found.setdefault(digest, []).append(row)
    return found


def _compare_pairs(
    names: tuple[str, str], answers: tuple[Answers, Answers], pairs: Sequence[Pair], left_out: tuple[Finding, ...]
) -> Comparison:
    rows_a, rows_b = zip(*pairs, strict=True)
    a, said_a = _score_side(names[0], rows_a, answers[0].classes)
    b, said_b = _score_side(names[1], rows_b, answers[1].classes)
    labels = [row["label"] for row in rows_a]
    right_a, right_b = ([one == label for one, label in zip(said, labels, strict=True)] for said in (said_a, said_b))
    changed = [
        Change(row["path"], row["label"], said_a[i], said_b[i])
        for i, row in enumerate(rows_a)
        if right_a[i] != right_b[i]
    ]
    difference, counted = paired_difference(right_a, right_b), mcnemar_exact(right_a, right_b)
    return Comparison(a, b, difference, **counted, changed=tuple(changed), left_out=left_out)


def _score_side(name: str, rows: Sequence[PredictionRow], classes: Sequence[str]) -> tuple[Side, list[str]]:
    """Return a model's numbers, and the class it calls most likely for each photo."""
    probabilities, targets = read_rows(rows, classes)
    top = probabilities.argmax(axis=1)
    side = Side(name, accuracy_record(top == targets), log_loss(probabilities, targets))
    return side, [classes[i] for i in top]


def _check_classes(a: tuple[str, ...], b: tuple[str, ...]) -> None:
    known_a, known_b = set(a), set(b)
    extra = {"A": [name for name in a if name not in known_b], "B": [name for name in b if name not in known_a]}
    problems = [f"only {who} knows {_names(names)}" for who, names in extra.items() if names]
    if problems:
        raise DataError(
            f"the models answer with different classes: {'; '.join(problems)}",
            hint="judge each by photos of the classes that both know: pronk evaluate",
        )


def _half(on_progress: Progress, half: int) -> Progress:
    return lambda stage, done, total: on_progress(stage, half * total + done, 2 * total)


def _points(share: float) -> str:
    return f"{100 * share:.1f}"


def _names(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return ", ".join(map(repr, names[:MOST_NAMED])) + more
