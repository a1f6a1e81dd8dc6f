"""What a file may be called, which name is free, and what lies in what."""

import itertools
from pathlib import Path

import pytest

from pronk.storage.places import can_be_folder, find_fault, find_free, is_single_name, leads_elsewhere, lies_in, overlap


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a\nb", "nobody can see"), ("a\u202eb", "nobody can see"), ("caf\udce9", "not text"), (" a", "a space"),
        ("a.", "a dot"), ("a?", "?, which"), ("a/b", "/, which"), ("con.jpg", "a device"), ("COM¹", "a device"),
        ("aux .jpg", "a device"), ("CONIN$", "a device"),
    ],
)  # fmt: skip
def test_names_that_trip_up_some_system(name, says):
    assert says in find_fault(name)


@pytest.mark.parametrize("name", ["a b.jpg", "é.jpg", "猫", "-rf", "console.jpg", "می‌خواهم", "#1 %41"])
def test_names_that_are_fine(name):
    assert find_fault(name) == ""
    assert is_single_name(name)
    assert can_be_folder(name, windows=True)


def test_windows_takes_fewer_names():
    for name in ("CON", "aux.txt", "cat.", "cat ", "a:b", "a?"):
        assert can_be_folder(name, windows=False)
        assert not can_be_folder(name, windows=True)
    assert not any(can_be_folder(name, windows=False) for name in ("", "..", ".git", "a\\b", "a\nb", "x" * 256))


def test_the_first_name_that_is_free_everywhere(tmp_path):
    wanted = tmp_path / "a.b.jpg"
    assert find_free(wanted) == wanted
    wanted.symlink_to("nowhere")
    (tmp_path / "a.b-2.jpg").mkdir()
    taken = {str(tmp_path / "a.b-3.jpg")}
    assert find_free(wanted, taken.__contains__) == tmp_path / "a.b-4.jpg"


def test_what_lies_in_what_is_decided_behind_links(tmp_path):
    photos, link = tmp_path / "photos", tmp_path / "link"
    (photos / "cat").mkdir(parents=True)
    link.symlink_to(photos)
    for one, other in itertools.product((photos / "cat", link / "cat"), (photos, link)):
        assert lies_in(one, other)
        assert not lies_in(other, one)
        assert overlap(other, one)
    assert lies_in(photos, link)
    assert lies_in(photos / ".." / "photos" / "new", photos)
    assert not overlap(photos, tmp_path / "photos-2")
    assert leads_elsewhere(link / "cat")
    assert not leads_elsewhere(photos.resolve() / "cat")
    assert not lies_in(Path("sorted"), photos)
