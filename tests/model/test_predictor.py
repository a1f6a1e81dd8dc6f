import dataclasses
import io
import json
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from helpers.training import CLASSES, change_answers, change_record
from pronk.analysis.calibration import Unknown
from pronk.analysis.novelty import fit_novelty
from pronk.errors import DataError, ModelError, Reason
from pronk.model.formats.runtimes import Outputs
from pronk.model.predictor import Predictor, expand_paths
from pronk.photos.decoding import load_pixels


@pytest.fixture(scope="module")
def predictor(whole_bundle):
    return Predictor.load(whole_bundle)


def test_predictions_come_in_the_order_asked_for(predictor, photos):
    paths = [*photos.rglob("*.png")]
    (photos / "cold" / "bad.png").write_text("no picture")
    sources = [paths[0], photos / "cold" / "bad.png", str(paths[1]), paths[2].read_bytes(), photos / "gone.png"]
    found = predictor.predict(sources)
    assert [prediction.path for prediction in found] == [
        str(paths[0]), str(photos / "cold" / "bad.png"), str(paths[1]), "", str(photos / "gone.png"),
    ]  # fmt: skip
    assert [prediction.error and prediction.error.reason for prediction in found] == [
        None, Reason.NOT_AN_IMAGE, None, None, Reason.VANISHED,
    ]  # fmt: skip
    for number in (0, 2, 3):
        assert found[number].label in CLASSES
        assert found[number].score == pytest.approx(found[number].probabilities.max())


def test_what_is_served_is_the_pixels_of_training(predictor, photos):
    path = photos / "warm" / "1.png"
    expected = predictor.predict_proba(load_pixels(path, size=32)[None])[0]
    np.testing.assert_array_equal(predictor.predict_one(path).probabilities, expected)
    np.testing.assert_array_equal(predictor.predict([path] * 9)[8].probabilities, expected)
    assert predictor.classes == CLASSES


def test_the_record_has_the_fields_of_the_contract(predictor, photos):
    record = predictor.predict_one(photos / "cold" / "0.png").record(1)
    assert list(record) == ["path", "label", "score", "scores", "unknown", "distance", "error"]
    assert record["scores"] == [{"label": record["label"], "score": record["score"]}]
    scores = predictor.predict_one(photos / "cold" / "0.png").record()["scores"]
    assert scores[0]["score"] >= scores[1]["score"]
    assert sum(score["score"] for score in scores) == pytest.approx(1, abs=1e-5)
    assert json.loads(json.dumps(record)) == record
    failed = predictor.predict_one(photos).record()
    assert list(failed["error"]) == ["code", "message"]
    assert failed["error"]["code"] == "not_regular_file"
    assert failed["error"]["message"] == "photos is a folder", "the path stands beside it"
    assert (failed["label"], failed["score"], failed["scores"]) == (None, None, [])


def test_another_answer_is_refused_at_loading(bundle_copy, tmp_path):
    answers = json.loads((bundle_copy / "golden" / "expected.json").read_text())
    answers["3.jpg"] = [answers["3.jpg"][0] + 0.01, answers["3.jpg"][1] - 0.01]
    change_answers(bundle_copy, json.dumps(answers))
    with pytest.raises(ModelError, match="fails its self-test") as caught:
        Predictor.load(bundle_copy, cache=tmp_path / "cache")
    assert "pronk verify" in caught.value.hint
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("changes", [{"classes": ["a", "b", "c"]}, {"image": {"size": 64, "fit": "crop"}}])
def test_a_model_for_other_classes_or_sizes_is_refused(bundle_copy, tmp_path, changes):
    change_record(bundle_copy, **changes)
    with pytest.raises(ModelError, match="does not fit"):
        Predictor.load(bundle_copy, cache=tmp_path / "cache")


def test_the_self_test_runs_once_per_runtime(bundle_copy, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    before = sorted((path, path.stat().st_mtime_ns) for path in bundle_copy.rglob("*"))
    with mock.patch.object(Predictor, "verify", autospec=True, side_effect=Predictor.verify) as verify:
        for _ in range(2):
            Predictor.load(bundle_copy, cache=cache)
        assert verify.call_count == 1
        monkeypatch.setattr("pronk.model.predictor.describe_runtime", lambda module: "another processor")
        Predictor.load(bundle_copy, cache=cache)
        assert verify.call_count == 2
    assert len(list((cache / "verified").iterdir())) == 2
    # The marker lies in the cache, and nothing in the bundle.
    assert sorted((path, path.stat().st_mtime_ns) for path in bundle_copy.rglob("*")) == before


def test_features_that_are_no_numbers_are_a_damaged_model(predictor, photos):
    novelty = fit_novelty(np.eye(4, 1280), np.arange(4) % 2)
    bundle = dataclasses.replace(predictor.bundle, unknown=Unknown(novelty, 0.5, 0.95, 49))

    class Broken:
        def run(self, pixels):
            return Outputs(np.full((1, 2), 0.5), np.full((1, 1280), np.nan))

    with pytest.raises(ModelError, match="gives no usable answer: features must be finite"):
        Predictor(bundle, Broken()).predict(photos.rglob("*.png"))


def test_another_way_to_make_the_square_is_tested_again(bundle_copy, tmp_path):
    Predictor.load(bundle_copy, cache=tmp_path / "cache")
    change_record(bundle_copy, image={"size": 32, "fit": "squash"})
    with pytest.raises(ModelError, match="self-test"):
        Predictor.load(bundle_copy, cache=tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(bundle_copy, tmp_path):
    (tmp_path / "file").touch()
    assert Predictor.load(bundle_copy, cache=tmp_path / "file").classes == CLASSES


def test_files_folders_patterns_and_standard_input(photos):
    (photos / "cold" / ".hidden.png").touch()
    assert expand_paths([str(photos / "cold" / "1.png")]) == [photos / "cold" / "1.png"]
    assert expand_paths([str(photos / "cold")]) == [photos / "cold" / f"{i}.png" for i in range(6)]
    assert len(expand_paths([str(photos / "*" / "1.png")])) == 2
    assert len(expand_paths([str(photos / "**" / "*.png")])) == 12
    lines = [f"{photos / 'cold' / '2.png'}\n", "\n", f"{photos / 'a b.png'}\n"]
    assert expand_paths(["-"], lines) == [photos / "cold" / "2.png", photos / "a b.png"]
    name = photos / "cold" / "[1].png"  # looks like a pattern, and is one that is there
    (photos / "cold" / "1.png").rename(name)
    assert expand_paths([str(name)]) == [name]


def test_folders_and_patterns_without_a_file_are_named_at_once(photos):
    (photos / "empty").mkdir()
    with pytest.raises(DataError, match=r"'.*empty', '.*nothing\*\.png'"):
        expand_paths([str(photos / "empty"), str(photos / "cold"), str(photos / "nothing*.png")])


@pytest.mark.parametrize("name", ["gone.png", "x" * 300, "a\0b", "\n"])
def test_impossible_names_are_rows_with_their_error(predictor, name):
    assert predictor.predict(expand_paths([name]))[0].error.reason in ("vanished", "unreadable")


def test_a_photo_may_come_in_any_form_alone_or_in_a_list(predictor, photos):
    path = photos / "cold" / "0.png"
    expected = predictor.predict_one(path).probabilities
    opened = Image.open(path)
    forms = [
        path,
        str(path),
        path.read_bytes(),
        bytearray(path.read_bytes()),
        opened,
        np.asarray(opened.convert("RGB")),
    ]
    for form in forms:
        alone, listed = predictor.predict(form), predictor.predict([form])
        assert len(alone) == len(listed) == 1
        # A picture that is opened already is not made smaller while it is decoded.
        tolerance = 0.02 if isinstance(form, Image.Image | np.ndarray) else 0
        for prediction in (*alone, *listed):
            np.testing.assert_allclose(prediction.probabilities, expected, atol=tolerance)
    with path.open("rb") as file:
        assert predictor.predict(file)[0].path == str(path)
    batch = np.stack([np.asarray(opened.convert("RGB"))] * 2)
    assert len(predictor.predict(batch)) == 2


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("https://example.org/cat.jpg", "is an address"),
        (np.zeros((8, 8, 3)), "must be uint8"),
        (np.zeros((8, 8), np.uint8), "must be uint8"),
        (io.StringIO("text"), "is no photo"),
        (7, "is no photo"),
    ],
)
def test_what_is_no_photo_is_a_clear_error(predictor, source, said):
    with pytest.raises(DataError, match=said) as caught:
        predictor.predict([source])
    assert caught.value.hint


def test_an_address_of_an_unknown_kind_is_no_path():
    with pytest.raises(DataError, match="no address that can be read"):
        expand_paths(["nonsense://bucket/photos"])
