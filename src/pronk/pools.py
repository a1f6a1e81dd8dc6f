"""Tasks -> results, on all cores: the one way in which many things are worked through side by side."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
TASKS_AHEAD = 4  # per worker


@contextlib.contextmanager
def start_threads() -> Iterator[Executor]:
    """Open a thread per core; on the way out, also by an error or Ctrl-C, tasks that wait are dropped.

    ONNX Runtime and Pillow leave the interpreter lock while they work, so threads use all cores.

    Example:
        >>> with start_threads() as pool:
        ...     pool.submit(abs, -2).result()
        2
    """
    pool = ThreadPoolExecutor(available_cores())
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def count_workers(pool: Executor) -> int:
    """Tell how many tasks a pool does at a time; one per core of this machine unless it says so itself.

    Example:
        >>> with start_threads() as pool:
        ...     count_workers(pool) == available_cores()
        True
    """
    return max(1, int(getattr(pool, "workers", available_cores())))


def run_unordered(
    pool: Executor, work: Callable[[Task], Result], tasks: Iterable[Task], *, workers: int | None = None
) -> Iterator[Result]:
    """Yield results as they come, with a few tasks waiting per worker, so that a million tasks need no memory.

    Args:
        pool: of threads, processes or machines.
        work: what is done with each task.
        tasks: taken as they are needed.
        workers: in the pool; None asks the pool, as `count_workers` does, anew each time, since machines come and go.

    Example:
        >>> with start_threads() as pool:
        ...     sorted(run_unordered(pool, abs, [-2, 1]))
        [1, 2]
    """
    waiting = iter(tasks)
    running: set[Future[Result]] = set()
    while True:
        wanted = TASKS_AHEAD * (workers or count_workers(pool)) - len(running)
        for task in itertools.islice(waiting, max(0, wanted)):  # a lost machine leaves more running than wanted
            running.add(pool.submit(work, task))
        if not running:
            return
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


def available_cores() -> int:
    """Count the CPU cores this process may use: affinity and the container's quota.

    Example:
        >>> available_cores() >= 1
        True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    return cores
