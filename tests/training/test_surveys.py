"""Folders and runs -> studies of their photos, in Python and on the command line."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from helpers.training import run_pronk, tiny_settings, write_photos
from pronk.analysis.growth import SHARES
from pronk.analysis.labels import Suspicion
from pronk.errors import DataError
from pronk.report.gallery import show_suspicions
from pronk.training.recipe import train
from pronk.training.surveys import curve, survey


@pytest.fixture
def workers_here(monkeypatch, workers_inside):
    monkeypatch.setattr("pronk.training.surveys.start_workers", surveys_threads)


def surveys_threads():
    from pronk.pools import start_threads

    return start_threads()


def test_a_survey_has_a_row_of_features_per_photo(tiny_photos, tiny_weights, tmp_path, workers_here):
    found = survey(tiny_photos, settings=tiny_settings(tiny_weights), cache=tmp_path)
    assert len(found.table) == len(found.dataset.photos) == 28
    assert found.table.features.shape == (28, 1280)
    assert found.table.classes == ("cold", "warm")
    assert found.table.paths == tuple(photo.path for photo in found.dataset.photos)
    np.testing.assert_array_equal(found.table.targets, [path.startswith("warm") for path in found.table.paths])


def test_a_second_survey_computes_nothing(tiny_photos, tiny_weights, tmp_path, workers_here, monkeypatch):
    first = survey(tiny_photos, settings=tiny_settings(tiny_weights), cache=tmp_path)

    def refuse(*arguments):
        raise AssertionError("a photo was decoded again")

    monkeypatch.setattr("pronk.training.rows.draw_wanted", refuse)
    monkeypatch.setattr("pronk.dataset.scan.decode", refuse)
    again = survey(tiny_photos, settings=tiny_settings(tiny_weights), cache=tmp_path)
    np.testing.assert_array_equal(first.table.features, again.table.features)


def test_a_survey_takes_what_a_run_could_not_be_trained_on(tiny_weights, tmp_path, workers_here):
    """Two photos in a class are too few for three parts, and a bad file is only left out."""
    photos = write_photos(tmp_path / "photos", 2)
    (photos / "warm" / "bad.jpg").write_bytes(b"")
    found = survey(photos, settings=tiny_settings(tiny_weights), cache=tmp_path / "cache")
    assert len(found.table) == 4
    assert "zero_byte" in [finding.code for finding in found.dataset.findings]


def test_nothing_usable_is_an_error(tiny_weights, tmp_path, workers_here):
    for label in ("cold", "warm"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        (tmp_path / "photos" / label / "1.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 2 files in .* is usable: 2 zero_byte"):
        survey(tmp_path / "photos", settings=tiny_settings(tiny_weights), cache=tmp_path / "cache")


def test_the_curve_is_the_same_twice_and_says_its_points(tiny_photos, tiny_weights, tmp_path, workers_here):
    told = []
    settings = tiny_settings(tiny_weights)
    record = curve(tiny_photos, settings=settings, cache=tmp_path, on_progress=lambda *step: told.append(step))
    assert [point["share"] for point in record["points"]] == list(SHARES)
    assert record["points"][-1]["photos"] == pytest.approx(25, abs=1)
    assert record["points"][-1]["accuracy"]["value"] > 0.8
    assert told[-1][0] == "curve"
    assert told[-1][1] == told[-1][2]
    assert record == curve(tiny_photos, settings=settings, cache=tmp_path)
    json.dumps(record)


def test_a_run_looks_at_its_photos(tiny_run):
    curve_record = tiny_run.metrics.curve
    assert [point["share"] for point in curve_record["points"]] == list(SHARES)
    # Test photos take no part: 28 photos, of which 4 are for the test; the largest share learns from 4 folds of 5.
    counts = tiny_run.metrics.counts
    assert curve_record["points"][-1]["accuracy"]["n"] == counts["train"] + counts["val"]
    page = (tiny_run.folder / "report.html").read_text()
    assert 'id="growth"' in page
    assert curve_record["advice"] in page
    assert not (tiny_run.folder / "folds.csv").exists()


def test_folds_judge_every_photo(tiny_photos, tiny_weights, tmp_path, workers_inside):
    settings = tiny_settings(tiny_weights, folds=4, frozen_only=True)
    result = train(tiny_photos, out=tmp_path / "run", settings=settings, cache=tmp_path / "cache")
    folds = result.metrics.folds
    assert (folds["k"], folds["repeats"], folds["n"]) == (4, 3, 28)
    assert folds["low"] <= folds["mean"] <= folds["high"]
    with (tmp_path / "run" / "folds.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 28
    assert np.mean([float(row["right"]) for row in rows]) == pytest.approx(folds["mean"], abs=1e-4)
    for row in rows:
        assert float(row["p_cold"]) + float(row["p_warm"]) == pytest.approx(1, abs=1e-5)
    assert "folds = 4" in (tmp_path / "run" / "settings.toml").read_text()
    assert 'id="folds"' in (tmp_path / "run" / "report.html").read_text()


def test_a_wrong_label_is_shown_in_the_report_with_its_picture(tiny_weights, tmp_path, workers_inside):
    photos = write_photos(tmp_path / "photos", 30)
    shutil.move(photos / "warm" / "3.png", photos / "cold" / "wrong.png")
    settings = tiny_settings(tiny_weights, frozen_only=True, test=0.0)
    result = train(photos, out=tmp_path / "run", settings=settings, cache=tmp_path / "cache")
    page = (result.folder / "report.html").read_text()
    labels = page[page.index('id="labels"') : page.index('id="left_out"')]
    assert 'alt="cold/wrong.png"' in labels
    assert "data:image/jpeg" in labels


def test_a_photo_that_is_gone_has_no_picture(tiny_photos, tiny_weights, tmp_path, workers_here):
    found = survey(tiny_photos, settings=tiny_settings(tiny_weights), cache=tmp_path)
    gone = dataclasses.replace(found.dataset, root=tmp_path)
    photo = gone.photos[0]
    suspicion = Suspicion(photo.path, photo.digest, "cold", "warm", 0.9)
    (row,) = show_suspicions([suspicion], gone, tiny_settings(tiny_weights))
    assert row["picture"] is None
    (row,) = show_suspicions([suspicion], found.dataset, tiny_settings(tiny_weights))
    assert row["picture"].startswith("data:image/jpeg")


# --- the command


@pytest.fixture(scope="module")
def curve_options(tiny_weights, tmp_path_factory):
    return ("--weights", tiny_weights, "--image-size", "32", "--cache", tmp_path_factory.mktemp("cache"))


def test_the_command_prints_points_and_advice(tiny_photos, curve_options, tmp_path):
    page = tmp_path / "curve.html"
    done = run_pronk("curve", tiny_photos, *curve_options, "--html", page)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert len(lines) == len(SHARES) + 1
    assert "photos right (95 % interval" in lines[0]
    assert "per class would bring about" in lines[-1]
    assert lines[-1] in page.read_text()
    assert "<svg" in page.read_text()


def test_the_command_prints_json(tiny_photos, curve_options):
    done = run_pronk("curve", tiny_photos, *curve_options, "--json", "--quiet")
    record = json.loads(done.stdout)
    assert {"points", "forecast", "advice"} <= record.keys()
    assert done.stderr == b""


def test_mistakes_are_told_with_a_hint(tmp_path, tiny_photos, curve_options):
    for arguments, said in (
        (("curve", tmp_path / "no"), b"is neither a folder nor a CSV file"),
        (("curve", tiny_photos, "--weights", tmp_path / "no.h5"), b"no.h5"),
        (("curve", tiny_photos, *curve_options, "--html", tmp_path / "curve.txt"), b"--html must end in .html"),
    ):
        done = run_pronk(*arguments)
        assert done.returncode in (1, 2)
        assert said in done.stderr
        assert b"hint: " in done.stderr
        assert b"Traceback" not in done.stderr


def test_a_run_warns_of_a_shortcut(tiny_weights, tmp_path, workers_inside):
    """Photos of one class are twice as large, so that nobody need look at them."""
    photos = write_photos(tmp_path / "photos", 30)
    for file in (photos / "warm").iterdir():
        picture = Image.open(file)
        picture.resize((2 * picture.width, 2 * picture.height)).save(file)
    settings = tiny_settings(tiny_weights, frozen_only=True)
    result = train(photos, out=tmp_path / "run", settings=settings, cache=tmp_path / "cache")
    told = [finding.message for finding in result.findings if finding.code == "shortcut"]
    assert any("width and height" in text for text in told), told
    page = (result.folder / "report.html").read_text()
    assert told[0] in page[page.index('id="shortcuts"') :]
