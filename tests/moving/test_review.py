"""review.csv: read with all its problems, applied as a list or by moves, taken back, gone on with after a kill."""

import itertools
import json
import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.commands import HOSTILE, ok, read_csv, run_inside
from helpers.killing import Killed, killed_at, snapshot
from pronk.dataset.listing import list_photos
from pronk.errors import DataError, RunError, SettingsError, StorageError
from pronk.moving import journal
from pronk.moving.journal import open_journal
from pronk.moving.review import COLUMNS, Decision, move_photos, read_review, remove_list, undo_moves, write_list
from pronk.storage.files import digest_file, write_csv

HEAD = ",".join(COLUMNS) + "\n"
DIGEST = "0" * 64


@pytest.fixture
def photos(tmp_path):
    return make_photos(tmp_path / "photos")


def make_photos(folder):
    for name in ("cat/1.jpg", "cat/2.jpg", "cat/3.jpg", "dog/1.jpg", "dog/4.jpg", "emu/5.jpg", "emu/more/6.jpg"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"photo {name}".encode())
    return folder


def write_review(photos, decisions, *, name="review.csv"):
    """Write what a person decided: {path: action, or the label to move to}."""
    rows = []
    for path, decision in decisions.items():
        action = decision if decision in ("keep", "drop") else "move"
        label = decision if action == "move" else ""
        digest = digest_file(photos / path) if (photos / path).is_file() else DIGEST
        pieces = path.split("/")
        given = pieces[1] if pieces[0] in ("train", "val", "test") else pieces[0]
        rows.append(dict(zip(COLUMNS, (path, digest, given, action, label), strict=True)))
    review = photos.parent / name
    write_csv(review, COLUMNS, rows)
    return review


DECISIONS = {"cat/1.jpg": "dog", "cat/2.jpg": "drop", "dog/4.jpg": "keep", "emu/more/6.jpg": "cat"}


# --- reading


def test_everything_wrong_is_told_with_its_line(tmp_path):
    review = tmp_path / "review.csv"
    review.write_text(
        HEAD + f'"a\nb/1.jpg",{DIGEST},cat,keep,\n,{DIGEST},cat,keep,\na/1.jpg,12,cat,drop,\n'
        f"a/2.jpg,{DIGEST},cat,delete,\na/3.jpg,{DIGEST},cat,move,\na/4.jpg,{DIGEST},cat,keep,\n"
        f"./a/4.jpg,{DIGEST},cat,drop,\na/5.jpg\n"
    )
    with pytest.raises(DataError) as error:
        read_review(review)
    assert str(error.value).removeprefix(f"{review}: ").split("; ") == [
        "line 4: the path is missing", "line 5: digest must be a sha256. Got '12'",
        "line 6: action must be keep, move or drop. Got 'delete'", "line 7: move needs a label",
        "line 9: './a/4.jpg' is decided twice", "line 10: digest must be a sha256. Got ''",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "lacks the columns"),
        (b"path,label\na,b\n", "lacks the columns"),
        (b"PK\x03\x04\x00\xff", "lacks the columns"),
        (HEAD.encode() + b'"' + b"x" * 200_000, "cannot read"),
        (HEAD.encode() + b"a,b,c,d,e\n" * 50, "; and 40 more"),
    ],
)
def test_what_is_no_review(tmp_path, content, says):
    (tmp_path / "review.csv").write_bytes(content)
    with pytest.raises(DataError, match=says) as error:
        read_review(tmp_path / "review.csv")
    assert "review.csv" in str(error.value)
    assert error.value.hint


names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0/")
    | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF),
    min_size=1, max_size=12,
)  # fmt: skip


def guard(value):
    """What the page does, see review.js; tests/report/test_review_page.py holds them against each other."""
    return f"'{value}" if value.lstrip("'")[:1] in ("=", "+", "-", "@", "\t", "\r") and value.lstrip("'") else value


@given(names, names, names)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_name_survives(tmp_path, path, given_label, label):
    review = tmp_path / "review.csv"
    decision = Decision(path, DIGEST, given_label, "move", label)
    row = (guard(path), DIGEST, guard(given_label), "move", guard(label))
    write_csv(review, COLUMNS, [dict(zip(COLUMNS, row, strict=True))])
    assert read_review(review) == (decision,)


# --- a corrected list


def test_the_list_is_the_data_set_as_it_ought_to_be(photos, tmp_path):
    before = snapshot(photos)
    done = write_list(write_review(photos, DECISIONS), photos, tmp_path / "lists" / "corrected.csv")
    assert (done.kept, done.moved, done.dropped, done.left) == (1, 2, 1, ())
    listing = list_photos(done.file)
    labels = {os.path.relpath(listing.root / entry.path, photos): entry.label for entry in listing.entries}
    assert labels == {
        "cat/1.jpg": "dog", "cat/3.jpg": "cat", "dog/1.jpg": "dog", "dog/4.jpg": "dog", "emu/5.jpg": "emu",
        "emu/more/6.jpg": "cat",
    }  # fmt: skip
    assert all((listing.root / entry.path).is_file() for entry in listing.entries)
    assert "part" not in read_csv(done.file)[0]
    assert snapshot(photos) == before


def test_a_list_is_corrected_as_a_folder_is(photos, tmp_path):
    first = tmp_path / "first.csv"
    write_list(write_review(photos, {"cat/1.jpg": "dog"}), photos, first)
    row = {"path": "photos/cat/1.jpg", "digest": digest_file(photos / "cat/1.jpg"), "given": "dog"}
    write_csv(tmp_path / "again.csv", COLUMNS, [row | {"action": "move", "label": "emu"}])
    done = write_list(tmp_path / "again.csv", first, tmp_path / "second.csv")
    assert done.moved == 1
    assert {row["path"]: row["label"] for row in read_csv(done.file)}["photos/cat/1.jpg"] == "emu"


def test_parts_are_kept(photos, tmp_path):
    parts = tmp_path / "parts"
    for part in ("train", "test"):
        shutil.copytree(photos, parts / part)
    (parts / "test" / "cat" / "1.jpg").write_bytes(b"another")
    done = write_list(write_review(parts, {"test/cat/1.jpg": "dog"}), parts, tmp_path / "list.csv")
    rows = {row["path"]: row for row in read_csv(done.file)}
    assert rows["parts/test/cat/1.jpg"] == {"path": "parts/test/cat/1.jpg", "label": "dog", "part": "test"}
    assert rows["parts/train/cat/1.jpg"]["part"] == "train"


def test_the_parts_of_a_run_are_kept(photos, tmp_path):
    split = tmp_path / "split.csv"
    split.write_text("path,label,part,digest,group\ncat/1.jpg,cat,test,,\nemu/5.jpg,emu,val,,\ngone.jpg,cat,val,,\n")
    review = write_review(photos, DECISIONS)
    rows = {row["path"]: row for row in read_csv(write_list(review, photos, tmp_path / "l.csv", split=split).file)}
    assert (rows["photos/cat/1.jpg"]["label"], rows["photos/cat/1.jpg"]["part"]) == ("dog", "test")
    assert (rows["photos/emu/5.jpg"]["part"], rows["photos/cat/3.jpg"]["part"]) == ("val", "")
    split.write_text("path,label,part\nother/1.jpg,cat,test\n")
    with pytest.raises(DataError, match=r"no photo in .* is named in"):
        write_list(review, photos, tmp_path / "m.csv", split=split)


def test_nothing_is_overwritten_and_the_same_is_done_once(photos, tmp_path):
    review, out = write_review(photos, DECISIONS), tmp_path / "corrected.csv"
    write_list(review, photos, out)
    assert write_list(review, photos, out).moved == 2
    other = write_review(photos, {"cat/1.jpg": "emu"}, name="other.csv")
    with pytest.raises(StorageError, match="exists already"):
        write_list(other, photos, out)
    with pytest.raises(DataError, match="is not what this review makes"):
        remove_list(other, photos, out)
    remove_list(review, photos, out)
    assert not out.exists()
    with pytest.raises(DataError, match="there is no"):
        remove_list(review, photos, out)


def test_the_list_does_not_lie_among_the_photos(photos, tmp_path):
    review = write_review(photos, DECISIONS)
    (tmp_path / "link").symlink_to(photos / "cat")
    for out in (photos / "list.csv", tmp_path / "link" / "list.csv"):
        with pytest.raises(SettingsError, match="outside of the photos"):
            write_list(review, photos, out)


def test_paths_hold_through_links(photos, tmp_path):
    """`..` in a path leads up from where a link leads to, not from where it lies."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er")
    out = tmp_path / "link" / "list.csv"
    write_list(write_review(photos, DECISIONS), photos, out)
    assert all((out.parent / row["path"]).is_file() for row in read_csv(out))


def test_a_class_that_no_list_can_name(photos, tmp_path):
    (photos / os.fsdecode(b"caf\xe9")).mkdir()
    (photos / os.fsdecode(b"caf\xe9") / "1.jpg").write_bytes(b"1")
    with pytest.raises(DataError, match="bytes that are not text") as error:
        write_list(write_review(photos, DECISIONS), photos, tmp_path / "list.csv")
    assert "can be read" in error.value.hint


def test_hostile_names_in_a_list(photos, tmp_path):
    for number, name in enumerate(HOSTILE):
        (photos / "cat" / os.fsdecode(name)).write_bytes(b"%d" % number)
    decisions = {f"cat/{os.fsdecode(name)}": "dog" for name in HOSTILE}
    done = write_list(write_review(photos, decisions), photos, tmp_path / "list.csv")
    assert done.moved == len(HOSTILE)
    entries = {entry.path: entry.label for entry in list_photos(done.file).entries}
    assert all(entries[f"photos/{path}"] == "dog" for path in decisions)


# --- photos that are not what was reviewed

GONE = "it is no longer there"


@pytest.mark.parametrize("way", ["list", "move"])
def test_what_changed_since_is_left(photos, tmp_path, way):
    review = write_review(photos, DECISIONS | {"cat/3.jpg": "dog", "emu/5.jpg": "dog"})
    (photos / "cat" / "1.jpg").write_bytes(b"another photo")
    (photos / "cat" / "3.jpg").unlink()
    (photos / "emu" / "5.jpg").unlink()
    os.mkfifo(photos / "emu" / "5.jpg")  # reading it would wait for ever
    before = (photos / "cat" / "1.jpg").read_bytes()
    if way == "list":
        done = write_list(review, photos, tmp_path / "list.csv")
    else:
        done = move_photos(review, photos, tmp_path / "bad")
    assert dict(done.left) == {
        "cat/1.jpg": "it was changed since it was reviewed", "cat/3.jpg": GONE,
        "emu/5.jpg": "it was changed since it was reviewed",
    }  # fmt: skip
    assert (done.moved, done.dropped, done.kept) == (1, 1, 1)
    assert (photos / "cat" / "1.jpg").read_bytes() == before


def test_a_name_that_a_program_has_spoiled_is_found_by_content(photos, tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    (photos / "cat" / name).write_bytes(b"unique")
    review = write_review(photos, {f"cat/{name}": "dog"})
    review.write_bytes(review.read_bytes().replace(b"\xe9", "\ufffd".encode()))
    done = move_photos(review, photos, tmp_path / "bad")
    assert (done.moved, done.left) == (1, ())
    assert (photos / "dog" / name).read_bytes() == b"unique"
    assert move_photos(review, photos, tmp_path / "bad") == done, "and again, after it has moved"
    undo_moves(review, photos, tmp_path / "bad")
    assert (photos / "cat" / name).exists()


def test_a_content_that_several_have_is_not_guessed(photos, tmp_path):
    for name in (b"a\xe9.jpg", b"b\xe9.jpg"):
        (photos / "cat" / os.fsdecode(name)).write_bytes(b"the same")
    review = write_review(photos, {"cat/" + os.fsdecode(b"a\xe9.jpg"): "dog"})
    review.write_bytes(review.read_bytes().replace(b"\xe9", b"?"))
    done = write_list(review, photos, tmp_path / "list.csv")
    assert done.left == (("cat/a?.jpg", "several photos have its content"),)


@pytest.mark.parametrize("name", ["dgo", "../../evil", "..", "brandnew", "dog/inner", "/evil"])
def test_a_slip_of_the_pen_and_a_claim_make_no_class(photos, tmp_path, name):
    """A row that names a class as given, of a photo that is not there, makes it no place to move to."""
    review = write_review(photos, {"cat/1.jpg": name})
    with review.open("a") as file:
        file.write(f"gone/x.jpg,{DIGEST},{name},keep,\n")
    before = sorted(tmp_path.rglob("*"))
    for apply in (write_list, move_photos):
        with pytest.raises(DataError, match=f"no class is named {name!r}") as error:
            apply(review, photos, tmp_path / "out")
        assert "'cat', 'dog', 'emu'" in error.value.hint
    assert sorted(tmp_path.rglob("*")) == before


# --- moving


def test_photos_move_to_their_classes_and_back(photos, tmp_path):
    (photos / "dog" / "1.jpg").write_bytes(b"photo dog/1.jpg")
    before, review = snapshot(photos), write_review(photos, DECISIONS)
    done = move_photos(review, photos, tmp_path / "bad")
    assert (done.kept, done.moved, done.dropped, done.left) == (1, 2, 1, ())
    after = snapshot(photos)
    assert after["dog/1.jpg"] == b"photo dog/1.jpg", "what has the name keeps it"
    assert after["dog/1-2.jpg"] == b"photo cat/1.jpg"
    assert after["cat/more/6.jpg"] == b"photo emu/more/6.jpg"
    assert (tmp_path / "bad" / "cat" / "2.jpg").read_bytes() == b"photo cat/2.jpg"
    assert done.file == tmp_path / "bad" / "undo.csv"
    assert move_photos(review, photos, tmp_path / "bad") == done, "the same call finds it done"
    assert snapshot(photos) == after
    undone = undo_moves(review, photos, tmp_path / "bad")
    assert (undone.reversed, undone.kept) == (3, ())
    assert snapshot(photos) == before
    with pytest.raises(DataError, match=r"nothing that .* did is left to take back"):
        undo_moves(review, photos, tmp_path / "bad")
    assert move_photos(review, photos, tmp_path / "bad").file.name == "undo-2.csv"
    assert snapshot(photos) == after


def test_photos_stay_in_their_part(photos, tmp_path):
    parts = tmp_path / "parts"
    shutil.copytree(photos, parts / "Train")
    (parts / "val" / "cat").mkdir(parents=True)
    (parts / "val" / "cat" / "9.jpg").write_bytes(b"photo 9")
    review = write_review(parts, {"val/cat/9.jpg": "emu"})
    assert move_photos(review, parts, tmp_path / "bad").moved == 1
    assert (parts / "val" / "emu" / "9.jpg").exists()
    undo_moves(review, parts, tmp_path / "bad")
    assert not (parts / "val" / "emu").exists(), "the folder that it made is gone"


def test_the_label_of_a_dropped_photo_means_nothing(photos, tmp_path):
    review = write_review(photos, {"cat/2.jpg": "drop", "cat/1.jpg": "cat"})
    review.write_text(review.read_text().replace(",drop,", ",drop,cat"))
    done = move_photos(review, photos, tmp_path / "bad")
    assert (done.dropped, done.moved, done.kept) == (1, 0, 1), "a move to where it is keeps it there"
    assert (photos / "cat" / "1.jpg").exists()
    assert not (photos / "cat" / "2.jpg").exists()
    assert write_list(review, make_photos(tmp_path / "again" / "photos"), tmp_path / "list.csv").dropped == 1


def test_folders_that_lie_in_each_other(photos, tmp_path):
    review = write_review(photos, DECISIONS)
    for quarantine in (photos, photos / "bad", tmp_path):
        with pytest.raises(SettingsError, match="must be a folder beside"):
            move_photos(review, photos, quarantine)
    with pytest.raises(SettingsError, match="needs a folder of class folders"):
        move_photos(review, tmp_path / "list.csv", tmp_path / "bad")
    with open_journal(tmp_path / "bad", "other"), pytest.raises(RunError, match="in use"):
        move_photos(review, photos, tmp_path / "bad")


def test_a_photo_that_may_not_move_is_told(photos, tmp_path, monkeypatch):
    real, review = journal.place, write_review(photos, DECISIONS)

    def place(action, run):
        if action.source.endswith("6.jpg"):
            raise PermissionError(13, "Permission denied")
        real(action, run)

    monkeypatch.setattr(journal, "place", place)
    done = move_photos(review, photos, tmp_path / "bad")
    assert done.left == (("emu/more/6.jpg", "Permission denied"),)
    assert (done.moved, done.dropped) == (1, 1)
    assert (photos / "emu" / "more" / "6.jpg").exists()


SWAP = {"cat/1.jpg": "dog", "cat/2.jpg": "drop", "cat/3.jpg": "emu", "dog/1.jpg": "cat", "dog/4.jpg": "cat"}


def test_after_a_kill_at_any_step_the_same_call_goes_on(tmp_path):
    """Also where all photos of a class were moved and others are still to come in."""
    whole = make_photos(tmp_path / "whole" / "photos")
    expected_done = move_photos(write_review(whole, SWAP), whole, tmp_path / "whole" / "bad")
    expected = snapshot(whole)
    for step in itertools.count(1):
        base = tmp_path / str(step)
        photos = make_photos(base / "photos")
        before, review = snapshot(photos), write_review(photos, SWAP)
        killed = False
        with killed_at(step):
            try:
                move_photos(review, photos, base / "bad")
            except Killed:
                killed = True
        if step == 5:  # what is changed between is left
            (photos / "dog" / "4.jpg").write_bytes(b"edited")
            left = move_photos(review, photos, base / "bad").left
            assert left == (("dog/4.jpg", "it was changed since it was reviewed"),)
            (photos / "dog" / "4.jpg").write_bytes(b"photo dog/4.jpg")
        done = move_photos(review, photos, base / "bad")
        assert (done.moved, done.dropped, done.left) == (expected_done.moved, expected_done.dropped, ()), step
        assert snapshot(photos) == expected, step
        assert undo_moves(review, photos, base / "bad").kept == ()
        assert snapshot(photos) == before, step
        if not killed:
            break
    assert step > 10


# --- the command


def test_the_command_writes_a_list_and_takes_it_back(photos, tmp_path):
    review, out = write_review(photos, DECISIONS | {"emu/5.jpg": "dog"}), tmp_path / "corrected.csv"
    (photos / "emu" / "5.jpg").write_bytes(b"another photo")
    done = run_inside("audit", photos, "--apply", review, "--out", out)
    assert done.returncode == 1
    assert done.stdout.decode() == f"{out}\n"
    assert b"left as it is: emu/5.jpg: it was changed since it was reviewed" in done.stderr
    assert b"2 moved, 1 dropped, 1 kept, 1 left" in done.stderr
    assert f"pronk train {out}".encode() in done.stderr
    assert len(list_photos(out).entries) == 6
    undone = run_inside("audit", photos, "--apply", review, "--out", out, "--undo", "--json")
    assert json.loads(ok(undone)) == {"undone": 1, "kept": []}
    assert not out.exists()


def test_the_command_moves_and_takes_back(photos, tmp_path):
    words = ("audit", photos, "--apply", write_review(photos, DECISIONS), "--move", "--quarantine", tmp_path / "bad")
    record = json.loads(ok(run_inside(*words, "--json")))
    assert record == {"file": str(tmp_path / "bad" / "undo.csv"), "moved": 2, "dropped": 1, "kept": 1, "left": []}
    (photos / "cat" / "1.jpg").write_bytes(b"a new photo of that name")
    done = run_inside(*words, "--undo")
    assert done.returncode == 1
    assert b"another file is at" in done.stderr
    assert done.stdout == b"undone: 2 files; kept: 1\n"
