"""Pooled features -> distances: what must hold for any features, and how far real photos of other things lie."""

import base64
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pronk.analysis.calibration import conformal_threshold
from pronk.analysis.novelty import MOST_COMPONENTS, MOST_POINTS, NEIGHBOURS, POINTS, Novelty, fit_novelty
from pronk.photos.drawing import draw_photo

SIZE = 224
RECORD_LIMIT = 320_000  # characters of JSON


def make_features(n, *, d=64, classes=2, seed=0, used=None):
    """Non-negative features in which each class is about a pattern of its own, in the first `used` of d features."""
    rng = np.random.default_rng([seed, d, classes])
    patterns = rng.gamma(0.5, 1.0, (classes, d))
    if used:
        patterns[:, used:] = 0
    targets = np.arange(n) % classes
    noise = np.random.default_rng([seed, n]).gamma(0.5, 0.3, (n, d))
    if used:
        noise[:, used:] *= 0.02
    return (patterns[targets] + noise).astype(np.float32), targets


@pytest.fixture(scope="module")
def fitted():
    return fit_novelty(*make_features(60), classes=2)


@st.composite
def training_sets(draw):
    """Features [n, d] and targets [n] of any size, with constant and repeated photos among them."""
    n, d, classes = draw(st.integers(1, 24)), draw(st.sampled_from([1, 2, 7, 40])), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = rng.gamma(0.5, draw(st.sampled_from([1e-3, 1.0, 1e4])), (n, d)).astype(np.float32)
    if draw(st.booleans()):
        rows[:] = draw(st.sampled_from([0.0, 0.5, 6.0]))
    rows[: draw(st.integers(0, n))] = rows[0]
    return rows, rng.integers(0, classes, n), classes


# --- any features


@settings(deadline=None, max_examples=40)
@given(training_sets())
def test_a_record_gives_the_same_distances(drawn):
    rows, targets, classes = drawn
    novelty = fit_novelty(rows, targets, classes=classes)
    record = json.loads(json.dumps(novelty.to_record(), allow_nan=False))
    again = Novelty.from_record(record)
    strange = np.random.default_rng(0).gamma(0.5, 1.0, (5, rows.shape[1]))
    distances = novelty.distance(np.concatenate([rows, strange]))
    assert np.isfinite(distances).all()
    assert distances.dtype == np.float64
    assert np.array_equal(again.distance(np.concatenate([rows, strange])), distances)
    assert again.to_record() == record


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_the_order_of_photos_does_not_matter(seed, classes):
    rows, targets = make_features(41, classes=classes, seed=seed)
    order = np.random.default_rng(seed).permutation(len(rows))
    one = fit_novelty(rows, targets, classes=classes)
    other = fit_novelty(rows[order], targets[order], classes=classes)
    assert one.to_record() == other.to_record()
    np.testing.assert_allclose(one.distance(rows)[order], one.distance(rows[order]), atol=1e-12)


def test_a_photo_is_judged_alone_and_by_direction(fitted):
    rows, _ = make_features(60, seed=0)
    together = fitted.distance(rows)
    np.testing.assert_allclose([fitted.distance(row[None])[0] for row in rows], together, atol=1e-12)
    np.testing.assert_allclose(fitted.distance(rows * 3), together, atol=1e-6)
    assert fitted.distance(rows[:0]).shape == (0,)
    assert np.isfinite(fitted.distance(np.zeros((1, 64)))).all()


# --- what is strange


@pytest.mark.parametrize(("n", "classes"), [(6, 2), (60, 2), (60, 5), (30, 1), (300, 3)])
def test_a_direction_never_seen_is_farther_than_new_photos_of_the_classes(n, classes):
    rows, targets = make_features(n + 60, classes=classes, used=48)
    novelty = fit_novelty(rows[:n], targets[:n], classes=classes)
    genuine, strange = rows[n:], rows[n:].copy()
    strange[:, 48:] += genuine.max() / 2
    assert novelty.distance(strange).min() > novelty.distance(genuine).max()


def test_no_photo_of_its_own_is_as_far_as_what_is_between_the_classes(fitted):
    rows, targets = make_features(60, seed=0)
    own = np.stack([rows[targets == label].mean(axis=0) for label in (0, 1)])
    assert fitted.distance(own.mean(axis=0)[None])[0] > fitted.distance(own).max()
    assert fitted.claim_weight > 0


def test_a_class_without_photos_changes_nothing():
    rows, targets = make_features(40)
    assert fit_novelty(rows, targets, classes=9).to_record() == fit_novelty(rows, targets, classes=2).to_record()


# --- sizes


@pytest.mark.parametrize(("n", "d", "classes"), [(530, 1280, 2), (1200, 64, 1100)])
def test_the_record_stays_small(n, d, classes):
    rows, targets = make_features(n, d=d, classes=classes)
    novelty = fit_novelty(rows, targets, classes=classes)
    assert len(novelty.basis) <= MOST_COMPONENTS
    assert len(novelty.points) <= (POINTS if classes <= POINTS else MOST_POINTS)
    assert len(json.dumps(novelty.to_record())) < (155_000 if classes == 2 else RECORD_LIMIT)
    assert novelty.distance(rows[:5]).max() < novelty.distance(make_features(5, d=d, seed=3)[0]).min()


# --- refusals


@pytest.mark.parametrize(
    ("rows", "targets", "message"),
    [
        (np.ones((0, 4)), np.zeros(0, int), "at least one"),
        (np.ones(4), np.zeros(4, int), "n x d"),
        (np.full((4, 2), np.inf), np.zeros(4, int), "finite"),
        (np.ones((4, 2)), np.zeros(3, int), "4 whole numbers"),
        (np.ones((4, 2)), np.full(4, 2), "0 to 1. Got 2 to 2"),
        (np.ones((4, 2)), np.full(4, -1), "0 to 1. Got -1 to -1"),
    ],
)
def test_what_cannot_be_fitted_is_refused(rows, targets, message):
    with pytest.raises(ValueError, match=message):
        fit_novelty(rows, targets, classes=2)


@pytest.mark.parametrize("rows", [np.ones((2, 63)), np.ones(64), np.full((1, 64), np.nan)])
def test_what_cannot_be_judged_is_refused(fitted, rows):
    with pytest.raises(ValueError, match="features must be"):
        fitted.distance(rows)


def encode(values):
    return base64.b64encode(np.asarray(values, "<f2").tobytes()).decode()


@pytest.mark.parametrize(
    "change",
    [
        *({"method": value} for value in (None, "cosine", 1)),
        *({"features": value} for value in (0, 63, 65, 1 << 40, 64.0, True, None)),
        *({"components": value} for value in (0, 29, MOST_COMPONENTS + 1)),
        *({"points": value} for value in (0, 59, MOST_POINTS + 1, None)),
        *({"claims": value} for value in (-1, 1, 257, None)),
        *({"neighbours": value} for value in (0, NEIGHBOURS + 1, 2.0, None)),
        *({"claim_weight": value} for value in (-0.1, 1e9, float("nan"), float("inf"), "1", True, None)),
        *({name: value} for name in ("centre_f2", "basis_f2", "points_f2") for value in (None, "", "AAAA", [0.0])),
        {"centre_f2": encode(np.full(64, np.nan))},
        {"centre_f2": "!" * len(encode(np.zeros(64)))},
        {"centre_f2": encode(np.zeros(63))},
    ],
)
def test_a_record_that_is_off_is_refused(fitted, change):
    with pytest.raises(ValueError):
        Novelty.from_record(fitted.to_record() | change)
    with pytest.raises(ValueError):
        Novelty.from_record([])


# --- real photos


@pytest.mark.more
def test_drawn_pictures_are_strange_to_a_model_of_real_photos(real_photos, real_weights):
    pytest.importorskip("onnx")
    pytest.importorskip("h5py")
    from helpers.training import real_pixels
    from pronk.analysis.head import Head
    from pronk.backbone.onnx_graphs import write_model
    from pronk.backbone.weights import load_backbone
    from pronk.model.formats.runtimes import OnnxRuntime

    weights = real_weights / "mobilenet_v2_1.0_224_no_top.h5"
    if not weights.is_file():
        pytest.skip(f"$PRONK_WEIGHTS holds no {weights.name}")
    head = Head(np.zeros((1280, 2)), np.zeros(2))
    runtime = OnnxRuntime(write_model(load_backbone(str(weights)).weights, head, size=SIZE))

    def extract(pictures):
        return np.concatenate([runtime.run(np.stack(pictures[i : i + 8])).features for i in range(0, len(pictures), 8)])

    features, targets = extract(real_pixels(real_photos, 160, size=SIZE)), np.arange(160) % 2
    things = [(kind, np.random.default_rng(number)) for kind in ("house", "mushroom") for number in range(8)]
    drawn = extract([np.asarray(draw_photo(kind, rng, (SIZE, SIZE))) for kind, rng in things])
    part = np.arange(160) // 2 % 10
    train, val, test = part < 6, (part == 6) | (part == 7), part > 7
    novelty = fit_novelty(features[train], targets[train], classes=2)
    threshold = conformal_threshold(novelty.distance(features[val]), 0.95)
    genuine, strange = novelty.distance(features[test]), novelty.distance(drawn)
    assert np.mean(genuine <= threshold) >= 0.85
    assert np.mean(strange > threshold) >= 0.4
    assert np.median(strange) > np.quantile(genuine, 0.9)
