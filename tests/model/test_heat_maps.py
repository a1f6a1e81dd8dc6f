import json
import os
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from helpers.bad_files import exif
from helpers.commands import HOSTILE
from helpers.pictures import draw_picture, write_pictures
from helpers.training import lively_backbone
from pronk.analysis.head import Head
from pronk.backbone.architecture import FEATURES, pooled_sizes
from pronk.backbone.keras_network import build_network, set_head, with_features
from pronk.backbone.onnx_graphs import write_model
from pronk.config import Settings
from pronk.errors import SettingsError, StorageError
from pronk.model.bundle import write_bundle
from pronk.model.formats.runtimes import OnnxRuntime
from pronk.model.heat_maps import COLOURS, LONGEST_SIDE, STRONGEST, UNSEEN, class_activation_map, draw_overlay, explain
from pronk.model.predictor import Predictor
from pronk.photos.decoding import fit_pixels

CLASSES = ("circle", "square", "triangle")
RNG = np.random.default_rng(3)
BACKBONE = lively_backbone(0.35)
KERNEL = RNG.normal(0, 0.02, (sum(pooled_sizes(BACKBONE.weights)), 3)).astype(np.float32)
BIAS = RNG.normal(0, 0.1, 3).astype(np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """One small model per way to make a photo square, by that way's name."""
    model = write_model(BACKBONE.weights, Head(KERNEL, BIAS), size=96)
    folder, folders = tmp_path_factory.mktemp("models"), {}
    for fit in ("crop", "pad", "squash"):
        weights = {"name": "random", "sha256": ""}
        write_bundle(folder / fit, {"model.onnx": model}, classes=CLASSES, size=96, fit=fit, weights=weights)
        folders[fit] = folder / fit
    return folders


@pytest.fixture(scope="module")
def predictor(models):
    return Predictor.load(models["crop"])


@pytest.fixture
def photos(tmp_path):
    return write_pictures(tmp_path / "photos", count=2, size=(240, 160))


def in_order(folder):
    return sorted(folder.rglob("*.jpg"))


def test_heat_is_what_speaks_for_the_class():
    maps = np.array([[[1, -1], [2, -2]], [[1.5, 6], [0, 0]]], np.float32)
    heat = class_activation_map(maps, 0)
    assert heat.dtype == np.float32
    np.testing.assert_array_equal(heat, np.array([[0.5, 1], [0.75, 0]], np.float32))
    np.testing.assert_array_equal(class_activation_map(maps, 1), np.array([[0, 0], [1, 0]], np.float32))


def test_a_loud_corner_does_not_silence_the_rest():
    maps = np.full((10, 10, 1), 0.5, np.float32)
    maps[0, 0], maps[5:] = 9, 1
    heat = class_activation_map(maps, 0)
    assert (heat[0, 0], heat[1, 0], heat[9, 9]) == (1, 0.5, 1)


def test_where_nothing_speaks_for_the_class_there_is_no_heat():
    assert not class_activation_map(np.full((3, 4, 1), -1, np.float32), 0).any()
    assert class_activation_map(np.zeros((3, 4, 2), np.float32), 0).shape == (3, 4)
    tiny = class_activation_map(np.full((1, 2, 1), 1e-42, np.float32), 0)
    np.testing.assert_array_equal(tiny, np.ones((1, 2), np.float32))


@pytest.mark.parametrize(("read", "side"), [("top", 3), ("multi", 12)])
def test_the_map_adds_up_to_the_logit_of_the_class(read, side):
    """And is what gradients say: it is Grad-CAM of each block, where pooling and one Dense layer follow the maps."""
    import keras
    import tensorflow as tf

    blocks = FEATURES[read]
    head = Head(KERNEL[-sum(pooled_sizes(BACKBONE.weights, blocks)) :], BIAS)
    pixels = np.stack([fit_pixels(draw_picture(CLASSES[i % 3], i), size=96) for i in range(8)])
    outputs = OnnxRuntime(write_model(BACKBONE.weights, head, size=96, temperature=1.5)).run(pixels, heat=True)
    assert outputs.heat.shape == (8, side, side, 3)
    logits = outputs.heat.mean(axis=(1, 2))
    np.testing.assert_allclose(logits, outputs.features @ head.weights, atol=1e-4)
    odds = np.exp((logits + BIAS) / 1.5)
    np.testing.assert_allclose(outputs.probabilities, odds / odds.sum(axis=1, keepdims=True), atol=1e-5)

    network = build_network(BACKBONE, blocks, classes=3, settings=Settings(image_size=96))
    set_head(network, head)
    maps = [network.get_layer(name).output for name in blocks]
    pool = keras.Model(maps, network.get_layer("dropout").input)
    seen = [tf.constant(keras.Model(network.input, one)(pixels)) for one in maps]
    with tf.GradientTape() as tape:
        tape.watch(seen)
        logit = tf.reduce_sum((pool(seen) @ head.weights)[:, 1])
    expected = np.zeros((8, 1, 1, 1))
    for value, gradient in zip(reversed(seen), reversed(tape.gradient(logit, seen)), strict=True):
        part = (value * gradient).numpy().sum(axis=3) * value.shape[1] * value.shape[2]
        expected = part[..., None] + tf.image.resize(expected, part.shape[1:3])
    np.testing.assert_allclose(outputs.heat[..., 1:2], expected, atol=1e-4)
    np.testing.assert_allclose(outputs.heat, with_features(network)(pixels)["heat"], atol=1e-4)


def test_the_colours_are_those_of_plasma():
    import matplotlib

    plasma = matplotlib.colormaps["plasma"](np.linspace(0, 0.875, 256))[:, :3] * 255
    assert np.abs(plasma - COLOURS).max() < 6


def smooth_picture(size):
    """Slow ramps of colour, which enlarging and reducing leave as they are."""
    x, y = np.meshgrid(np.linspace(30, 220, size[0]), np.linspace(40, 200, size[1]))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (256, 256), (640, 96)])
@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_the_heat_lies_where_the_network_saw_it(fit, size):
    """To draw over the photo and then make it square is to make it square and then draw over the square."""
    photo, heat = smooth_picture(size), np.random.default_rng(1).random((7, 7)).astype(np.float32)
    after = fit_pixels(draw_overlay(photo, heat, fit=fit), size=112, fit=fit).astype(int)
    before = np.asarray(draw_overlay(Image.fromarray(fit_pixels(photo, size=112, fit=fit)), heat), int)
    inside = fit_pixels(Image.new("RGB", size, "white"), size=112, fit=fit).min(axis=2) == 255
    if fit != "squash":  # at the edge of the square, or of the photo in it, what lies beyond mixes in
        inside = np.asarray(ImageOps.expand(Image.fromarray(inside).convert("L"), 3).filter(ImageFilter.MinFilter(7)))
        inside = inside[3:-3, 3:-3] > 0
    assert inside.sum() > 1000
    difference = np.abs(after - before)[inside]
    assert np.percentile(difference, 99) <= 8
    assert difference.mean() < 2


def test_a_hot_place_is_drawn_there():
    heat = np.zeros((7, 7), np.float32)
    heat[2, 5] = 1
    brightness = np.asarray(draw_overlay(Image.new("RGB", (350, 210)), heat).convert("L"), float)
    cells = brightness.reshape(7, 30, 7, 50).mean(axis=(1, 3))
    assert np.unravel_index(cells.argmax(), cells.shape) == (2, 5)
    assert (cells > 2).sum() <= 9, "its neighbours at most"


def test_the_photo_stays_visible_under_the_hottest_place():
    stripes = np.zeros((60, 60, 3), np.uint8)
    stripes[::2] = 255
    drawn = np.asarray(draw_overlay(Image.fromarray(stripes), np.ones((2, 2), np.float32)), int)
    assert (drawn[::2] - drawn[1::2]).min() >= 255 * (1 - STRONGEST) - 2 > 90


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (901, 3), (224, 224)])
def test_without_heat_the_photo_is_as_it_was(fit, size):
    photo = Image.effect_noise(size, 80).convert("RGB")
    before = photo.tobytes()
    drawn = draw_overlay(photo, np.zeros((7, 7), np.float32), fit=fit)
    assert photo.tobytes() == before
    assert (drawn.size, drawn.mode) == (size, "RGB")
    if fit != "crop":
        assert drawn.tobytes() == before


def test_what_the_network_did_not_see_is_dark_but_there():
    photo = draw_picture("circle", 1, (300, 100))
    drawn, grey = np.asarray(draw_overlay(photo, np.zeros((3, 3), np.float32), fit="crop")), photo.convert("L")
    np.testing.assert_array_equal(drawn[:, 100:200], np.asarray(photo)[:, 100:200])
    outside = np.r_[0:100, 200:300]
    np.testing.assert_allclose(drawn[:, outside, 0], UNSEEN * np.asarray(grey, float)[:, outside], atol=1)
    assert (np.ptp(drawn[:, outside].astype(int), axis=2) == 0).all()


def test_one_record_per_photo_in_order(predictor, photos, tmp_path):
    paths = in_order(photos)
    paths[1].write_bytes(b"no picture")
    steps, asked = [], [paths[3], str(paths[1]), paths[0], photos / "gone.jpg", photos]
    records = explain(predictor, asked, out=tmp_path / "maps", on_progress=lambda *what: steps.append(what))
    assert steps == [("explain", done, 5) for done in range(1, 6)]
    assert [record["path"] for record in records] == list(map(str, asked))
    assert all(list(record) == ["path", "label", "score", "image", "error"] for record in records)
    assert json.loads(json.dumps(records)) == records
    for record, prediction in zip(records, predictor.predict(asked), strict=True):
        assert (record["label"], record["score"]) == (prediction.label, prediction.score)
        assert record["error"] == prediction.record()["error"]
    good = [str(tmp_path / "maps" / f"{paths[i].stem}.png") for i in (3, 0)]
    assert [record["image"] for record in records] == [good[0], None, good[1], None, None]
    files = [*good, *(name.replace(".png", "-beside.png") for name in good)]
    assert sorted(map(str, (tmp_path / "maps").iterdir())) == sorted(files)


def test_the_pictures(predictor, photos, tmp_path):
    path = in_order(photos)[0]
    record = explain(predictor, [path], out=tmp_path / "maps")[0]
    photo, overlay = Image.open(path).convert("RGB"), Image.open(record["image"])
    beside = Image.open(record["image"].replace(".png", "-beside.png"))
    assert (overlay.format, overlay.mode, overlay.size, beside.size) == ("PNG", "RGB", (240, 160), (480, 160))
    assert beside.crop((0, 0, 240, 160)).tobytes() == photo.tobytes()
    assert beside.crop((240, 0, 480, 160)).tobytes() == overlay.tobytes()
    outputs = predictor.runtime.run(fit_pixels(photo, size=96)[None], heat=True)
    heat = class_activation_map(outputs.heat[0], int(outputs.probabilities[0].argmax()))
    assert overlay.tobytes() == draw_overlay(photo, heat, fit="crop").tobytes()


def test_a_named_class_is_explained(predictor, photos, tmp_path):
    paths = in_order(photos)
    records = explain(predictor, iter(paths), out=tmp_path / "maps", label="square")
    assert {record["label"] for record in records} == {"square"}
    wanted = [float(prediction.probabilities[1]) for prediction in predictor.predict(paths)]
    assert [record["score"] for record in records] == wanted
    other = explain(predictor, paths, out=tmp_path / "other", label="circle")
    assert Image.open(records[0]["image"]).tobytes() != Image.open(other[0]["image"]).tobytes()


def test_an_unknown_class_is_refused_before_anything_is_written(predictor, photos, tmp_path):
    with pytest.raises(SettingsError, match="no class 'cat'") as caught:
        explain(predictor, in_order(photos), out=tmp_path / "maps", label="cat")
    assert "circle, square, triangle" in caught.value.hint
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_photos_keep_their_aspect_and_stand_upright(models, tmp_path, fit):
    picture = draw_picture("circle", 4, (300, 180))
    picture.save(tmp_path / "turned.jpg", exif=exif(6), quality=95)
    picture.resize((3000, 1800)).save(tmp_path / "large.jpg")
    paths = [tmp_path / "turned.jpg", tmp_path / "large.jpg"]
    turned, large = explain(models[fit], paths, out=tmp_path / "maps")
    assert Image.open(large["image"]).size == (LONGEST_SIDE, 614)
    upright = ImageOps.exif_transpose(Image.open(tmp_path / "turned.jpg"))
    beside = Image.open(turned["image"].replace(".png", "-beside.png"))
    assert beside.size == (360, 300)
    assert beside.crop((0, 0, 180, 300)).tobytes() == upright.tobytes()
    assert turned["score"] == Predictor.load(models[fit]).predict_one(tmp_path / "turned.jpg").score


def names(records):
    return [record["image"] and os.path.basename(record["image"]) for record in records]  # noqa: PTH119


def test_equal_names_from_different_folders_are_numbered(predictor, photos, tmp_path):
    source, out = in_order(photos)[0], tmp_path / "maps"
    asked = ["a/1.jpg", "b/1.jpg", "b/1.png", "c/1-beside.jpg", "c/1-2.jpg", "d/1.jpg", "e/É.jpg", "f/E\u0301.jpg"]
    for name in asked:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(source, tmp_path / name)
    records = explain(predictor, [tmp_path / name for name in asked], out=out)
    assert names(records) == [
        "1.png", "1-2.png", "1-3.png", "1-beside-2.png", "1-2-2.png", "1-4.png", "É.png", "E\u0301-2.png",
    ]  # fmt: skip
    assert len(list(out.iterdir())) == 16


def test_nothing_that_is_there_is_overwritten(predictor, photos, tmp_path):
    out, path = tmp_path / "maps", in_order(photos)[0]
    out.mkdir()
    (out / f"{path.stem.upper()}.PNG").write_text("mine")
    (out / f"{path.stem}-2-beside.png").symlink_to("nowhere")
    assert names(explain(predictor, [path], out=out)) == [f"{path.stem}-3.png"]
    assert names(explain(predictor, [path, path], out=out)) == [f"{path.stem}-4.png", f"{path.stem}-5.png"]
    assert (out / f"{path.stem.upper()}.PNG").read_text() == "mine"
    assert len(list(out.iterdir())) == 8


def test_a_file_that_appears_meanwhile_is_not_overwritten(predictor, photos, tmp_path):
    path, out = in_order(photos)[0], tmp_path / "maps"
    out.mkdir()
    (out / f"{path.stem}.png").write_text("mine")
    with mock.patch.object(Path, "iterdir", return_value=[]), pytest.raises(StorageError, match="appeared meanwhile"):
        explain(predictor, [path], out=out)
    assert (out / f"{path.stem}.png").read_text() == "mine"


def test_the_folder_of_the_photos_is_refused(predictor, photos, tmp_path):
    before = sorted(photos.rglob("*"))
    (tmp_path / "link").symlink_to(photos / "circle")
    paths = in_order(photos)
    for out in (photos / "square", tmp_path / "link", photos / "circle" / ".." / "triangle"):
        with pytest.raises(SettingsError, match="holds the photos") as caught:
            explain(predictor, paths, out=out)
        assert "--out" in caught.value.hint
    assert sorted(photos.rglob("*")) == before


def test_a_folder_that_cannot_be_written(predictor, photos, tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "maps"):
        with pytest.raises(StorageError, match="Not a directory"):
            explain(predictor, in_order(photos), out=out)


LONG = (b"x" * 251 + b".jpg", "\u732b".encode() * 83 + b".jpg")


def test_hostile_and_long_names(predictor, photos, tmp_path):
    paths = [tmp_path / os.fsdecode(name) for name in (*HOSTILE, *LONG)]
    for path in paths:
        shutil.copy(in_order(photos)[0], path)
    records = explain(predictor, paths, out=tmp_path / "maps")
    assert names(records)[:-2] == [f"{path.stem}.png" for path in paths[:-2]]
    assert names(records)[-2:] == ["x" * 180 + ".png", "\u732b" * 60 + ".png"]
    assert len(list((tmp_path / "maps").iterdir())) == 2 * len(paths)


def test_impossible_names_have_their_error(predictor, tmp_path):
    records = explain(predictor, ["a\0b.jpg", "a\0b/c.jpg", "\ud800.jpg", "x" * 300], out=tmp_path / "maps")
    assert {record["error"]["code"] for record in records} <= {"vanished", "unreadable"}
    assert not (tmp_path / "maps").exists()
