"""Files that are whole or absent, CSV that comes back as written, locks that die with their holder."""

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.bad_files import HOSTILE_NAMES
from helpers.commands import listing
from pronk.errors import RunError, StorageError
from pronk.storage.files import (
    lock_folder,
    read_csv,
    remove_leftovers,
    write_atomically,
    write_csv,
    write_json,
)

file_names = st.binary(min_size=1, max_size=20).map(os.fsdecode)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | file_names


@pytest.fixture
def former(tmp_path):
    path = tmp_path / "model.onnx"
    write_atomically(path, b"former")
    return path


@pytest.mark.parametrize("durable", [True, False])
def test_writing_creates_replaces_and_leaves_nothing_else(tmp_path, durable):
    path = tmp_path / "new" / "folder" / "model.onnx"
    for data in (b"first", b"", b"second" * 1000):
        write_atomically(path, data, durable=durable)
        assert path.read_bytes() == data
    assert listing(path.parent) == ["model.onnx"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace", "pathlib.Path.open"])
def test_a_failed_write_leaves_the_former_file(former, call, code):
    failing = mock.patch(call, side_effect=OSError(code, os.strerror(code)))
    with failing, pytest.raises(StorageError) as caught:
        write_atomically(former, b"new")
    assert str(caught.value) == f"cannot write {former}: {os.strerror(code)}"
    assert caught.value.hint
    assert former.read_bytes() == b"former"
    assert listing(former.parent) == ["model.onnx"]


def test_a_write_cut_short_leaves_the_former_file(former):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(StorageError, match="cannot write"):
            write_atomically(former, bytes(20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert former.read_bytes() == b"former"
    assert listing(former.parent) == ["model.onnx"]


def test_a_file_in_the_way_of_a_folder_is_named(former):
    for write in (lambda: write_atomically(former / "inside.txt", b"x"), lambda: lock_folder(former).__enter__()):
        with pytest.raises(StorageError, match="cannot write"):
            write()


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in (".model.onnx.123-4.tmp", "deep/.x.1-1.tmp", "keep.tmp", ".hidden", "deep/file"):
        (tmp_path / name).touch()
    (tmp_path / "deep" / ".onnx.7.tmp" / ".more.tmp").mkdir(parents=True)  # an export that was killed
    (tmp_path / "deep" / ".onnx.7.tmp" / "model.onnx").touch()
    (tmp_path / ".link.tmp").symlink_to("deep")
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".hidden", "deep", "file", "keep.tmp"]


@given(st.lists(st.fixed_dictionaries({"path": texts, "label": texts}), min_size=1))
@example([{"path": name, "label": name} for name in HOSTILE_NAMES])
def test_csv_and_json_come_back_as_written(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "round.csv"
    write_csv(path, ["path", "label"], rows)
    assert read_csv(path) == rows
    write_json(path, rows)
    assert json.loads(path.read_bytes()) == rows


def test_csv_takes_the_columns_it_is_asked_for(tmp_path):
    write_csv(tmp_path / "rows.csv", ["a", "b"], [{"a": 1, "c": 2}, {"b": None}])
    assert (tmp_path / "rows.csv").read_bytes() == b"a,b\n1,\n,\n"


def test_csv_from_a_spreadsheet_is_read(tmp_path):
    (tmp_path / "rows.csv").write_bytes(b"\xef\xbb\xbfpath,label\r\n1.jpg,cat\r\n")
    assert read_csv(tmp_path / "rows.csv") == [{"path": "1.jpg", "label": "cat"}]


HOLD = """
import sys
from pathlib import Path
from pronk.storage.files import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of tmp_path until its input ends."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.communicate()


@pytest.mark.parametrize("end", ["killed", "done"])
def test_a_second_process_is_refused_with_the_number_of_the_first(tmp_path, holder, end):
    for _ in range(2):
        with pytest.raises(RunError, match=f"in use by process {holder.pid}") as caught, lock_folder(tmp_path):
            pass
    assert caught.value.hint
    if end == "killed":
        holder.kill()
    holder.communicate()
    assert (tmp_path / ".lock").exists() == (end == "killed")
    with lock_folder(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())
    assert not (tmp_path / ".lock").exists()


# Windows locks from the position on, for others also against reading, and removes nothing that is open.
AS_ON_WINDOWS = """
import fcntl, os, types
from pathlib import Path, PosixPath
def locking(descriptor, mode, count):
    position = os.lseek(descriptor, 0, os.SEEK_CUR)
    assert position > os.fstat(descriptor).st_size, "what is locked cannot be read"
    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, count, position)
def unlink(self, missing_ok=False, real=Path.unlink):
    if any(os.path.realpath(f"/proc/self/fd/{number}") == str(self) for number in os.listdir("/proc/self/fd")):
        raise PermissionError(13, "in use")
    real(self, missing_ok)
sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
folder, PosixPath.unlink = Path(sys.argv[1]), unlink
Path = lambda path: folder
os.name = "nt"
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells what is open")
def test_the_lock_on_windows(tmp_path):
    head, tail = HOLD.split("with lock_folder")
    command = [sys.executable, "-c", f"{head}{AS_ON_WINDOWS}with lock_folder{tail}", tmp_path]
    (tmp_path / ".lock").write_text("12")  # of a killed process
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        second = subprocess.run(command, capture_output=True, text=True, check=False, input="")
        assert f"in use by process {first.pid}" in second.stderr
        first.communicate("")
    assert first.returncode == 0
    assert not (tmp_path / ".lock").exists()


def test_one_process_cannot_hold_a_folder_twice_and_an_error_frees_it(tmp_path):
    for _ in range(2):
        with pytest.raises(RunError, match=str(os.getpid())), lock_folder(tmp_path), lock_folder(tmp_path):
            pass


def test_of_many_processes_one_at_a_time_holds_the_lock(tmp_path):
    script = """
import sys, time
from pathlib import Path
from pronk.errors import RunError
from pronk.storage.files import lock_folder
folder, inside = Path(sys.argv[1]), Path(sys.argv[1]) / "inside"
got = 0
while got < 20:
    try:
        with lock_folder(folder):
            inside.touch(exist_ok=False)
            inside.unlink()
            got += 1
    except RunError:
        time.sleep(0.001)
"""
    children = [subprocess.Popen([sys.executable, "-c", script, tmp_path]) for _ in range(3)]
    assert [child.wait(60) for child in children] == [0, 0, 0]
