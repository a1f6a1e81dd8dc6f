"""What several pytest-xdist workers share: one folder, locks in it, and values that are made once for all of them."""

import contextlib
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock between processes; a shared one is held by several at once, beside no other."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    import fcntl

    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], T]) -> T:
    """Let one worker make a value, in a folder of its own, and the others wait for it and read it."""
    base = factory.getbasetemp()  # each worker has one of its own, in the folder of this run of pytest
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"shared-{name}"
    with locked(folder.with_suffix(".lock")):
        made = folder / "made.pickle"
        if not made.exists():
            folder.mkdir()
            made.write_bytes(pickle.dumps(make(folder)))
        return pickle.loads(made.read_bytes())
