"""Worker processes: a pool whose loss is reported; that they import nothing of the user's, test_kill shows too."""

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pronk.errors import PronkError
from pronk.training.workers import follow, leave_out_current_folder, start_workers, tell


def end() -> None:
    os._exit(9)


def test_a_killed_worker_is_told_with_a_way_out():
    with pytest.raises(PronkError, match="worker process was killed") as caught, start_workers() as pool:
        pool.submit(end).result()
    assert "--resume" in caught.value.hint


def work_in_steps(told, go_on) -> str:
    tell(told, 7)
    while not go_on.exists():
        time.sleep(0.01)
    return "done"


def test_what_a_task_tells_is_heard_while_it_works(tmp_path):
    told, go_on = tmp_path / "told", tmp_path / "go on"

    def hear(done: int) -> None:
        heard.append(done)
        go_on.touch()

    heard: list[int] = []
    with ThreadPoolExecutor() as pool:
        assert follow(pool.submit(work_in_steps, told, go_on), told, hear) == "done"
    assert heard[0] == 7
    assert not told.exists()


def test_path_and_environment_are_put_back(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *sys.path])
    before = sys.path[:], dict(os.environ)
    with leave_out_current_folder():
        assert sys.path == before[0][2:]
        assert os.environ["PYTHONSAFEPATH"] == "1"
    assert (sys.path, dict(os.environ)) == before


def test_an_import_in_another_thread_sees_every_folder(monkeypatch, tmp_path):
    """It walks along the list of folders while the process starts: Keras is imported meanwhile."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    before, walk = sys.path[:], iter(sys.path)
    seen = [next(walk)]
    with leave_out_current_folder():
        seen += walk
    assert seen == before


def test_two_that_start_at_once_wait_for_each_other(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    before = sys.path[:], dict(os.environ)
    entered = threading.Event()

    def start_too():
        with leave_out_current_folder():
            entered.set()

    with leave_out_current_folder():
        other = threading.Thread(target=start_too)
        other.start()
        assert not entered.wait(0.2)
    other.join()
    assert (sys.path, dict(os.environ)) == before
