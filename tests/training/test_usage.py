import os
import subprocess
import sys
import time

import psutil
import pytest

from pronk.training.usage import STAGES, Usage, tree_memory_mb


def test_stages_add_up_and_may_overlap_and_fail():
    with Usage() as usage:
        with usage.stage("extract"), usage.stage("check"):
            time.sleep(0.05)
        with pytest.raises(ValueError), usage.stage("extract"):  # noqa: PT012
            time.sleep(0.05)
            raise ValueError
        usage.add("decode", 1.5)
    seconds = usage.seconds()
    assert list(seconds) == [*STAGES, "total"]
    assert 0.09 < seconds["extract"] <= seconds["total"]
    assert 0.04 < seconds["check"] < seconds["extract"]
    assert seconds["decode"] == 1.5


@pytest.mark.parametrize(("is_linux", "most"), [(True, 120), (False, 220)])
def test_children_count_and_pages_of_files_do_not(tmp_path, monkeypatch, is_linux, most):
    """Elsewhere by another measure, which Linux can take too; there, a file's pages count if nobody else has them."""
    if is_linux and not psutil.LINUX:
        pytest.skip("only Linux tells it in this way")
    monkeypatch.setattr(psutil, "LINUX", is_linux)
    (tmp_path / "large").write_bytes(bytes(120 * 2**20))
    code = (
        "import mmap, sys, time; file = open(sys.argv[1], 'rb');"
        "view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ); sum(view[::4096]);"
        "own = bytearray(80 * 2**20); print('ready', flush=True); time.sleep(60)"
    )
    before = tree_memory_mb(os.getpid())
    command = [sys.executable, "-c", code, str(tmp_path / "large")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        grown = tree_memory_mb(os.getpid()) - before
        child.kill()
    assert 75 < grown < most


def test_the_peak_is_kept():
    with Usage() as usage:
        block = bytearray(200 * 2**20)
        first = usage.peak_memory_mb()
        del block
        assert usage.peak_memory_mb() == first
    assert first > 200


def test_a_process_that_ended_counts_nothing():
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
        assert tree_memory_mb(child.pid) == 0
