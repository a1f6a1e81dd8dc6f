"""Two models + the same labelled photos -> which is better, as far as these photos can tell."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pronk.analysis.metrics import (
    AccuracyRecord,
    DifferenceRecord,
    accuracy_record,
    log_loss,
    mcnemar_exact,
    paired_difference,
)
from pronk.dataset.findings import Finding
from pronk.errors import DataError
from pronk.model.bundle import open_bundle
from pronk.model.evaluation import evaluate, read_rows
from pronk.model.pairs import NAME_DATA, Answers, Pair, Row, collect_answers, match_answers, read_answers
from pronk.progress import Progress, no_progress
from pronk.text import plural

# With fewer, the exact test cannot come below .05 even if all answers change to the same side.
FEWEST = 6
SIGNIFICANT = 0.05
MOST_NAMED = 5


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
        p: of the exact McNemar test.
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
        return {
            "a": dataclasses.asdict(self.a),
            "b": dataclasses.asdict(self.b),
            "difference": dict(self.difference),
            "gained": self.gained,
            "lost": self.lost,
            "p": self.p,
            "n": self.n,
            "left_out": len(self.left_out),
            "verdict": self.verdict,
            "changed": [dataclasses.asdict(change) for change in self.changed],
        }


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

    Example:
        >>> compare("no such run", "photos-2")
        Traceback (most recent call last):
        pronk.errors.ModelError: no model at no such run
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


def _score_side(name: str, rows: Sequence[Row], classes: Sequence[str]) -> tuple[Side, list[str]]:
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
            hint="compare models that were trained for the same classes",
        )


def _half(on_progress: Progress, half: int) -> Progress:
    return lambda stage, done, total: on_progress(stage, half * total + done, 2 * total)


def _points(share: float) -> str:
    return f"{100 * share:.1f}"


def _names(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return ", ".join(map(repr, names[:MOST_NAMED])) + more
