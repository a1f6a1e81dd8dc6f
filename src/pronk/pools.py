"""Tasks -> results, on all cores: the one way in which many things are worked through side by side."""

import contextlib
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
TASKS_AHEAD = 4  # per worker
_thread = threading.local()


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """Nobody waits any more for what a thread works out."""


@contextlib.contextmanager
def start_threads() -> Iterator[Executor]:
    """Open a thread per core; on the way out, also by an error or Ctrl-C, tasks that wait are dropped.

    By an error, those that run are stopped where they call `check_stopped`. ONNX Runtime, NumPy and Pillow leave the
    interpreter lock while they work, so threads use all cores.
    """
    # A pool that is opened by a task of another one stops with it.
    stopped = getattr(_thread, "stopped", None) or threading.Event()
    pool = ThreadPoolExecutor(available_cores(), initializer=_remember, initargs=(stopped,))
    try:
        yield pool
    except BaseException:
        stopped.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _remember(stopped: threading.Event) -> None:
    _thread.stopped = stopped


def check_stopped() -> None:
    """Raise Stopped in a thread of `start_threads` for which nobody waits any more; long work calls it now and then."""
    stopped = getattr(_thread, "stopped", None)
    if stopped and stopped.is_set():
        raise Stopped


def count_workers(pool: Executor) -> int:
    """Tell how many tasks a pool does at a time; one per core of this machine unless it says so itself."""
    return max(1, int(getattr(pool, "workers", available_cores())))


def run_in_order(
    work: Callable[[Task], Result], tasks: Iterable[Task], *, pool: Executor | None = None
) -> Iterator[Result]:
    """Yield results in the order of the tasks, with a few tasks waiting per worker, so that a million need no memory.

    The pool is one of threads, processes or machines; without one, a thread per core works until the last result.
    """
    waiting: deque[Future[Result]] = deque()
    with start_threads() if pool is None else contextlib.nullcontext(pool) as executor:
        try:
            for task in tasks:
                waiting.append(executor.submit(work, task))
                if len(waiting) >= TASKS_AHEAD * count_workers(executor):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def run_unordered(
    work: Callable[[Task], Result], tasks: Iterable[Task], *, pool: Executor | None = None
) -> Iterator[Result]:
    """Yield results as they come, otherwise like `run_in_order`; the pool may gain and lose machines meanwhile."""
    waiting = iter(tasks)
    running: set[Future[Result]] = set()
    with start_threads() if pool is None else contextlib.nullcontext(pool) as executor:
        while True:
            wanted = TASKS_AHEAD * count_workers(executor) - len(running)
            for task in itertools.islice(waiting, max(0, wanted)):  # a lost machine leaves more running than wanted
                running.add(executor.submit(work, task))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


def start_beside(work: Callable[[], Result]) -> Future[Result]:
    """Run something in a thread that nobody waits for, should the rest fail or be stopped."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def available_cores() -> int:
    """Count the CPU cores this process may use: affinity and the container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    return cores
