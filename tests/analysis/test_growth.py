import dataclasses

import numpy as np
import pytest

from helpers.tables import make_table
from pronk.analysis.folds import cross_validate
from pronk.analysis.growth import SHARES, advise, describe_growth, fit_powers, forecast, measure_growth

SIZES = np.array([20.0, 40.0, 80.0, 160.0, 200.0])


def test_it_learns_from_growing_shares_and_judges_by_others():
    growth = measure_growth(make_table(100, 2, distance=2.0), seed=0, folds=5, repeats=2)
    np.testing.assert_allclose(growth.photos, [80 * share for share in SHARES], atol=1.0)
    assert growth.right.shape == (len(SHARES), 100)
    assert growth.right[-1].mean() > growth.right[0].mean()
    np.testing.assert_allclose(growth.answers.sum(axis=1), 1, atol=1e-9)


@pytest.mark.parametrize(
    ("floor", "scale", "power"), [(0.02, 1.0, 1.0), (0.1, 0.5, 0.3), (0.0, 2.0, 0.5), (0.2, 0, 0.5)]
)
def test_a_clean_power_law_is_foreseen(floor, scale, power):
    errors = floor + scale * SIZES**-power
    found = fit_powers(SIZES, errors[None], [400.0], noise=np.full(5, 1e-7))
    assert found[0, 0] == pytest.approx(floor + scale * 400.0**-power, abs=5e-3)


def test_more_photos_never_harm():
    rng = np.random.default_rng(0)
    errors = rng.uniform(0, 0.4, (300, 5))
    found = fit_powers(SIZES, errors, [200.0, 300.0, 5000.0], noise=np.full(5, 1e-3))
    assert (np.diff(found, axis=1) <= 1e-12).all()
    assert found.min() >= 0
    assert found.max() <= 1
    drawn = fit_powers(SIZES, errors, [200.0, 300.0], noise=np.full(5, 1e-3), chance=rng.random(300))
    assert (np.diff(drawn, axis=1) <= 1e-12).all()


def test_all_right_is_no_certainty():
    growth = measure_growth(make_table(60, 2, distance=40.0), seed=0, folds=3, repeats=1)
    ahead = forecast(growth, 120)
    assert ahead["accuracy"]["value"] == pytest.approx(1.0, abs=0.02)
    assert ahead["accuracy"]["low"] < 0.97


def test_the_forecast_holds_on_clouds_whose_truth_is_known():
    """From 80 photos each, what 200 of the same kind reach: in most of 5 draws inside the stated interval."""
    held = 0
    for seed in range(5):
        small = measure_growth(make_table(80, 2, distance=1.6, seed=seed), seed=seed, folds=5, repeats=1)
        more = make_table(300, 2, distance=1.6, seed=100 + seed)
        reached = (cross_validate(more, k=3, repeats=1, seed=seed, strength=0.03).argmax(axis=2) == more.targets).mean()
        said = forecast(small, 200.0, seed=seed)["accuracy"]
        held += said["low"] <= reached <= said["high"]
    assert held >= 4


def test_the_record_has_points_forecast_and_advice():
    table = make_table(60, 3, distance=1.0)
    record, again = (describe_growth(measure_growth(table, seed=0, folds=3, repeats=1)) for _ in range(2))
    assert record == again
    assert list(record) == ["points", "forecast", "confused", "advice"]
    assert [point["share"] for point in record["points"]] == list(SHARES)
    ahead = record["forecast"]
    for share in (ahead["accuracy"], ahead["gain"], *(point["accuracy"] for point in record["points"])):
        assert share["low"] <= share["value"] <= share["high"]
    assert ahead["more_per_class"] == 20
    assert ahead["photos"] == record["points"][-1]["photos"] + 60


def test_where_more_photos_do_not_help_the_confused_classes_are_named():
    # Two of three classes are the same cloud: nothing can tell them apart.
    table = make_table(150, 3, distance=6.0)
    X = table.features.copy()
    X[table.targets == 2] -= 6.0 * np.eye(3, 12, dtype=np.float32)[2] - 6.0 * np.eye(3, 12, dtype=np.float32)[1]
    same = dataclasses.replace(table, features=X)
    record = describe_growth(measure_growth(same, seed=0, folds=5, repeats=2))
    assert [pair["classes"] for pair in record["confused"]] == [["b", "c"]]
    if record["forecast"]["gain"]["value"] < 0.005:
        assert "these classes are confused: b and c" in record["advice"]


def test_the_advice_says_both():
    gain = {"value": 0.015, "low": 0.004, "high": 0.026}
    assert advise(gain, 100, []).startswith("100 more photos per class would bring about +1.5 points")
    none = {"value": 0.001, "low": 0.0, "high": 0.004}
    pairs = [{"classes": ["bear", "dog"], "mistakes": 3}]
    said = advise(none, 40, pairs)
    assert said.startswith("More photos will hardly help: 40 more per class would bring about +0.1 points (0.0 to 0.4)")
    assert "these classes are confused: bear and dog" in said


def test_of_very_few_photos_no_number_comes_twice():
    record = describe_growth(measure_growth(make_table(4), seed=0))
    photos = [point["photos"] for point in record["points"]]
    assert photos == sorted(set(photos))
    assert record["points"][-1]["share"] == 1.0
