"""A command -> its wall seconds, CPU seconds and peak memory over its tree of processes; and a server's over time.

Linux only. CPU seconds are user plus system time of a process and of all its descendants. The measuring process makes
itself their "subreaper": a worker that outlives its parent falls to it and is waited for, so its seconds count too.
Peak memory of a tree is the largest sum, sampled twice a second, of Pss_Anon and Pss_Shmem: each shared page counts
once, and file-backed pages, which the system may drop at any time, not at all.
"""

import ctypes
import dataclasses
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import psutil

INTERVAL = 0.5  # seconds; each sample of a large process costs milliseconds of the processor that is measured
GRACE = 5.0  # seconds for what still runs when the command has ended
PR_SET_CHILD_SUBREAPER = 36


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one run of a command took; `load` is the machine's load average just before it."""

    returncode: int
    wall_seconds: float
    cpu_seconds: float
    peak_memory_mb: float
    processes: int
    load: float


def read_shares(pid: int) -> float:
    """Return the process's share of anonymous and shared memory in MiB; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:"))) / 1024


def read_memory(pid: int) -> float:
    """Return a process's own memory in MiB, without the pages of files."""
    memory = psutil.Process(pid).memory_info()
    return (memory.rss - memory.shared) / 2**20


def read_peak(pid: int) -> float:
    """Return the most resident memory so far in MiB, pages of files included."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def read_cpu(process: psutil.Process) -> float:
    """Return the CPU seconds so far, without those of its children."""
    times = process.cpu_times()
    return times.user + times.system


class Watcher(threading.Thread):
    """Calls `look` again and again until the block ends, and once more where the end came soon."""

    def __init__(self, interval: float) -> None:
        super().__init__(daemon=True)
        self.interval = interval
        self._done = threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        self.look()
        looks = 1
        while not self._done.wait(self.interval):
            self.look()
            looks += 1
        if looks == 1:  # later ends are left out: the clients of a server have hung up by then
            self.look()


class TreeWatch(Watcher):
    """The peak memory of all descendants of this process, and the CPU seconds of each of them."""

    def __init__(self) -> None:
        super().__init__(INTERVAL)
        self.peak = 0.0
        self.seen: dict[tuple[int, float], float] = {}

    def look(self) -> None:
        memory = 0.0
        for process in psutil.Process().children(recursive=True):
            try:
                self.seen[process.pid, process.create_time()] = read_cpu(process)
            except psutil.NoSuchProcess:
                continue
            memory += read_shares(process.pid)
        self.peak = max(self.peak, memory)


class Watch(Watcher):
    """A process over time; `samples` are (seconds since the start, memory in MiB, open files)."""

    def __init__(self, pid: int, *, interval: float = 1.0) -> None:
        super().__init__(interval)
        self.process = psutil.Process(pid)
        self.samples: list[tuple[float, float, int]] = []
        self._start = time.monotonic()

    def look(self) -> None:
        files = self.process.num_fds()  # connections included
        self.samples.append((time.monotonic() - self._start, read_memory(self.process.pid), files))

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


def reap_orphans() -> float:
    """Wait for what the command left running, end it after a while; return its CPU seconds."""
    seconds, deadline, ended = 0.0, time.monotonic() + GRACE, False
    while True:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return seconds
        if pid:
            seconds += usage.ru_utime + usage.ru_stime
        elif time.monotonic() < deadline:
            time.sleep(0.02)
        else:
            for process in psutil.Process().children(recursive=True):
                process.send_signal(signal.SIGKILL if ended else signal.SIGTERM)
            deadline, ended = time.monotonic() + GRACE, True


def measure(command: Iterable[str | Path], *, log: Path) -> Measurement:
    """Run the command to its end, its output going to `log`; this process must have no other child at that time."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    load = os.getloadavg()[0]
    with log.open("wb") as output:
        start = time.perf_counter()
        child = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        with TreeWatch() as watch:
            _, status, usage = os.wait4(child.pid, 0)
            wall = time.perf_counter() - start
            waited = usage.ru_utime + usage.ru_stime + reap_orphans()
    child.returncode = os.waitstatus_to_exitcode(status)
    return Measurement(
        returncode=child.returncode,
        wall_seconds=round(wall, 3),
        # Children that their parent chose to ignore are waited for by nobody: the samples still know them.
        cpu_seconds=round(max(waited, sum(watch.seen.values())), 3),
        peak_memory_mb=round(watch.peak, 1),
        processes=len(watch.seen),
        load=round(load, 2),
    )
