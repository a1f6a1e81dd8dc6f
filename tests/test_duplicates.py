"""The same photo, resized, re-encoded or mirrored, is found; other photos are not."""

import io
from itertools import cycle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from photos import draw_picture
from pronk.drawing import DEMO_KINDS, draw_photo
from pronk.duplicates import BITS, MAX_DISTANCE, chain_equal, find_similar, group_indices, perceptual_hash


def encode_again(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(buffer).convert("RGB")


COPIES = {
    "half": lambda image: image.resize((image.width // 2, image.height // 2)),
    "larger": lambda image: image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC),
    "quality 40": lambda image: encode_again(image, quality=40),
    "webp": lambda image: encode_again(image, "WEBP", quality=60),
    "mirrored": ImageOps.mirror,
    "mirrored, half, quality 50": lambda image: encode_again(
        ImageOps.mirror(image).resize((image.width // 2, image.height // 2)), quality=50
    ),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


def hashes(images):
    return np.array([perceptual_hash(image) for image in images])


@pytest.mark.parametrize("name", COPIES)
def test_copies_are_found(name):
    photos = [draw_photo(kind, np.random.default_rng(n), (320, 240)) for n, kind in zip(range(6), cycle(DEMO_KINDS))]
    pairs = set(find_similar(hashes([*photos, *map(COPIES[name], photos)])))
    assert {(n, n + 6) for n in range(6)} <= pairs


def test_other_photos_are_not_alike():
    pictures = [draw_picture(label, n) for label in ("circle", "square") for n in range(200)]
    assert list(find_similar(hashes(pictures))) == []


def test_different_real_photos_are_not_alike(real_photos):
    files = sorted(real_photos.glob("*/*"))[::3]
    signs = hashes(Image.open(file).convert("RGB") for file in files)
    assert len(list(find_similar(signs))) <= len(files) // 50


def test_pictures_without_contrast_resemble_nothing():
    flat = [Image.new("RGB", (64, 48), colour) for colour in ("white", "black", "white")]
    assert not hashes(flat).any()
    assert list(find_similar(hashes(flat))) == []


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (500, 2), (31, 33)])
def test_any_picture_has_a_hash(mode, size):
    signs = perceptual_hash(Image.new(mode, size))
    assert signs.shape == (BITS,)
    assert signs.dtype == np.int8


@given(st.integers(0, 2**32), st.integers(2, 40), st.integers(1, 7))
def test_pairs_are_those_within_the_distance(seed, count, block):
    rng = np.random.default_rng(seed)
    signs = rng.choice(np.array([-1, 1], np.int8), (count, BITS))
    signs[rng.integers(count)] = signs[0] * np.where(rng.random(BITS) < 0.2, -1, 1)
    mirror = np.where(np.tile(np.arange(16), 16)[1:] % 2, -1, 1)
    expected = {
        (i, j)
        for i in range(count)
        for j in range(i + 1, count)
        if min((signs[i] != signs[j]).sum(), (signs[i] != signs[j] * mirror).sum()) <= MAX_DISTANCE
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pronk.duplicates.BLOCK", block)
        found = list(find_similar(signs))
    assert set(found) == expected
    assert len(found) == len(expected)


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


def test_a_long_chain_is_one_group():
    assert set(group_indices(50_000, ((n, n + 1) for n in range(49_999)))) == {0}


def test_equal_keys_chain_to_the_first():
    assert list(chain_equal(["a", "b", "a", "a", None, None, "b"])) == [(0, 2), (0, 3), (1, 6)]
