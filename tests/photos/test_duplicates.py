"""The same photo, resized, re-encoded or mirrored, is found; other photos are not."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from helpers.pictures import draw_picture, encode
from helpers.planted import crop, draw_clean
from pronk.photos.duplicates import BITS, MAX_DISTANCE, SURE_DISTANCE, find_similar, group_indices, perceptual_hash


def encode_again(image, kind="JPEG", **options):
    return Image.open(io.BytesIO(encode(image, kind, **options))).convert("RGB")


def describe(images):
    """The hashes, inner hashes and mean colours of pictures."""
    images = list(images)
    both = np.array([perceptual_hash(image) for image in images])
    colours = np.array([np.asarray(image).mean(axis=(0, 1)) for image in images]).astype(np.uint8)
    return both[:, 0], both[:, 1], colours


def alike(*described):
    """Find pairs as a checkup does: with the inner hash, and by colour where signs leave a doubt."""
    return set(find_similar(*map(np.concatenate, zip(*described, strict=True))))


CHANGES = {
    "resized": lambda image: encode_again(image.resize((image.width // 2, image.height // 2))),
    "larger": lambda image: image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC),
    "encoded again": lambda image: encode_again(image, quality=30),
    "webp": lambda image: encode_again(image, "WEBP", quality=60),
    "mirrored": ImageOps.mirror,
    "mirrored, half": lambda image: ImageOps.mirror(image).resize((image.width // 2, image.height // 2)),
    "cropped": lambda image: encode_again(crop(image, 0.05), quality=85),
    "top cropped": lambda image: encode_again(image.crop((0, image.height // 20, *image.size)), quality=85),
    "right cropped": lambda image: encode_again(image.crop((0, 0, image.width * 19 // 20, image.height)), quality=85),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


@pytest.fixture(scope="module")
def photos():
    drawn = draw_clean(30)
    return drawn, describe(drawn)


@pytest.mark.parametrize("name", CHANGES)
def test_changed_photos_are_found_and_no_others(photos, name):
    pairs = alike(photos[1], describe(map(CHANGES[name], photos[0])))
    assert len({(n, n + 30) for n in range(30)} & pairs) >= 0.95 * 30
    assert all(j - i == 30 for i, j in pairs)


def test_other_photos_are_not_alike_and_what_has_no_contrast_resembles_nothing():
    pictures = [draw_picture(label, n) for label in ("circle", "square") for n in range(200)]
    flat = [Image.new("RGB", (64, 48), colour) for colour in ("white", "black", "white")]
    assert alike(describe([*pictures, *flat])) == set()


@pytest.mark.more
def test_of_changed_real_photos_nearly_all_are_found_and_nearly_no_others(real_photos):
    photos = [Image.open(file).convert("RGB").reduce(3) for file in sorted(real_photos.glob("*/*"))[::3]]
    n, described = len(photos), describe(photos)
    for name, change in CHANGES.items():
        pairs = alike(described, describe(map(change, photos)))
        found = {(i, i + n) for i in range(n)} & pairs
        assert len(found) >= 0.95 * n, name
        others = [(i, j) for i, j in pairs if j - i != n]
        assert len(others) <= 0.001 * n * (2 * n - 1), name


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (500, 2), (31, 33)])
def test_any_picture_has_a_hash(mode, size):
    signs = perceptual_hash(Image.new(mode, size))
    assert signs.shape == (2, BITS)
    assert signs.dtype == np.int8


@given(st.integers(0, 2**32), st.integers(2, 40), st.integers(1, 7))
def test_pairs_are_those_within_the_distance(seed, count, block):
    rng = np.random.default_rng(seed)
    signs = rng.choice(np.array([-1, 1], np.int8), (count, BITS))
    signs[rng.integers(count)] = signs[0] * np.where(rng.random(BITS) < 0.15, -1, 1)
    mirror = np.where(np.tile(np.arange(16), 16)[1:] % 2, -1, 1)
    expected = {
        (i, j)
        for i in range(count)
        for j in range(i + 1, count)
        if min((signs[i] != signs[j]).sum(), (signs[i] != signs[j] * mirror).sum()) <= MAX_DISTANCE
    }
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pronk.photos.duplicates.BLOCK", block)
        found = list(find_similar(signs, signs, np.zeros((count, 3)), on_rows=lambda *call: calls.append(call)))
    assert set(found) == expected
    assert len(found) == len(expected)
    assert calls[-1] == (count, count)
    assert calls == sorted(calls)


GREY = np.full((2, 3), 90, np.uint8)


def flipped(signs, number):
    other = signs.copy()
    other[-number:] *= -1  # of the highest frequencies, so that these alone decide
    return other


def test_where_signs_leave_a_doubt_colours_decide():
    signs = np.random.default_rng(1).choice(np.array([-1, 1], np.int8), BITS)
    near = np.array([signs, flipped(signs, SURE_DISTANCE)])
    far = np.array([signs, flipped(signs, SURE_DISTANCE + 1)])
    same, other = np.array([[90, 90, 90], [90, 102, 90]], np.uint8), np.array([[90, 90, 90], [90, 103, 90]], np.uint8)
    assert list(find_similar(near, near, other)) == [(0, 1)]
    assert list(find_similar(far, far, same)) == [(0, 1)]
    assert list(find_similar(far, far, other)) == []


@pytest.mark.parametrize("cropped", [0, 1])
def test_either_of_a_pair_may_be_the_cropped_one(cropped):
    signs = np.random.default_rng(2).choice(np.array([-1, 1], np.int8), BITS)
    hashes = np.array([signs, flipped(signs, 120)])
    inner = np.array([flipped(signs, 200), flipped(signs, 200)])
    assert list(find_similar(hashes, inner, GREY)) == []
    inner[1 - cropped] = hashes[cropped]  # what is left of the one is what is inside the margin of the other
    assert list(find_similar(hashes, inner, GREY)) == [(0, 1)]


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_groups_are_what_pairs_connect(case):
    count, pairs = case
    groups = group_indices(count, pairs)
    reach = np.eye(count, dtype=bool)
    for i, j in pairs:
        reach[i, j] = reach[j, i] = True
    for _ in range(count):
        reach = reach @ reach
    assert groups == [int(row.argmax()) for row in reach]
