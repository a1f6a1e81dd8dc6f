"""Photos in class folders: each in one place, nothing overwritten, continued after a kill, taken back by undo."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.commands import listing, ok, predict, read_csv, run_inside
from helpers.killing import Killed, killed_at, snapshot
from helpers.training import change_record, write_photos
from pronk.errors import DataError, RunError, SettingsError, StorageError
from pronk.moving.journal import open_journal, undo
from pronk.moving.sorting import name_folders, read_state, sort_photos
from pronk.text import fold


def row(path, label, *, error=None):
    state = read_state(str(path)) if Path(path).exists() else None
    return {"path": str(path), "label": label, "error": error}, state


def without_journal(found):
    return {name: value for name, value in found.items() if not Path(name).name.startswith(("undo", ".lock"))}


@pytest.fixture
def inbox(tmp_path):
    folder = tmp_path / "inbox"
    (folder / "more").mkdir(parents=True)
    for number, name in enumerate(["1.jpg", "2.jpg", "more/1.jpg", "bad.jpg"]):
        (folder / name).write_bytes(b"photo %d" % number)
    return folder


def rows_of(inbox):
    return [
        row(inbox / "1.jpg", "cat"), row(inbox / "2.jpg", "unknown"), row(inbox / "more" / "1.jpg", "cat"),
        row(inbox / "bad.jpg", None, error={"code": "truncated", "message": ""}),
    ]  # fmt: skip


def sort(rows, folder, mode="link", run="1"):
    return sort_photos(rows, folder, run=run, mode=mode, base=Path())


PLACED = {"cat": "folder", "cat/1.jpg": b"photo 0", "cat/1-2.jpg": b"photo 2", "unknown": "folder",
          "unknown/2.jpg": b"photo 1"}  # fmt: skip


# --- where photos go


@pytest.mark.parametrize("mode", ["link", "copy", "move"])
@pytest.mark.parametrize("error", [None, 1, 18, 95])  # links are possible; not permitted, another disk, not supported
def test_photos_go_to_their_class(inbox, tmp_path, monkeypatch, mode, error):
    before, out, real = snapshot(inbox), tmp_path / "sorted", os.link

    def link(source, target, **options):
        if not error or (error == 18 and Path(source).parent == Path(target).parent):
            return real(source, target, **options)
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "link", link)
    found = sort(rows_of(inbox), out, mode)
    assert (found.placed, found.unusable, found.left) == (3, 1, [])
    assert without_journal(snapshot(out)) == PLACED
    if mode == "move":
        assert snapshot(inbox) == {"bad.jpg": b"photo 3", "more": "folder"}
    else:
        assert snapshot(inbox) == before
        assert (out / "cat" / "1.jpg").samefile(inbox / "1.jpg") == (mode == "link" and not error)
    assert undo(Path(found.undo)).kept == ()
    assert snapshot(inbox) == before
    assert listing(out) == ["undo.csv"], "folders that it made are gone"


def test_what_a_former_run_sorted_is_not_linked_again(inbox, tmp_path):
    out = tmp_path / "sorted"
    sort(rows_of(inbox), out)
    (inbox / "3.jpg").write_bytes(b"new")
    found = sort([*rows_of(inbox), row(inbox / "3.jpg", "cat")], out, run="2")
    assert found.placed == 4
    assert without_journal(snapshot(out)) == PLACED | {"cat/3.jpg": b"new"}
    assert undo(Path(found.undo)).reversed == 1


def test_a_photo_that_changed_since_is_left(inbox, tmp_path):
    rows = rows_of(inbox)
    (inbox / "1.jpg").write_bytes(b"another photo")
    (inbox / "2.jpg").unlink()
    found = sort(rows, tmp_path / "sorted", "move")
    assert found.placed == 1
    assert [(Path(path).name, why) for path, why in found.left] == [
        ("1.jpg", "it was changed since it was predicted"), ("2.jpg", "No such file or directory"),
    ]  # fmt: skip
    assert (inbox / "1.jpg").read_bytes() == b"another photo"


def test_links_among_the_photos(inbox, tmp_path):
    (inbox / "link.jpg").symlink_to("1.jpg")
    sort([row(inbox / "link.jpg", "cat")], tmp_path / "linked")
    assert (tmp_path / "linked" / "cat" / "link.jpg").samefile(inbox / "1.jpg")
    assert not (tmp_path / "linked" / "cat" / "link.jpg").is_symlink()


@pytest.mark.parametrize("at_once", [1, 64])
@pytest.mark.parametrize("mode", ["link", "copy", "move"])
def test_names_that_differ_only_in_case_or_form(inbox, tmp_path, monkeypatch, mode, at_once):
    monkeypatch.setattr("pronk.moving.sorting.SORTED_AT_ONCE", at_once)
    names = ["IMG.JPG", "more/img.jpg", "u\u0308.jpg", "more/\xfc.jpg"]
    for name in names:
        (inbox / name).write_text(name)
    for end in (2, 3, 4):  # the same run, gone on with
        sort([row(inbox / name, "cat") for name in names[:end] if (inbox / name).exists()], tmp_path / "sorted", mode)
    assert listing(tmp_path / "sorted" / "cat") == sorted(["IMG.JPG", "img-2.jpg", "u\u0308.jpg", "\xfc-2.jpg"])


def test_a_path_that_is_listed_twice_is_placed_once(inbox, tmp_path):
    for mode in ("link", "copy", "move"):
        rows = [row(inbox / "1.jpg", "cat")] * 70 if mode != "move" else [row(inbox / "1.jpg", "cat")] * 2
        sort(rows, tmp_path / mode, mode)
        assert listing(tmp_path / mode / "cat") == ["1.jpg"]


@pytest.mark.parametrize(
    "name", ["/abs", "../x", "", "..", ".git", "a\0b", "Unknown", "\ud800", "undo.csv", "undo-7.csv", "DOG", "aux.txt"]
)
def test_classes_that_cannot_be_folders_get_one_that_is_like_them(name, tmp_path):
    folders = name_folders(["dog", name], windows=name == "aux.txt")
    assert folders["dog"] == "dog"
    assert folders[name] not in (name, "dog", "unknown")
    (tmp_path / folders[name]).mkdir()
    assert [path.name for path in tmp_path.iterdir()] == [folders[name]]


def test_other_classes_keep_their_names():
    names = ["cat", "aux.txt", "-rf", "名前", "caf\udce9", "=cmd()"]
    assert name_folders(names, windows=False) == {name: name for name in names}


@given(st.lists(st.text(min_size=1, max_size=40), unique=True, max_size=12))
def test_each_class_has_a_folder_of_its_own(classes):
    folders = name_folders(classes, windows=True)
    assert list(folders) == classes
    assert len({fold(folder) for folder in folders.values()}) == len(classes)


def test_photos_of_a_class_that_cannot_be_a_folder_are_found_again(inbox, tmp_path):
    out = tmp_path / "sorted"
    folders = name_folders(["n/a", "cat"])
    rows = [row(inbox / "1.jpg", "n/a"), row(inbox / "2.jpg", "cat")]
    assert sort_photos(rows, out, run="r", mode="copy", base=Path(), folders=folders).placed == 2
    assert listing(out / "n_a") == ["1.jpg"]
    assert (out / "folders.csv").read_text() == "label,folder\nn/a,n_a\n"


# --- the journal


def test_undo_takes_back_only_what_is_still_the_same(inbox, tmp_path):
    out = tmp_path / "sorted"
    copied = sort(rows_of(inbox), out, "copy")
    (out / "cat" / "1.jpg").write_bytes(b"edited")
    (inbox / "2.jpg").unlink()
    done = run_inside("undo", copied.undo, "--json")
    record = json.loads(done.stdout)
    assert (done.returncode, record["undone"]) == (1, 1)
    assert {Path(row["path"]).name: row["reason"].split(":")[0] for row in record["kept"]} == {
        "1.jpg": "it was changed, or is another file by now", "2.jpg": "it may be the last copy",
    }  # fmt: skip
    assert f"kept {out / 'cat' / '1.jpg'}: it was changed, or is another file by now" in done.stderr.decode()
    assert (out / "cat" / "1.jpg").read_bytes() == b"edited"
    assert (out / "unknown" / "2.jpg").exists()


def test_undo_moves_back_over_nothing(inbox, tmp_path):
    out = tmp_path / "sorted"
    moved = sort(rows_of(inbox), out, "move")
    (inbox / "1.jpg").write_bytes(b"a new photo of that name")
    shutil.rmtree(inbox / "more")
    (out / "unknown" / "2.jpg").unlink()
    done = undo(Path(moved.undo))
    lost = "it is neither here nor where it came from"
    assert [why for _, why in done.kept] == [lost, f"another file is at {inbox / '1.jpg'}"]
    assert (out / "cat" / "1.jpg").read_bytes() == b"photo 0"
    assert (inbox / "more" / "1.jpg").read_bytes() == b"photo 2", "its folder is made again"
    (inbox / "1.jpg").unlink()
    again = undo(Path(moved.undo))
    assert (again.reversed, len(again.kept)) == (1, 1)
    assert undo(Path(moved.undo)).reversed == 0
    assert (inbox / "1.jpg").read_bytes() == b"photo 0"


def test_a_link_is_removed_only_while_its_photo_is_there(inbox, tmp_path):
    linked = sort(rows_of(inbox), tmp_path / "sorted")
    (inbox / "1.jpg").unlink()
    (inbox / "1.jpg").symlink_to(tmp_path / "sorted" / "cat" / "1.jpg")
    done = undo(Path(linked.undo))
    assert [Path(action.target).name for action, _ in done.kept] == ["1.jpg"]
    assert (tmp_path / "sorted" / "cat" / "1.jpg").read_bytes() == b"photo 0"


def test_undone_runs_begin_another_journal(inbox, tmp_path):
    first = sort(rows_of(inbox), tmp_path / "sorted")
    assert b"nothing was left" not in run_inside("undo", first.undo).stderr
    second = sort(rows_of(inbox), tmp_path / "sorted")
    assert Path(second.undo).name == "undo-2.csv"
    assert without_journal(snapshot(tmp_path / "sorted")) == PLACED
    done = run_inside("undo", first.undo)
    assert (done.returncode, b"nothing was left to take back; beside it: undo-2.csv" in done.stderr) == (0, True)


def test_a_torn_row_was_not_begun(inbox, tmp_path):
    found = sort(rows_of(inbox)[:1], tmp_path / "sorted")
    with Path(found.undo).open("ab") as file:
        file.write(b'link,"/a\nb')
    again = sort(rows_of(inbox), tmp_path / "sorted")
    assert again.undo == found.undo
    assert again.placed == 3
    actions = [line["action"] for line in read_csv(Path(found.undo))]
    assert actions == ["run", "folder", "link", "folder", "link", "link"]
    assert undo(Path(found.undo)).reversed == 3


def test_what_is_no_undo_file(tmp_path):
    (tmp_path / "split.csv").write_text("path,label\na,b\n")
    for path in (tmp_path / "split.csv", tmp_path / "gone.csv"):
        with pytest.raises(DataError):
            undo(path)
    with open_journal(tmp_path, "1") as journal, pytest.raises(RunError, match="in use"):
        undo(journal.path)


def test_a_full_disk_stops_and_can_be_gone_on_with(inbox, tmp_path):
    full = mock.patch("os.fsync", side_effect=[None, None, OSError(28, "No space left on device")])
    with full, pytest.raises(StorageError, match="No space left"):
        sort(rows_of(inbox), tmp_path / "sorted", "move")
    assert sorted(path.name for path in inbox.rglob("*.jpg")) == ["1.jpg", "1.jpg", "2.jpg", "bad.jpg"]
    found = sort(rows_of(inbox), tmp_path / "sorted", "move")
    assert found.placed == 3
    assert without_journal(snapshot(tmp_path / "sorted")) == PLACED


@pytest.mark.parametrize("mode", ["link", "copy", "move"])
def test_a_kill_where_links_are_not_possible(inbox, tmp_path, monkeypatch, mode):
    monkeypatch.setattr(os, "link", mock.Mock(side_effect=OSError(1, "no")))
    with open_journal(tmp_path / "sorted", "1"):
        pass
    with mock.patch.object(Path, "replace", side_effect=Killed), pytest.raises(Killed):
        sort(rows_of(inbox), tmp_path / "sorted", mode)
    assert (tmp_path / "sorted" / "cat" / "1.jpg").read_bytes() == b""
    found = sort(rows_of(inbox), tmp_path / "sorted", mode)
    assert found.left == []
    assert without_journal(snapshot(tmp_path / "sorted")) == PLACED


@pytest.mark.parametrize("links", ["possible", "impossible", "elsewhere"])
def test_a_photo_that_may_not_be_moved_stays_alone(inbox, tmp_path, monkeypatch, links):
    before, refused = snapshot(inbox), PermissionError(13, "Permission denied")
    real_unlink, real_link, real_replace = Path.unlink, os.link, Path.replace

    def unlink(self, missing_ok=False):
        if self.parent == inbox:
            raise refused
        real_unlink(self, missing_ok)

    def replace(self, target):
        if self.parent == inbox:
            raise refused
        return real_replace(self, target)

    def link(source, target, **options):
        if links != "possible" and Path(source).suffix != ".tmp":
            raise OSError(18 if links == "elsewhere" else 1, "no")
        return real_link(source, target, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        patch.setattr(Path, "replace", replace)
        patch.setattr(os, "link", link)
        found = sort(rows_of(inbox)[:2], tmp_path / "sorted", "move")
    assert [why for _, why in found.left] == ["Permission denied"] * 2
    assert snapshot(inbox) == before
    assert without_journal(snapshot(tmp_path / "sorted")) == {"cat": "folder", "unknown": "folder"}
    assert undo(Path(found.undo)).kept == ()
    assert listing(tmp_path / "sorted") == ["undo.csv"]


files = st.lists(
    st.tuples(st.sampled_from(["", "a", "b/c"]), st.sampled_from(["1.jpg", 'n\n"e,.jpg', "ü.png", "x\udcff.png"]),
              st.binary(max_size=3), st.sampled_from(["cat", '=cmd("x"), "', "unknown", None])),
    max_size=6, unique_by=lambda file: file[:2],
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files, files, st.sampled_from(["link", "copy", "move"]), st.lists(st.integers(1, 60), max_size=3))
def test_doing_and_undoing_is_nothing(photos, there, mode, kills):
    """Kills at any step, then the whole run: each photo in one place. Kills in undoing, then undo: as before."""
    with tempfile.TemporaryDirectory() as base:
        inbox, out = Path(base) / "inbox", Path(base) / "sorted"
        for root, group in ((inbox, photos), (out, there)):
            root.mkdir()
            for folder, name, content, label in group:
                parent = root / (folder if root is inbox else label or "own")
                parent.mkdir(parents=True, exist_ok=True)
                (parent / name).write_bytes(content)
        before = snapshot(Path(base))
        rows = [
            row(inbox / folder / name, label, error=None if label else {"code": "x"})
            for folder, name, _, label in photos
        ]
        for step in kills:
            with contextlib.suppress(Killed), killed_at(step):
                sort(rows, out, mode)
        found = sort(rows, out, mode)
        assert found.left == []
        after = without_journal(snapshot(out))
        for name, content in snapshot(Path(base) / "sorted").items():
            if f"sorted/{name}" in before:
                assert content == before[f"sorted/{name}"], "nothing is overwritten"
        for _, name, content, label in photos:
            if label:
                names = [key for key in after if key.startswith(f"{label}/{Path(name).stem}")]
                assert content in [after[key] for key in names]
        if mode == "move":
            labelled = [file for file in photos if file[3]]
            files_now = [value for value in after.values() if value != "folder"]
            assert len(files_now) == len(labelled) + sum(f"sorted/{key}" in before for key in after if "." in key)
            assert not any((inbox / folder / name).exists() for folder, name, _, _ in labelled)
        for step in kills:
            with contextlib.suppress(Killed), killed_at(step):
                undo(Path(found.undo))
        assert undo(Path(found.undo)).kept == ()
        assert without_journal(snapshot(Path(base))) == before


# --- the command

# kill -9 before the n-th of the calls that change a folder.
KILLER = """
import os, signal, sys
def count(event, _):
    if event == wanted:
        left.pop()
        left or os.kill(os.getpid(), signal.SIGKILL)
wanted, left = sys.argv[1], [0] * int(sys.argv[2])
sys.argv[1:3] = []
sys.addaudithook(count)
from pronk.cli import main
main(sys.argv[1:])
"""


def killed(event, number, *arguments):
    command = [sys.executable, "-c", KILLER, event, str(number), *map(os.fspath, arguments)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture
def photos(tmp_path):
    folder = write_photos(tmp_path / "photos", 20)
    (folder / "cold" / "bad.png").write_bytes(b"broken")
    return folder


def contents(folder):
    return sorted(path.read_bytes() for path in folder.rglob("*.png"))


def test_a_kill_while_photos_are_moved(whole_bundle, photos, tmp_path):
    before, undisturbed = snapshot(photos), predict(whole_bundle, photos, form="csv")[1]
    paths, out, place = sorted(photos.rglob("*.png")), tmp_path / "o.csv", tmp_path / "sorted"
    killed("os.link", 21, "predict", whole_bundle, *paths, "--out", out, "--sort-into", place, "--move")
    left = [path for path in paths if path.exists()]  # what a pattern still finds
    assert len(left) < len(paths)
    options = {"out": out, "sort_into": place, "mode": "move"}
    with pytest.raises(RunError, match="has begun to move photos, and was given other options"):
        predict(whole_bundle, *left, **options, top=1)
    done, _, _ = predict(whole_bundle, *left, **options)
    assert (done.sorted.placed, done.sorted.left) == (40, [])
    assert sorted(out.read_text().splitlines()) == sorted(undisturbed.splitlines())
    assert list(photos.rglob("*.png")) == [photos / "cold" / "bad.png"]
    for row in read_csv(out):
        assert row["error_code"] or list((place / row["label"]).glob(f"{Path(row['path']).stem}*.png"))
    assert len(list(place.rglob("*.png"))) == 40
    assert listing(tmp_path) == ["o.csv", "photos", "sorted"]
    killed("os.link", 9, "undo", place / "undo.csv")
    assert undo(place / "undo.csv").kept == ()
    assert snapshot(photos) == before
    assert listing(place) == ["undo.csv"]


def test_sorting_without_a_file_of_answers(whole_bundle, photos, tmp_path):
    before, place = contents(photos), tmp_path / "sorted"
    with killed_at(30), contextlib.suppress(Killed):
        predict(whole_bundle, photos, sort_into=place, top=3)
    assert (place / ".parts" / "plan.json").exists()
    done = run_inside("predict", whole_bundle, photos, "--sort-into", place, "--format", "csv")
    assert len(ok(done).splitlines()) == 42
    assert "goes on: " in done.stderr.decode()
    assert f"sorted: 40 photos; undo: pronk undo {place / 'undo.csv'}" in done.stderr.decode()
    assert set(listing(place)) <= {"cold", "warm", "undo.csv"}
    assert contents(photos) == before
    assert contents(place) == sorted(set(before) - {b"broken"})
    for number in (40, 0):
        assert ok(run_inside("undo", place / "undo.csv")) == f"undone: {number} files; kept: 0\n"


def test_what_was_left_is_said_also_when_quiet(whole_bundle, photos, tmp_path):
    (photos / "link.png").symlink_to(photos / "cold" / "0.png")
    done = run_inside("predict", whole_bundle, photos, "--sort-into", tmp_path / "sorted", "--move", "--quiet")
    assert done.returncode == 1
    lines = done.stderr.decode().splitlines()
    assert lines[0] == f"left where it is: {photos / 'link.png'}: it is a link, and moving a link would break it"
    assert "1 photo could not be sorted" in lines[1]


def test_a_strangers_model_cannot_write_elsewhere(bundle_copy, photos, tmp_path):
    for name in ("../outside", ".hidden", "undo-2.csv"):
        change_record(bundle_copy, classes=[name, "warm"])
        out = tmp_path / f"sorted {name[-3:]}"
        predict(bundle_copy, photos, sort_into=out)
        assert set(listing(out)) <= {"undo.csv", "folders.csv", "warm", *name_folders([name]).values()}
    assert all(name in ("model", "photos") or name.startswith("sorted ") for name in listing(tmp_path))


def test_photos_and_sorted_ones_do_not_mix(whole_bundle, photos, tmp_path, monkeypatch):
    """The next run would predict what this one sorted."""
    for place in (photos, photos / "sorted", tmp_path / "sorted" / ".." / "photos"):
        with pytest.raises(SettingsError, match="must lie outside"):
            predict(whole_bundle, photos, sort_into=place)
    monkeypatch.chdir(photos / "cold")
    with pytest.raises(SettingsError, match="lie in a class folder"):
        predict(whole_bundle, "1.png", sort_into=Path(".."))
    (tmp_path / "sorted").mkdir()
    (tmp_path / "sorted" / "cold").symlink_to(photos)
    with pytest.raises(SettingsError, match="is a link"):
        predict(whole_bundle, photos, sort_into=tmp_path / "sorted")
    assert listing(photos) == ["cold", "warm"]
    assert predict(whole_bundle, photos / "cold" / "1.png", sort_into=photos / "sorted")[0].sorted.placed == 1
