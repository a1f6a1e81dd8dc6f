"""kill -9 at any point, then the same command with --resume: the same results as if nothing had happened."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.training import read_run, run_pronk, tiny_settings

EPOCHS = 4
MOST_ATTEMPTS = 6

# Between writing a temporary file and renaming it, and between two files of the model folder.
KILLER = """
import os, signal, sys
from pathlib import Path
wanted, part, at = sys.argv[1], sys.argv[2], int(sys.argv[3])
replace, count = Path.replace, 0
def kill(self, target):
    global count
    hit = wanted in str(target)
    count += hit
    if hit and count == at and part == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = replace(self, target)
    if hit and count == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
Path.replace = kill
sys.argv[1:4] = []
from pronk.cli import main
main(sys.argv[1:])
"""


def command(base, photos, weights, *more):
    settings = tiny_settings(weights)
    return [
        "train", photos, "--out", base / "run", "--weights", weights, "--image-size", settings.image_size, "--views", 2,
        "--epochs", EPOCHS, "--learning-rate", 1e-4, "--fine-tune-from", settings.fine_tune_from,
        "--cache", base / "cache", "--resume", *more,
    ]  # fmt: skip


def start(arguments, *, killer=()):
    head = ["-c", KILLER, *killer] if killer else ["-m", "pronk"]
    return subprocess.Popen(
        [sys.executable, *head, *map(str, arguments)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def group_members(group):
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def wait_until_alone(group):
    """Worker processes notice within seconds that their parent is gone."""
    for _ in range(100):
        left = group_members(group)
        if not left:
            return
        time.sleep(0.1)
    raise AssertionError(f"processes {left} are still there 10 s after their parent was killed")


def finish(arguments):
    done = run_pronk(*map(str, arguments))
    assert done.returncode == 0, done.stderr.decode()


def check(base, expected):
    assert read_run(base / "run") == expected
    assert not [path for path in base.rglob("*") if path.name.endswith(".tmp") and "cache" not in path.parts]
    assert not (base / "run" / ".work").exists()
    assert not (base / "run" / ".lock").exists()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_photos, tiny_weights):
    """The results that every killed run has to come to, and the seconds that a run takes."""
    base = tmp_path_factory.mktemp("undisturbed")
    started = time.monotonic()
    finish(command(base, tiny_photos, tiny_weights))
    expected = read_run(base / "run")
    assert len([row for row in expected["history"] if row.startswith("fine_tuned")]) >= 2
    return expected, time.monotonic() - started


def kill_when(process, condition):
    """Kill a process group's leader as soon as something is true; tell whether it was still running."""
    while process.poll() is None:
        if condition():
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.002)
    return False


CONDITIONS = {
    "rows are in the cache": lambda base: any((base / "cache").glob("rows/*/*/*.row")),
    "the model is there": lambda base: (base / "run/model/model.json").exists(),
}


@pytest.mark.more
@pytest.mark.parametrize("point", CONDITIONS)
def test_killed_at_a_point_and_resumed(tiny_run, tmp_path, point):
    settings = tiny_run.folder / "settings.toml"
    arguments = ["train", "--config", settings, "--out", tmp_path / "run", "--resume", "--cache", tmp_path / "cache"]
    with start(arguments) as process:
        killed = kill_when(process, lambda: CONDITIONS[point](tmp_path))
        assert killed or point == "the model is there", process.stderr.read()
    wait_until_alone(process.pid)
    assert not (tmp_path / "run" / "metrics.json").exists() or not killed
    finish(arguments)
    check(tmp_path, read_run(tiny_run.folder))


@pytest.mark.slow
def test_killed_at_25_random_times_and_resumed(undisturbed, tiny_photos, tiny_weights, tmp_path):
    expected, seconds = undisturbed
    rng, kills = random.Random(4), 0
    for number in range(25):
        base = tmp_path / str(number)
        arguments = command(base, tiny_photos, tiny_weights)
        for _ in range(MOST_ATTEMPTS):
            deadline = time.monotonic() + rng.uniform(0, seconds)
            with start(arguments) as process:
                killed = kill_when(process, lambda deadline=deadline: time.monotonic() > deadline)
            wait_until_alone(process.pid)
            kills += killed
            if not killed:
                break
        finish(arguments)
        check(base, expected)
    assert kills >= 25


SAVES = [("checkpoint", part, at) for part in ("before", "after") for at in (1, 2, 3, 4)]
SAVES += [
    (name, part, 1)
    for name in ("split.csv", "model.onnx", "model.json", "metrics.json")
    for part in ("before", "after")
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "part", "at"), SAVES)
def test_killed_while_saving_and_resumed(undisturbed, tiny_photos, tiny_weights, tmp_path, name, part, at):
    arguments = command(tmp_path, tiny_photos, tiny_weights)
    with start(arguments, killer=(name, part, str(at))) as process:
        process.wait()
        assert process.returncode == -signal.SIGKILL, process.stderr.read()
    wait_until_alone(process.pid)
    finish(arguments)
    check(tmp_path, undisturbed[0])


def test_killed_while_saving_a_checkpoint_and_resumed(tiny_run, tiny_photos, tiny_weights, tmp_path):
    """The one kill -9 of the quick lane: between the temporary file of the second checkpoint and its renaming."""
    arguments = [
        "train", "--config", tiny_run.folder / "settings.toml", "--out", tmp_path / "run", "--resume",
        "--cache", tiny_run.folder.parent / "cache",
    ]  # fmt: skip
    with start(arguments, killer=("checkpoint", "before", "2")) as process:
        process.wait()
        assert process.returncode == -signal.SIGKILL, process.stderr.read()
    wait_until_alone(process.pid)
    assert [path.name for path in (tmp_path / "run" / ".work").glob("*.npz")] == ["checkpoint-1.npz"]
    assert list((tmp_path / "run" / ".work").glob(".*.tmp"))
    finish(arguments)
    check(tmp_path, read_run(tiny_run.folder))
