"""Arrays -> numbers: against the textbook formulas and against scikit-learn and SciPy."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pronk.analysis.metrics import (
    METRICS,
    confusion_matrix,
    expected_calibration_error,
    log_loss,
    macro_f1,
    mcnemar_exact,
    paired_difference,
    per_class,
    score,
    wilson_interval,
)

relaxed = settings(deadline=None)  # the first example imports scikit-learn or SciPy


@st.composite
def answers(draw, max_photos=60):
    """Probabilities [n, C] float32 and labels [n]."""
    n, classes = draw(st.integers(1, max_photos)), draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sharpness = draw(st.sampled_from([0.0, 1.0, 5.0, 200.0]))
    logits = rng.normal(size=(n, classes)) * sharpness
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances = (chances / chances.sum(axis=1, keepdims=True)).astype(np.float32)
    return chances, rng.integers(0, classes, size=n)


# --- intervals


@relaxed
@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys_wilson(case):
    scipy_stats = pytest.importorskip("scipy.stats")
    hits, n = case
    expected = scipy_stats.binomtest(hits, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson_interval(hits, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@relaxed
@given(st.integers(0, 10**12).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_mirrors(case):
    hits, n = case
    low, high = wilson_interval(hits, n)
    assert 0 <= low <= high <= 1
    if n:
        assert low <= hits / n <= high
    mirrored = wilson_interval(n - hits, n)
    assert (low, high) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]), abs=1e-12)


def test_wilson_of_known_values():
    # Wilson's method for 81 of 263, worked out by Newcombe (Statistics in Medicine 17, 1998), table I.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(20, 20) == pytest.approx((0.8389, 1.0), abs=5e-5)


# --- comparison of two models


@relaxed
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial(gained, lost):
    before = np.array([False] * gained + [True] * lost + [True, False], dtype=bool)
    after = np.array([True] * gained + [False] * lost + [True, False], dtype=bool)
    record = mcnemar_exact(before, after)
    n = gained + lost
    tail = sum(Fraction(math.comb(n, i), 2**n) for i in range(min(gained, lost) + 1))
    assert (record["gained"], record["lost"]) == (gained, lost)
    assert record["p"] == pytest.approx(float(min(Fraction(1), 2 * tail)), rel=1e-13)
    assert mcnemar_exact(after, before)["p"] == record["p"]


@pytest.mark.parametrize(("gained", "lost"), [(4800, 5200), (40_000, 39_000), (10, 5000)])
def test_mcnemar_of_many_photos(gained, lost):
    scipy_stats = pytest.importorskip("scipy.stats")
    before = np.repeat([False, True], [gained, lost])
    p = mcnemar_exact(before, ~before)["p"]
    assert p == pytest.approx(scipy_stats.binomtest(gained, gained + lost).pvalue, rel=1e-8)


def test_mcnemar_at_the_edges():
    assert mcnemar_exact([], []) == {"gained": 0, "lost": 0, "p": 1.0}
    assert mcnemar_exact([True, False], [True, False]) == {"gained": 0, "lost": 0, "p": 1.0}
    assert mcnemar_exact([True, False], [False, True]) == {"gained": 1, "lost": 1, "p": 1.0}
    with pytest.raises(ValueError, match="the same photos"):
        mcnemar_exact([True], [True, False])
    with pytest.raises(ValueError, match="the same photos"):
        paired_difference([True], [True, False])
    with pytest.raises(ValueError, match="at least one answer"):
        paired_difference([], [])


# --- difference of two models


cells = st.tuples(*[st.integers(0, 80)] * 4).filter(any)


def difference_of(both, first, second, neither):
    """Of so many photos, right in both, only in the first, only in the second, in neither."""
    before = np.repeat([True, True, False, False], [both, first, second, neither])
    after = np.repeat([True, False, True, False], [both, first, second, neither])
    return paired_difference(before, after)


@pytest.mark.parametrize(
    ("counts", "value", "low", "high", "digits"),
    [
        # Altman, Machin, Bryant and Gardner, "Statistics with confidence" (2000), chapter 6: 41 pairs.
        ((14, 0, 5, 22), 0.122, 0.011, 0.226, 3),
        # Fagerland, Lydersen and Laake, "Statistical analysis of contingency tables" (2017), chapter 8: 161 pairs;
        # they take the first minus the second.
        ((59, 16, 6, 80), -0.0621, -0.1186, -0.0046, 4),
        ((59, 6, 16, 80), 0.0621, 0.0046, 0.1186, 4),
    ],
)
def test_published_examples(counts, value, low, high, digits):
    record = difference_of(*counts)
    assert {name: round(number, digits) for name, number in record.items()} == {
        "value": value, "low": low, "high": high,
    }  # fmt: skip
    assert json.loads(json.dumps(record)) == record


@given(cells)
def test_it_is_the_formula_in_its_own_words(counts):
    e, f, g, h = counts
    n = sum(counts)
    before, after = (e + f) / n, (e + g) / n
    (low_before, high_before), (low_after, high_after) = wilson_interval(e + f, n), wilson_interval(e + g, n)
    product = (e + f) * (g + h) * (e + g) * (f + h)
    excess = e * h - f * g
    if excess > 0:
        excess = max(excess - n / 2, 0)
    phi = excess / math.sqrt(product) if product else 0.0
    down = (after - low_after) ** 2 + (high_before - before) ** 2
    down -= 2 * phi * (after - low_after) * (high_before - before)
    up = (high_after - after) ** 2 + (before - low_before) ** 2
    up -= 2 * phi * (high_after - after) * (before - low_before)
    record = difference_of(*counts)
    assert record["value"] == (g - f) / n
    assert record["low"] == pytest.approx((g - f) / n - math.sqrt(max(down, 0)), abs=1e-7)
    assert record["high"] == pytest.approx((g - f) / n + math.sqrt(max(up, 0)), abs=1e-7)


@given(cells)
def test_it_holds_the_difference_and_mirrors(counts):
    e, f, g, h = counts
    record, mirrored = difference_of(e, f, g, h), difference_of(e, g, f, h)
    assert -1 <= record["low"] <= record["value"] <= record["high"] <= 1
    assert record["value"] == -mirrored["value"]
    assert (record["low"], record["high"]) == pytest.approx((-mirrored["high"], -mirrored["low"]), abs=1e-12)
    swapped = difference_of(h, f, g, e)  # counting the wrong answers instead turns the sign
    assert (record["low"], record["high"]) == pytest.approx((swapped["low"], swapped["high"]), abs=1e-12)


# --- log-loss


@relaxed
@given(answers())
def test_log_loss_is_scikit_learns(case):
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    chances, labels = case
    clipped = np.clip(chances.astype(np.float64), 1e-7, 1.0)
    rows = clipped / clipped.sum(axis=1, keepdims=True)
    expected = sklearn_metrics.log_loss(labels, rows, labels=range(chances.shape[1]))
    assert log_loss(rows, labels) == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert log_loss(chances, labels) == pytest.approx(expected, rel=1e-5, abs=2e-6)


def test_log_loss_of_a_sure_mistake_is_finite():
    assert log_loss([[1.0, 0.0]], [1]) == pytest.approx(16.118, abs=1e-3)
    perfect = log_loss([[1.0, 0.0]], [0])
    assert perfect == 0.0
    assert math.copysign(1, perfect) == 1


# --- calibration


@relaxed
@given(answers())
def test_ece_is_the_definition_when_confidences_differ(case):
    chances, labels = case
    confidence = chances.max(axis=1).astype(np.float64)
    if len(set(confidence)) < confidence.size:
        return
    hits = chances.argmax(axis=1) == labels
    total = 0.0
    for members in np.array_split(np.argsort(confidence), 10):
        if members.size:
            gap = abs(hits[members].mean() - confidence[members].mean())
            total += members.size / labels.size * gap
    assert expected_calibration_error(chances, labels) == pytest.approx(total, abs=1e-12)


@relaxed
@given(answers(), st.integers(0, 2**32 - 1))
def test_ece_does_not_depend_on_the_order_of_photos(case, seed):
    chances, labels = case
    order = np.random.default_rng(seed).permutation(labels.size)
    value = expected_calibration_error(chances, labels)
    assert 0 <= value <= 1
    assert expected_calibration_error(chances[order], labels[order]) == pytest.approx(value, abs=1e-12)


def test_ece_of_one_confidence_everywhere():
    # 90 of 100 right at .9 each: perfectly calibrated, in whatever order the mistakes come.
    chances = np.tile([0.9, 0.1], (100, 1))
    labels = np.array([1] * 10 + [0] * 90)
    assert expected_calibration_error(chances, labels) == pytest.approx(0.0, abs=1e-12)


# --- confusion


@relaxed
@given(answers(), st.integers(0, 60))
def test_confusion_adds_up(case, cut):
    chances, labels = case
    classes, predicted = chances.shape[1], chances.argmax(axis=1)
    whole = confusion_matrix(labels, predicted, classes)
    parts = [confusion_matrix(labels[part], predicted[part], classes) for part in (np.s_[:cut], np.s_[cut:])]
    assert np.array_equal(whole, parts[0] + parts[1])
    assert whole.sum() == labels.size
    assert np.array_equal(whole.sum(axis=1), np.bincount(labels, minlength=classes))
    assert np.array_equal(whole.T, confusion_matrix(predicted, labels, classes))


@settings(relaxed, max_examples=40)
@given(answers())
def test_class_numbers_are_scikit_learns(case):
    metrics = pytest.importorskip("sklearn.metrics")
    chances, labels = case
    classes, predicted = chances.shape[1], chances.argmax(axis=1)
    counts = confusion_matrix(labels, predicted, classes)
    assert np.array_equal(counts, metrics.confusion_matrix(labels, predicted, labels=range(classes)))
    expected = metrics.precision_recall_fscore_support(labels, predicted, labels=range(classes), zero_division=0)
    table = per_class(counts, [f"c{index}" for index in range(classes)])
    found = [[row[key] for row in table.values()] for key in ("precision", "recall", "f1", "support")]
    assert np.allclose(found, expected)
    wanted = metrics.f1_score(labels, predicted, average="macro", zero_division=0)
    assert macro_f1(counts) == pytest.approx(wanted)


def test_a_class_nobody_saw_is_no_part_of_the_mean():
    assert macro_f1([[3, 0, 0], [0, 0, 0], [0, 0, 2]]) == 1.0
    assert macro_f1([[0, 0], [0, 0]]) == 0.0
    unseen = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert per_class([[3, 0], [0, 0]], ["a", "b"])["b"] == unseen


# --- everything at once


@relaxed
@given(answers())
def test_score_is_the_test_record(case):
    chances, labels = case
    names = [f"class {index}" for index in range(chances.shape[1])]
    record = score(chances, labels, names)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert list(record) == ["accuracy", *(metric.name for metric in METRICS), "per_class", "confusion"]
    assert list(record["per_class"]) == names
    assert sum(map(sum, record["confusion"])) == labels.size
    hits = int(np.trace(record["confusion"]))
    low, high = wilson_interval(hits, labels.size)
    assert record["accuracy"] == {"value": hits / labels.size, "low": low, "high": high, "n": labels.size}
    assert record["log_loss"] == log_loss(chances, labels)


@pytest.mark.parametrize(
    ("chances", "labels", "message"),
    [
        ([], [], "at least one photo"),
        ([[0.5, 0.5]], [0, 1], "one label"),
        ([[float("nan"), 0.5]], [0], "finite"),
        ([[1.0]], [0], "zip"),
    ],
)
def test_score_refuses_what_it_cannot_count(chances, labels, message):
    with pytest.raises(ValueError, match=message):
        score(chances, labels, ["a", "b"])
