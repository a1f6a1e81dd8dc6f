"""Photo -> views: a pure function, view 0 as served, the others different and still the same photo."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.pictures import draw_picture, encode
from pronk.photos.decoding import decode, load_pixels
from pronk.photos.drawing import draw_photo
from pronk.photos.views import draw_views, view_generator

FITS = ("crop", "pad", "squash")
PHOTO = draw_picture("circle", 1, (128, 96))


def views(numbers, *, image=PHOTO, fit="crop", digest="d1", seed=42, size=64):
    return draw_views(image, size=size, fit=fit, numbers=numbers, digest=digest, seed=seed)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5), st.sampled_from(FITS), st.integers(0, 2**32), st.text())
@settings(max_examples=40)
def test_a_view_depends_on_photo_number_and_seed_alone(numbers, fit, seed, digest):
    together = views(numbers, fit=fit, seed=seed, digest=digest)
    alone = [views([number], fit=fit, seed=seed, digest=digest)[0] for number in numbers]
    np.testing.assert_array_equal(together, np.stack(alone))
    assert together.dtype == np.uint8
    assert together.shape == (len(numbers), 64, 64, 3)


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


def test_half_of_the_views_are_mirrored():
    halves = Image.new("RGB", (64, 64), "black")
    halves.paste("white", (32, 0, 64, 64))
    drawn = views(range(1, 201), image=halves, size=32).mean(axis=3)
    mirrored = drawn[:, :, :8].mean(axis=(1, 2)) > drawn[:, :, -8:].mean(axis=(1, 2))
    assert 70 < mirrored.sum() < 130
