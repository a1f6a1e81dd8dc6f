"""Probabilities and true classes -> honest numbers: intervals, losses, calibration, confusion, differences.

Pure functions that need NumPy alone and give plain Python numbers, ready for JSON. For n photos of C classes,
probabilities are float [n, C], labels (the truth) and predicted are int [n], class indices 0 ... C-1. What
cannot be computed (no photo, shapes that do not fit, a probability that is not a number) raises ValueError.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from pronk.text import percent

# The 97.5 % point of the normal distribution: 95 % lie within this many standard deviations.
Z95 = 1.959963984540054

# Probabilities arrive as float32, which near 1 resolves steps of 1.2e-7: a smaller one is rounding, not
# knowledge. Without the limit one photo judged wrong at "100 %" makes the mean infinite; so it costs 16.1.
SMALLEST_PROBABILITY = 1e-7
BINS = 10  # of equal mass, that photos are cut into to measure calibration


class AccuracyRecord(TypedDict):
    """A share of right answers, its 95 % interval and the number of photos behind it."""

    value: float
    low: float
    high: float
    n: int


class ComparisonRecord(TypedDict):
    """How many photos became right (gained) and wrong (lost), and the exact McNemar p."""

    gained: int
    lost: int
    p: float


class ClassRecord(TypedDict):
    """The numbers of one class; precision, recall and f1 are 0 where undefined."""

    precision: float
    recall: float
    f1: float
    support: int


class DifferenceRecord(TypedDict):
    """How much larger the second share is than the first, and the 95 % interval of that."""

    value: float
    low: float
    high: float


class ScoreRecord(TypedDict):
    """All numbers about one set of photos: the `test` part of metrics.json; those of METRICS by their names."""

    accuracy: AccuracyRecord
    macro_f1: float
    log_loss: float
    ece: float
    per_class: dict[str, ClassRecord]
    confusion: list[list[int]]


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Give the 95 % interval of a share after `successes` in `n` trials.

    The score interval of E. B. Wilson, "Probable inference, the law of succession, and statistical inference"
    (JASA 22, 1927). Unlike p ± 2s it stays inside [0, 1] and keeps a width at 0 % and 100 %, where small test
    sets often end. Nothing tried means nothing known: n = 0 gives (0, 1).

    Example:
        >>> low, high = wilson_interval(47, 49)
        >>> f"{low:.3f} to {high:.3f}"
        '0.863 to 0.989'
    """
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    shrink = 1 + Z95**2 / n
    centre = (share + Z95**2 / (2 * n)) / shrink
    half = Z95 / shrink * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    # At the ends the formula gives 0 and 1; rounding must not leave them, nor pass the share itself.
    low = 0.0 if successes == 0 else min(centre - half, share)
    high = 1.0 if successes == n else max(centre + half, share)
    return low, high


def accuracy_record(correct: Any) -> AccuracyRecord:
    """Count right answers, bool [n], and give their share with its 95 % Wilson interval; of nothing there is none."""
    right = np.asarray(correct, dtype=bool)
    if right.ndim != 1 or right.size == 0:
        raise ValueError(f"correct must be a list of at least one answer. Got shape {right.shape}")
    return share_record(int(np.count_nonzero(right)) / right.size, right.size)


def share_record(value: float, n: int) -> AccuracyRecord:
    """Give a share of n photos, which may be a mean over repeats, with a 95 % Wilson interval that holds it."""
    low, high = wilson_interval(round(value * n), n)
    return {"value": value, "low": min(low, value), "high": max(high, value), "n": n}


def mcnemar_exact(correct_before: Any, correct_after: Any) -> ComparisonRecord:
    """Compare two models on the same photos by the exact two-sided McNemar test.

    Only photos on which the two disagree count: were the models equally good, they would fall like a fair
    coin, so p = 2 P(X <= min(gained, lost)), at most 1, for X ~ Binomial(gained + lost, 1/2) (Q. McNemar,
    Psychometrika 12, 1947; exact form). No disagreement gives p = 1.

    Example:
        >>> mcnemar_exact([True, True, True, True], [False, False, False, True])
        {'gained': 0, 'lost': 3, 'p': 0.25}
    """
    before, after = np.asarray(correct_before, dtype=bool), np.asarray(correct_after, dtype=bool)
    if before.shape != after.shape or before.ndim != 1:
        raise ValueError(f"both must answer the same photos. Got shapes {before.shape} and {after.shape}")
    gained = int(np.count_nonzero(~before & after))
    lost = int(np.count_nonzero(before & ~after))
    return {"gained": gained, "lost": lost, "p": _coin_tail(min(gained, lost), gained + lost)}


def paired_difference(correct_before: Any, correct_after: Any) -> DifferenceRecord:
    """Give the difference of two shares of right answers to the same photos, after minus before.

    The interval is method 10 of R. G. Newcombe, "Improved confidence intervals for the difference between binomial
    proportions based on paired data" (Statistics in Medicine 17, 1998). The Wilson interval of either share reaches
    some way `down` and `up` from it; they join like two sides of a triangle whose angle is the correlation phi of
    the answers:

        low = difference - sqrt(down_after^2 - 2 phi down_after up_before + up_before^2)
        high = difference + sqrt(up_after^2 - 2 phi up_after down_before + down_before^2)

    Of n photos let e be right in both, f in the first only, g in the second only and h in neither. Then phi is
    Q / sqrt((e + f)(g + h)(e + g)(f + h)) with Q = eh - fg, drawn n/2 towards 0 where it is positive; and phi is 0
    where a model is always right or always wrong.
    """
    before, after = np.asarray(correct_before, dtype=bool), np.asarray(correct_after, dtype=bool)
    if before.shape != after.shape:
        raise ValueError(f"both must answer the same photos. Got shapes {before.shape} and {after.shape}")
    first, second = accuracy_record(before), accuracy_record(after)
    phi = _correlation(before, after)
    down = _third_side(second["value"] - second["low"], first["high"] - first["value"], phi)
    up = _third_side(second["high"] - second["value"], first["value"] - first["low"], phi)
    # From counts: the difference of two quotients could be a rounding instead of 0.
    value = (int(np.count_nonzero(after)) - int(np.count_nonzero(before))) / before.size
    return {"value": value, "low": value - down, "high": value + up}


def log_loss(probabilities: Any, labels: Any) -> float:
    """Average the surprise at the truth, in nats: 0 is perfect, log C is guessing.

    The probability of the true class is clipped at 1e-7, the resolution of float32 near 1, so that a sure
    mistake costs much (16.1) but not everything. Rows are taken as they are: they should sum to 1.
    """
    chances, truth = _checked(probabilities, labels)
    given = np.clip(chances[np.arange(truth.size), truth], SMALLEST_PROBABILITY, 1.0)
    return float(np.log(1 / given).mean())


def expected_calibration_error(probabilities: Any, labels: Any) -> float:
    """Measure how far confidence and hit rate lie apart: 0 ... 1, averaged over photos.

    Photos are sorted by the probability of their top class and cut into bins of equal mass (the same number
    of photos, up to one; fewer bins where there are fewer photos): with bins of equal width nearly all photos
    of a sure model share one bin. Photos of the same confidence share their hit rate, so the order of rows
    never matters. With few photos in a bin the number comes out too high: read it as "about".
    """
    chances, truth = _checked(probabilities, labels)
    return confidence_error(chances.max(axis=1), chances.argmax(axis=1) == truth)


def confidence_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Measure the same for the probabilities of the top classes, float [n], and whether each was right, [n]."""
    hits = right.astype(np.float64)
    _, tied = np.unique(confidence, return_inverse=True)
    hit_rate = (np.bincount(tied, weights=hits) / np.bincount(tied))[tied]
    order = np.argsort(confidence, kind="stable")
    gaps = np.array_split((hit_rate - confidence)[order], min(BINS, hits.size))
    return float(sum(abs(gap.sum()) for gap in gaps) / hits.size)


def confusion_matrix(labels: Any, predicted: Any, classes: int) -> NDArray[np.int64]:
    """Count photos by true class (row) and predicted class (column): int64 [C, C].

    Its sum is n, and the matrices of two sets of photos add up to the matrix of both together.
    """
    counts = np.bincount(np.asarray(labels) * classes + np.asarray(predicted), minlength=classes**2)
    return counts.reshape(classes, classes).astype(np.int64)


def most_confused(confusion: Any, *, most: int) -> list[tuple[int, int, int, float]]:
    """Pick the wrong cells of a confusion matrix [C, C] that most photos are in.

    Returns:
        True class, predicted class, photos, and their share of the true class; the largest number first, then share.

    Example:
        >>> most_confused([[8, 2, 0], [1, 9, 0], [2, 0, 0]], most=2)
        [(2, 0, 2, 1.0), (0, 1, 2, 0.2)]
    """
    counts = np.asarray(confusion, dtype=np.int64)
    totals = counts.sum(axis=1)
    wrong = np.argwhere((counts > 0) & ~np.eye(len(counts), dtype=bool)).tolist()
    cells = [
        (truth, answer, int(counts[truth, answer]), float(counts[truth, answer] / totals[truth]))
        for truth, answer in wrong
    ]
    return sorted(cells, key=lambda cell: (-cell[2], -cell[3], cell[:2]))[:most]


def per_class(confusion: Any, classes: Sequence[str]) -> dict[str, ClassRecord]:
    """Read precision, recall, F1 and support of each class off a confusion matrix [C, C].

    A share without photos behind it (none of the class, or none predicted as it) is 0.
    """
    counts = np.asarray(confusion, dtype=np.int64)
    columns = np.diag(counts).tolist(), counts.sum(axis=1).tolist(), counts.sum(axis=0).tolist()
    return {
        name: {
            "precision": _share(hit, answered),
            "recall": _share(hit, there),
            "f1": _share(2 * hit, answered + there),
            "support": there,
        }
        for name, hit, there, answered in zip(classes, *columns, strict=True)
    }


def macro_f1(confusion: Any) -> float:
    """Average F1 over the classes of a confusion matrix [C, C], each class counting the same.

    A class that neither occurs nor is ever predicted says nothing about the model and is left out, as in
    scikit-learn's macro average. An empty matrix gives 0.
    """
    counts = np.asarray(confusion, dtype=np.int64)
    involved = counts.sum(axis=0) + counts.sum(axis=1)
    seen = involved > 0
    return float(np.mean(2 * np.diag(counts)[seen] / involved[seen])) if seen.any() else 0.0


@dataclasses.dataclass(frozen=True)
class Metric:
    """One number about a set of photos: what metrics.json, the report, the model card and the closing table loop over.

    Attributes:
        name: its key in metrics.json.
        title: the field's name for it.
        question: its meaning in everyday words.
        note: a hint for reading the number.
        hub: its name in the header of model cards.
        measure: called with probabilities, float [n, C], labels, int [n], and the confusion matrix [C, C].
        show: writes the number for people.
    """

    name: str
    title: str
    question: str
    note: str
    hub: str
    measure: Callable[[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]], float]
    show: Callable[[float], str]


METRICS = (
    Metric(
        "macro_f1",
        "Macro F1",
        "Each class counted the same",
        "macro F1",
        "f1",
        lambda _probabilities, _labels, confusion: macro_f1(confusion),
        percent,
    ),
    Metric(
        "log_loss",
        "Log-loss",
        "Surprise at the truth",
        "log-loss; 0 is perfect",
        "log_loss",
        lambda probabilities, labels, _confusion: log_loss(probabilities, labels),
        "{:.3f}".format,
    ),
    Metric(
        "ece",
        "Calibration error",
        "How far its certainty is off",
        "calibration error, about",
        "ece",
        lambda probabilities, labels, _confusion: expected_calibration_error(probabilities, labels),
        percent,
    ),
)


def show_metrics(record: Mapping[str, Any]) -> list[tuple[Metric, float, str]]:
    """Return each metric with its value and how it is written; a record of before a metric was added lacks it."""
    return [(row, record[row.name], row.show(record[row.name])) for row in METRICS if row.name in record]


def score(probabilities: Any, labels: Any, classes: Sequence[str]) -> ScoreRecord:
    """Compute every number reported about one set of photos: accuracy, METRICS, each class's, and the confusion.

    The predicted class is the one of the highest probability, the first of equals; `classes` are the C names.

    Example:
        >>> record = score([[0.9, 0.1], [0.6, 0.4]], [0, 1], ["cat", "dog"])
        >>> record["accuracy"]["value"], record["confusion"]
        (0.5, [[1, 0], [1, 0]])
    """
    chances, truth = _checked(probabilities, labels)
    predicted = chances.argmax(axis=1)
    confusion = confusion_matrix(truth, predicted, chances.shape[1])
    record = {
        "accuracy": accuracy_record(predicted == truth),
        **{metric.name: metric.measure(chances, truth, confusion) for metric in METRICS},
        "per_class": per_class(confusion, classes),
        "confusion": confusion.tolist(),
    }
    return cast(ScoreRecord, record)


def _coin_tail(k: int, n: int) -> float:
    # 2 P(X <= k), X ~ Binomial(n, 1/2), k <= n/2. The largest term is a quotient of whole numbers, which
    # Python rounds correctly at any size; the others follow from it by factors <= 1: nothing can overflow.
    steps = np.arange(k, 0, -1, dtype=np.float64)
    others = np.cumprod(steps / (n + 1 - steps))
    return min(1.0, 2 * (math.comb(n, k) / (1 << n)) * (1.0 + float(others.sum())))


def _correlation(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> float:
    n, right, also = before.size, int(np.count_nonzero(before)), int(np.count_nonzero(after))
    margins = right * (n - right) * also * (n - also)
    if margins == 0:
        return 0.0
    excess: float = n * int(np.count_nonzero(before & after)) - right * also  # eh - fg, from the margins
    if excess > 0:
        excess = max(excess - n / 2, 0.0)
    return excess / math.sqrt(margins)


def _third_side(one: float, other: float, phi: float) -> float:
    # Of two equal sides and no angle the square is 0, or by rounding a little less.
    return math.sqrt(max(one**2 - 2 * phi * one * other + other**2, 0.0))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _checked(probabilities: Any, labels: Any) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    chances = np.asarray(probabilities, dtype=np.float64)
    if chances.ndim != 2 or 0 in chances.shape:
        raise ValueError(f"probabilities must be n x C with at least one photo. Got shape {chances.shape}")
    if not np.isfinite(chances).all():
        raise ValueError("probabilities must be finite numbers. Got NaN or infinity")
    truth = np.asarray(labels, np.int64)
    if truth.size != chances.shape[0]:
        raise ValueError(f"every photo needs one label. Got {truth.size} for {chances.shape[0]} photos")
    return chances, truth
