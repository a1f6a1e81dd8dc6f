"""Photos that arrive: each predicted once when it is complete, also after a restart."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from helpers.commands import HOSTILE, fails, ok
from helpers.outputs import count_lines, listing, read_csv, wait_for
from helpers.training import hear_interrupts, run_pronk, write_photos
from pronk.batch.plans import Request
from pronk.batch.shards import load_model
from pronk.batch.tables import list_columns
from pronk.batch.watching import PATIENCE, follow, open_appender, watch_photos
from pronk.errors import DataError
from pronk.model.predictor import Prediction, Predictor


class Enough(Exception):  # noqa: N818 - no error
    """The test has seen enough."""


@pytest.fixture(scope="module")
def predictor(whole_bundle):
    return Predictor.load(whole_bundle)


@pytest.fixture
def inbox(tmp_path):
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = write_photos(tmp_path_factory.mktemp("pictures"), 4)
    return [path.read_bytes() for path in sorted(folder.rglob("*.png"))]


def watch(predictor, folders, steps, **options):
    """Run steps between looks, then a few looks more; return names as they come, and look at which each came."""
    looks = [0]
    waiting = iter([*steps, *[None] * 3])

    def wait():
        looks[0] += 1
        step = next(waiting, Enough)
        if step is Enough:
            raise Enough
        if step:
            step()

    found = []
    with contextlib.suppress(Enough):
        for prediction, _ in watch_photos(predictor, folders, wait=wait, **options):
            found.append((Path(prediction.path).name, looks[0], prediction.error and prediction.error.reason.value))
    return found


def test_what_is_there_and_what_arrives(predictor, inbox, pictures):
    (inbox / "a.png").write_bytes(pictures[0])
    (inbox / "sub").mkdir()
    steps = [
        lambda: (inbox / "sub" / "b.png").write_bytes(pictures[1]),
        lambda: (inbox / ".hidden.png").write_bytes(pictures[1]),
    ]
    assert watch(predictor, [inbox], steps) == [("a.png", 1, None), ("b.png", 2, None)]


def test_a_photo_that_grows_is_waited_for(predictor, inbox, pictures):
    photo, data = inbox / "a.png", pictures[0]
    steps = [lambda end=end: photo.write_bytes(data[:end]) for end in (100, 200, 300, len(data))]
    assert watch(predictor, [inbox], steps) == [("a.png", 5, None)]


def test_copying_that_pauses_gives_no_row_of_half_a_photo(predictor, inbox, pictures):
    photo, data = inbox / "a.png", pictures[0]
    steps = [lambda: photo.write_bytes(data[:99]), *[None] * 4, lambda: photo.write_bytes(data)]
    assert watch(predictor, [inbox], steps) == [("a.png", 7, None)]


def test_what_stays_unusable_is_said_once(predictor, inbox):
    (inbox / "a.png").write_bytes(b"")
    (inbox / "b.png").symlink_to("nowhere")
    found = watch(predictor, [inbox], [None] * 2 * PATIENCE)
    assert found == [("a.png", PATIENCE, "zero_byte"), ("b.png", PATIENCE, "vanished")]


def test_each_path_once_unless_another_photo_comes(predictor, inbox, pictures):
    photo = inbox / "a.png"
    photo.write_bytes(pictures[0])

    def go():
        photo.rename(inbox.parent / "away.png")

    def come_back():
        (inbox.parent / "away.png").rename(photo)

    steps = [None, photo.touch, lambda: photo.write_bytes(pictures[1]), None, go, None, come_back]
    assert watch(predictor, [inbox], steps) == [("a.png", 1, None)], "the same file is not new when it comes back"
    steps = [None, photo.unlink, None, lambda: photo.write_bytes(pictures[2])]
    assert watch(predictor, [inbox], steps) == [("a.png", 1, None), ("a.png", 5, None)]


def test_a_folder_that_is_away_for_a_while(predictor, inbox, pictures):
    (inbox / "a.png").write_bytes(pictures[0])
    other = inbox.with_name("elsewhere")
    steps = [None, lambda: inbox.rename(other), None, lambda: other.rename(inbox)]
    assert watch(predictor, [inbox], steps) == [("a.png", 1, None)]


def test_folders_within_each_other_and_known_paths(predictor, inbox, pictures):
    (inbox / "sub").mkdir()
    for name in ("a.png", "sub/b.png", "rows.csv"):
        (inbox / name).write_bytes(pictures[0])
    found = watch(predictor, [inbox, inbox / "sub"], [], known=[str(inbox / "a.png")], ignored=[inbox / "rows.csv"])
    assert found == [("b.png", 1, None)]
    with pytest.raises(DataError, match="is no folder"):
        next(watch_photos(predictor, [inbox / "a.png"]))


def test_a_known_path_that_comes_back_is_new(predictor, inbox, pictures):
    known = [str(inbox / "a.png")]
    assert watch(predictor, [inbox], [lambda: (inbox / "a.png").write_bytes(pictures[0])], known=known) == [
        ("a.png", 2, None)
    ]


# --- the file of rows


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_rows_are_appended_and_a_torn_one_is_cut(tmp_path, form):
    path, columns = tmp_path / f"rows.{form}", list_columns(1)
    record = {"path": "a\nb,\".png", "label": "cat", "score": 0.5, "scores": [{"label": "cat", "score": 0.5}],
              "unknown": False, "distance": None, "error": None}  # fmt: skip
    names = [os.fsdecode(name) for name in HOSTILE]
    with open_appender(path, form, columns) as rows:
        for name in names:
            rows.append(record | {"path": name})
    whole = path.read_bytes()
    for cut in range(1, 40):
        path.write_bytes(whole[:-cut])
        with open_appender(path, form, columns) as rows:
            assert [row["path"] for row in rows.former] == names[:-1]
            rows.append(record | {"path": names[-1]})
        assert path.read_bytes() == whole
    with open_appender(path, form, columns) as rows:
        assert [(row["path"], row["label"], bool(row["error"])) for row in rows.former] == [
            (n, "cat", False) for n in names
        ]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("content", [b"my diary", b"path,label\na,b\n", b"[\n{}]\n", b'{"path": 1}\n', b"\xff\xfe\x00"])
def test_a_file_of_something_else_is_not_touched(tmp_path, form, content):
    path = tmp_path / f"rows.{form}"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is no file of predictions"), open_appender(path, form, list_columns(2)):
        pass
    assert path.read_bytes() == content


# --- sorting


def run_follow(predictor, bundle, inbox, place, *, looks=3, former=(), mode="move", fail=None):
    request = Request(str(bundle), "x", "", "", top=1, sort_into=str(place), mode=mode)
    left, written = [looks], []

    def wait():
        left[0] -= 1
        if left[0] < 0:
            raise Enough

    def write(record):
        written.append(record)
        if fail:
            raise fail

    with pytest.raises(Enough):
        follow(predictor, [inbox], request, write=write, former=former, wait=wait)
    return written


@pytest.mark.parametrize("mode", ["move", "link", "copy"])
def test_what_arrives_is_sorted_also_after_a_restart(predictor, whole_bundle, inbox, tmp_path, pictures, mode):
    place = tmp_path / "sorted"
    (inbox / "a.png").write_bytes(pictures[0])
    rows = run_follow(predictor, whole_bundle, inbox, place, mode=mode)
    label = rows[0]["label"]
    assert listing(place) == sorted([label, "undo.csv"])
    assert (inbox / "a.png").exists() == (mode != "move")
    (inbox / "b.png").write_bytes(pictures[0])
    rows += run_follow(predictor, whole_bundle, inbox, place, mode=mode, former=rows, fail=Enough())  # killed between
    assert (inbox / "b.png").exists()
    assert len(rows) == 2
    if mode == "move":
        (inbox / "a.png").write_bytes(pictures[0])  # another photo of that name, though the same content
        (inbox / "c.png").write_bytes(pictures[0])
    rows += run_follow(predictor, whole_bundle, inbox, place, mode=mode, former=rows)
    assert listing(place) == sorted([label, "undo.csv"])
    assert set(listing(place / label)) == {"a.png", "b.png"} | ({"c.png"} if mode == "move" else set())
    assert listing(inbox) == ([] if mode == "move" else ["a.png", "b.png"])
    ok(run_pronk("undo", place / "undo.csv"))
    assert listing(inbox) == (["a.png", "b.png", "c.png"] if mode == "move" else ["a.png", "b.png"])


def test_another_photo_of_the_name_of_a_moved_one_is_new(predictor, whole_bundle, inbox, tmp_path, pictures):
    place = tmp_path / "sorted"
    (inbox / "a.png").write_bytes(pictures[0])
    rows = run_follow(predictor, whole_bundle, inbox, place)
    (inbox / "a.png").write_bytes(pictures[1])
    assert len(run_follow(predictor, whole_bundle, inbox, place, former=rows)) == 1
    assert len(list(place.rglob("a*.png"))) == 2


class Reader:
    """Stands for a predictor: says of each file what is written in it."""

    def predict_one(self, path):
        cold = float(Path(path).read_bytes() == b"cold")
        return Prediction(os.fspath(path), ("cold", "warm"), np.array([cold, 1 - cold]))

    def stream(self, paths):
        return map(self.predict_one, paths)


@pytest.mark.parametrize("mode", ["link", "copy", "move"])
@pytest.mark.parametrize("placed", [True, False])
def test_a_photo_that_was_replaced_while_nobody_watched_is_new(inbox, tmp_path, mode, placed):
    place, photo = tmp_path / "sorted", inbox / "a.png"
    photo.write_bytes(b"cold")
    killed = None if placed else Enough()  # between row and place
    (former,) = run_follow(Reader(), "model", inbox, place, mode=mode, fail=killed)
    photo.unlink(missing_ok=True)
    photo.write_bytes(b"warm")
    os.utime(photo, (1, 1))
    (row,) = run_follow(Reader(), "model", inbox, place, mode=mode, former=[former])
    assert row["label"] == "warm"
    assert listing(place) == [*(["cold"] if placed else []), "undo.csv", "warm"]
    assert (place / "warm" / "a.png").read_bytes() == b"warm"


@pytest.mark.parametrize("mode", ["link", "copy", "move"])
def test_a_kill_between_row_and_place_gives_no_second_row(inbox, tmp_path, mode):
    (inbox / "a.png").write_bytes(b"cold")
    rows = run_follow(Reader(), "model", inbox, tmp_path / "sorted", mode=mode, fail=Enough())
    assert run_follow(Reader(), "model", inbox, tmp_path / "sorted", mode=mode, former=rows) == []
    assert listing(tmp_path / "sorted" / "cold") == ["a.png"]


# --- the command


def start_watching(*arguments, **options):
    command = [sys.executable, "-m", "pronk", "predict", *map(os.fspath, arguments), "--watch"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=hear_interrupts, **options)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_watching_goes_on_after_a_kill(whole_bundle, inbox, tmp_path, pictures, suffix):
    out = inbox / f"rows.{suffix}"  # among the photos, which must do no harm
    for end, number in ((signal.SIGKILL, 1), (signal.SIGKILL, 2), (signal.SIGINT, 3)):
        (inbox / f"{number}.png").write_bytes(pictures[number])
        with start_watching(whole_bundle, inbox, "--out", out) as process:
            wait_for(lambda number=number: count_lines(out) >= number + (suffix == "csv"))
            if number == 1:
                assert "is in use by process" in fails(run_pronk("predict", whole_bundle, inbox, "--out", out))
            process.send_signal(end)
            text = process.stderr.read().decode()
        if end == signal.SIGKILL:
            with out.open("ab") as file:
                file.write(b'{"path": "torn')
    assert process.returncode == 130
    said = [line for line in text.splitlines() if line]
    assert said == [f"watching {inbox}; Ctrl-C ends", "stopped; the same command goes on"]
    rows = read_csv(out) if suffix == "csv" else [json.loads(line) for line in out.read_text().splitlines()]
    assert [Path(row["path"]).name for row in rows] == ["1.png", "2.png", "3.png"]
    assert listing(inbox) == ["1.png", "2.png", "3.png", out.name]


def test_watching_without_a_file_answers_at_once(whole_bundle, inbox, pictures):
    with start_watching(whole_bundle, inbox, "--format", "jsonl", stdout=subprocess.PIPE) as process:
        (inbox / "1.png").write_bytes(pictures[1])
        assert json.loads(process.stdout.readline())["path"] == str(inbox / "1.png")
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b""
        assert process.stderr.read().decode().splitlines()[-1] == "stopped"
    assert process.returncode == 130
    assert load_model(str(whole_bundle))[1].classes


def test_a_list_on_standard_input_is_not_watched(whole_bundle):
    with start_watching(whole_bundle, "-", stdin=subprocess.PIPE) as process:
        assert process.wait(60) == 1, "it does not wait for the end of the list"
        assert b"'-' is no folder" in process.stderr.read()


def test_what_cannot_be_watched(whole_bundle, inbox, tmp_path):
    for path in (tmp_path / "gone", "-"):
        assert "is no folder" in fails(run_pronk("predict", whole_bundle, path, "--watch"))
