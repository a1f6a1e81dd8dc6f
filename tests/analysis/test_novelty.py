"""Pooled features -> distances: what must hold for any features, and how far real photos of other things lie."""

import base64
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pronk.analysis.calibration import conformal_threshold
from pronk.analysis.novelty import COMPONENTS, LIMITS, PHOTOS, Novelty, fit_novelty
from pronk.photos.drawing import draw_photo

SIZE = 224


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
    return fit_novelty(*make_features(60))


@st.composite
def training_sets(draw):
    """Features [n, d] and targets [n] of any size, with constant and repeated photos among them."""
    n, d, classes = draw(st.integers(1, 24)), draw(st.sampled_from([1, 2, 7, 40])), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = rng.gamma(0.5, draw(st.sampled_from([1e-3, 1.0, 1e4])), (n, d)).astype(np.float32)
    if draw(st.booleans()):
        rows[:] = draw(st.sampled_from([0.0, 0.5, 6.0]))
    rows[: draw(st.integers(0, n))] = rows[0]
    return rows, rng.integers(0, classes, n)


# --- any features


@settings(deadline=None, max_examples=40)
@given(training_sets())
def test_a_record_gives_the_same_distances(drawn):
    rows, targets = drawn
    novelty = fit_novelty(rows, targets)
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
    rows, targets = make_features(PHOTOS + 41, d=16, classes=classes, seed=seed)
    order = np.random.default_rng(seed).permutation(len(rows))
    one = fit_novelty(rows, targets)
    other = fit_novelty(rows[order], targets[order])
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
    novelty = fit_novelty(rows[:n], targets[:n])
    genuine, strange = rows[n:], rows[n:].copy()
    strange[:, 48:] += genuine.max() / 2
    assert novelty.distance(strange).min() > novelty.distance(genuine).max()


def test_what_is_between_the_classes_is_farther_than_their_photos(fitted):
    rows, targets = make_features(60, seed=0)
    own = np.stack([rows[targets == label].mean(axis=0) for label in (0, 1)])
    assert fitted.distance(own.mean(axis=0)[None])[0] > fitted.distance(own).max()


# --- sizes


@pytest.mark.parametrize(
    ("n", "d", "classes", "points"), [(530, 1280, 2, 512), (800, 64, 700, 700), (1200, 64, 1100, 1024)]
)
def test_the_record_stays_small(n, d, classes, points):
    rows, targets = make_features(n, d=d, classes=classes)
    novelty = fit_novelty(rows, targets)
    assert len(novelty.basis) == COMPONENTS
    assert len(novelty.points) == points
    assert len(json.dumps(novelty.to_record())) < 310_000
    strange = novelty.distance(make_features(200, d=d, seed=3)[0])
    assert np.median(novelty.distance(rows)) < np.median(strange) / 2


def test_many_photos_of_one_class_leave_room_for_another():
    rows, targets = make_features(900, d=8)
    targets[:3] = 2
    rows[:3] = 10 * np.eye(8)[0]
    assert fit_novelty(rows, targets).distance(rows[:3]).max() < 1e-3


# --- refusals


@pytest.mark.parametrize(
    ("rows", "targets", "message"),
    [
        (np.ones((0, 4)), np.zeros(0, int), "at least one"),
        (np.ones(4), np.zeros(4, int), "n x d"),
        (np.full((4, 2), np.inf), np.zeros(4, int), "finite"),
        (np.ones((4, 2)), np.zeros(3, int), "4 class indices"),
    ],
)
def test_what_cannot_be_fitted_is_refused(rows, targets, message):
    with pytest.raises(ValueError, match=message):
        fit_novelty(rows, targets)


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
        *({"components": value} for value in (0, 59, LIMITS["components"] + 1)),
        *({"points": value} for value in (0, 59, LIMITS["points"] + 1, None)),
        *({"claims": value} for value in (-1, 1, 257, None)),
        *({"neighbours": value} for value in (0, LIMITS["neighbours"] + 1, 2.0, None)),
        *({"claim_weight": value} for value in (-0.1, 1e9, float("nan"), float("inf"), "heavy", None)),
        *({name: value} for name in ("centre_f2", "basis_f2", "points_f2") for value in (None, "", "AAAA", [0.0])),
        {"centre_f2": encode(np.full(64, np.nan))},
        {"centre_f2": "!" * len(encode(np.zeros(64)))},
        {"centre_f2": encode(np.zeros(63))},
    ],
)
def test_a_record_that_is_off_is_refused(fitted, change):
    with pytest.raises((TypeError, ValueError)):
        Novelty.from_record(fitted.to_record() | change)


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
    novelty = fit_novelty(features[train], targets[train])
    threshold = conformal_threshold(novelty.distance(features[val]), 0.95)
    genuine, strange = novelty.distance(features[test]), novelty.distance(drawn)
    assert np.mean(genuine <= threshold) >= 0.85
    assert np.mean(strange > threshold) >= 0.4
    assert np.median(strange) > np.quantile(genuine, 0.9)
