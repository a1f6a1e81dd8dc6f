"""Tasks -> one worker process per core, that ends with this one.

Processes, since threads that decode photos fight for the interpreter lock while the framework is being imported.
loky rather than the standard pool, because it neither runs the user's script again nor hangs when a worker dies.
"""

import contextlib
import itertools
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import TypeVar

import loky

from pronk.errors import PronkError
from pronk.files import available_cores

Task = TypeVar("Task")
Result = TypeVar("Result")
TASKS_AHEAD = 4
NICENESS = 10  # a second run waits for the import of Keras in the main process, which so gets a core of its own


@contextlib.contextmanager
def start_workers() -> Iterator[Executor]:
    """Open a pool with a worker per core; on the way out, also by an error or Ctrl-C, its processes are ended.

    Raises:
        PronkError: if a worker was killed.
    """
    pool = loky.ProcessPoolExecutor(
        available_cores(), initializer=_prepare, initargs=(os.getpid(),), env={"OMP_NUM_THREADS": "1"}
    )
    try:
        yield pool
    except loky.process_executor.BrokenProcessPool as error:
        raise PronkError(
            "a worker process was killed, most likely for lack of memory",
            hint="close other programs, then run the same command with --resume",
        ) from error
    finally:
        pool.shutdown(wait=True, kill_workers=True)


def start_beside(work: Callable[[], Result]) -> Future[Result]:
    """Run something in a thread that nobody waits for, should the rest fail or be stopped.

    Example:
        >>> start_beside(lambda: 2).result()
        2
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def run_unordered(pool: Executor, work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
    """Yield results as they come, with a few tasks waiting per worker, so that a million tasks need no memory.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> with ThreadPoolExecutor(1) as pool:
        ...     sorted(run_unordered(pool, abs, [-2, 1]))
        [1, 2]
    """
    waiting = iter(tasks)
    running: set[Future[Result]] = set()
    while True:
        for task in itertools.islice(waiting, TASKS_AHEAD * available_cores() - len(running)):
            running.add(pool.submit(work, task))
        if not running:
            return
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


def _prepare(parent: int) -> None:
    warnings.simplefilter("ignore")
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    # A parent that was killed cannot stop its workers.
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
