"""Rows by key: whole or absent, whoever writes, and the least recently used go first."""

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pronk.errors import SettingsError, StorageError
from pronk.storage.cache import clear, default_cache, ensure_space, measure, open_cache, parse_size, trim
from pronk.storage.segments import _open
from pronk.training.rows import RowStore

SHAPES = ({"out_relu": 5}, (2, 3, 4))


@pytest.fixture
def store(tmp_path):
    return RowStore(tmp_path / "rows" / "recipe", *SHAPES)


def row(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=5).astype(np.float32), rng.normal(size=SHAPES[1]).astype(np.float16)


@pytest.fixture
def small_segments(monkeypatch):
    """Let each row end its segment."""
    monkeypatch.setattr("pronk.storage.segments.SEGMENT_BYTES", 1)


def fill(store, count):
    """Write rows, each used one second after the one before."""
    for number in range(count):
        store.write(f"{number:04d}", *row(number))
        for path in store.folder.iterdir():
            if path.stat().st_mtime > 2_000_000:
                os.utime(path, (1_000_000 + number, 1_000_000 + number))
    _open.cache_clear()  # nobody has used them yet


def left(store):
    store.refresh()
    return [number for number in range(100) if store.read_cut(f"{number:04d}") is not None]


def test_a_row_comes_back_in_the_agreed_precision(store):
    assert not store.has("key")
    assert store.read_pooled("key") is None
    pooled, cut = row()
    store.write("key", pooled.astype(np.float64), cut.astype(np.float32))
    for found, wanted in zip((store.read_pooled("key"), store.read_cut("key")), (pooled, cut), strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)
    assert store.has("key")
    assert RowStore(store.folder, {"out_relu": 6}, SHAPES[1]).read_pooled("key") is None, "of another shape"


def test_a_row_may_lack_the_features_that_no_head_reads(store):
    _, cut = row()
    store.write("key", np.zeros(0), cut)
    assert not store.has("key")
    assert store.read_pooled("key") is None
    assert store.has("key", features=False)
    assert store.row_bytes(features=False) < store.row_bytes()
    np.testing.assert_array_equal(store.read_cut("key"), cut)
    store.write("key", *row())
    assert store.has("key", features=False), "a whole row will do"
    np.testing.assert_array_equal(store.read_pooled("key"), row()[0])


@pytest.mark.usefixtures("small_segments")
def test_trimming_removes_what_was_used_least_recently(store, tmp_path):
    fill(store, 10)
    per_row = measure(tmp_path)[1] // 10
    leftover = store.folder / ".mark.99-1.tmp"  # of a killed process
    leftover.write_bytes(bytes(10))
    os.utime(leftover, (1, 1))
    for number in (0, 3):
        assert store.has(f"{number:04d}")  # marks it as used
    trim(tmp_path, limit=5 * per_row)
    assert not leftover.exists()
    assert left(store) == [0, 3, 7, 8, 9]
    assert measure(tmp_path) == (10, 5 * per_row)


@pytest.mark.usefixtures("small_segments")
def test_trimming_spares_what_a_run_has_used_and_clears_former_kinds_away(store, tmp_path):
    fill(store, 6)
    former = [tmp_path / "rows" / "recipe" / "00" / "00ff-0.row", tmp_path / "scans" / "1" / "00" / f"{'0' * 64}.json"]
    for path in former:
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(50))
    started = time.time() - 1
    assert store.has("0002")
    trim(tmp_path, limit=10**9, since=started)
    assert not any(path.exists() for path in former)
    assert left(store) == [0, 1, 2, 3, 4, 5]
    _open.cache_clear()
    for path in store.folder.iterdir():
        if path.stat().st_mtime > started:
            os.utime(path, (1_000_002, 1_000_002))
    assert store.has("0002")
    trim(tmp_path, limit=1, since=started)
    assert left(store) == [2]


@given(st.integers(0, 20), st.integers(0, 20 * 150))
def test_trimming_keeps_the_limit_and_no_less(tmp_path_factory, count, limit):
    root = tmp_path_factory.mktemp("cache")
    store = RowStore(root / "rows" / "r", *SHAPES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pronk.storage.segments.SEGMENT_BYTES", 1)
        fill(store, count)
    per_row = measure(root)[1] // max(1, count)
    trim(root, limit=limit)
    assert measure(root)[1] <= limit
    assert left(store) == list(range(count))[count - min(count, limit // max(1, per_row)) :]


def test_clearing_takes_only_what_is_ours(store, tmp_path):
    fill(store, 3)
    (tmp_path / "prefix").mkdir()
    (tmp_path / "prefix" / "a.onnx").touch()
    (tmp_path / "letters").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "rows" / "mine.txt").touch()
    clear(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["letters", "notes.txt", "rows"]
    assert [path.name for path in (tmp_path / "rows").iterdir()] == ["mine.txt"]
    assert measure(tmp_path) == (0, 0)


def test_too_little_room_is_an_error_before_the_work(tmp_path):
    ensure_space(tmp_path / "not" / "there" / "yet", 1)
    with pytest.raises(StorageError, match="are free") as caught:
        ensure_space(tmp_path / "not" / "there" / "yet", 10**18)
    assert "1,000,000,000,000 MB" in str(caught.value)
    assert "--cache" in caught.value.hint


def test_many_may_write_and_read_at_once(store):
    for number in range(3):
        store.write(str(number), np.zeros(5), np.zeros((2, 3, 4)))
    seen, stop = set(), threading.Event()

    def read():
        while not stop.is_set():
            for number in range(3):
                found = store.read_cut(str(number))
                seen.add(None if found is None else tuple(np.unique(found)))

    def write(value):
        for number in range(150):
            store.write(str(number % 3), np.full(5, value), np.full((2, 3, 4), value))

    reader = threading.Thread(target=read)
    reader.start()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, (1.0, 2.0)))
    stop.set()
    reader.join()
    assert seen <= {(0.0,), (1.0,), (2.0,)}
    assert len(list(store.folder.rglob("*"))) == 2  # a segment and its index, nothing left over


@pytest.mark.parametrize(
    ("text", "size"),
    [("10GB", 10**10), ("1.5gb", 1_500_000_000), (" 20 MB ", 20_000_000), ("3KB", 3000), ("1TB", 10**12)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "10", "GB", "-1GB", "0GB", "nanGB", "infGB", "tenGB", "10GiB", "1e999GB", "5 B"])
def test_other_sizes_are_refused_with_an_example(text):
    with pytest.raises(SettingsError) as caught:
        parse_size(text)
    assert repr(text) in str(caught.value)
    assert "10GB" in caught.value.hint


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("PRONK_CACHE", str(tmp_path / "named"))
    assert default_cache() == tmp_path / "named"
    monkeypatch.delenv("PRONK_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache() == tmp_path / "xdg" / "pronk"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "pronk"


def test_a_cache_that_cannot_be_made_names_both_ways_to_another(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.delenv("PRONK_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for named in (None, tmp_path / "file" / "cache"):
        with pytest.raises(StorageError, match="cannot make the cache") as caught:
            open_cache(named)
        assert "--cache" in caught.value.hint
        assert "PRONK_CACHE" in caught.value.hint
    assert open_cache(tmp_path / "new" / "cache").is_dir()
