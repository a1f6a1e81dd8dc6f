"""What `auto` comes to: chosen by the training photos alone, and said in words."""

import dataclasses

import numpy as np
import pytest

from helpers.training import CLASSES
from pronk.analysis.head import STRENGTHS, Strengths
from pronk.backbone.architecture import FEATURES
from pronk.config import Settings
from pronk.dataset.loading import Dataset, Photo
from pronk.training import plan as plan_module
from pronk.training.plan import LONG, OFFLINE, SHORT, make_plan

WIDTHS = {"top": 1280, "multi": 1904}


@dataclasses.dataclass
class Rows:
    """Features of photos, of which nothing but the shape is looked at."""

    photos: int
    name: str = "multi"

    @property
    def dataset(self):
        photos = tuple(Photo(f"{i}.png", CLASSES[i % 2], "train", "", f"g{i}") for i in range(self.photos))
        return Dataset(None, CLASSES, photos, (), len(photos))

    @property
    def extraction(self):
        return type("Extraction", (), {"cut": "block_5_add"})

    def reading(self, name):
        return Rows(self.photos, name)

    def pooled(self, photos, *, views):
        assert views == 1
        return np.zeros((len(photos), WIDTHS[self.name]), np.float32)


@pytest.fixture
def plan(monkeypatch):
    """Make a plan where cross-validation finds these losses, and this accuracy."""

    def make(losses, accuracy=0.8, *, photos=100, **settings):
        def measure(lesson, *, seed):
            if not losses:
                return None
            loss = losses[next(name for name in FEATURES if WIDTHS[name] == lesson.features.shape[1])]
            found = np.full(len(STRENGTHS), 9.0)
            found[3] = loss
            return Strengths(found, np.full(len(STRENGTHS), accuracy))

        monkeypatch.setattr(plan_module, "measure_strengths", measure)
        return make_plan(Rows(photos), Settings(**settings))

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
    found = plan({"top": 0.2, "multi": 0.1}, views=3, epochs=5, learning_rate=0.1, features="top")
    expected = {"features": "top", "fine_tune_from": "block_5_add", "views": 3, "epochs": 5, "learning_rate": 0.1}
    assert found.chosen == expected
    assert plan({"top": 0.2, "multi": 0.1}, **expected).chosen == expected, "a replay comes to the same"
