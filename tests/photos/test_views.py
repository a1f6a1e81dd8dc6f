"""Photo -> views: a pure function, view 0 as served, the others different and still the same photo."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.pictures import draw_picture, encode
from pronk.config import CHANGES, USUAL
from pronk.photos.decoding import decode, load_pixels
from pronk.photos.drawing import draw_photo
from pronk.photos.views import draw_views, view_generator

FITS = ("crop", "pad", "squash")
TURNS = {"mirror", "upside-down", "quarter-turns"}
PHOTO = draw_picture("circle", 1, (128, 96))


def views(numbers, changes=USUAL, *, image=PHOTO, fit="crop", digest="d1", seed=42, size=64):
    return draw_views(image, changes, size=size, fit=fit, numbers=numbers, digest=digest, seed=seed)


some_changes = st.sets(st.sampled_from(CHANGES))


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5), some_changes, st.sampled_from(FITS), st.integers(0, 2**32))
@settings(max_examples=40)
def test_a_view_depends_on_photo_number_seed_and_changes_alone(numbers, changes, fit, seed):
    together = views(numbers, changes, fit=fit, seed=seed)
    alone = [views([number], changes, fit=fit, seed=seed)[0] for number in numbers]
    np.testing.assert_array_equal(together, np.stack(alone))
    assert together.dtype == np.uint8
    assert together.shape == (len(numbers), 64, 64, 3)


@given(some_changes, st.integers(1, 8))
@settings(max_examples=40)
def test_a_change_leaves_the_others_as_they_were(changes, number):
    """Turning a finished view over is the same as a view that has these changes too."""
    plain, turned = views([number], changes - TURNS)[0], views([number], changes)[0]
    ways = [np.rot90(plain[:, ::way], quarters) for way in (1, -1) for quarters in range(4)]
    assert any(np.array_equal(turned, way) for way in (ways if changes & TURNS else [plain]))


def test_without_changes_a_view_is_the_photo():
    square = draw_picture("circle", 1, (64, 64))
    np.testing.assert_array_equal(views([3], (), image=square)[0], np.asarray(square))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_view_0_is_what_is_served(fit, kind):
    data = encode(draw_picture("square", 3, (640, 480)), kind)
    image = decode(data, min_side=64).image
    for seed in (1, 2):
        view = views([0, 1], image=image, fit=fit, seed=seed)[0]
        np.testing.assert_array_equal(view, load_pixels(data, size=64, fit=fit))


@pytest.mark.parametrize("fit", FITS)
def test_views_differ_between_epochs_photos_and_seeds(fit):
    drawn = [
        *views(range(6), fit=fit),
        *views(range(1, 6), fit=fit, seed=43),
        *views(range(1, 6), fit=fit, digest="d2"),
    ]
    assert len({view.tobytes() for view in drawn}) == 16


def test_generators_are_independent_and_the_same_everywhere():
    assert view_generator("ab", 1, 42).integers(2**63) == 2445815352155892149
    keys = [(digest, number, seed) for digest in ("a", "b", "1:2") for number in range(3) for seed in range(3)]
    assert len({view_generator(*key).integers(2**63) for key in keys}) == len(keys)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(320, 240), (240, 320), (1200, 100), (40, 30), (1, 1)])
def test_views_show_the_photo(fit, size):
    image = draw_photo("alpaca", np.random.default_rng(1), (640, 480)).resize(size)
    base, *others = views(range(9), image=image, fit=fit).astype(float)
    filled = [(view.max(axis=2) - view.min(axis=2) < 2).mean() for view in others]
    if fit == "crop" and min(size) > 1:
        assert np.mean(filled) < 0.3
    for view in others:
        assert abs(view.mean() - base.mean()) < 80
        assert view.std() > 0.3 * base.std()


@pytest.mark.parametrize(("change", "ways"), [("mirror", 2), ("upside-down", 2), ("quarter-turns", 4)])
def test_each_way_to_turn_a_photo_is_as_frequent(change, ways):
    drawn = views(range(1, 401), {change}, size=16)
    _, counts = np.unique(drawn.reshape(400, -1), axis=0, return_counts=True)
    assert len(counts) == ways
    assert (abs(counts * ways / 400 - 1) < 0.3).all()
    both = views(range(1, 401), {"mirror", change}, size=16)
    assert len(np.unique(both.reshape(400, -1), axis=0)) == {"mirror": 2, "upside-down": 4, "quarter-turns": 8}[change]
