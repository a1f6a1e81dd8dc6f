"""A process -> its memory, open files and CPU seconds over time (Linux only)."""

import os
import threading
import time
from pathlib import Path

import numpy as np

PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


def read_memory(pid: int) -> float:
    """Return its own memory in MiB, without the pages of files, which the system may drop at any time."""
    _, resident, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
    return (resident - shared) * PAGE / 2**20


def read_peak(pid: int) -> float:
    """Return the most resident memory so far in MiB, pages of files included."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def read_cpu(pid: int) -> float:
    """Return the CPU seconds so far, without those of its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def count_files(pid: int) -> int:
    """Return the number of open files, connections included."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208


def read_children(pid: int) -> list[int]:
    """Return the processes that it started and that still are."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


class Watch(threading.Thread):
    """Looks at a process again and again until the block ends.

    Attributes:
        samples: (seconds since the start, memory in MiB, open files).
    """

    def __init__(self, pid: int, *, interval: float = 1.0) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.interval = interval
        self.samples: list[tuple[float, float, int]] = []
        self._done = threading.Event()
        self._start = time.monotonic()

    def __enter__(self) -> "Watch":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        self._look()
        while not self._done.wait(self.interval):
            self._look()
        if len(self.samples) == 1:
            self._look()  # the end came soon; later ends are left out, since clients have hung up by then

    def _look(self) -> None:
        self.samples.append((time.monotonic() - self._start, read_memory(self.pid), count_files(self.pid)))

    @property
    def peak(self) -> float:
        """The most memory in any sample, in MiB."""
        return round(max(sample[1] for sample in self.samples), 1)

    def fit(self, *, after: float) -> dict:
        """Return what became of memory after the warm-up; the slope is a least-squares line's."""
        table = np.array([sample for sample in self.samples if sample[0] >= after])
        times, memory, files = table.T
        # Growth between the medians of both ends: one sample may catch a large photo in the middle of its work.
        tenth = max(1, len(table) // 10)
        slope = float(np.polyfit(times, memory, 1)[0]) if len(table) > 2 else 0.0
        return {
            "slope_mib_per_minute": round(60 * slope, 3),
            "growth_mib": round(float(np.median(memory[-tenth:]) - np.median(memory[:tenth])), 1),
            "memory_mib": round(float(np.median(memory)), 1),
            "peak_mib": self.peak,
            "files": [int(np.median(files[:tenth])), int(np.median(files[-tenth:]))],
        }
