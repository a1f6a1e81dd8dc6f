"""Tasks -> one worker process per core, that ends with this one.

Processes, since threads that decode photos fight for the interpreter lock while the framework is being imported.
loky rather than the standard pool, because it neither runs the user's script again nor hangs when a worker dies.
"""

import contextlib
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

import loky

from pronk.errors import PronkError
from pronk.pools import available_cores

Result = TypeVar("Result")
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
