"""Records by key in few files: whole or absent, whoever writes, whatever is torn, killed or damaged."""

import itertools
import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pronk.errors import StorageError
from pronk.storage import segments as segments_module
from pronk.storage.segments import INDEX, SEGMENT, Segments, count_records


@pytest.fixture
def records(tmp_path):
    return Segments(tmp_path / "records")


@pytest.fixture
def again(monkeypatch):
    """Forget what this process knows, as another one would not know it."""
    return segments_module._open.cache_clear


parts = st.tuples(st.binary(max_size=40), st.binary(max_size=40))


@given(st.lists(st.tuples(st.sampled_from("abcdef"), parts, st.booleans()), max_size=30))
def test_the_last_record_of_a_key_is_the_one_that_is_read(tmp_path_factory, steps):
    records, kept = Segments(tmp_path_factory.mktemp("records") / "r"), {}
    for key, (first, second), is_other_process in steps:
        if is_other_process:
            segments_module._open.cache_clear()
        records.append(key, first, second)
        kept[key] = first, second
    for key in "abcdef":
        assert tuple(records.read(key, part) for part in (0, 1)) == kept.get(key, (None, None))
    assert count_records(records.folder) == len(steps) if steps else not records.folder.exists()


def test_damage_makes_a_record_missing_and_no_other(records, again):
    """Every bit of the segment, and every bit of the index, flipped or cut off."""
    for key in "abc":
        records.append(key, key.encode() * 3, key.encode() * 2)
    wanted = {(key, part): key.encode() * (3 - part) for key in "abc" for part in (0, 1)}
    for suffix in (SEGMENT, INDEX):
        (path,) = records.folder.glob(f"*{suffix}")
        whole = path.read_bytes()
        for place in range(len(whole)):
            for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :]):
                path.write_bytes(damaged)
                again()
                found = {where: records.read(*where) for where in wanted}
                assert all(data in (None, wanted[where]) for where, data in found.items())
                if len(damaged) == len(whole):
                    assert sum(data is None for data in found.values()) in (1, 2)
        path.write_bytes(whole)


def test_what_was_damaged_can_be_written_again(records, again):
    records.append("a", b"one")
    (path,) = records.folder.glob(f"*{SEGMENT}")
    path.write_bytes(b"two")
    assert records.read("a", 0) is None
    assert records.find("a") is None
    records.append("a", b"one")
    for _ in ("here", "in another process"):
        assert records.read("a", 0) == b"one"
        again()


def test_a_torn_end_of_an_index_hides_nothing_that_comes_later(records, again):
    records.append("a", b"one")
    (path,) = records.folder.glob(f"*{INDEX}")
    with path.open("ab") as file:
        file.write(b"torn")
    again()  # whoever tore it is gone
    records.append("b", b"two")
    again()
    assert (records.read("a", 0), records.read("b", 0)) == (b"one", b"two")


def test_a_segment_ends_when_it_is_large(records, monkeypatch):
    monkeypatch.setattr(segments_module, "SEGMENT_BYTES", 100)
    for number in range(30):
        records.append(str(number), bytes(9))
    assert len(list(records.folder.glob(f"*{SEGMENT}"))) == 3
    assert all(records.read(str(number), 0) == bytes(9) for number in range(30))


def test_what_another_process_adds_or_removes_is_seen(records, again):
    records.append("a", b"one")
    mine = segments_module._open(records.folder)
    again()
    records.append("b", b"two")
    mine.refresh()
    assert len(mine.places) == 2
    for path in records.folder.iterdir():
        path.unlink()
    mine.refresh()
    assert not mine.places


def test_a_disk_that_is_full_is_told_and_loses_nothing(records, monkeypatch):
    records.append("a", b"one")
    real = segments_module._pack
    monkeypatch.setattr(segments_module, "_pack", lambda *entry: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(StorageError, match="No space left"):
        records.append("b", b"two")
    monkeypatch.setattr(segments_module, "_pack", real)
    assert records.read("b", 0) is None
    records.append("b", b"three")
    assert (records.read("a", 0), records.read("b", 0)) == (b"one", b"three")


def write_for_ever(folder, name):
    for number in range(1_000_000):
        Segments(folder).append(f"{name}-{number}", f"{name}-{number}".encode() * 50, b"x")


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_killed_writers_leave_whole_records(records, again):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_for_ever, args=(records.folder, name), daemon=True) for name in "abc"]
    for writer in writers:
        writer.start()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (
        count_records(records.folder) < 600 or len(list(records.folder.glob(f"*{INDEX}"))) < 3
    ):
        time.sleep(0.01)
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    again()
    counts = {}
    for name in "abc":
        found = next(number for number in itertools.count() if records.find(f"{name}-{number}") is None)
        counts[name] = found
        assert all(records.read(f"{name}-{n}", 0) == f"{name}-{n}".encode() * 50 for n in range(found))
    assert sum(counts.values()) == count_records(records.folder) >= 600
    assert len(list(records.folder.iterdir())) == 6


def test_many_threads_write_side_by_side(records):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: records.append(str(number), str(number).encode() * 30), range(400)))
    assert all(records.read(str(number), 0) == str(number).encode() * 30 for number in range(400))
