"""No photo set aside: each is judged by a model of its own making that had not seen it."""

import json
from pathlib import Path

import pytest

from helpers.commands import read_csv
from helpers.training import tiny_settings, write_photos
from pronk.dataset.loading import Dataset, Photo, read_split_file
from pronk.errors import SettingsError
from pronk.training import cross_fitting, recipe
from pronk.training.cross_fitting import FOLDS, cross_fit
from pronk.training.recipe import take_steps, train
from pronk.training.run_folder import Run


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos", 12)


@pytest.fixture
def go(tmp_path, photos, tiny_weights, workers_inside):
    """Train in this process, with one cache for all runs of a test."""

    def run(out="run", **options):
        settings = tiny_settings(tiny_weights, judge="cross", **options.pop("settings", {}))
        return train(photos, out=tmp_path / out, settings=settings, cache=tmp_path / "cache", **options)

    return run


def test_every_photo_is_judged_once_by_a_model_without_it_and_its_copies(tmp_path):
    photos = tuple(Photo(f"{i}.png", "ab"[i % 2], "train", f"{i}", f"g{i // 3}") for i in range(60))
    dataset = Dataset(tmp_path, ("a", "b"), photos, (), 60)
    trained = []

    def train(run):
        trained.append(read_split_file(Path(run.settings.split)))
        assert {photo.part for photo in trained[-1]} == {"test"}
        if len(trained) == 3:
            raise KeyboardInterrupt
        return [{"path": photo.path, "part": "test"} for photo in trained[-1]] + [{"path": "x", "part": "val"}]

    run = Run(tiny_settings("w", judge="cross"), None, tmp_path, tmp_path, None)
    with pytest.raises(KeyboardInterrupt):
        cross_fit(dataset, run, train)
    rows = cross_fit(dataset, run, train)
    assert sorted(row["path"] for row in rows) == sorted(photo.path for photo in photos)
    assert len(trained) == FOLDS + 1, "what was done is not done again"
    groups = [{photo.group for photo in left_out} for left_out in trained if left_out != trained[2]]
    assert sum(map(len, groups)) + len({photo.group for photo in trained[2]}) == len({photo.group for photo in photos})


def test_the_test_is_that_of_all_photos_and_the_model_learns_from_more(go, photos):
    said = []
    result = go(settings={"frozen_only": True, "fail_under": 0.99}, on_progress=lambda *step: said.append(step))
    metrics = result.metrics
    assert metrics.cross == {"models": FOLDS}
    assert metrics.test["accuracy"]["n"] == 24
    assert (metrics.counts["train"] + metrics.counts["val"], metrics.counts["test"]) == (24, 0)
    rows = [row for row in read_csv(result.folder / "predictions.csv") if row["part"] == "test"]
    assert sorted(row["path"] for row in rows) == sorted(
        str(path.relative_to(photos)) for path in photos.rglob("*.png")
    )
    assert result.gate, "the limit is held against the interval of all photos"
    for name in ("report.html", "model/README.md"):
        text = " ".join((result.folder / name).read_text().split())
        assert f"judged by the one of {FOLDS} models" in text, name
    assert ("judge", 100 * FOLDS, 100 * FOLDS) in said
    assert not (result.folder / ".work").exists()
    assert 'judge = "cross"' in (result.folder / "settings.toml").read_text()


def test_stopped_between_it_ends_the_same(go, monkeypatch):
    monkeypatch.setattr(cross_fitting, "FOLDS", 2)

    def stop(stage, done, total):
        if (stage, done) == ("judge", 100):
            raise KeyboardInterrupt

    whole = go(settings={"frozen_only": True})
    with pytest.raises(KeyboardInterrupt):
        go("stopped", settings={"frozen_only": True}, on_progress=stop)
    trained = []
    monkeypatch.setattr(recipe, "take_steps", lambda *given: trained.append(given) or take_steps(*given))
    resumed = go("stopped", settings={"frozen_only": True}, resume=True)
    assert len(trained) == 2, "one fold, and the model itself"
    assert (resumed.folder / "predictions.csv").read_bytes() == (whole.folder / "predictions.csv").read_bytes()
    one, other = (json.loads((run.folder / "metrics.json").read_text())["test"] for run in (whole, resumed))
    assert one == other


@pytest.mark.more
def test_both_phases_are_gone_through(go, monkeypatch):
    monkeypatch.setattr(cross_fitting, "FOLDS", 2)
    result = go()
    assert result.metrics.fine_tuned
    assert result.metrics.test["accuracy"]["n"] == 24
    assert result.metrics.test["accuracy"]["value"] > 0.6


def test_photos_that_come_in_parts_are_refused(tmp_path, tiny_weights):
    (tmp_path / "split.csv").write_text("path,label,part\n")
    with pytest.raises(SettingsError, match="deals all photos anew"):
        tiny_settings(tiny_weights, judge="cross", split=str(tmp_path / "split.csv"))
    with pytest.raises(SettingsError, match="sets no photos aside"):
        tiny_settings(tiny_weights, judge="cross", test=0.3)
    for part in ("train", "test"):
        write_photos(tmp_path / "parts" / part, 3)
    with pytest.raises(SettingsError, match="come in parts") as caught:
        train(tmp_path / "parts", out=tmp_path / "run", settings=tiny_settings(tiny_weights, judge="cross"))
    assert "leave --judge out" in caught.value.hint
    assert not (tmp_path / "run").exists()
