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

from helpers.training import read_run

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


def command(tiny_run, base, *, cache=None):
    """Train as `tiny_run` was, in a folder of its own and, unless another is named, with a cache of its own."""
    settings = tiny_run.folder / "settings.toml"
    place = ("--out", base / "run", "--cache", cache or base / "cache")
    return ["train", "--config", settings, "--features", "auto", "--augment", "auto", *place, "--resume", "--quiet"]


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
    for _ in range(300):
        left = group_members(group)
        if not left:
            return
        time.sleep(0.1)
    raise AssertionError(f"processes {left} are still there 30 s after their parent was killed")


def finish(arguments, base, expected):
    """Let the same command finish, in a folder where somebody keeps programs named as Python's own modules are."""
    here, program = base / "here", base / "bin" / "start.py"
    for folder in (here, program.parent):
        folder.mkdir(exist_ok=True)
    program.write_text("from pronk.cli import main\nmain()\n")  # as the installed command: its own folder comes first
    for name in ("queue", "random", "tempfile", "tensorflow"):
        (here / f"{name}.py").write_text("raise SystemExit('the wrong file was imported')")
    done = subprocess.run(
        [sys.executable, program, *arguments], cwd=here, capture_output=True, timeout=240, check=False
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
    assert read_run(base / "run") == expected
    assert not [path for path in base.rglob("*") if path.name.endswith(".tmp") and "cache" not in path.parts]
    assert not (base / "run" / ".work").exists()
    assert not (base / "run" / ".lock").exists()


def kill_when(process, condition):
    """Kill a process group's leader as soon as something is true; tell whether it was still running."""
    while process.poll() is None:
        if condition():
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.002)
    return False


@pytest.mark.more
def test_killed_twice_and_resumed(tiny_run, tmp_path):
    """Once the first rows are in the cache, and once the model is there, which is soon before the end."""
    arguments = command(tiny_run, tmp_path)
    with start(arguments) as process:
        assert kill_when(process, lambda: any((tmp_path / "cache").glob("rows/*/*.index"))), process.stderr.read()
    wait_until_alone(process.pid)
    with start(arguments) as process:
        killed = kill_when(process, lambda: (tmp_path / "run" / "model" / "model.json").exists())
    wait_until_alone(process.pid)
    assert not (tmp_path / "run" / "metrics.json").exists() or not killed
    finish(arguments, tmp_path, read_run(tiny_run.folder))


@pytest.mark.slow
def test_killed_at_25_random_times_and_resumed(tiny_run, tmp_path):
    expected, rng, kills = read_run(tiny_run.folder), random.Random(4), 0
    started = time.monotonic()
    finish(command(tiny_run, tmp_path), tmp_path, expected)
    seconds = time.monotonic() - started
    for number in range(25):
        base = tmp_path / str(number)
        base.mkdir()
        arguments = command(tiny_run, base)
        for _ in range(MOST_ATTEMPTS):
            deadline = time.monotonic() + rng.uniform(0, seconds)
            with start(arguments) as process:
                killed = kill_when(process, lambda deadline=deadline: time.monotonic() > deadline)
            wait_until_alone(process.pid)
            kills += killed
            if not killed:
                break
        finish(arguments, base, expected)
    assert kills >= 25


FILES = ("split.csv", "model.onnx", "model.json", "history.csv", "predictions.csv", "metrics.json")
SAVES = [("checkpoint", 1), ("checkpoint", 2), *((name, 1) for name in FILES)]
QUICK = ("checkpoint", 2, "before")  # the one kill -9 of the quick lane


@pytest.mark.parametrize(
    ("name", "at", "part"),
    [
        pytest.param(*save, part, marks=[] if (*save, part) == QUICK else pytest.mark.slow)
        for save in SAVES
        for part in ("before", "after")
    ],
)
def test_killed_while_saving_and_resumed(tiny_run, tmp_path, name, at, part):
    """Between the temporary file and its renaming, or right after that."""
    arguments = command(tiny_run, tmp_path, cache=tiny_run.folder.parent / "cache")
    with start(arguments, killer=(name, part, str(at))) as process:
        process.wait()
        assert process.returncode == -signal.SIGKILL, process.stderr.read()
    wait_until_alone(process.pid)
    run = tmp_path / "run"
    assert bool([path for path in run.rglob(".*.tmp") if name in path.name]) == (part == "before")
    if (name, at, part) == QUICK:
        assert [path.name for path in (run / ".work").glob("*.npz")] == ["checkpoint-1.npz"]
    finish(arguments, tmp_path, read_run(tiny_run.folder))
