import base64
import io

import numpy as np
import pytest
from PIL import Image

from helpers.training import CLASSES, draw_tiny
from pronk.errors import ImageError, Reason
from pronk.model.bundle import open_bundle
from pronk.model.formats.runtimes import Outputs
from pronk.model.predictor import Predictor
from pronk.report.gallery import MOST_MISTAKES, MOST_PER_CELL, MOST_RIGHT, make_gallery, pick_thumbnails


def row(number, label, predicted, score=0.9, part="test"):
    return {"path": f"{label}/{number}.png", "part": part, "label": label, "predicted": predicted, "score": score}


def open_uri(uri):
    kind, _, content = uri.partition(";base64,")
    assert kind == "data:image/jpeg"
    return Image.open(io.BytesIO(base64.b64decode(content)))


class LeftAndRight:
    """A network that sees the first class on the left and the second on the right."""

    def run(self, pixels, *, heat):
        maps = np.zeros((1, 4, 4, 2), np.float32)
        maps[0, :, :2, 0] = maps[0, :, 2:, 1] = 1
        return Outputs(None, None, maps if heat else None)


@pytest.fixture
def predictor(whole_bundle):
    return Predictor(open_bundle(whole_bundle), LeftAndRight())


@pytest.fixture
def load():
    pixels = np.asarray(draw_tiny(np.random.default_rng(0), "warm").resize((32, 32)))
    return lambda row: pixels


def test_telling_answers_have_pictures(predictor, load):
    cold, warm = CLASSES
    rows = [row(1, cold, warm), row(2, cold, cold), row(3, warm, warm), row(4, warm, cold, part="val")]
    gallery = make_gallery(predictor, rows, load, views=[load(None)] * 10)
    assert [entry.row["path"] for entry in gallery.mistakes] == ["cold/1.png", "warm/4.png"]
    assert [entry.row["path"] for entry in gallery.right] == ["cold/2.png", "warm/3.png"]
    assert set(gallery.thumbnails) == {"cold/1.png", "cold/2.png", "warm/3.png"}, "those of test photos"
    assert len(gallery.views) == 10
    wrong, right = gallery.mistakes[0], gallery.right[0]
    assert right.truth is None
    pictures = [np.asarray(open_uri(uri)) for uri in (wrong.photo, wrong.answer, wrong.truth)]
    assert all(picture.shape == (32, 32, 3) for picture in pictures)
    assert np.abs(pictures[0].astype(int) - load(None)).mean() < 6, "the photo, but for JPEG's losses"
    changed = [np.abs(picture.astype(int) - pictures[0]).sum(axis=(0, 2)) for picture in pictures[1:]]
    assert changed[0][:12].sum() < changed[0][20:].sum(), "what speaks for the answer, on the right"
    assert changed[1][:12].sum() > changed[1][20:].sum(), "what speaks for the truth, on the left"


def test_a_photo_that_is_gone_has_no_picture(predictor, load):
    def refuse(row):
        raise ImageError(Reason.VANISHED, "gone")

    rows = [row(1, "cold", "warm"), row(2, "cold", "cold")]
    gallery = make_gallery(predictor, rows, refuse)
    assert (dict(gallery.thumbnails), gallery.mistakes, gallery.right) == ({}, (), ())


def test_the_pictures_are_few(predictor, load):
    rows = [row(i, "cold", "warm", score=i / 500) for i in range(400)] + [row(i, "warm", "warm") for i in range(400)]
    gallery = make_gallery(predictor, rows, load)
    assert len(gallery.mistakes) == MOST_MISTAKES
    assert [entry.row["path"] for entry in gallery.mistakes][:2] == ["cold/399.png", "cold/398.png"]
    assert len(gallery.right) == MOST_RIGHT
    assert len(gallery.thumbnails) == 2 * MOST_PER_CELL


def test_behind_a_cell_unknown_photos_come_first_then_the_least_sure():
    rows = [row(1, "cold", "cold", 0.9), row(2, "cold", "cold", 0.6), row(3, "cold", "warm", 0.99)]
    rows.append(row(4, "cold", "cold", 0.95) | {"unknown": True})
    paths = [f"cold/{number}.png" for number in (3, 4, 2, 1)]
    assert [entry["path"] for entry in pick_thumbnails(rows)] == paths
