import dataclasses
import io
import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from helpers.training import tiny_settings, write_photos
from pronk.dataset.loading import load_dataset
from pronk.errors import DataError, ModelError
from pronk.model.bundle import open_bundle
from pronk.model.predictor import Predictor
from pronk.photos.decoding import load_pixels
from pronk.training import kept_model
from pronk.training.kept_model import choose_golden, compare_frameworks, fit_unknown
from pronk.training.recipe import train

SETTINGS = tiny_settings("unused")


@pytest.fixture
def dataset(tmp_path):
    return load_dataset(write_photos(tmp_path / "photos", 14), val=0.3)


def test_keras_and_onnx_say_the_same(tiny_photos, tiny_weights, tmp_path, workers_inside, monkeypatch):
    import keras

    monkeypatch.setattr(kept_model, "fit_temperature", lambda *_: 1.7)
    settings = tiny_settings(tiny_weights, frozen_only=True)
    model = train(tiny_photos, out=tmp_path / "run", settings=settings, cache=tmp_path / "cache").folder / "model"
    photos = np.stack([load_pixels(path, size=32) for path in tiny_photos.rglob("*.png")])
    served = Predictor.load(model).predict_proba(photos)
    loaded = keras.models.load_model(model / "model.keras")
    np.testing.assert_allclose(served, np.asarray(loaded(photos)), atol=1e-4)
    assert served[:, 0].std() > 0.01, "the photos look different to it"
    bundle = open_bundle(model)
    assert bundle.temperature == 1.7
    assert (bundle.classes, bundle.size, bundle.fit, bundle.sets.n) == (("cold", "warm"), 32, "crop", 4)


def answering(probabilities):
    return lambda pixels, training: np.tile(np.array(probabilities, np.float32), (len(pixels), 1))


@pytest.mark.parametrize("says", [[2.0, -1.0], [np.nan, np.nan]])
def test_files_that_differ_are_refused(whole_bundle, says):
    with pytest.raises(ModelError, match=r"differ by .* on the golden photos"):
        compare_frameworks(answering(says), open_bundle(whole_bundle))


def test_of_many_photos_no_more_are_asked_than_are_kept(dataset, monkeypatch):
    """Whatever their order in the folder."""
    asked = []

    def pool(suffix, features, photos):
        asked.append(photos)
        return np.stack([np.frombuffer(bytes.fromhex(photo.digest), np.uint8) for photo in photos]).astype(np.float32)

    monkeypatch.setattr(kept_model, "pool_features", pool)
    monkeypatch.setattr(kept_model, "PHOTOS", 10)
    monkeypatch.setattr(kept_model, "conformal_threshold", lambda distances, coverage: 1.0)
    other = dataclasses.replace(dataset, photos=dataset.photos[::-1])
    found = [fit_unknown(None, SimpleNamespace(dataset=one), SETTINGS).to_record() for one in (dataset, other)]
    assert found[0] == found[1]
    assert Counter(photo.label for photo in asked[0]) == {"cold": 5, "warm": 5}
    assert dataset.counts["train"] > 10


# --- golden photos


def test_eight_validation_photos_classes_in_turn(dataset):
    golden = choose_golden(dataset, SETTINGS)
    assert list(golden) == [f"{i}.jpg" for i in range(1, 9)]
    # The tiny photos are blue in one class and red in the other.
    means = [np.asarray(Image.open(io.BytesIO(data))).mean(axis=(0, 1)) for data in golden.values()]
    assert [mean[0] > mean[2] for mean in means] == [False, True] * 4


def test_few_validation_photos_are_filled_up_with_others(tmp_path):
    dataset = load_dataset(write_photos(tmp_path / "few", 8))
    assert dataset.counts["val"] < 8
    assert len(choose_golden(dataset, SETTINGS)) == 8


def test_drawn_ones_are_none_of_yours_and_the_same_each_time(dataset):
    drawn = choose_golden(dataset, SETTINGS.replace(golden="drawn"))
    assert len(drawn) == 8
    assert {Image.open(io.BytesIO(data)).size for data in drawn.values()} == {(512, 384)}
    assert drawn == choose_golden(dataset, SETTINGS.replace(golden="drawn"))


def test_photos_that_are_gone_are_passed_over(dataset):
    for photo in dataset.part("val")[:2]:
        (dataset.root / photo.path).unlink()
    assert len(choose_golden(dataset, SETTINGS)) == 8
    with pytest.raises(DataError, match="can be read any more"):
        choose_golden(dataclasses.replace(dataset, root=dataset.root / "gone"), SETTINGS)


def test_the_golden_photos_of_a_run_prove_it(tiny_run):
    bundle = open_bundle(tiny_run.folder)
    expected = json.loads((bundle.folder / "golden" / "expected.json").read_text())
    assert len(expected) == 8
    assert all(check["difference"] < 1e-6 for check in Predictor.load(tiny_run.folder).verify())
