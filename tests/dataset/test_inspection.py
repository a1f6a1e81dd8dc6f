"""Properties, names and counts -> findings."""

import dataclasses
import os

import pytest

from pronk.dataset.inspection import (
    BLANK,
    BLURRED,
    JUDGED,
    TINY,
    find_leaks,
    inspect_counts,
    inspect_names,
    inspect_photo,
)
from pronk.dataset.listing import Entry
from pronk.dataset.split import keep_given
from pronk.photos.properties import PhotoProperties

FINE = PhotoProperties(9000, "JPEG", 640, 480, 1, False, "", 90, 0.9, 200, (90, 90, 90), (90,) * 12, 20)


def codes(path="cat/1.png.JPEG", **changes):
    return [finding.code for finding in inspect_photo(path, dataclasses.replace(FINE, **changes))]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"width": TINY, "height": TINY}, []),
        ({"width": TINY - 1}, ["tiny"]),
        ({"height": TINY - 1, "sharpness": 0.1}, ["tiny"]),
        ({"contrast": BLANK + 1}, []),
        ({"contrast": BLANK, "sharpness": 0.0, "width": 9}, ["blank"]),
        ({"sharpness": BLURRED}, []),
        ({"sharpness": BLURRED - 0.01}, ["blurred"]),
        ({"sharpness": BLURRED - 0.01, "height": JUDGED}, ["blurred"]),
        ({"sharpness": BLURRED - 0.01, "height": JUDGED - 1}, []),
        ({"orientation": 8}, ["rotated"]),
        ({"animated": True, "format": "GIF"}, ["wrong_extension", "animated"]),
    ],
)
def test_photos(changes, expected):
    assert codes(**changes) == expected


def named(*names):
    entries = [Entry(f"cat/{name}", "cat") for name in names]
    return [(finding.code, finding.path.removeprefix("cat/")) for finding in inspect_names(entries, ["cat"])]


@pytest.mark.parametrize("name", ["a\nb.jpg", os.fsdecode(b"\xff.jpg"), "con.jpg"])
def test_odd_names(name):
    assert named(name, "é'b, #1.jpg") == [("odd_name", name)]
    assert [(f.code, f.path) for f in inspect_names([], [name, "dog"])] == [("odd_name", name)]


def test_names_that_are_one_elsewhere():
    assert named("a.jpg", "A.JPG", "b.jpg") == [("case_collision", "A.JPG")]
    assert named("e\u0301.jpg", "é.jpg") == [("case_collision", "é.jpg")]
    apart = [Entry("cat/a.jpg", "cat"), Entry("dog/A.jpg", "dog"), Entry("cat/more/A.jpg", "cat")]
    assert inspect_names(apart, ["cat", "dog"]) == ()


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"a": 3, "b": 9}, []),
        ({"a": 3, "b": 10}, [("imbalance", "")]),
        ({"a": 3, "b": 30}, [("imbalance", "")]),
        ({"a": 3, "b": 31}, [("severe_imbalance", "")]),
        ({"a": 1, "b": 3}, [("single_photo", "a")]),
        ({"a": 2, "b": 3}, [("too_few", "a")]),
        ({"a": 0, "b": 50}, [("too_few", "a")]),
        ({}, []),
    ],
)
def test_counts(counts, expected):
    assert [(finding.code, finding.path) for finding in inspect_counts(counts)] == expected


def test_leaks_name_the_photo_that_is_judged_by():
    paths = ["train/1", "val/1", "test/1", "train/2", "free/1"]
    groups, given = [0, 0, 0, 3, 0], ["train", "val", "test", "train", None]
    parts = keep_given(groups, given)
    assert parts == [None, None, "test", "train", "test"]
    leaks = list(find_leaks(paths, groups, given, parts))
    assert [(leak.path, leak.related) for leak in leaks] == [("train/1", ("test/1",)), ("val/1", ("test/1",))]
