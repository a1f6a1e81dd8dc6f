"""Files that nobody can use are moved aside, and all of it can be taken back."""

import shutil

import numpy as np
import pytest
from PIL import Image

from helpers.bad_files import write_hazards
from helpers.commands import fails, run_inside
from helpers.killing import snapshot
from helpers.pictures import draw_picture, encode, write_pictures
from pronk import check
from pronk.dataset.findings import find
from pronk.errors import SettingsError
from pronk.moving.journal import undo
from pronk.moving.quarantine import check_folders, move_aside, pick_movable


@pytest.fixture
def photos(tmp_path):
    root = write_pictures(tmp_path / "photos", labels=("cat", "dog"), count=5)
    (root / "cat" / "deep").mkdir()
    (root / "cat" / "deep" / "empty.jpg").touch()
    (root / "cat" / "page, one.jpg").write_bytes(b"<html>")
    shutil.copy(root / "cat/cat_000.jpg", root / "cat/copy.jpg")
    shutil.copy(root / "dog/dog_001.jpg", root / "cat/wrong.jpg")
    (root / "dog" / "small.jpg").write_bytes(encode(draw_picture("dog", 2).resize((72, 54))))
    (root / "dog" / "white.png").write_bytes(encode(Image.fromarray(np.full((90, 90, 3), 250, np.uint8)), "PNG"))
    return root


MOVED = {
    "zero_byte/cat/deep/empty.jpg",
    "not_an_image/cat/page, one.jpg",
    "exact_duplicate/cat/copy.jpg",
    "blank/dog/white.png",
}


def test_what_is_useless_moves_and_what_needs_somebody_stays(photos, tmp_path):
    before, aside = snapshot(photos), tmp_path / "aside"
    moved = move_aside(check(photos), aside)
    assert {name for name, content in snapshot(aside).items() if content != "folder"} - {"undo.csv"} == MOVED
    assert not moved.kept
    left = {finding.code for finding in check(photos).findings}
    assert left == {"label_conflict", "near_duplicate"}
    again = move_aside(check(photos), aside)
    assert (again.moved, again.journal) == ((), None)
    done = undo(moved.journal)
    assert (done.reversed, done.kept) == (4, ())
    assert snapshot(photos) == before


def test_a_second_run_finds_the_rest_and_replaces_nothing(photos, tmp_path):
    aside = tmp_path / "aside"
    first = move_aside(check(photos), aside)
    (photos / "cat/deep/empty.jpg").touch()
    (photos / "cat/page, one.jpg").write_bytes(b"another page")
    before = snapshot(photos)
    second = move_aside(check(photos), aside)
    assert second.journal.name == "undo-2.csv"
    assert (aside / "zero_byte/cat/deep/empty-2.jpg").exists()
    assert (aside / "not_an_image/cat/page, one.jpg").read_bytes() == b"<html>"
    assert (aside / "not_an_image/cat/page, one-2.jpg").read_bytes() == b"another page"
    assert undo(second.journal).kept == ()
    assert snapshot(photos) == before
    # The first one's places are taken again by other files, which stay.
    assert {why for _, why in undo(first.journal).kept} <= {f"another file is at {photos / 'cat/page, one.jpg'}"}


def test_only_regular_files_move(tmp_path):
    root = write_pictures(tmp_path / "photos", labels=("cat", "dog"), count=3)
    write_hazards(root / "cat")
    moved = move_aside(check(root), tmp_path / "aside")
    assert {finding.path for finding, _ in moved.moved} == {"cat/sparse.jpg"}
    reasons = {finding.path: reason for finding, reason in moved.kept}
    assert set(reasons) == {"cat/loop.jpg"}
    assert "link" in reasons["cat/loop.jpg"]
    assert (root / "cat" / "dangling.jpg").is_symlink()


def test_of_copies_in_several_parts_one_stays_and_a_file_with_two_faults_moves_once():
    """The photo to be judged by is a copy of the one that leaks; both must not go."""
    findings = [
        find("a", "blank", "blank"),
        find("b", "blank", "blank"),
        find("b", "exact_duplicate", "copy", related=("a",)),
        find("train/cat/1.jpg", "leak", "leaks", related=("val/cat/1.jpg",)),
        find("val/cat/1.jpg", "exact_duplicate", "copy", related=("train/cat/1.jpg",)),
        find("val/cat/2.jpg", "exact_duplicate", "copy", related=("train/cat/2.jpg",)),
    ]
    assert [finding.path for finding in pick_movable(findings)] == ["a", "b", "train/cat/1.jpg", "val/cat/2.jpg"]


@pytest.mark.parametrize("folder", ["photos", "photos/bad", ".", "photos/../photos/x"])
def test_a_quarantine_in_the_data_is_refused(photos, folder):
    before = snapshot(photos)
    options = ["--fix", "--quarantine", photos.parent / folder]
    assert "must not lie inside the data, nor the data inside it" in fails(
        run_inside("check", photos, *options), code=2
    )
    assert snapshot(photos) == before


def test_a_list_of_files_is_refused(photos, tmp_path):
    (tmp_path / "list.csv").write_text("path,label\nphotos/cat/cat_000.jpg,cat\nphotos/dog/dog_000.jpg,dog\n")
    with pytest.raises(SettingsError, match="it stays as it is"):
        check_folders(tmp_path / "list.csv", tmp_path / "aside")


@pytest.mark.parametrize("options", [["--fix"], ["--quarantine", "aside"]])
def test_fix_and_quarantine_need_each_other(photos, options):
    assert "need each other" in fails(run_inside("check", photos, *options), code=2)


def test_the_command_says_what_was_moved_and_how_to_take_it_back(photos, tmp_path):
    before = snapshot(photos)
    done = run_inside("check", photos, "--fix", "--quarantine", tmp_path / "aside")
    assert done.returncode == 1
    text = done.stdout.decode()
    assert "moved cat/copy.jpg -> " in text
    assert "4 files moved. To take it back: pronk undo " in text
    undo(tmp_path / "aside" / "undo.csv")
    assert snapshot(photos) == before
