"""Features of photos for other tools, and the photos that are worth labelling next."""

import csv
import hashlib
import json

import numpy as np
import pytest

from helpers.commands import fails, ok, run_inside
from helpers.training import draw_tiny
from pronk.model.bundle import open_runtime
from pronk.model.embedding import embed
from pronk.model.next_photos import choose_next
from pronk.model.predictor import Predictor
from pronk.photos.decoding import load_pixels


@pytest.fixture
def photos(tmp_path):
    """Twelve photos, of which one is there twice and one is none."""
    folder, rng = tmp_path / "archive", np.random.default_rng(5)
    folder.mkdir()
    for number in range(12):
        draw_tiny(rng, ("cold", "warm")[number % 2], size=(50, 40)).save(folder / f"{number:02}.png")
    (folder / "copy.png").write_bytes((folder / "03.png").read_bytes())
    (folder / "notes.jpg").write_text("no picture")
    return folder


def test_features_are_those_that_the_head_reads(whole_bundle, photos):
    predictor = Predictor.load(whole_bundle)
    found = {one.path: one for one in embed(predictor, sorted(photos.iterdir()))}
    one, path = found[str(photos / "04.png")], photos / "04.png"
    wanted = open_runtime(predictor.bundle).run(load_pixels(path, size=32)[None]).features[0]
    np.testing.assert_array_equal(one.features, wanted)
    assert one.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert one.prediction.label == predictor.predict_one(path).label
    assert found[str(photos / "notes.jpg")].error.reason.value == "not_an_image"


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_the_command_writes_a_row_per_photo(whole_bundle, photos, tmp_path, form):
    out = tmp_path / f"features.{form}"
    done = run_inside("features", whole_bundle, photos, "--out", out)
    assert ok(done).strip() == str(out)
    assert b"notes.jpg  error not_an_image" in done.stderr
    rows = read(out, form)
    assert len(rows) == 13
    width = len(next(embed(Predictor.load(whole_bundle), [photos / "00.png"])).features)
    assert {len(features) for _, _, features in rows} == {width}
    by_path = {path: (digest, features) for path, digest, features in rows}
    assert by_path[str(photos / "copy.png")] == by_path[str(photos / "03.png")]
    fails(run_inside("features", whole_bundle, photos, "--out", out), code=2)


def read(path, form):
    if form == "csv":
        with path.open(newline="") as file:
            return [(row[0], row[1], list(map(float, row[2:]))) for row in list(csv.reader(file))[1:]]
    if form == "jsonl":
        return [tuple(json.loads(line).values()) for line in path.read_text().splitlines()]
    table = pytest.importorskip("pyarrow.parquet").read_table(path)
    return [(row["path"], row["digest"], row["features"]) for row in table.to_pylist()]


def test_weights_will_do_without_a_model(photos, tmp_path, tiny_weights):
    out = tmp_path / "features.jsonl"
    ok(run_inside("features", tiny_weights, photos, "--out", out, "--image-size", "32"))
    assert len(read(out, "jsonl")) == 13
    assert len(read(out, "jsonl")[0][2]) == 1280
    fails(run_inside("features", "offline", photos, "--out", tmp_path / "a.txt"), code=2)


def test_a_model_has_its_own_size(whole_bundle, photos, tmp_path):
    said = fails(
        run_inside("features", whole_bundle, photos, "--out", tmp_path / "a.csv", "--image-size", "64"), code=2
    )
    assert "a model has its own" in said


def test_no_photo_leaves_no_file(whole_bundle, tmp_path):
    (tmp_path / "notes.jpg").write_text("no picture")
    fails(run_inside("features", whole_bundle, tmp_path / "notes.jpg", "--out", tmp_path / "a.csv"))
    assert not (tmp_path / "a.csv").exists()


def test_the_next_photos_are_new_and_different(whole_bundle, photos):
    predictor = Predictor.load(whole_bundle)
    chosen = choose_next(predictor, sorted(photos.iterdir()), count=50)
    assert len(chosen) == 12, "no copy, and nothing that is no picture"
    margins = [one["score"] for one in chosen]
    assert min(margins) == margins[0] or chosen[0]["unknown"] or chosen[0]["distance"] is not None
    assert len(choose_next(predictor, sorted(photos.iterdir()), count=3)) == 3


def test_photos_that_have_a_label_are_left_out(tiny_run, tiny_photos, photos):
    known = sorted(tiny_photos.rglob("*.png"))
    chosen = choose_next(Predictor.load(tiny_run.folder), [*known, *sorted(photos.iterdir())])
    assert {one["path"] for one in chosen} <= {str(path) for path in photos.iterdir()}


def test_the_command_makes_a_contact_sheet(whole_bundle, photos, tmp_path):
    page = tmp_path / "next.html"
    done = run_inside("next", whole_bundle, photos, "--count", "4", "--html", page)
    assert len(ok(done).splitlines()) == 4
    text = page.read_text()
    assert text.count("<article") == 4 == text.count("data:image/jpeg")
    records = json.loads(ok(run_inside("next", whole_bundle, photos, "--count", "2", "--json")))
    assert [set(one) for one in records] == [{"path", "label", "score", "second", "distance", "unknown", "why"}] * 2
    fails(run_inside("next", whole_bundle, photos, "--html", photos / "next.html"), code=2)
    fails(run_inside("next", whole_bundle, photos / "notes.jpg"))
