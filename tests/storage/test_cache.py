"""Rows by key: whole or absent, whoever writes, and the least recently used go first."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pronk.errors import SettingsError, StorageError
from pronk.storage.cache import clear, default_cache, ensure_space, measure, open_cache, parse_size, trim
from pronk.training.rows import RowStore

SHAPES = ({"out_relu": 5}, (2, 3, 4))


@pytest.fixture
def store(tmp_path):
    return RowStore(tmp_path / "rows" / "recipe", *SHAPES)


def row(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=5).astype(np.float32), rng.normal(size=SHAPES[1]).astype(np.float16)


def fill(store, count):
    for number in range(count):
        store.write(f"{number:04d}", *row(number))
        os.utime(store.path(f"{number:04d}"), (1_000_000 + number, 1_000_000 + number))


def left(store):
    return sorted(int(path.stem) for path in store.folder.rglob("*.row"))


def test_a_row_comes_back_in_the_agreed_precision(store):
    assert not store.has("key")
    assert store.read("key") is None
    pooled, cut = row()
    store.write("key", pooled.astype(np.float64), cut.astype(np.float32))
    for found, wanted in zip(store.read("key"), (pooled, cut), strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)
    assert store.path("key").stat().st_size == store.row_bytes()
    assert store.has("key")
    assert RowStore(store.folder, {"out_relu": 6}, SHAPES[1]).read("key") is None, "of another shape"


def test_a_row_may_lack_the_features_that_no_head_reads(store):
    _, cut = row()
    store.write("key", np.zeros(0), cut)
    assert not store.has("key")
    assert store.read("key") is None
    assert store.has("key", features=False)
    assert store.path("key").stat().st_size == store.row_bytes(features=False) < store.row_bytes()
    np.testing.assert_array_equal(store.read("key", features=False)[1], cut)
    store.write("key", *row())
    assert store.has("key", features=False), "a whole row will do"
    np.testing.assert_array_equal(store.read("key", features=False)[0], row()[0])


def test_a_damaged_row_is_none(store):
    store.write("key", *row())
    whole = store.path("key").read_bytes()
    torn = [*(whole[:length] for length in range(len(whole))), whole + b"x"]
    flipped = [whole[:n] + bytes([whole[n] ^ 1 << n % 8]) + whole[n + 1 :] for n in range(len(whole))]
    for data in torn + flipped:
        store.path("key").write_bytes(data)
        assert store.read("key") is None
        assert store.has("key") == (len(data) == len(whole)), "without reading it"
    store.path("key").write_bytes(whole)
    assert store.read("key") is not None


def test_trimming_removes_what_was_used_least_recently(store, tmp_path):
    fill(store, 10)
    leftover = store.folder / "00" / ".0003.row.99-1.tmp"  # of a killed process
    leftover.write_bytes(bytes(10))
    os.utime(leftover, (1, 1))
    for number in (0, 3):
        assert store.has(f"{number:04d}")  # marks it as used
    assert trim(tmp_path, limit=5 * store.row_bytes()) == 10 + 5 * store.row_bytes()
    assert not leftover.exists()
    assert left(store) == [0, 3, 7, 8, 9]
    assert measure(tmp_path) == (5, 5 * store.row_bytes())


@given(st.integers(0, 30), st.integers(0, 30 * 100))
def test_trimming_keeps_the_limit_and_no_less(tmp_path_factory, count, limit):
    root = tmp_path_factory.mktemp("cache")
    store = RowStore(root / "rows" / "r", *SHAPES)
    fill(store, count)
    trim(root, limit=limit)
    assert left(store) == list(range(count))[count - min(count, limit // store.row_bytes()) :]


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
                found = store.read(str(number))
                seen.add(None if found is None else tuple(np.unique(np.concatenate([a.ravel() for a in found]))))

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
    assert len(list(store.folder.rglob("*"))) == 6  # three folders, three rows, nothing left over


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
