"""What other systems lack: the same work is done without it, and with the same results."""

import io
import os
import subprocess
import sys

import pytest

from helpers.commands import ok
from helpers.training import read_replayed

# As on macOS and Windows: no /proc and /sys, no affinity, no fork; on Windows no `resource` and no `fcntl` either.
SITE = """
import builtins, io, multiprocessing, os, sys
for name in ("resource", "fcntl") if {windows} else ():
    sys.modules[name] = None
for name in ("sched_getaffinity", "sched_setaffinity", "fork", "forkpty"):
    if hasattr(os, name):
        delattr(os, name)
plain_open, plain_listdir, plain_stat = io.open, os.listdir, os.stat
def is_lacking(path):
    return isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(("/proc", "/sys/"))
def look(plain):
    def wrapped(path, *args, **kwargs):
        asking = sys._getframe(1).f_globals.get("__name__", "")
        if is_lacking(path) and not asking.startswith("psutil"):  # which asks otherwise elsewhere
            raise FileNotFoundError(2, "No such file or directory", os.fspath(path))
        return plain(path, *args, **kwargs)
    return wrapped
builtins.open = io.open = look(plain_open)
os.listdir, os.stat = look(plain_listdir), look(plain_stat)
multiprocessing.set_start_method("spawn", force=True)
"""


@pytest.fixture
def run_elsewhere(tmp_path):
    """Run pronk in processes, their children among them, that lack what another system lacks."""

    def run(*words, windows=False):
        (tmp_path / "site").mkdir(exist_ok=True)
        (tmp_path / "site" / "sitecustomize.py").write_text(SITE.format(windows=windows))
        path = os.pathsep.join([str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, "-m", "pronk", *map(str, words)]
        return subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, check=False)

    return run


@pytest.mark.more
def test_a_run_is_the_same_without_what_macos_lacks(run_elsewhere, tiny_run, tiny_photos, tmp_path):
    settings = tiny_run.folder / "settings.toml"
    words = ("train", tiny_photos, "--config", settings, "--out", tmp_path / "run", "--cache", tmp_path / "cache")
    ok(run_elsewhere(*words))
    again, here = read_replayed(tmp_path / "run", tiny_run.folder)
    assert again == here


def test_predicting_needs_nothing_that_windows_lacks(run_elsewhere, served_model, tiny_photos, tmp_path):
    for name, elsewhere in (("here", False), ("there", True)):
        words = ("predict", served_model, tiny_photos, "--format", "jsonl")
        if elsewhere:
            said = run_elsewhere(*words, windows=True)
        else:
            said = subprocess.run([sys.executable, "-m", "pronk", *map(str, words)], capture_output=True, check=False)
        (tmp_path / name).write_text(ok(said))
    assert (tmp_path / "here").read_text() == (tmp_path / "there").read_text()


def test_the_simulation_takes_these_things_away(run_elsewhere, tmp_path):
    run_elsewhere("--version")
    code = "import os, sys; print(hasattr(os, 'fork'), os.path.exists('/proc/cpuinfo'), 'resource' in sys.modules)"
    env = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert said.split()[:2] == ["False", "False"]
    assert io.open is open, "here nothing has changed"
