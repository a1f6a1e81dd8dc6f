"""A run -> what it cost: wall seconds per stage, and peak memory over the process tree."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

STAGES = ("check", "decode", "extract", "head", "fine_tune", "export", "evaluate")
SAMPLE_SECONDS = 0.5


class Usage:
    """Stop-watch and memory sampler of one run; use it as a context.

    Memory is that of `tree_memory_mb`, so pages of files, such as those of the cache, do not count.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._spent = dict.fromkeys(STAGES, 0.0)
        self._peak = 0.0
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Usage":
        self._sampler.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a stage; stages may overlap."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        """Add seconds to a stage."""
        self._spent[name] += seconds

    def seconds(self) -> dict[str, float]:
        """Return wall seconds per stage and in total so far."""
        total = time.perf_counter() - self._started
        return {name: round(value, 3) for name, value in {**self._spent, "total": total}.items()}

    def peak_memory_mb(self) -> float:
        """Return the highest memory seen so far, in MiB."""
        self._peak = max(self._peak, tree_memory_mb(os.getpid()))
        return round(self._peak, 1)

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self._peak = max(self._peak, tree_memory_mb(os.getpid()))


def tree_memory_mb(pid: int) -> float:
    """Measure the memory of a process and all its descendants, without pages of files, in MiB; 0 once it has ended.

    On Linux what is resident and not shared; a worker process is started anew, so nothing of its parent's is in it.
    Elsewhere what would be free if the process ended (USS).
    """
    import psutil

    try:
        process = psutil.Process(pid)
        return sum(map(_own_bytes, [process, *process.children(recursive=True)])) / 2**20
    except psutil.Error:
        return 0.0


def _own_bytes(process: Any) -> int:
    import psutil

    with contextlib.suppress(psutil.Error):  # it may have ended meanwhile
        if psutil.LINUX:
            memory = process.memory_info()
            return int(memory.rss - memory.shared)
        return int(process.memory_full_info().uss)
    return 0
