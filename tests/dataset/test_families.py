"""Copies that programs made of photos, told by their names."""

import re

import pytest

from pronk.dataset.families import find_families
from pronk.dataset.listing import Entry
from pronk.dataset.scan import _group_key

MADE = {
    "annotation": lambda stem, n: f"{stem}_jpg.rf.{n:x}a8f3c{n}9d0e.jpg",
    "turned": lambda stem, n: f"{stem}_rot{10 + n}.png" if n else f"{stem}.png",
    "flipped": lambda stem, n: ("{}.jpg", "{}-flipped.jpg", "{}_crop_2.jpg")[n].format(stem),
    "hashed": lambda stem, n: f"{stem}_{n}f3a9b07{n}c.jpg",
}


def entries(namer, folders=("cat", "dog")):
    return [
        Entry(f"{folder}/{namer(f'img{i}', n)}", folder.split("/")[-1])
        for folder in folders
        for i in range(8)
        for n in range(3)
    ]


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("folders", [("cat", "dog"), ("train/cat", "train/dog", "test/cat", "test/dog")])
def test_the_very_option_is_suggested_and_keeps_them_together(kind, folders):
    listed = entries(MADE[kind], folders)
    (finding,) = find_families(listed, is_grouped=False)
    pattern = re.search(r"--group-by '(.*)'", finding.hint)[1]
    groups = {}
    for entry in listed:
        groups.setdefault(_group_key(entry, pattern), set()).add((entry.label, entry.path.split("img")[1][0]))
    assert all(len(photos) == 1 for photos in groups.values())  # never two photos in one group
    assert len(groups) == 16
    assert not list(find_families(listed, is_grouped=True))


@pytest.mark.parametrize(
    "name",
    ["{}.jpg", "IMG_{:04}.jpg", "cat ({}).jpg", "2019-05-01_{}.jpg", "DSC{:05}.JPG", "a_{:08x}.jpg", "crop{}.jpg",
     "frame_{:06}.png", "photo-copy-{}.jpg"],
)  # fmt: skip
def test_ordinary_names_are_no_copies(name):
    listed = [Entry(f"{label}/{name.format(3_000_000_000 + 7919 * i)}", label) for label in "ab" for i in range(40)]
    assert not list(find_families(listed, is_grouped=False))
