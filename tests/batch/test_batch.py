"""Each photo exactly once, whatever happens: kill -9, a full disk, files that change, a model that is replaced."""

import contextlib
import errno
import itertools
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from helpers.commands import HOSTILE, listing, predict, read_csv, wait_for
from helpers.killing import Killed
from helpers.training import change_record, hear_interrupts, write_photos
from pronk.batch import request as batching
from pronk.batch import shards
from pronk.batch.plans import Spec, lock_work, open_plan
from pronk.batch.request import take_shard
from pronk.batch.shards import load_model
from pronk.batch.tables import COLUMNS, list_columns, save_records
from pronk.cli.predict import predict as command
from pronk.errors import DataError, MissingExtra, ModelError, RunError, SettingsError, StorageError

FORMS = ("csv", "json", "jsonl", "parquet", "txt")


@pytest.fixture(autouse=True)
def one_photo_per_shard(monkeypatch):
    monkeypatch.setattr("pronk.batch.plans.MOST_PER_SHARD", 1)


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos", 10)


def stop_after(count, *arguments, **options):
    """Begin a run, and let the disk be full when some shards are done."""
    real, shard = shards.write_part, itertools.count()

    def write_part(*args, **kwargs):
        if next(shard) >= count:
            raise StorageError("cannot write part: No space left on device")
        real(*args, **kwargs)

    full = mock.patch.object(shards, "write_part", write_part)
    with full, pytest.raises(StorageError, match="No space left") as error:
        predict(*arguments, **options)
    assert "the same command goes on" in error.value.hint


# --- what is written


def test_every_form_holds_what_the_stream_says(whole_bundle, photos, tmp_path):
    (photos / "cold" / "3.png").write_bytes(b"")
    done, text, _ = predict(whole_bundle, photos, form="json")
    assert (done.photos, done.failed, done.sorted) == (20, 1, None)
    outs = {form: tmp_path / "new" / f"o.{form}" for form in FORMS}
    for out in outs.values():
        assert predict(whole_bundle, photos, out=out) == (done, "", [])
    assert listing(tmp_path / "new") == sorted(out.name for out in outs.values()), "nothing else is left"
    assert json.loads(outs["json"].read_text()) == json.loads(text)
    assert list(map(json.loads, outs["jsonl"].read_text().splitlines())) == json.loads(text)
    assert outs["txt"].read_text() == predict(whole_bundle, photos)[1]
    assert outs["csv"].read_text() == predict(whole_bundle, photos, form="csv")[1]
    parquet = pytest.importorskip("pyarrow.parquet").read_table(outs["parquet"])
    assert parquet.column_names == [*list_columns(2), "path_bytes"]
    for row, flat in zip(parquet.to_pylist(), read_csv(outs["csv"]), strict=True):
        assert row.pop("path_bytes") is None
        assert {name: "" if value is None else str(value) for name, value in row.items()} == flat
    predict(whole_bundle, photos, out=tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == outs["parquet"].read_bytes()


def test_sets_and_unknown(whole_bundle, photos, tmp_path):
    options = {"coverage": 0.9, "unknown": "off"}
    predict(whole_bundle, photos / "cold", out=tmp_path / "o.csv", **options)
    rows = read_csv(tmp_path / "o.csv")
    assert list(rows[0]) == [*COLUMNS, "set", "label_1", "score_1", "label_2", "score_2"]
    records = map(json.loads, predict(whole_bundle, photos / "cold", form="jsonl", **options)[1].splitlines())
    assert [json.loads(row["set"]) for row in rows] == [record["set"] for record in records]
    assert all(set(json.loads(row["set"])) <= {"cold", "warm"} and json.loads(row["set"]) for row in rows)
    assert "{" in predict(whole_bundle, photos / "cold", coverage=0.9)[1].splitlines()[0]


def test_hostile_names_survive_every_form(whole_bundle, photos, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name in HOSTILE:
        shutil.copy(photos / "cold" / "0.png", folder / os.fsdecode(name))
    (folder / os.fsdecode(b"bad\xff.jpg")).write_text("no photo")
    wanted = sorted(map(os.fsencode, folder.iterdir()))
    for form in ("csv", "jsonl", "parquet"):
        predict(whole_bundle, folder, out=tmp_path / f"o.{form}")
    assert sorted(os.fsencode(row["path"]) for row in read_csv(tmp_path / "o.csv")) == wanted
    lines = (tmp_path / "o.jsonl").read_bytes().splitlines()
    assert sorted(os.fsencode(json.loads(line)["path"]) for line in lines) == wanted
    rows = pq.read_table(tmp_path / "o.parquet").to_pylist()
    assert sorted(row["path_bytes"] or row["path"].encode() for row in rows) == wanted
    assert sum(row["path_bytes"] is not None for row in rows) == 2


def test_parquet_without_pyarrow_says_so_before_the_work(whole_bundle, photos, tmp_path, monkeypatch):
    (tmp_path / "pyarrow.py").write_text("raise ModuleNotFoundError('none', name='pyarrow')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtra) as error:
        predict(whole_bundle, photos, out=tmp_path / "o.parquet")
    assert error.value.hint == 'pip install "pronk[parquet]"'
    assert not list(tmp_path.glob("*o.parquet*"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"form": "parquet"}, "parquet cannot go to stdout"), ({"out": "o.xls"}, "must end in .csv"),
        ({"out": "."}, "must end in .csv"), ({"out": ".", "form": "csv"}, "must be a file"),
        ({"out": "/dev/null", "form": "csv"}, "must be a file"), ({"engine": "ray"}, "needs --out or --sort-into"),
        ({"address": "host:1"}, "needs a cluster"), ({"shard": (0, 3)}, "K from 1 to N"),
        ({"shard": (4, 3)}, "K from 1 to N"), ({"shard": (1, 3), "sort_into": "s"}, "exclude each other"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_at_once(tmp_path, options, said):
    options |= {"out": tmp_path / options["out"]} if "out" in options else {}
    with pytest.raises(SettingsError, match=said):
        predict(tmp_path / "no model", tmp_path / "no photos", **options)


@pytest.mark.parametrize(
    "options",
    [["--move"], ["--sort-into", "s", "--move", "--copy"], ["--sets", "1.5"], ["--shard", "1"], ["--shard", "-1/2"]],
)
def test_options_that_contradict_each_other_are_refused(options):
    assert CliRunner().invoke(command, ["model", "photos", *options]).exit_code == 2


@pytest.mark.parametrize("name", ["o.csv", "o.jsonl", "o.parquet", "cold/0.png"])
@pytest.mark.parametrize("content", [b"", b"path,label\n1.jpg,cat\n", None])
def test_an_existing_file_is_not_replaced(whole_bundle, photos, name, content):
    """Not even one that the same command has written: what is there may be all that is left of it."""
    out = photos / name
    form = "csv" if out.suffix == ".png" else None
    if content is not None:
        out.write_bytes(content)
    elif form is None:
        predict(whole_bundle, photos, out=out)
    before = out.read_bytes()
    with pytest.raises(SettingsError, match=re.escape(f"--out {str(out)!r} exists")) as error:
        predict(whole_bundle, photos, out=out, form=form)
    assert error.value.hint == "name another --out, or remove that file"
    assert out.read_bytes() == before
    assert listing(photos) == ["cold", *(["o" + out.suffix] if form is None else []), "warm"]


@given(st.lists(st.text(max_size=3), max_size=30), st.integers(1, 40))
def test_shards_are_disjoint_and_complete(photos, shards):
    taken = [take_shard(photos, number, shards) for number in range(1, shards + 1)]
    assert [photo for part in taken for photo in part] == photos
    assert max(map(len, taken)) - min(map(len, taken)) <= 1


@pytest.mark.parametrize("shards", [7, 30])
def test_rows_of_all_shards_are_those_of_one_command(whole_bundle, photos, tmp_path, shards):
    """As files and as streams; of 20 photos, some of 30 shards have none."""
    (photos / "cold" / "0.png").write_bytes(b"broken")
    for form in ("jsonl", "csv"):
        outs = [tmp_path / f"{number}.{form}" for number in range(1, shards + 1)]
        for number, out in enumerate(outs, start=1):
            predict(whole_bundle, photos, out=out, shard=(number, shards))
        texts = [out.read_text() for out in outs]
        header = texts[0].splitlines(keepends=True)[:1] if form == "csv" else []
        joined = "".join([*header, *("".join(text.splitlines(keepends=True)[len(header) :]) for text in texts)])
        assert joined == predict(whole_bundle, photos, form=form)[1]
        streams = [predict(whole_bundle, photos, form=form, shard=(number, shards))[1] for number in (1, 2)]
        assert streams == texts[:2]
    assert CliRunner().invoke(command, [str(whole_bundle), str(photos), "--shard", f"1/{shards}"]).exit_code == 0


def test_a_path_given_twice_has_two_rows(whole_bundle, photos):
    photo = photos / "cold" / "0.png"
    rows = map(json.loads, predict(whole_bundle, photo, photo, form="jsonl")[1].splitlines())
    assert [row["path"] for row in rows] == [str(photo)] * 2


def test_a_list_leaves_out_what_the_run_itself_has_written(whole_bundle, photos):
    """As from `find`, while the parts of a stopped run lie among the photos."""
    out = photos / "o.jsonl"
    names = [f"{path}\n" for path in sorted(photos.rglob("*.png"))]
    stop_after(5, whole_bundle, "-", out=out, lines=names)
    listed = [*names, *(f"{path}\n" for path in photos.rglob("*") if ".o.jsonl.parts" in path.parts)]
    assert len(listed) > 25
    done, _, remarks = predict(whole_bundle, "-", out=out, lines=listed)
    assert (done.photos, done.failed, remarks) == (20, 0, ["goes on: 5 of 20 shards are done"])


# --- going on


def test_a_stopped_run_goes_on(whole_bundle, photos, tmp_path, monkeypatch):
    out, work = tmp_path / "o.jsonl", tmp_path / ".o.jsonl.parts"
    undisturbed = predict(whole_bundle, photos, form="jsonl")[1]
    stop_after(7, whole_bundle, photos, out=out)
    parts = set(work.glob("part-*.jsonl"))
    assert len(parts) == 7
    (work / ".part-00009.jsonl.1-2.tmp").write_text("left by a killed process")
    seen, real = [], shards.predict_shard
    monkeypatch.setattr(shards, "predict_shard", lambda shard: seen.append(shard.part) or real(shard))
    shutil.move(photos / "warm" / "9.png", tmp_path / "new.png")  # the list stays as it was
    (photos / "warm" / "new.png").write_bytes(b"")
    done, _, remarks = predict(whole_bundle, photos, out=out)
    assert (done.photos, done.failed) == (20, 1)
    assert out.read_text().splitlines()[:-1] == undisturbed.splitlines()[:-1]
    assert remarks == ["goes on: 7 of 20 shards are done"]
    assert len(seen) == 13
    assert not set(seen) & set(map(str, parts)), "what was done is not done again"
    assert not work.exists()


@pytest.mark.parametrize("harm", [b"", b"\0" * 300, b'{"path": "a"}\n', None])
def test_a_damaged_part_is_done_again(whole_bundle, photos, tmp_path, harm):
    out = tmp_path / "o.jsonl"
    undisturbed = predict(whole_bundle, photos, form="jsonl")[1]
    stop_after(5, whole_bundle, photos, out=out)
    part = min((tmp_path / ".o.jsonl.parts").glob("part-*.jsonl"))
    data = part.read_bytes()
    part.write_bytes(data[: len(data) // 2] if harm is None else harm)
    assert predict(whole_bundle, photos, out=out)[2] == ["goes on: 4 of 20 shards are done"]
    assert out.read_text() == undisturbed


def test_a_part_that_is_lost_at_the_end_is_told(tmp_path):
    with lock_work(tmp_path / "work"):
        spec = Spec("model", "", "", "", top=2)
        plan = open_plan(tmp_path / "work", spec, list_photos=lambda: ["a"], tell=print)
        with pytest.raises(RunError, match="is gone or damaged"):
            list(shards.read_rows(plan))


def test_a_plan_for_something_else_is_discarded(whole_bundle, photos, tmp_path):
    out, work = tmp_path / "o.jsonl", tmp_path / ".o.jsonl.parts"
    stop_after(5, whole_bundle, photos, out=out)
    with pytest.raises(DataError, match="no photo at"):
        predict(whole_bundle, tmp_path / "typo*", out=out)
    assert len(list(work.glob("part-*"))) == 5, "a wrong command discards nothing"
    done, _, remarks = predict(whole_bundle, photos / "cold", out=out)
    assert (done.photos, len(remarks)) == (10, 1)
    assert "was given other photos" in remarks[0]
    out.unlink()
    stop_after(5, whole_bundle, photos, out=out)
    assert "was given other options" in predict(whole_bundle, photos, out=out, unknown="off")[2][0]
    out.unlink()
    stop_after(5, whole_bundle, photos, out=out)
    (work / "plan.json").write_text("{")
    assert predict(whole_bundle, photos, out=out)[::2] == (batching.BatchResult(20, 0), [])


def test_another_model_starts_anew(bundle_copy, photos, tmp_path):
    out = tmp_path / "o.jsonl"
    stop_after(5, bundle_copy, photos, out=out)
    plan = json.loads((tmp_path / ".o.jsonl.parts" / "plan.json").read_text())
    change_record(bundle_copy)  # written in another form
    shards._loaded.clear()  # as in a new process
    with pytest.raises(ModelError, match="is not the one that this run began with"):
        load_model(str(bundle_copy), plan["request"]["digest"])
    done, _, remarks = predict(bundle_copy, photos, out=out)
    assert (done.photos, len(remarks)) == (20, 1)
    assert "another model" in remarks[0]


def test_a_task_of_a_discarded_plan_writes_nothing(whole_bundle, photos, tmp_path):
    spec = Spec(str(whole_bundle), load_model(str(whole_bundle))[0], "", "", top=2)
    shard = shards.Shard(spec, "1", (str(photos / "cold" / "0.png"),), str(tmp_path / "work" / "part-00000.jsonl"))
    assert shards.predict_shard(shard) == (1, 0)
    assert not (tmp_path / "work").exists()


def test_two_processes_do_not_write_one_file(whole_bundle, photos, tmp_path):
    with (
        lock_work(tmp_path / ".o.csv.parts"),
        pytest.raises(RunError, match=f"is in use by process {os.getpid()}"),
    ):
        predict(whole_bundle, photos, out=tmp_path / "o.csv")
    assert not (tmp_path / "o.csv").exists()


def test_a_full_disk_at_the_end_leaves_no_file(tmp_path):
    def records():
        yield {"path": "a.jpg", "scores": [], "error": None}
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match="No space left"):
        save_records(tmp_path / "o.csv", "csv", records(), ["path"], work=tmp_path)
    assert listing(tmp_path) == []


def test_photos_that_go_or_change_meanwhile_have_one_row_each(whole_bundle, photos, tmp_path, monkeypatch):
    paths, real = sorted(photos.rglob("*.png")), shards.write_part
    acts = [paths[17].unlink, lambda: os.truncate(paths[18], 20), lambda: shutil.copy(paths[0], paths[19])]

    def disturb(*arguments, **options):
        real(*arguments, **options)
        with contextlib.suppress(IndexError):
            acts.pop()()

    monkeypatch.setattr(shards, "write_part", disturb)
    done, _, _ = predict(whole_bundle, photos, out=tmp_path / "o.jsonl")
    records = list(map(json.loads, (tmp_path / "o.jsonl").read_text().splitlines()))
    assert [record["path"] for record in records] == list(map(str, paths))
    codes = {record["path"]: record["error"]["code"] for record in records if record["error"]}
    assert codes == {str(paths[17]): "vanished", str(paths[18]): "truncated"}
    assert done.failed == 2


# --- kill -9 and Ctrl-C


def start(*arguments, **options):
    command = [sys.executable, "-m", "pronk", *map(os.fspath, arguments)]
    options = {"stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL} | options
    return subprocess.Popen(command, preexec_fn=hear_interrupts, **options)


def wait_for_parts(process, out, count):
    work = out.with_name(f".{out.name}.parts")
    wait_for(lambda: process.poll() is not None or len(list(work.glob("part-*"))) >= count)


def test_ctrl_c_says_how_to_go_on(whole_bundle, photos, tmp_path):
    out, listed = tmp_path / "o.csv", tmp_path / "listed"
    lines = [f"{path}\n" for path in sorted(photos.rglob("*.png"))] * 60
    listed.write_text("".join(lines))
    options = {"stdin": listed.open("rb"), "stderr": subprocess.PIPE}
    with start("predict", whole_bundle, "-", "--out", out, **options) as process:
        wait_for_parts(process, out, 2)
        process.send_signal(signal.SIGINT)
        text = process.stderr.read().decode()
    assert process.returncode == 130
    assert text.splitlines()[-1] == "stopped; the same command goes on"
    _, _, remarks = predict(whole_bundle, "-", lines=lines, out=out)
    assert remarks[0].startswith("goes on: ")
    assert len(read_csv(out)) == 1200


@pytest.mark.parametrize(
    ("per_class", "shards", "kills"), [(150, 8, 2), pytest.param(2500, 60, 20, marks=pytest.mark.slow)]
)
def test_killed_at_random_points(whole_bundle, tmp_path, per_class, shards, kills):
    photos, out = write_photos(tmp_path / "photos", per_class), tmp_path / "o.jsonl"
    for number in range(7, per_class, 100):
        (photos / "cold" / f"{number}.png").write_bytes(b"broken")
    killed = 0
    for point in sorted(random.Random(kills).sample(range(shards), kills)):
        with start("predict", whole_bundle, photos, "--out", out) as process:
            wait_for_parts(process, out, point)
            process.kill()
        killed += process.returncode == -signal.SIGKILL
        if out.exists():  # it was faster
            break
    assert killed
    if not out.exists():
        assert predict(whole_bundle, photos, out=out)[2][0].startswith("goes on: ")
    assert out.read_text() == predict(whole_bundle, photos, form="jsonl")[1]
    rows = [json.loads(line)["path"] for line in out.read_text().splitlines()]
    assert sorted(rows) == sorted(str(path) for path in photos.rglob("*.png"))
    assert listing(tmp_path) == ["o.jsonl", "photos"], "nothing else is left"


@pytest.mark.slow
def test_seven_shards_killed_twenty_times_lose_and_double_nothing(whole_bundle, tmp_path):
    photos, rng, killed = write_photos(tmp_path / "photos", 2000), random.Random(7), 0
    outs = [tmp_path / f"{number}.jsonl" for number in range(1, 8)]
    while killed < 20:
        for number, out in enumerate(outs, start=1):
            if not out.exists():
                with start("predict", whole_bundle, photos, "--shard", f"{number}/7", "--out", out) as process:
                    wait_for_parts(process, out, rng.randint(0, 12))
                    process.kill()
                killed += process.returncode == -signal.SIGKILL
        if all(out.exists() for out in outs):
            break
    assert killed >= 20
    for number, out in enumerate(outs, start=1):
        if not out.exists():
            predict(whole_bundle, photos, out=out, shard=(number, 7))
    assert "".join(out.read_text() for out in outs) == predict(whole_bundle, photos, form="jsonl")[1]


ALL_DONE = "goes on: 20 of 20 shards are done"


@pytest.mark.parametrize(
    ("point", "gone", "remarks"),
    [
        ("joined", False, [ALL_DONE]),
        ("finished.json", False, [ALL_DONE]),
        ("tidying up", False, ["everything was done already"]),
        ("tidying up", True, []),
    ],
)
def test_killed_at_the_very_end(whole_bundle, photos, tmp_path, point, gone, remarks):
    out, replace = tmp_path / "o.jsonl", Path.replace

    def kill(self, target=None):
        if target is None or point in self.name:
            raise Killed
        return replace(self, target)

    tidy = mock.patch.object(batching, "clear_work", kill if point == "tidying up" else batching.clear_work)
    with mock.patch.object(Path, "replace", kill), tidy, pytest.raises(Killed):
        predict(whole_bundle, photos, out=out)
    assert out.exists() == (point != "joined")
    if gone:
        out.unlink()  # nobody has the answers any more
    assert predict(whole_bundle, photos, out=out)[2] == remarks
    assert out.read_text() == predict(whole_bundle, photos, form="jsonl")[1]
    assert listing(tmp_path) == ["o.jsonl", "photos"]


@pytest.mark.slow
def test_many_photos_take_no_more_memory(whole_bundle, photos, tmp_path):
    from pronk.training.usage import tree_memory_mb

    peaks = {}
    for times in (40, 800):
        (tmp_path / "listed").write_bytes(b"".join(os.fsencode(path) + b"\n" for path in photos.rglob("*.png")) * times)
        out = tmp_path / f"{times}.csv"
        command = [sys.executable, "-m", "pronk", "predict", str(whole_bundle), "-", "--out", str(out)]
        with (tmp_path / "listed").open("rb") as stdin, subprocess.Popen(command, stdin=stdin, stderr=-3) as process:
            while process.poll() is None:
                peaks[times] = max(peaks.get(times, 0.0), tree_memory_mb(process.pid))
                time.sleep(0.02)
        assert process.returncode == 0
    assert peaks[800] - peaks[40] < 30, peaks


# --- who computes


def test_processes_do_what_threads_do(whole_bundle, photos, tmp_path, monkeypatch):
    @contextlib.contextmanager
    def open_engine(name, *, address, shared):
        assert (name, address) == ("ray", "host:1")
        assert shared == [whole_bundle, tmp_path / ".o.jsonl.parts", photos / "cold", photos / "warm"]
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            yield pool

    monkeypatch.setattr(shards, "open_engine", open_engine)
    monkeypatch.setattr(batching, "check_engine", lambda name, *, address: None)
    predict(whole_bundle, photos, out=tmp_path / "o.jsonl", engine="ray", address="host:1")
    assert (tmp_path / "o.jsonl").read_text() == predict(whole_bundle, photos, form="jsonl")[1]


def test_threads_open_the_model_once(bundle_copy, monkeypatch):
    digest, _ = load_model(str(bundle_copy))
    shards._loaded.clear()
    opened = []
    real = shards.Predictor.load
    monkeypatch.setattr(shards.Predictor, "load", lambda model: opened.append(model) or real(model))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(load_model, [str(bundle_copy)] * 4, [digest] * 4))
    assert len(opened) == 1
