"""Folder or CSV -> files with labels, in natural order, whatever the names and links are."""

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pronk.dataset.listing import list_files, list_leniently, list_photos, natural_key
from pronk.errors import DataError

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=12)


def make(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return root


def paths(listing):
    return [entry.path for entry in listing.entries]


def codes(listing):
    return [(finding.path, finding.code) for finding in listing.findings]


@given(st.integers(0, 10**30), st.integers(0, 10**30), names)
def test_numbers_are_compared_by_value(first, second, start):
    keys = natural_key(f"{start}_{first}"), natural_key(f"{start}_{second}")
    assert (keys[0] < keys[1]) == (first < second)


@given(st.lists(names))
def test_any_names_have_one_order(texts):
    ordered = sorted(texts, key=natural_key)
    backwards = texts[::-1]
    assert sorted(backwards, key=natural_key) == ordered
    assert len({natural_key(text) for text in texts}) == len(set(texts))


@pytest.mark.parametrize("name", ["²", "1²", "½", "٣4", "9" * 5000, "", "①2", os.fsdecode(b"\xff1")])
def test_odd_digits_are_no_trouble(name):
    assert natural_key(name) == natural_key(name)
    assert natural_key(name) != natural_key("1")


def test_class_folders(tmp_path):
    make(tmp_path, "cat/10.jpg", "cat/9.jpg", "cat/deep/er/1.jpg", "dog/1.jpg", "dog/notes.txt")
    listing = list_photos(tmp_path)
    assert listing.root == tmp_path
    assert listing.classes == ("cat", "dog")
    assert paths(listing) == ["cat/9.jpg", "cat/10.jpg", "cat/deep/er/1.jpg", "dog/1.jpg"]
    assert [entry.label for entry in listing.entries] == ["cat"] * 3 + ["dog"]
    assert codes(listing) == [("", "sidecar")]


def test_numbers_as_names_are_ordered_by_value_and_pointed_out(tmp_path):
    listing = list_photos(make(tmp_path, "10/1.jpg", "9/1.jpg"))
    assert listing.classes == ("9", "10")
    assert codes(listing) == [("", "numeric_classes")]


def test_what_systems_leave_behind_is_no_photo(tmp_path):
    in_cat = ("1.jpg", "._1.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", ".a.PNG", ".notes")
    others = ("dog/1.jpg", "__MACOSX/cat/1.jpg", "bird/.keep", ".git/config", "loose.jpg", ".hidden")
    make(tmp_path, *(f"cat/{name}" for name in in_cat), *others, "cat/.ipynb_checkpoints/1.jpg")
    listing = list_photos(tmp_path)
    assert listing.classes == ("cat", "dog")
    assert paths(listing) == ["cat/1.jpg", "dog/1.jpg"]
    assert list_files(tmp_path) == ["cat/1.jpg", "dog/1.jpg", "loose.jpg"]
    assert codes(listing) == [
        (".git", "hidden"),
        ("__MACOSX", "hidden"),
        ("loose.jpg", "outside_classes"),
        ("bird", "empty_class"),
        ("cat/.a.PNG", "hidden"),
        ("cat/.ipynb_checkpoints", "hidden"),
    ]
    assert all(finding.hint for finding in listing.findings)


def test_links_are_followed_but_not_in_circles(tmp_path):
    make(tmp_path, "data/cat/1.jpg", "data/dog/1.jpg", "elsewhere/2.jpg")
    data = tmp_path / "data"
    (data / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (data / "cat" / "round").symlink_to(data / "cat")
    (data / "cat" / "up").symlink_to("..")
    (data / "cat" / "self.jpg").symlink_to("self.jpg")
    (data / "cat" / "gone.jpg").symlink_to("nowhere")
    (data / "bird").symlink_to(tmp_path / "elsewhere")
    (data / "self").symlink_to("self")
    listing = list_photos(data)
    assert listing.classes == ("bird", "cat", "dog")
    assert paths(listing) == [
        "bird/2.jpg",
        "cat/1.jpg",
        "cat/gone.jpg",
        "cat/more/2.jpg",
        "cat/self.jpg",
        "dog/1.jpg",
    ]
    assert codes(listing) == [("self", "outside_classes")]


def test_paths_too_long_to_open_are_named_and_the_rest_is_listed(tmp_path):
    make(tmp_path, "cat/1.jpg", "dog/1.jpg")
    with contextlib.chdir(tmp_path / "cat"):
        for _ in range(17):
            os.mkdir("d" * 250)  # noqa: PTH102 - a path that grows cannot be given whole
            os.chdir("d" * 250)
    listing = list_photos(tmp_path)
    assert [entry.label for entry in listing.entries] == ["cat", "cat", "dog"]
    assert len(str(tmp_path / listing.entries[1].path)) > 4000


def test_findings_in_a_part_layout_name_paths_that_exist(tmp_path):
    make(
        tmp_path,
        *(f"{part}/{label}/1.jpg" for part in ("train", "test") for label in ("cat", "dog")),
        "train/notes.txt",
        "test/notes.txt",
        "train/.thumbs/1.jpg",
        "test/bird/.keep",
        "loose.txt",
        ".git/config",
    )
    found = codes(list_photos(tmp_path))
    assert sorted(found) == [
        (".git", "hidden"),
        ("loose.txt", "outside_classes"),
        ("test/bird", "empty_class"),
        ("test/notes.txt", "outside_classes"),
        ("train/.thumbs", "hidden"),
        ("train/notes.txt", "outside_classes"),
    ]
    assert all((tmp_path / path).exists() for path, _ in found)


def test_a_class_named_like_a_part_is_a_class(tmp_path):
    make(tmp_path, "train/1.jpg", "bus/1.jpg")
    listing = list_photos(tmp_path)
    assert listing.classes == ("bus", "train")
    assert {entry.part for entry in listing.entries} == {None}


def test_csv_with_and_without_parts(tmp_path):
    file = tmp_path / "photos.csv"
    file.write_text("path,label,part\nx/10.jpg,cat,train\nx/9.jpg,dog,Test\n./x//8.jpg,cat,\n", encoding="utf-8-sig")
    listing = list_photos(file)
    assert listing.root == tmp_path
    assert [(e.path, e.label, e.part) for e in listing.entries] == [
        ("x/8.jpg", "cat", None),
        ("x/9.jpg", "dog", "test"),
        ("x/10.jpg", "cat", "train"),
    ]
    file.write_text("label,path\ncat,1.jpg\ndog,2.jpg\n")
    assert {entry.part for entry in list_photos(file).entries} == {None}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no rows"),
        ("path,label\n", "no photos below its header"),
        ("picture;kind\n1.jpg;cat\n", "columns path,label. Got picture, kind"),
        ("path,label\n1.jpg,cat\n1.jpg,dog\n", "listed twice"),
        ("path,label\na/1.jpg,cat\n./a/1.jpg,dog\n", "listed twice"),
        ("path,label\n1.jpg\n2.jpg,dog\n", "line 2: path or label is missing"),
        ("path,label\n,cat\n2.jpg,dog\n", "line 2: path or label is missing"),
        ("path,label,part\n1.jpg,cat,some\n", "line 2: part must be train, val or test. Got 'some'"),
        ("path,label\n" + "x" * 200_000 + ",cat\n", "cannot read"),
        ("path,label\n" + "".join(f"{n}.jpg,\n" for n in range(9)), "and 4 more"),
    ],
)
def test_a_faulty_csv_is_an_error_that_says_where(tmp_path, text, said):
    file = tmp_path / "photos.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=said) as caught:
        list_photos(file)
    assert caught.value.hint
    file.write_text(text, encoding="utf-16")
    with pytest.raises(DataError):
        list_photos(file)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "no class with photos"),
        (["1.jpg"], "no class with photos"),
        (["cat/1.jpg"], "only the class 'cat'"),
        (["Cat/1.jpg", "cat/1.jpg", "dog/1.jpg"], "'Cat', 'cat' differ only in case"),
        (["unknown/1.jpg", "cat/1.jpg"], "cannot be named 'unknown'"),
        (["Unknown/1.jpg", "cat/1.jpg"], "cannot be named 'Unknown'"),
        (["train/cat/1.jpg", "test/cat/1.jpg"], "only the class 'cat'"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_errors(tmp_path, files, said):
    make(tmp_path, *files)
    with pytest.raises(DataError, match=said) as caught:
        list_photos(tmp_path)
    assert caught.value.hint
    with pytest.raises(DataError, match="there is no"):
        list_photos(tmp_path / "gone")


def test_for_a_checkup_they_are_obstacles(tmp_path):
    make(tmp_path, "Cat/1.jpg", "cat/1.jpg", "unknown/1.jpg", "loose.jpg")
    listing = list_leniently(tmp_path)
    assert [(f.code, f.severity, f.path) for f in listing.obstacles] == [
        ("reserved_class", "error", "unknown"),
        ("class_case", "error", "Cat"),
    ]
    assert codes(listing) == [("loose.jpg", "outside_classes")]
    assert all(finding.hint for finding in listing.obstacles)
    assert paths(listing) == ["Cat/1.jpg", "cat/1.jpg", "unknown/1.jpg"]
