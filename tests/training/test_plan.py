"""What `auto` comes to: chosen by the training photos alone, and said in words."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from helpers.training import CLASSES, lively_backbone, tiny_settings
from pronk.analysis.head import STRENGTHS, Strengths
from pronk.backbone.architecture import FEATURES
from pronk.config import USUAL, Settings
from pronk.dataset.loading import Dataset, Photo, load_dataset
from pronk.training import plan as plan_module
from pronk.training.features import extract_features
from pronk.training.plan import LONG, OFFLINE, SHORT, Reading, choose_changes, make_plan
from pronk.training.run_folder import Run

WIDTHS = {"top": 1280, "multi": 1904}


@dataclasses.dataclass
class Rows:
    """Features of photos, of which nothing but the shape is looked at."""

    photos: int
    name: str = "multi"
    extraction = SimpleNamespace(cut="block_5_add")

    @property
    def dataset(self):
        photos = tuple(Photo(f"{i}.png", CLASSES[i % 2], "train", "", f"g{i}") for i in range(self.photos))
        return Dataset(None, CLASSES, photos, (), len(photos))

    def reading(self, name):
        return Rows(self.photos, name)

    def changed(self, changes):
        return self

    def pooled(self, photos, *, views):
        return np.zeros((len(photos) * views, WIDTHS[self.name]), np.float32)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as threads:
        yield threads


@pytest.fixture
def plan(monkeypatch, pool, tmp_path):
    """Make a plan where cross-validation finds these losses, and this accuracy."""

    def make(losses, accuracy=0.8, *, photos=100, **settings):
        def measure(lesson, *, seed, on_fold):
            if not losses:
                return None
            loss = losses[next(name for name in FEATURES if WIDTHS[name] == lesson.features.shape[1])]
            found = np.full((len(STRENGTHS), photos), 9.0)
            found[3] = loss
            return Strengths(found, np.full((len(STRENGTHS), photos), accuracy))

        monkeypatch.setattr(plan_module, "measure_strengths", measure)
        return make_plan(Rows(photos), Run(Settings(**settings), None, tmp_path, None, pool))

    return make


def test_the_head_reads_what_is_judged_better(plan):
    for losses, chosen in (({"top": 0.2, "multi": 0.1}, "multi"), ({"top": 0.1, "multi": 0.2}, "top")):
        found = plan(losses)
        assert (found.features, found.strength) == (chosen, STRENGTHS[3])
        assert "log-loss 0.1000, with" in found.why
    assert plan({}).features == "multi"
    assert "too few" in plan({}).why
    assert plan({"top": 0.2, "multi": 0.1}, features="top").features == "top"


def test_phase_2_stays_short_where_little_is_left_to_mend(plan):
    losses = {"top": 0.2, "multi": 0.1}
    assert plan(losses, 0.91).pace == LONG
    assert plan(losses, 0.96).pace == SHORT
    assert "96%" in plan(losses, 0.96).why
    assert plan(losses, 0.91, weights="offline").pace == OFFLINE
    assert plan(losses, 0.96, weights="offline").pace == SHORT


def test_of_many_photos_fewer_views_and_epochs_are_needed(plan):
    few, many = (plan({"top": 0.2, "multi": 0.1}, photos=photos).pace for photos in (300, 5000))
    assert (few.views, few.epochs) == (LONG.views, LONG.epochs)
    assert many.views < few.views
    assert many.epochs < few.epochs


def test_what_was_asked_for_stays(plan):
    found = plan({"top": 0.2, "multi": 0.1}, views=3, epochs=5, learning_rate=0.1, features="top", augment="turn,crop")
    pace = {"views": 3, "epochs": 5, "learning_rate": 0.1}
    expected = {"features": "top", "fine_tune_from": "block_5_add", "augment": "turn,crop", **pace}
    assert found.chosen == expected
    assert plan({"top": 0.2, "multi": 0.1}, **expected).chosen == expected, "a replay comes to the same"


def test_without_augmentation_there_is_one_view(plan):
    losses = {"top": 0.2, "multi": 0.1}
    assert (plan(losses, augment="none").pace.views, plan(losses, augment="none").augment) == (1, "none")
    assert plan(losses, augment="crop").pace == plan(losses).pace
    usual = ",".join(USUAL)
    assert (plan(losses).augment, plan(losses, 0.96).augment, plan({}).augment) == (usual, usual, usual)


@pytest.fixture
def ask(tmp_path, pool):
    """Ask photos of two classes, 24 each, drawn by a function of class and random numbers, what views may differ in."""

    def choose(draw):
        rng = np.random.default_rng(0)
        for label in CLASSES:
            (tmp_path / "photos" / label).mkdir(parents=True)
            for number in range(24):
                Image.fromarray(draw(label, rng)).save(tmp_path / "photos" / label / f"{number}.png")
        run = Run(tiny_settings("unused"), lively_backbone(0.35), tmp_path / "run", tmp_path / "cache", pool)
        features = extract_features(load_dataset(tmp_path / "photos"), run, views=2)
        augment, reasons = choose_changes(features, Reading("multi", 0.1), run)
        assert choose_changes(features, Reading("multi", 0.1), run) == (augment, reasons)
        return set(augment.split(",")), ". ".join(reasons)

    return choose


def draw_halves(label, rng, axis):
    """Draw a picture whose first half is bright for "cold", and the last for "warm"."""
    picture = np.full((40, 40, 3), rng.integers(30, 90))
    np.moveaxis(picture, axis, 0)[slice(20) if label == "cold" else slice(20, 40)] += rng.integers(40, 120)
    return (picture + rng.integers(0, 40, picture.shape)).astype(np.uint8)


def test_views_are_not_mirrored_where_classes_differ_by_direction(ask):
    changes, why = ask(lambda label, rng: draw_halves(label, rng, 1))
    assert not changes & {"mirror", "quarter-turns"}
    assert "views are not mirrored: it makes photos harder to recognise" in why


def test_views_are_mirrored_where_classes_differ_from_top_to_bottom(ask):
    changes, _ = ask(lambda label, rng: draw_halves(label, rng, 0))
    assert changes >= set(USUAL)
    assert "upside-down" not in changes
