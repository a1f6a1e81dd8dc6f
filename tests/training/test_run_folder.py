import json
import os
import subprocess
import sys
import textwrap

import pytest

from helpers.metrics import make_metrics
from pronk.config import Settings
from pronk.errors import RunError, StorageError
from pronk.model.run import read_metrics
from pronk.training.run_folder import hold_run, new_run_folder

SETTINGS = Settings(data="/photos", seed=3)


def start(folder, *, settings=SETTINGS, resume=False):
    """Begin a run that is then stopped with some work done."""
    with pytest.raises(KeyboardInterrupt), hold_run(folder, settings, resume=resume) as done:  # noqa: PT012
        assert not done
        (folder / "split.csv").write_text("path\n")
        (folder / ".work").mkdir(exist_ok=True)
        raise KeyboardInterrupt


def test_a_finished_run_leaves_no_lock_and_no_work(tmp_path):
    with hold_run(tmp_path / "run", SETTINGS, resume=False) as done:
        assert not done
        assert (tmp_path / "run" / ".lock").read_text() == str(os.getpid())
        (tmp_path / "run" / ".work").mkdir()
        (tmp_path / "run" / "metrics.json").write_text("{}")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["metrics.json", "settings.toml"]


def refused(folder, match, *, settings=SETTINGS, resume=True):
    with pytest.raises(RunError, match=match) as caught, hold_run(folder, settings, resume=resume):
        pass
    return caught.value.hint


def test_an_existing_run_is_an_error(tmp_path):
    start(tmp_path / "run")
    assert "--resume" in refused(tmp_path / "run", "exists already", resume=False)
    assert not (tmp_path / "run" / ".lock").exists()
    other = SETTINGS.replace(seed=4, views=7, split="s.csv")
    assert "settings.toml" in refused(tmp_path / "run", "other settings: seed, split, views", settings=other)
    assert (tmp_path / "run" / "split.csv").exists()
    (tmp_path / "run" / "settings.toml").unlink()
    refused(tmp_path / "run", "is not a run folder")


def test_a_folder_with_other_things_is_never_used(tmp_path):
    (tmp_path / "notes.txt").touch()
    refused(tmp_path, "exists already", resume=False)
    refused(tmp_path, "is not a run folder")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_is_not_a_run_and_nothing_can_be_written_into_it(tmp_path):
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "is a file")
    with pytest.raises(StorageError, match="file"), hold_run(tmp_path / "file" / "run", SETTINGS, resume=False):
        pass


def test_resume_starts_goes_on_and_tells_when_done(tmp_path):
    start(tmp_path / "run", resume=True)
    with hold_run(tmp_path / "run", SETTINGS, resume=True) as done:
        assert not done
        assert (tmp_path / "run" / ".work").is_dir()
        (tmp_path / "run" / "metrics.json").write_text(json.dumps(make_metrics().to_json()))
    with hold_run(tmp_path / "run", SETTINGS, resume=True) as done:
        assert done
    assert read_metrics(tmp_path / "run").seed == 42


def test_a_run_that_came_to_nothing_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), hold_run(tmp_path / "run", SETTINGS, resume=False):
        raise ZeroDivisionError
    assert not (tmp_path / "run").exists()


def test_leftovers_of_a_killed_process_go(tmp_path):
    start(tmp_path / "run")
    (tmp_path / "run" / ".work" / ".checkpoint-1.npz.99.tmp").write_bytes(b"half")
    with hold_run(tmp_path / "run", SETTINGS, resume=True):
        assert not list((tmp_path / "run").rglob("*.tmp"))


HOLDER = """
    import sys, time
    from pathlib import Path
    from pronk.config import Settings
    from pronk.training.run_folder import hold_run
    with hold_run(Path(sys.argv[1]), Settings(data="/photos", seed=3), resume=True):
        (Path(sys.argv[1]) / "split.csv").write_text("path")
        print("held", flush=True)
        time.sleep(60)
"""


def test_the_second_is_refused_with_the_pid_and_a_stale_lock_is_taken_over(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(HOLDER), str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            for resume in (True, False):
                refused(tmp_path / "run", f"in use by process {holder.pid}", resume=resume)
        finally:
            holder.kill()
    assert (tmp_path / "run" / ".lock").exists()
    with hold_run(tmp_path / "run", SETTINGS, resume=True) as done:
        assert not done


def test_the_next_free_name(tmp_path):
    (tmp_path / "pets.v2").mkdir()
    (tmp_path / "list.csv").touch()
    base = tmp_path / "runs"
    assert new_run_folder(tmp_path / "pets.v2", base).name == "pets.v2-1"
    for taken in ("pets.v2-1", "pets.v2-3"):
        (base / taken).mkdir(parents=True)
    assert new_run_folder(tmp_path / "pets.v2", base).name == "pets.v2-2"
    assert new_run_folder(tmp_path / "pets.v2", base, resume=True).name == "pets.v2-1"
    for resume in (True, False):
        assert new_run_folder(tmp_path / "list.csv", base, resume=resume).name == "list-1"


def damage(record):
    yield {name: value for name, value in record.items() if name != "seconds"}
    for name, value in (
        ("format", 2), ("classes", "ab"), ("classes", [1, 2]), ("counts", None), ("counts", {"train": "many"}),
        ("test", {"accuracy": {"value": float("nan"), "low": 0.0, "high": 1.0, "n": 3}}), ("test", {"accuracy": {}}),
        ("frozen", {"val": {}}), ("comparison", {"kept": 1, "why": ""}),
    ):  # fmt: skip
        yield record | {name: value}


def test_metrics_that_are_not_there_or_damaged(tmp_path):
    whole = make_metrics().to_json()
    for text in (None, "", "{", "[1]", "3", *map(json.dumps, damage(whole))):
        if text is not None:
            (tmp_path / "metrics.json").write_text(text)
        with pytest.raises(RunError, match="not a finished run"):
            read_metrics(tmp_path)
