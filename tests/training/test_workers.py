"""Worker processes: a pool that ends with its parent and imports nothing of the user's."""

import os
import subprocess
import sys

import pytest

from pronk.errors import PronkError
from pronk.training.workers import leave_out_current_folder, start_workers


def end() -> None:
    os._exit(9)


def test_a_killed_worker_is_told_with_a_way_out():
    with pytest.raises(PronkError, match="worker process was killed") as caught, start_workers() as pool:
        pool.submit(end).result()
    assert "--resume" in caught.value.hint


def test_path_and_environment_are_put_back(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *sys.path])
    before = sys.path[:], dict(os.environ)
    with leave_out_current_folder():
        assert sys.path == before[0][2:]
        assert os.environ["PYTHONSAFEPATH"] == "1"
    assert (sys.path, dict(os.environ)) == before


def test_files_in_the_current_folder_take_no_modules_place(tiny_photos, tiny_weights, tmp_path):
    """Somebody keeps programs beside the photos that are named as Python's own modules are."""
    here, program = tmp_path / "here", tmp_path / "bin" / "start.py"
    for folder in (here, program.parent):
        folder.mkdir()
    program.write_text("from pronk.cli import main\nmain()\n")  # as the installed command: its own folder comes first
    for name in ("queue", "random", "tempfile", "tensorflow"):
        (here / f"{name}.py").write_text("raise SystemExit('the wrong file was imported')")
    options = ("--weights", tiny_weights, "--image-size", "32", "--views", "1", "--frozen-only", "--quiet")
    command = [sys.executable, program, "train", tiny_photos, "--out", "run", "--cache", "cache", *options]
    done = subprocess.run(command, cwd=here, capture_output=True, timeout=240, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    assert (here / "run" / "metrics.json").is_file()
