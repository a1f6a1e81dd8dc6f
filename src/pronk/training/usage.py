"""A run -> what it cost: wall seconds per stage, and peak memory over the process tree."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

STAGES = ("check", "decode", "extract", "head", "fine_tune", "export", "evaluate")
SAMPLE_SECONDS = 0.5


class Usage:
    """Stop-watch and memory sampler of one run; use it as a context.

    Memory is anonymous and shared memory, proportional to its users, so file-backed pages of the cache do not count.

    Example:
        >>> with Usage() as usage:
        ...     with usage.stage("check"):
        ...         pass
        >>> usage.seconds()["check"] >= 0
        True
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
    """Measure a process and all its descendants, in MiB; elsewhere than on Linux the process's own peak.

    Example:
        >>> tree_memory_mb(os.getpid()) > 1
        True
    """
    if not Path("/proc/self/smaps_rollup").exists():
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return sum(map(_memory_kb, _tree(pid))) / 1024


def _tree(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _tree(int(child))


def _memory_kb(pid: int) -> int:
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return 0
