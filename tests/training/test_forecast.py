"""`pronk train --dry-run`: what would be done, how long it takes, how much is kept."""

import json

import pytest

from helpers.commands import fails, ok, run_inside
from helpers.training import tiny_settings, write_photos
from pronk.training.forecast import forecast
from pronk.training.recipe import train


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos", 10)


def test_it_says_what_training_then_does(photos, tmp_path, tiny_weights):
    settings, cache = tiny_settings(tiny_weights, frozen_only=True), tmp_path / "cache"
    told = forecast(photos, settings=settings, cache=cache)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "photos"], "no run folder"
    assert told["rows"]["missing"] == told["rows"]["all"] > 0
    run = train(photos, out=tmp_path / "run", settings=settings, cache=cache)
    assert told["counts"] == run.metrics.counts
    assert told["classes"] == run.metrics.classes
    after = forecast(photos, settings=settings, cache=cache)
    assert after["rows"] == {"all": told["rows"]["all"], "missing": 0}
    assert after["seconds"]["extract"] == 0
    kept = sum(path.stat().st_size for path in (cache / "rows").rglob("*.segment"))
    assert [kept, kept] == pytest.approx(told["bytes"], rel=0.01)


def test_phase_2_has_a_range_unless_it_is_left_out_or_asked_for(photos, tmp_path, tiny_weights):
    def ask(**settings):
        seconds = forecast(photos, settings=tiny_settings(tiny_weights, **settings), cache=tmp_path)["seconds"]
        return seconds["fine_tune"]

    assert ask(frozen_only=True) == [0, 0]
    low, high = ask(frozen_only=False, views="auto", epochs="auto", learning_rate="auto")
    assert low <= high
    low, high = ask(frozen_only=False, views=2, epochs=5, learning_rate=0.01)
    assert low == high


def test_the_command_prints_it_and_makes_nothing(photos, tmp_path, tiny_weights):
    command = [
        "train",
        photos,
        "--weights",
        tiny_weights,
        "--image-size",
        "32",
        "--cache",
        tmp_path / "cache",
        "--dry-run",
    ]
    text = ok(run_inside(*command))
    assert text.startswith("photos: 20 in 2 classes; train ")
    assert " in all" in text
    told = json.loads(ok(run_inside(*command, "--json")))
    assert set(told) == {"classes", "counts", "findings", "rows", "bytes", "seconds"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "photos"]


def test_what_training_refuses_it_refuses(tmp_path, tiny_weights):
    (tmp_path / "photos" / "one").mkdir(parents=True)
    command = ["train", tmp_path / "photos", "--weights", tiny_weights, "--image-size", "32", "--dry-run"]
    fails(run_inside(*command))
