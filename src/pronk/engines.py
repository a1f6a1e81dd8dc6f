"""Tasks -> results, by the threads of this process: the one way in which many photos are worked through."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from pronk.files import available_cores

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


def run_unordered(
    pool: Executor, work: Callable[[Task], Result], tasks: Iterable[Task], *, workers: int | None = None
) -> Iterator[Result]:
    """Yield results as they come, with a few tasks waiting per worker, so that a million tasks need no memory.

    Args:
        pool: of threads, processes or machines.
        work: what is done with each task.
        tasks: taken as they are needed.
        workers: in the pool; None means one per core of this machine.

    Example:
        >>> with start_threads() as pool:
        ...     sorted(run_unordered(pool, abs, [-2, 1]))
        [1, 2]
    """
    waiting = iter(tasks)
    running: set[Future[Result]] = set()
    while True:
        for task in itertools.islice(waiting, TASKS_AHEAD * (workers or available_cores()) - len(running)):
            running.add(pool.submit(work, task))
        if not running:
            return
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()
