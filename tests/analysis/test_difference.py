"""Right and wrong answers -> a difference with its interval: worked examples, and exact coverage."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pronk.analysis.difference import paired_difference
from pronk.analysis.metrics import wilson_interval

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


def test_models_that_always_agree_may_still_differ():
    record = difference_of(46, 0, 0, 3)
    assert record["value"] == 0
    assert record["low"] < 0 < record["high"]
    whole = difference_of(20, 0, 0, 0)
    assert whole["low"] == -whole["high"] == pytest.approx(wilson_interval(20, 20)[0] - 1)


def every_outcome(n):
    """All ways to deal n photos to the four cells, with the logarithm of their number of orders: [m, 4], [m]."""
    outcomes = np.array(
        [(e, f, g, n - e - f - g) for e in range(n + 1) for f in range(n + 1 - e) for g in range(n + 1 - e - f)]
    )
    ways = [math.lgamma(n + 1) - sum(math.lgamma(count + 1) for count in row) for row in outcomes.tolist()]
    return outcomes, np.array(ways)


@pytest.mark.parametrize("n", [12, 20])
def test_95_percent_of_the_intervals_hold_the_truth(n):
    """Its exact coverage, by every possible outcome: near 95 % on average and never far below, as Newcombe found."""
    outcomes, ways = every_outcome(n)
    records = [difference_of(*row) for row in outcomes.tolist()]
    low, high = (np.array([record[name] for record in records]) for name in ("low", "high"))
    coverage = []
    for first in (0.02, 0.05, 0.1, 0.2):
        for second in (0.02, 0.05, 0.1, 0.2, 0.3):
            for neither in (0.03, 0.1, 0.3):
                shares = np.array([1 - first - second - neither, first, second, neither])
                chance = np.exp(ways + outcomes @ np.log(shares))
                held = (low <= second - first + 1e-12) & (high >= second - first - 1e-12)
                coverage.append(float(chance @ held))
                assert chance.sum() == pytest.approx(1)
    assert 0.95 <= np.mean(coverage) <= 0.985
    assert min(coverage) > 0.93


def test_it_narrows_as_photos_are_added():
    def width(times):
        record = difference_of(*(times * count for count in (88, 2, 4, 6)))
        return record["high"] - record["low"]

    assert width(4) == pytest.approx(width(1) / 2, rel=0.15)
    assert width(100) == pytest.approx(width(25) / 2, rel=0.02)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="the same photos"):
        paired_difference([True], [True, False])
    with pytest.raises(ValueError, match="at least one answer"):
        paired_difference([], [])
