"""Planted shortcuts are told in words, and honest photos give no alarm."""

import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers.pictures import encode
from helpers.planted import draw_clean
from pronk.dataset.scan import look
from pronk.dataset.shortcuts import KINDS, LEAST_PER_CLASS, measure_shortcuts
from pronk.photos.properties import PhotoProperties

MAKE, MODEL = 0x010F, 0x0110


def camera(name):
    block = Image.Exif()
    block[MAKE], block[MODEL] = "Acme", name
    return block


def encode_variously(photo, rng, **options):
    """Write a photo as one of several people would: any quality, size and camera."""
    width = int(rng.integers(200, 320))
    small = photo.resize((width, int(width * rng.uniform(0.6, 0.9))))
    chosen = {"quality": int(rng.integers(60, 96)), "exif": camera(str(rng.choice(["One", "Two", "Three"])))}
    return encode(small, **chosen | options)


PLANTED = {
    "file_size": lambda photo, rng: encode_variously(photo, rng, quality=95, subsampling=0),
    "dimensions": lambda photo, rng: encode(photo.resize((300, int(rng.integers(200, 260)))), exif=camera("One")),
    "aspect": lambda photo, rng: encode(ImageOps.fit(photo, (side := int(rng.integers(150, 260)), side))),
    "camera": lambda photo, rng: encode_variously(photo, rng, exif=camera("Four")),
    "quality": lambda photo, rng: encode_variously(photo, rng, quality=75),
    "colour": lambda photo, rng: encode_variously(
        Image.blend(photo, Image.new("RGB", photo.size, (250, 120, 20)), 0.6), rng
    ),
    "border": lambda photo, rng: encode_variously(ImageOps.expand(photo, 12, "black"), rng),
}


def audit(write, classes=2, number=30, seed=0):
    """Audit photos of which the first class is written in its own way."""
    rng, photos = np.random.default_rng(seed), draw_clean(number * classes, (320, 240))
    labels = [f"class {n % classes}" for n in range(len(photos))]
    datas = [(encode_variously if n % classes else write)(photo, rng) for n, photo in enumerate(photos)]
    found = measure_shortcuts([look(data).properties for data in datas], labels, range(len(labels)))
    return {shortcut.kind: shortcut for shortcut in found}


@pytest.fixture(scope="module")
def honest():
    return audit(encode_variously)


def test_honest_photos_give_no_alarm(honest):
    assert list(honest) == [kind.name for kind in KINDS]
    for shortcut in honest.values():
        assert not shortcut.warns
        assert not shortcut.told
        assert shortcut.chance == 0.5
        assert shortcut.low <= shortcut.value <= shortcut.high
        assert shortcut.low < 0.65
        assert shortcut.photos == 60
    assert "where chance is 50.0" in honest["aspect"].sentence


@pytest.mark.parametrize("kind", PLANTED)
def test_each_planted_shortcut_is_found(kind):
    found = audit(PLANTED[kind])[kind]
    assert found.warns
    assert found.value > 0.8
    assert found.sentence.startswith("The class can be told by ")
    assert "where chance is 50.0" in found.sentence
    assert found.remedy


def test_one_class_of_many_is_named():
    found = audit(PLANTED["camera"], classes=5, number=16)["camera"]
    assert found.warns
    assert [name for name, _ in found.told] == ["class 0"]
    assert found.sentence.startswith("'class 0' can be told from the other classes")
    assert found.chance == 0.2


@pytest.mark.parametrize("number", [0, 1, LEAST_PER_CLASS - 1])
def test_tiny_sets_say_nothing(number):
    assert measure_shortcuts(numbered(2 * number), ["a", "b"] * number, range(2 * number)) == ()


def numbered(number, **values):
    """Properties that differ in their file size only."""
    fine = PhotoProperties(0, "JPEG", 640, 480, 1, False, "", 90, 0.9, 200, (90, 90, 90), (90,) * 12, 20)
    rng = np.random.default_rng(number)
    return [dataclasses.replace(fine, size=int(rng.integers(1000, 9000)), **values) for _ in range(number)]


def test_copies_count_once_and_stay_together():
    """Twenty copies of each of a few photos would be told by their very size, if copies were dealt out."""
    few = numbered(20)
    labels, groups = ["a", "b"] * 10, list(range(20))
    times = 20
    found = measure_shortcuts(few * times, labels * times, groups * times)
    assert found == measure_shortcuts(few, labels, groups)
    assert found[0].photos == 20
    assert not any(shortcut.warns for shortcut in found)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_by_luck_alone_nothing_is_told(classes):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        drawn = [
            dataclasses.replace(
                one,
                width=int(rng.integers(100, 999)),
                camera=str(rng.integers(5)),
                quality=int(rng.integers(60, 99)),
                colour=tuple(rng.integers(0, 255, 3).tolist()),
                border=tuple(rng.integers(0, 255, 12).tolist()),
            )
            for one in numbered(12 * classes)
        ]
        labels = [f"c{n % classes}" for n in range(len(drawn))]
        assert not [found for found in measure_shortcuts(drawn, labels, range(len(drawn))) if found.warns]
