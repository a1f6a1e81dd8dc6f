"""Folders and runs -> studies of their photos: what more would bring, wrong labels; in Python and by command."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pronk
from helpers.commands import fails, ok, run_inside
from helpers.killing import snapshot
from helpers.training import tiny_settings, write_photos
from pronk.analysis.growth import SHARES
from pronk.analysis.labels import Suspicion
from pronk.errors import DataError
from pronk.report.gallery import show_suspicions
from pronk.training.recipe import train
from pronk.training.surveys import survey


def test_a_survey_has_a_row_per_photo_and_a_second_computes_nothing(
    tiny_photos, tiny_weights, tmp_path, workers_inside, monkeypatch
):
    settings = tiny_settings(tiny_weights)
    dataset, table = survey(tiny_photos, settings=settings, cache=tmp_path)
    assert table.features.shape == (28, 1904)  # of several blocks
    assert table.classes == ("cold", "warm")
    assert table.paths == tuple(photo.path for photo in dataset.photos)
    np.testing.assert_array_equal(table.targets, [path.startswith("warm") for path in table.paths])

    def refuse(*arguments):
        raise AssertionError("a photo was decoded again")

    with monkeypatch.context() as patch:
        patch.setattr("pronk.training.rows.draw_wanted", refuse)
        patch.setattr("pronk.dataset.scan.decode", refuse)
        _, again = survey(tiny_photos, settings=settings, cache=tmp_path)
    np.testing.assert_array_equal(table.features, again.features)
    suspicion = Suspicion("cold/0.png", dataset.photos[0].digest, "cold", "warm", 0.9)
    assert show_suspicions([suspicion], dataset, settings)[0]["picture"].startswith("data:image/jpeg")
    gone = dataclasses.replace(dataset, root=tmp_path)
    assert show_suspicions([suspicion], gone, settings)[0]["picture"] is None


def test_nothing_usable_is_an_error(tiny_weights, tmp_path, workers_inside):
    for label in ("cold", "warm"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        (tmp_path / "photos" / label / "1.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 2 files in .* is usable: 2 zero_byte"):
        survey(tmp_path / "photos", settings=tiny_settings(tiny_weights), cache=tmp_path / "cache")


def test_a_run_looks_at_its_photos(tiny_run):
    curve = tiny_run.metrics.curve
    assert [point["share"] for point in curve["points"]] == list(SHARES)
    # Test photos take no part: 28 photos, of which 4 are for the test; the largest share learns from 4 folds of 5.
    counts = tiny_run.metrics.counts
    assert curve["points"][-1]["accuracy"]["n"] == counts["train"] + counts["val"]
    page = (tiny_run.folder / "report.html").read_text()
    assert 'id="growth"' in page
    assert curve["advice"] in page


# --- wrong labels


PLANTED = {"warm/cold-3.png": "cold", "cold/warm-5.png": "warm"}


def run_audit(photos, weights, *more):
    return run_inside("audit", photos, "--weights", weights, "--image-size", "64", *more)


def test_photos_in_the_wrong_folder_come_first(tiny_weights, tmp_path, workers_inside):
    photos, cache, page, steps = write_photos(tmp_path / "photos", 16), tmp_path / "cache", tmp_path / "review.html", []
    (photos / "cold" / "3.png").rename(photos / "warm" / "cold-3.png")
    (photos / "warm" / "5.png").rename(photos / "cold" / "warm-5.png")
    before = snapshot(photos)
    settings = tiny_settings(tiny_weights, image_size=64)
    found = pronk.audit(photos, settings=settings, cache=cache, on_progress=lambda *step: steps.append(step))
    assert {one.path: one.suggested for one in found.suspicions[:2]} == PLANTED
    assert (found.photos, found.classes, found.root) == (32, ("cold", "warm"), photos)
    assert found.accuracy["n"] == 32
    assert found.accuracy["value"] > 0.8
    assert ("audit", 15, 15) in steps
    assert {stage for stage, _, _ in steps} >= {"check", "extract", "audit"}
    done = run_audit(photos, tiny_weights, "--cache", cache, "--json", "--html", page)
    records = json.loads(ok(done))
    assert [row["path"] for row in records] == [one.path for one in found.suspicions], "the same photos, the same audit"
    assert all(set(row) == {"path", "given", "suggested", "score", "neighbours"} for row in records)
    assert b"of 32 photos" in done.stderr
    assert b"--apply review.csv" in done.stderr
    text = page.read_text(encoding="utf-8")
    assert all(name in text for name in PLANTED)
    assert snapshot(photos) == before


# --- studies of a run


def test_a_run_is_studied(tiny_weights, tmp_path, workers_inside):
    """One photo has a wrong label, and those of one class are twice as large."""
    photos = write_photos(tmp_path / "photos", 16)
    for file in (photos / "warm").iterdir():
        picture = Image.open(file)
        picture.resize((2 * picture.width, 2 * picture.height)).save(file)
    (photos / "warm" / "3.png").rename(photos / "cold" / "wrong.png")
    settings = tiny_settings(tiny_weights, frozen_only=True, test=0.0, image_size=64)
    result = train(photos, out=tmp_path / "run", settings=settings, cache=tmp_path / "cache")
    page = (result.folder / "report.html").read_text()
    sections = {name: page[page.index(f'id="{name}"') :].partition("</section>")[0] for name in ("labels", "shortcuts")}
    assert 'alt="cold/wrong.png"' in sections["labels"]
    assert "data:image/jpeg" in sections["labels"]
    warned = [finding.message for finding in result.findings if finding.code == "shortcut"]
    assert any("width and height" in text for text in warned), warned
    assert warned[0] in sections["shortcuts"]


# --- the commands


def test_the_command_prints_points_and_advice(tiny_photos, tiny_weights, tmp_path, workers_inside, monkeypatch):
    page, records, said = tmp_path / "curve.html", [], []

    def curve(data, **options):
        records.append(measure(data, **options | {"on_progress": lambda *step: said.append(step)}))
        return records[0]

    measure = pronk.curve
    monkeypatch.setattr("pronk.curve", curve)
    monkeypatch.setattr("pronk.training.surveys.CURVE_REPEATS", 1)
    done = run_inside("curve", tiny_photos, "--weights", tiny_weights, "--image-size", "32", "--html", page)
    points, lines = records[0]["points"], ok(done).splitlines()
    assert [point["share"] for point in points] == list(SHARES)
    assert points[-1]["photos"] == pytest.approx(25, abs=1)
    assert points[-1]["accuracy"]["value"] > 0.8
    assert (said[-1][0], said[-1][1]) == ("curve", said[-1][2])
    json.dumps(records[0])
    assert len(lines) == len(SHARES) + 1
    assert "photos right (95 % interval" in lines[0]
    assert "per class would bring about" in lines[-1]
    assert lines[-1] in page.read_text()
    assert "<svg" in page.read_text()


def test_a_network_that_sees_little_is_said_to(tmp_path, tiny_weights, workers_inside):
    rng = np.random.default_rng(0)
    photos = write_photos(tmp_path / "photos", 10)
    names = list((photos / "warm").iterdir())
    for path in rng.choice(names, 5, replace=False):  # labels that are luck
        path.rename(photos / "cold" / f"other-{path.name}")
    for path in sorted((photos / "cold").glob("?.png"))[:5]:
        path.rename(photos / "warm" / f"other-{path.name}")
    done = run_audit(photos, tiny_weights, "--most", "1")
    (row,) = ok(done).splitlines()
    assert " -> " in row
    assert b"most of these labels will be right" in done.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--undo"], "--undo belongs to --apply"),
        (["--move"], "--move belongs to --apply"),
        (["--out", "x.csv"], "--out belongs to --apply"),
        (["--html", "page.pdf"], "--html must end in .html"),
        (["--apply", "r.csv", "--html", "a.html"], "--html has no meaning with --apply"),
        (["--apply", "r.csv", "--seed", "3"], "--seed has no meaning with --apply"),
        (["--apply", "r.csv", "--move"], "--move needs --quarantine DIR"),
        (["--apply", "r.csv", "--quarantine", "bad"], "--quarantine belongs to --move"),
        (["--apply", "r.csv", "--move", "--quarantine", "bad", "--out", "x.csv"], "--out has no meaning with --move"),
        (["--image-size", "33"], "--image-size must be a multiple of 32"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, options, expected):
    assert expected in fails(run_inside("audit", tmp_path, *options), code=2)


# --- real photos


def flip(source, target, share, seed):
    """Link the photos into class folders, a share of them into the wrong one; return the paths of those."""
    paths = sorted(path.relative_to(source) for path in source.rglob("*.jpg"))
    labels = sorted({path.parts[0] for path in paths})
    rng = np.random.default_rng([seed, round(100 * share)])
    chosen = set(rng.choice(len(paths), round(share * len(paths)), replace=False).tolist())
    wrong = set()
    for i, path in enumerate(paths):
        label = labels[1 - labels.index(path.parts[0])] if i in chosen else path.parts[0]
        name = Path(label) / f"{path.parts[0]}-{path.name}"
        (target / label).mkdir(parents=True, exist_ok=True)
        (target / name).symlink_to((source / path).resolve())
        if i in chosen:
            wrong.add(name.as_posix())
    return wrong


@pytest.mark.parametrize(
    ("share", "seeds"),
    [pytest.param(0.1, 1, marks=pytest.mark.more), *(pytest.param(s, 3, marks=pytest.mark.slow) for s in (0.05, 0.1))],
)
def test_flipped_labels_of_real_photos_are_found(real_photos, real_weights, tmp_path, own_cache, share, seeds):
    weights = real_weights / "mobilenet_v2_1.0_224_no_top.h5"
    settings, hits = pronk.Settings(weights=str(weights)), []
    for seed in range(seeds):
        wrong = flip(real_photos, tmp_path / str(seed), share, seed)
        found = pronk.audit(tmp_path / str(seed), settings=settings).suspicions
        first = {one.path for one in found[: int(1.5 * len(wrong))]}
        hits.append(len(first & wrong) / len(wrong))
    assert min(hits) >= 0.8
    assert np.mean(hits) >= 0.9
