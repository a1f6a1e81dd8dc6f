"""A command -> its wall seconds, CPU seconds and peak memory, over its whole tree of processes (Linux only).

    python benchmarks/processes.py [--json FILE] -- COMMAND ARGUMENT...

CPU seconds are user plus system time of the process and of all its descendants. This process makes itself
their "subreaper": a worker that outlives its parent falls to us and is waited for, so its seconds count too.
Peak memory is the largest sum over the tree, sampled twice a second, of Pss_Anon and Pss_Shmem: each shared
page counts once, and file-backed pages, which the system may drop at any time, not at all.
"""

import argparse
import ctypes
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

INTERVAL = 0.5  # seconds; each sample of a large process costs milliseconds of the processor that is measured
GRACE = 5.0  # seconds for what still runs when the command has ended
PR_SET_CHILD_SUBREAPER = 36
TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1024.0  # smaps_rollup counts in KiB


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one run of a command took; `load` is the machine's load average just before it."""

    returncode: int
    wall_seconds: float
    cpu_seconds: float
    peak_memory_mb: float
    processes: int
    load: float


@dataclasses.dataclass(frozen=True)
class Process:
    """One line of the process table: who, whose child, since when (clock ticks), own CPU seconds so far."""

    pid: int
    parent: int
    started: int
    cpu_seconds: float


def read_process(pid: int) -> Process | None:
    """Return the process, or None where it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    user, system, started = int(fields[11]), int(fields[12]), int(fields[19])
    return Process(pid, int(fields[1]), started, (user + system) / TICKS)


def list_descendants(root: int) -> list[Process]:
    """Return all processes below `root`, without itself."""
    found = [read_process(int(name)) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208
    children: dict[int, list[Process]] = {}
    for process in found:
        if process:
            children.setdefault(process.parent, []).append(process)
    tree, todo = [], [root]
    while todo:
        below = children.get(todo.pop(), [])
        tree += below
        todo += [process.pid for process in below]
    return tree


def read_memory(pid: int) -> float:
    """Return the process's share of anonymous and shared memory in MiB; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:"))) / MIB


class Sampler(threading.Thread):
    """Watches all descendants of this process until `finish` is called."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak = 0.0
        self.seen: dict[tuple[int, int], float] = {}
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(INTERVAL):
            self.sample()

    def sample(self) -> None:
        tree = list_descendants(os.getpid())
        self.seen.update({(process.pid, process.started): process.cpu_seconds for process in tree})
        self.peak = max(self.peak, sum(read_memory(process.pid) for process in tree))

    def finish(self) -> None:
        self._done.set()
        self.join()


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
            for process in list_descendants(os.getpid()):
                os.kill(process.pid, signal.SIGKILL if ended else signal.SIGTERM)
            deadline, ended = time.monotonic() + GRACE, True


def measure(command: Iterable[str | Path], *, log: Path | None = None) -> Measurement:
    """Run the command to its end, its output going to `log` (or to stderr).

    The calling process must have no other child at that time.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    load = os.getloadavg()[0]
    sampler = Sampler()
    output = log.open("wb") if log else None
    try:
        start = time.perf_counter()
        child = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output or sys.stderr,
            stderr=subprocess.STDOUT,
        )
        sampler.start()
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - start
    finally:
        if output:
            output.close()
    child.returncode = os.waitstatus_to_exitcode(status)
    waited = usage.ru_utime + usage.ru_stime + reap_orphans()
    sampler.finish()
    return Measurement(
        returncode=child.returncode,
        wall_seconds=round(wall, 3),
        # Children that their parent chose to ignore are waited for by nobody: the samples still know them.
        cpu_seconds=round(max(waited, sum(sampler.seen.values())), 3),
        peak_memory_mb=round(sampler.peak, 1),
        processes=len(sampler.seen),
        load=round(load, 2),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the numbers to this file instead of stdout")
    parser.add_argument("command", nargs="+", metavar="-- COMMAND")
    args = parser.parse_args()
    measurement = measure(args.command)
    text = json.dumps(dataclasses.asdict(measurement), indent=2)
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
    sys.exit(measurement.returncode if measurement.returncode >= 0 else 1)


if __name__ == "__main__":
    main()
