"""Each photo exactly once, whatever happens: kill -9, a full disk, files that change, a model that is replaced."""

import contextlib
import errno
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from helpers.commands import HOSTILE, fails, ok
from helpers.outputs import count_lines, listing, read_csv, wait_for
from helpers.training import draw_tiny, hear_interrupts, run_pronk, write_photos
from pronk.batch import shards as batching
from pronk.batch.plans import Request, hold_work, open_plan, read_part
from pronk.batch.shards import load_model, predict_batch, read_rows
from pronk.batch.tables import COLUMNS, SUFFIXES, is_former_output, list_columns, save_records
from pronk.errors import DataError, ModelError, RunError, StorageError
from pronk.pools import available_cores

FORMS = ("csv", "json", "jsonl", "parquet", "txt")

# The command line with a note of each shard that is begun.
NOTING = """
import os, sys
import pronk.batch.shards as batch
log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
real = batch.predict_shard
def predict_shard(job):
    os.write(log, (os.path.basename(job.part) + "\\n").encode())
    return real(job)
batch.predict_shard = predict_shard
sys.argv[1:2] = []
from pronk.cli import main
main(sys.argv[1:])
"""


@pytest.fixture(autouse=True)
def one_photo_per_shard(monkeypatch):
    monkeypatch.setattr("pronk.batch.plans.MOST_PER_SHARD", 1)


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos", 20)


def make_request(bundle, photos, **options):
    digest, _ = load_model(str(bundle))
    return Request(str(bundle), digest, str(photos), "", top=2, **options)


def run_batch(request, work, paths, **options):
    records, told = [], []
    done = predict_batch(
        request, work, list_photos=lambda: list(map(str, paths)), deliver=records.extend, tell=told.append, **options
    )
    return done, records, told


def stop_after(monkeypatch, shards, error):
    """Let a run end with an error when some shards are done."""
    real, left = batching.write_part, [shards]

    def write_part(*arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            raise error
        real(*arguments, **options)

    monkeypatch.setattr(batching, "write_part", write_part)


# --- what is written


def test_every_form_holds_what_the_stream_says(whole_bundle, photos, tmp_path):
    (photos / "cold" / "3.png").write_bytes(b"")
    expected = json.loads(ok(run_pronk("predict", whole_bundle, photos, "--format", "json")))
    outs = {form: tmp_path / "new" / f"o.{form}" for form in FORMS}
    for out in outs.values():
        assert ok(run_pronk("predict", whole_bundle, photos, "--out", out)) == ""
    assert listing(tmp_path / "new") == sorted(out.name for out in outs.values()), "nothing else is left"
    assert json.loads(outs["json"].read_text()) == expected
    assert list(map(json.loads, outs["jsonl"].read_text().splitlines())) == expected
    assert outs["txt"].read_text() == ok(run_pronk("predict", whole_bundle, photos))
    assert outs["csv"].read_text() == ok(run_pronk("predict", whole_bundle, photos, "--format", "csv"))
    parquet = pytest.importorskip("pyarrow.parquet").read_table(outs["parquet"])
    assert parquet.column_names == [*list_columns(2), "path_bytes"]
    for row, flat in zip(parquet.to_pylist(), read_csv(outs["csv"]), strict=True):
        assert row.pop("path_bytes") is None
        assert {name: "" if value is None else str(value) for name, value in row.items()} == flat


def test_sets_and_unknown(whole_bundle, photos, tmp_path):
    out = tmp_path / "o.csv"
    ok(run_pronk("predict", whole_bundle, photos / "cold", "--out", out, "--sets", ".9", "--unknown", "off"))
    rows = read_csv(out)
    assert list(rows[0]) == [*COLUMNS, "set", "label_1", "score_1", "label_2", "score_2"]
    records = ok(run_pronk("predict", whole_bundle, photos / "cold", "--format", "jsonl", "--sets", ".9"))
    wanted = [json.loads(line)["set"] for line in records.splitlines()]
    assert [json.loads(row["set"]) for row in rows] == wanted
    assert all(set(names) <= {"cold", "warm"} and names for names in wanted)
    assert "{" in ok(run_pronk("predict", whole_bundle, photos / "cold", "--sets", ".9")).splitlines()[0]
    fails(run_pronk("predict", whole_bundle, photos, "--sets", "1.5"), code=2)


def test_hostile_names_survive_every_form(whole_bundle, photos, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name in HOSTILE:
        shutil.copy(photos / "cold" / "0.png", folder / os.fsdecode(name))
    (folder / os.fsdecode(b"bad\xff.jpg")).write_text("no photo")
    wanted = sorted(map(os.fsencode, folder.iterdir()))
    for form in ("csv", "jsonl", "parquet"):
        ok(run_pronk("predict", whole_bundle, folder, "--out", tmp_path / f"o.{form}"))
    assert sorted(os.fsencode(row["path"]) for row in read_csv(tmp_path / "o.csv")) == wanted
    lines = (tmp_path / "o.jsonl").read_bytes().splitlines()
    assert sorted(os.fsencode(json.loads(line)["path"]) for line in lines) == wanted
    rows = pq.read_table(tmp_path / "o.parquet").to_pylist()
    assert sorted(row["path_bytes"] or row["path"].encode() for row in rows) == wanted
    assert sum(row["path_bytes"] is not None for row in rows) == 2


def test_parquet_without_pyarrow_says_so_before_the_work(whole_bundle, photos, tmp_path):
    (tmp_path / "pyarrow.py").write_text("raise ImportError('none')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run_pronk("predict", whole_bundle, photos, "--out", tmp_path / "o.parquet", env={"PYTHONPATH": path})
    assert 'pip install "pronk[parquet]"' in fails(done)
    assert listing(tmp_path) == ["photos", "pyarrow.py"]


def test_what_cannot_go_there_is_refused_at_once(whole_bundle, photos, tmp_path):
    for arguments in (
        ["--format", "parquet"], ["--out", tmp_path], ["--out", "/dev/null", "--format", "csv"], ["--move"],
        ["--sort-into", tmp_path / "s", "--move", "--copy"], ["--engine", "ray"], ["--address", "host:1"],
    ):  # fmt: skip
        fails(run_pronk("predict", whole_bundle, photos, *arguments), code=2)
    assert not Path("/dev/null").is_file()


def test_parquet_is_the_same_to_the_byte(whole_bundle, photos, tmp_path):
    pytest.importorskip("pyarrow")
    for name in ("1", "2"):
        ok(run_pronk("predict", whole_bundle, photos, "--out", tmp_path / f"{name}.parquet", "--sets", ".5"))
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()


def test_the_former_file_is_no_photo(whole_bundle, photos, tmp_path):
    out = photos / "answers.csv"
    for _ in range(2):
        ok(run_pronk("predict", whole_bundle, photos, "--out", out))
        assert len(read_csv(out)) == 40
    assert "would replace the photo" in fails(run_pronk("predict", whole_bundle, photos, out, "--out", out), code=2)
    photo = (photos / "cold" / "0.png").read_bytes()
    done = run_pronk("predict", whole_bundle, photos, "--out", photos / "cold" / "0.png", "--format", "csv")
    assert "would replace" in fails(done, code=2)
    assert (photos / "cold" / "0.png").read_bytes() == photo


FOREIGN = {
    "csv": ["path,label\n1.jpg,cat\n", "path,part,label,predicted,score\n", "my diary"],
    "jsonl": ['{"path": "1.jpg", "label": "cat"}\n', '{"path": "1.jpg"', "[]"],
    "json": ['[\n{"path": "1.jpg"}\n]\n', '{"path": "1.jpg", "label": "cat", "score": 0.5, "scores": [', "{}"],
    "parquet": ["my diary", "PAR1"],
    "txt": ["my diary\n", "my  diary\nit grew by  5.0 %\n", "it grew by 5.0 %\n"],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_something_else_is_not_replaced(whole_bundle, photos, tmp_path, form):
    out, kind = tmp_path / f"o.{form}", SUFFIXES[f".{form}"]
    for text in FOREIGN[form]:
        out.write_text(text)
        assert not is_former_output(out, kind), text
    done = run_pronk("predict", whole_bundle, photos / "cold", "--out", out)
    text = fails(done, code=2)
    assert f"--out would replace {str(out)!r}, which is no {kind} of predictions" in text
    assert out.read_text() == FOREIGN[form][-1]
    assert listing(tmp_path) == [out.name, "photos"]
    out.write_text("")
    assert is_former_output(out, kind), "nothing is lost"


def test_a_table_of_something_else_is_not_replaced(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"path": ["1.jpg"]}), tmp_path / "o.parquet")
    assert not is_former_output(tmp_path / "o.parquet", "parquet")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", [[], ["--sets", ".9"]])
def test_a_former_output_is_replaced(whole_bundle, photos, tmp_path, form, options):
    folder, out = tmp_path / "hostile", tmp_path / f"o.{form}"
    folder.mkdir()
    shutil.copy(photos / "cold" / "0.png", folder / "good.png")
    for name in HOSTILE:
        path = folder / os.fsdecode(name)
        for data in (b"", (photos / "cold" / "0.png").read_bytes()):
            path.write_bytes(data)
            save_one(whole_bundle, path, out, SUFFIXES[f".{form}"], coverage=0.9 if options else None)
            assert is_former_output(out, SUFFIXES[f".{form}"]), (name, data)
    for _ in range(2):
        ok(run_pronk("predict", whole_bundle, folder, "--out", out, *options))


def save_one(bundle, path, out, form, *, coverage):
    record = load_model(str(bundle))[1].predict_one(os.fspath(path)).record(2, coverage=coverage)
    save_records(out, form, [record], list_columns(2, sets=coverage is not None), work=out.parent)


def test_a_path_given_twice_has_two_rows(whole_bundle, photos, tmp_path):
    photo = photos / "cold" / "0.png"
    ok(run_pronk("predict", whole_bundle, photo, photo, "--out", tmp_path / "o.csv"))
    assert [row["path"] for row in read_csv(tmp_path / "o.csv")] == [str(photo)] * 2


# --- going on


def test_a_stopped_run_goes_on(whole_bundle, photos, tmp_path, monkeypatch):
    paths = sorted(photos.rglob("*.png"))
    request, work = make_request(whole_bundle, photos), tmp_path / ".o.csv.parts"
    _, undisturbed, _ = run_batch(request, tmp_path / "other", paths)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as patch:
        stop_after(patch, 7, StorageError(f"cannot write part: {full.strerror}"))
        with pytest.raises(StorageError, match="No space left") as error:
            run_batch(request, work, paths)
        assert "the same command goes on" in error.value.hint
    parts = {path: path.stat().st_mtime_ns for path in work.glob("part-*.jsonl")}
    assert len(parts) == 7
    (work / ".part-00009.jsonl.1-2.tmp").write_text("left by a killed process")
    seen = []
    monkeypatch.setattr(
        batching, "predict_shard", lambda job, real=batching.predict_shard: seen.append(job) or real(job)
    )
    done, records, told = run_batch(request, work, [])
    assert (done.photos, done.failed) == (40, 0)
    assert records == undisturbed
    assert told == ["goes on: 7 of 40 shards are done"]
    assert len(seen) == 33
    assert not {Path(job.part) for job in seen} & set(parts), "what was done is not done again"
    assert not work.exists()


@pytest.mark.parametrize("harm", [b"", b"\0" * 300, b'{"path": "a"}\n', None])
def test_a_damaged_part_is_done_again(whole_bundle, photos, tmp_path, monkeypatch, harm):
    paths, work = sorted(photos.rglob("*.png")), tmp_path / "work"
    request = make_request(whole_bundle, photos)
    _, undisturbed, _ = run_batch(request, tmp_path / "other", paths)
    with monkeypatch.context() as patch:
        stop_after(patch, 5, StorageError("full"))
        with pytest.raises(StorageError):
            run_batch(request, work, paths)
    part = min(work.glob("part-*.jsonl"))
    data = part.read_bytes()
    part.write_bytes(data[: len(data) // 2] if harm is None else harm)
    _, records, told = run_batch(request, work, paths)
    assert records == undisturbed
    assert told[0].startswith("goes on: 4 of ")


def test_a_part_that_is_lost_at_the_end_is_told(whole_bundle, photos, tmp_path):
    with hold_work(tmp_path / "work"):
        plan = open_plan(
            tmp_path / "work", make_request(whole_bundle, photos), list_photos=lambda: ["a"], tell=lambda text: None
        )
        with pytest.raises(RunError, match="is gone or damaged"):
            list(read_rows(plan))


def test_a_plan_for_something_else_is_discarded(whole_bundle, photos, tmp_path, monkeypatch):
    paths, work = sorted(photos.rglob("*.png")), tmp_path / "work"
    request = make_request(whole_bundle, photos)

    def stop():
        with monkeypatch.context() as patch:
            stop_after(patch, 5, StorageError("full"))
            with pytest.raises(StorageError):
                run_batch(request, work, paths)

    stop()
    _, records, told = run_batch(make_request(whole_bundle, photos / "cold"), work, paths[:3])
    assert [record["path"] for record in records] == list(map(str, paths[:3]))
    assert "was given other photos" in told[0]
    stop()
    _, _, told = run_batch(make_request(whole_bundle, photos, unknown="off"), work, paths)
    assert "was given other options" in told[0]
    stop()
    (work / "plan.json").write_text("{")
    _, records, told = run_batch(request, work, paths)
    assert told == []
    assert len(records) == 40
    stop()
    with pytest.raises(DataError, match="no photo"):
        predict_batch(make_request(whole_bundle, "typo"), work, list_photos=no_photos, deliver=list)
    assert read_part(open_plan(work, request, list_photos=no_photos, tell=print), 0), "a wrong command discards nothing"


def no_photos():
    raise DataError("no photo at 'typo'")


def test_another_model_starts_anew(bundle_copy, photos, tmp_path, monkeypatch):
    paths, work = sorted(photos.rglob("*.png")), tmp_path / "work"
    request = make_request(bundle_copy, photos)
    with monkeypatch.context() as patch:
        stop_after(patch, 5, StorageError("full"))
        with pytest.raises(StorageError):
            run_batch(request, work, paths)
    record = json.loads((bundle_copy / "model.json").read_text())
    (bundle_copy / "model.json").write_text(json.dumps(record))
    batching._loaded.clear()  # as in a new process
    with pytest.raises(ModelError, match="is not the one that this run began with"):
        run_batch(request, work, paths)
    other = make_request(bundle_copy, photos)
    assert other.digest != request.digest
    _, records, told = run_batch(other, work, paths)
    assert "another model" in told[0]
    assert len(records) == 40


def test_a_task_of_a_discarded_plan_writes_nothing(whole_bundle, photos, tmp_path):
    request = make_request(whole_bundle, photos)
    job = batching.Job(request, "1", (str(photos / "cold" / "0.png"),), str(tmp_path / "work" / "part-00000.jsonl"))
    assert batching.predict_shard(job).photos == 1
    assert not (tmp_path / "work").exists()


def test_a_run_killed_while_it_tidied_up_is_done(whole_bundle, photos, tmp_path, monkeypatch):
    paths, work = sorted(photos.rglob("*.png")), tmp_path / "work"
    request = make_request(whole_bundle, photos)
    with monkeypatch.context() as patch:
        patch.setattr(batching, "clear_work", lambda work: (_ for _ in ()).throw(RunError("killed")))
        with pytest.raises(RunError, match="killed"):
            run_batch(request, work, paths)
    done, records, told = run_batch(request, work, paths)
    assert (done.photos, records, told) == (40, [], ["everything was done already"])
    assert not work.exists()


def test_what_is_done_and_gone_is_not_done(whole_bundle, photos, tmp_path, monkeypatch):
    paths, work, out = sorted(photos.rglob("*.png")), tmp_path / "work", tmp_path / "o.csv"
    request = make_request(whole_bundle, photos)
    with monkeypatch.context() as patch:
        patch.setattr(batching, "clear_work", lambda work: (_ for _ in ()).throw(RunError("killed")))
        with pytest.raises(RunError, match="killed"):
            run_batch(request, work, paths, out=out)
    done, records, told = run_batch(request, work, paths[:3], out=out)
    assert (done.photos, len(records), told) == (3, 3, [])


def test_two_processes_do_not_write_one_file(whole_bundle, photos, tmp_path):
    with hold_work(tmp_path / ".o.csv.parts"):
        text = fails(run_pronk("predict", whole_bundle, photos, "--out", tmp_path / "o.csv"))
    assert f"is in use by process {os.getpid()}" in text
    assert not (tmp_path / "o.csv").exists()


def test_a_full_disk_at_the_end_keeps_the_former_file(tmp_path):
    out = tmp_path / "o.csv"
    out.write_text("former")

    def records():
        yield {"path": "a.jpg", "scores": [], "error": None}
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match="No space left"):
        save_records(out, "csv", records(), ["path"], work=tmp_path)
    assert out.read_text() == "former"
    assert listing(tmp_path) == ["o.csv"]


def test_photos_that_go_or_change_meanwhile_have_one_row_each(whole_bundle, photos, tmp_path, monkeypatch):
    paths = sorted(photos.rglob("*.png"))
    rng, real = random.Random(0), batching.write_part

    def disturb(*arguments, **options):
        real(*arguments, **options)
        victim = rng.choice(paths)
        act = rng.choice(["delete", "truncate", "replace"])
        if act == "delete":
            victim.unlink(missing_ok=True)
        elif act == "truncate" and victim.exists():
            os.truncate(victim, 20)
        else:
            draw_tiny(np.random.default_rng(rng.randrange(99)), "cold").save(victim)

    monkeypatch.setattr(batching, "write_part", disturb)
    done, records, _ = run_batch(make_request(whole_bundle, photos), tmp_path / "work", paths)
    assert [record["path"] for record in records] == list(map(str, paths))
    codes = Counter(record["error"]["code"] for record in records if record["error"])
    assert set(codes) <= {"vanished", "truncated", "decode_error", "not_an_image"}
    assert done.failed == sum(codes.values()) > 0


def test_ctrl_c_says_how_to_go_on(whole_bundle, photos, tmp_path):
    out, log = tmp_path / "o.csv", tmp_path / "log"
    lines = b"".join(os.fsencode(path) + b"\n" for path in sorted(photos.rglob("*.png")) * 60)
    listed = tmp_path / "listed"
    listed.write_bytes(lines)
    arguments = ["predict", whole_bundle, "-", "--out", out]
    with start(log, arguments, stdin=listed.open("rb"), stderr=subprocess.PIPE) as process:
        wait_for(lambda: count_lines(log) > 4)
        process.send_signal(signal.SIGINT)
        text = process.stderr.read().decode()
    assert process.returncode == 130
    assert text.splitlines()[-1] == "stopped; the same command goes on"
    done = run_pronk(*arguments, stdin=lines)
    ok(done)
    assert "goes on: " in done.stderr.decode()
    assert len(read_csv(out)) == 2400


# --- kill -9


def start(log, arguments, **options):
    command = [sys.executable, "-c", NOTING, *map(os.fspath, (log, *arguments))]
    options = {"stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL} | options
    return subprocess.Popen(command, preexec_fn=hear_interrupts, **options)


def kill_and_finish(bundle, photos, base, *, kills, seed, form="jsonl"):
    """Kill runs at random points of their progress, finish, compare; return shards, and shards done again."""
    undisturbed, out, log = base / "undisturbed" / f"o.{form}", base / f"o.{form}", base / "log"
    ok(run_pronk("predict", bundle, photos, "--out", undisturbed, timeout=600))
    rng, work = random.Random(seed), base / f".o.{form}.parts"
    inputs = sorted(path for path in photos.rglob("*") if path.is_file())
    arguments = ["predict", bundle, photos, "--out", out]
    with start(log, arguments) as process:
        wait_for(lambda: count_lines(log) > 0)
        process.kill()
    per_shard = json.loads((work / "plan.json").read_text())["per_shard"]
    shards = -(-len(inputs) // per_shard)
    killed = 1
    for point in sorted(rng.uniform(0, shards) for _ in range(kills - 1)):
        with start(log, arguments) as process:
            wait_for(lambda point=point: process.poll() is not None or len(list(work.glob("part-*"))) >= point)
            time.sleep(rng.uniform(0, 0.05))
            process.kill()
        killed += process.returncode == -signal.SIGKILL
        assert not out.exists() or process.returncode == 0
    ok(run_pronk(*arguments, timeout=600))
    begun = Counter(log.read_text().split())
    assert out.read_bytes() == undisturbed.read_bytes()
    rows = [json.loads(line)["path"] for line in out.read_text().splitlines()]
    assert len(rows) == len(set(rows)) == len(inputs)
    assert set(rows) == set(map(str, inputs))
    assert sorted(path.name for path in base.iterdir() if path.name.startswith(".")) == [], "nothing is left"
    return {"kills": killed, "shards": shards, "again": sum(begun.values()) - len(begun)}


def test_killed_three_times(whole_bundle, tmp_path):
    photos = write_photos(tmp_path / "photos", 150)
    (photos / "cold" / "7.png").write_bytes(b"broken")
    found = kill_and_finish(whole_bundle, photos, tmp_path, kills=3, seed=1)
    assert found["kills"] == 3
    assert found["again"] <= 3 * available_cores(), "only what was in flight is done again"


@pytest.mark.slow
def test_five_thousand_photos_killed_twenty_times(whole_bundle, tmp_path, record_property):
    photos = write_photos(tmp_path / "photos", 2500)
    for number in range(0, 2500, 100):
        (photos / "warm" / f"{number}.png").write_bytes(b"broken")
    found = kill_and_finish(whole_bundle, photos, tmp_path, kills=20, seed=9)
    record_property("R9", found)
    assert found["kills"] == 20
    assert found["again"] <= 20 * available_cores()


@pytest.mark.parametrize("point", ["joined", "finished.json"])
def test_killed_at_the_very_end(whole_bundle, photos, tmp_path, point):
    killer = (
        "import os, signal, sys\nfrom pathlib import Path\nreplace = Path.replace\n"
        "def kill(self, target):\n"
        f"    if {point!r} in self.name: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return replace(self, target)\n"
        "Path.replace = kill\nfrom pronk.cli import main\nmain(sys.argv[1:])\n"
    )
    out = tmp_path / "o.jsonl"
    arguments = ["predict", whole_bundle, photos, "--out", out]
    killed = subprocess.run([sys.executable, "-c", killer, *map(str, arguments)], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert out.exists() == (point == "finished.json")
    done = run_pronk(*arguments)
    ok(done)
    assert re.search(rb"goes on: (\d+) of \1 shards are done", done.stderr)
    ok(run_pronk("predict", whole_bundle, photos, "--out", tmp_path / "undisturbed.jsonl"))
    assert out.read_bytes() == (tmp_path / "undisturbed.jsonl").read_bytes()
    assert listing(tmp_path) == ["o.jsonl", "photos", "undisturbed.jsonl"]


@pytest.mark.more
def test_many_photos_take_no_more_memory(whole_bundle, photos, tmp_path):
    from pronk.training.usage import tree_memory_mb

    peaks = {}
    for times in (20, 400):
        (tmp_path / "listed").write_bytes(b"".join(os.fsencode(path) + b"\n" for path in photos.rglob("*.png")) * times)
        command = [sys.executable, "-m", "pronk", "predict", str(whole_bundle), "-", "--out", str(tmp_path / "o.csv")]
        with (tmp_path / "listed").open("rb") as stdin, subprocess.Popen(command, stdin=stdin, stderr=-3) as process:
            while process.poll() is None:
                peaks[times] = max(peaks.get(times, 0.0), tree_memory_mb(process.pid))
                time.sleep(0.02)
        assert process.returncode == 0
    assert peaks[400] - peaks[20] < 30, peaks


def test_processes_do_what_threads_do(whole_bundle, photos, tmp_path, monkeypatch):
    paths, request = sorted(photos.rglob("*.png")), make_request(whole_bundle, photos)
    _, by_threads, _ = run_batch(request, tmp_path / "threads", paths)

    @contextlib.contextmanager
    def open_engine(name, *, address, shared):
        assert (name, address) == ("ray", "host:1")
        assert shared == [whole_bundle, tmp_path / "work", photos / "cold", photos / "warm"]
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            yield pool

    monkeypatch.setattr(batching, "open_engine", open_engine)
    _, by_processes, _ = run_batch(request, tmp_path / "work", paths, engine="ray", address="host:1")
    assert by_processes == by_threads


def test_this_machine_is_not_asked_for_folders(whole_bundle, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(batching, "_shared", None)
    assert run_batch(make_request(whole_bundle, photos), tmp_path / "work", photos.rglob("*.png"))[0].photos == 40


def test_threads_open_the_model_once(bundle_copy, monkeypatch):
    batching._loaded.clear()
    opened = []
    real = batching.Predictor.load
    monkeypatch.setattr(batching.Predictor, "load", lambda model: opened.append(model) or real(model))
    threads = [threading.Thread(target=load_model, args=(str(bundle_copy),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    with pytest.raises(ModelError, match="not the one"):
        load_model(str(bundle_copy), "0" * 64)
