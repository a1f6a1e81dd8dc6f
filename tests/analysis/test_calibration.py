import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pronk.analysis.calibration import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    MOST_SCORES,
    SetScores,
    Unknown,
    conformal_threshold,
    fit_temperature,
    temper,
)
from pronk.analysis.head import softmax
from pronk.analysis.novelty import fit_novelty


def draw_answers(n, classes, *, seed=0, sharpness=1.0):
    """Probabilities that tell the truth at sharpness 1, and targets drawn from them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, classes))
    honest = softmax(logits)
    targets = np.array([rng.choice(classes, p=row) for row in honest])
    return softmax(logits * sharpness), targets


# --- temperature


@pytest.mark.parametrize("sharpness", [0.6, 1.0, 2.0, 4.0])
def test_the_temperature_that_was_taken_away_is_found_again(sharpness):
    probabilities, targets = draw_answers(4000, 4, sharpness=sharpness)
    assert fit_temperature(probabilities, targets) == pytest.approx(sharpness, rel=0.08)


def test_a_few_photos_that_are_all_right_do_not_ask_for_the_surest_answers():
    probabilities, targets = np.array([[0.99, 0.01]] * 10 + [[0.01, 0.99]] * 10), np.array([0] * 10 + [1] * 10)
    assert 0.8 < fit_temperature(probabilities, targets) <= 1.0


def test_one_mistake_among_many_classes_does_not_ask_for_unsure_answers():
    probabilities = np.where(np.eye(10)[np.arange(50) % 10], 0.9991, 0.0001)
    targets = np.arange(50) % 10
    assert 0.8 < fit_temperature(probabilities, targets) <= 1.0
    targets[0] = 1
    assert 1.0 < fit_temperature(probabilities, targets) < 2.0


@given(st.integers(1, 30), st.integers(2, 5), st.integers(0, 100))
def test_it_keeps_its_bounds_and_the_order_of_the_classes(n, classes, seed):
    rng = np.random.default_rng(seed)
    probabilities, targets = rng.dirichlet(np.full(classes, 0.1), n), rng.integers(0, classes, n)
    found = fit_temperature(probabilities, targets)
    assert LOWEST_TEMPERATURE <= found <= HIGHEST_TEMPERATURE
    tempered = temper(probabilities, found)
    np.testing.assert_allclose(tempered.sum(axis=1), 1)
    np.testing.assert_array_equal(tempered.argmax(axis=1), np.clip(probabilities, 1e-7, 1).argmax(axis=1))
    np.testing.assert_allclose(temper(tempered, 1 / found), temper(probabilities, 1.0), atol=1e-6)


# --- thresholds


@pytest.mark.parametrize(
    ("n", "coverage", "rank"),
    [
        (19, 0.95, 19),
        (49, 0.95, 48),
        (99, 0.99, 99),
        (100, 0.9, 91),
        (18, 0.95, None),
        (98, 0.99, None),
        (0, 0.5, None),
    ],
)
def test_the_threshold_is_the_score_of_the_stated_rank_and_too_few_scores_promise_nothing(n, coverage, rank):
    scores = np.random.default_rng(0).permutation(n).astype(float) + 1
    assert conformal_threshold(scores, coverage) == rank


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.5, float("nan")])
def test_a_coverage_is_a_share(coverage):
    with pytest.raises(ValueError, match="coverage"):
        conformal_threshold(np.zeros(100), coverage)


def test_the_promise_is_kept_over_many_validation_sets():
    rng, kept = np.random.default_rng(0), []
    for _ in range(2000):
        scores = rng.exponential(size=50)
        kept.append(scores[0] <= conformal_threshold(scores[1:], 0.95))
    assert 0.945 <= np.mean(kept) <= 0.975


# --- sets


def test_sets_hold_the_truth_as_often_as_promised():
    probabilities, targets = draw_answers(6000, 5, sharpness=2.0)  # also of a model that is too sure
    sets = SetScores.fit(probabilities[:1000], targets[:1000])
    inside = [target in sets.choose(row, 0.9) for row, target in zip(probabilities, targets, strict=True)][1000:]
    assert 0.88 <= np.mean(inside) <= 0.93


def test_too_few_photos_admit_every_class_and_no_set_is_empty():
    sets = SetScores.fit(np.array([[0.9, 0.1]] * 18), np.zeros(18, int))
    assert sets.choose(np.array([0.999, 0.001]), 0.95).tolist() == [0, 1]
    sure = SetScores.fit(np.array([[0.99, 0.01]] * 99), np.zeros(99, int))
    assert sure.choose(np.array([0.45, 0.55]), 0.5).tolist() == [1]


@given(st.integers(1, 3 * MOST_SCORES), st.floats(0.01, 0.99), st.integers(0, 9))
def test_of_many_scores_enough_are_kept(n, coverage, seed):
    scores = np.random.default_rng(seed).random((n, 1))
    sets = SetScores.fit(np.hstack([scores, 1 - scores]), np.zeros(n, int))
    exact = conformal_threshold(1 - scores[:, 0], coverage)
    assert len(sets.scores) <= MOST_SCORES
    if exact is None:
        assert sets.threshold(coverage) == 1
    else:
        assert sets.threshold(coverage) >= exact
        assert n > MOST_SCORES or sets.threshold(coverage) == exact
    again = SetScores.from_record(json.loads(json.dumps(sets.to_record())))
    assert again.n == sets.n
    np.testing.assert_array_equal(again.scores, sets.scores)


@pytest.mark.parametrize(
    "changes", [{"n": 5}, {"n": 2.0}, {"n": 0, "scores": []}, {"scores": [0.5, 0.1]}, {"scores": [0.1, float("nan")]},
                {"scores": [0.1, 1.5]}, {"scores": [[0.1, 0.2]]}]
)  # fmt: skip
def test_scores_that_cannot_be_are_refused(changes):
    with pytest.raises(ValueError, match=r"scores|photos"):
        SetScores.from_record({"n": 2, "scores": [0.1, 0.2]} | changes)


# --- unknown


def make_unknown(**changes):
    rng = np.random.default_rng(0)
    novelty = fit_novelty(rng.random((40, 32), np.float32), np.arange(40) % 2)
    return Unknown(novelty, **({"threshold": 0.5, "coverage": 0.95, "n": 49} | changes))


def test_unknown_comes_back_from_its_record():
    unknown = make_unknown()
    again = Unknown.from_record(json.loads(json.dumps(unknown.to_record())))
    assert (again.threshold, again.coverage, again.n) == (0.5, 0.95, 49)
    features = np.random.default_rng(1).random((5, 32), np.float32)
    np.testing.assert_allclose(again.novelty.distance(features), unknown.novelty.distance(features), rtol=1e-6)


@pytest.mark.parametrize("changes", [{"threshold": float("nan")}, {"threshold": float("inf")}, {"coverage": 1.0}])
def test_a_threshold_is_a_number(changes):
    with pytest.raises(ValueError, match="threshold"):
        Unknown.from_record(make_unknown(**changes).to_record())
