"""Tasks -> one worker process per core, that ends with this one.

Processes, since threads that decode photos fight for the interpreter lock while the framework is being imported.
loky rather than the standard pool, because it neither runs the user's script again nor hangs when a worker dies.
"""

import contextlib
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, wait
from pathlib import Path
from typing import Any, TypeVar

import loky
from loky.backend.context import LokyContext
from loky.backend.process import LokyProcess

import pronk
from pronk.errors import PronkError
from pronk.pools import available_cores

_starting = threading.RLock()  # of processes: a pool starts some in a thread of its own
Result = TypeVar("Result")
FOLLOWED_SECONDS = 0.2
NICENESS = 10  # a second run waits for the import of Keras in the main process, which so gets a core of its own


@contextlib.contextmanager
def start_workers() -> Iterator[Executor]:
    """Open a pool with a worker per core; on the way out, also by an error or Ctrl-C, its processes are ended.

    Raises:
        PronkError: if a worker was killed.
    """
    with leave_out_current_folder():  # for the process that loky starts beside its workers
        pool = loky.ProcessPoolExecutor(
            available_cores(),
            context=_Context(),
            initializer=_prepare,
            initargs=(os.getpid(),),
            env={"OMP_NUM_THREADS": "1"},
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


@contextlib.contextmanager
def leave_out_current_folder() -> Iterator[None]:
    """Let processes that are started meanwhile import nothing from the current folder, unless pronk itself is there.

    What lies in it is the user's: a file random.py or queue.py there must not take the place of Python's own.
    """
    here, own = Path.cwd().resolve(), Path(pronk.__file__).resolve().parent.parent
    with _starting:
        variable, kept = "PYTHONSAFEPATH", sys.path
        former = os.environ.get(variable)
        os.environ[variable] = "1"
        # Another list, not a change of this one: an import under way in another thread would pass over an entry of it.
        sys.path = [entry for entry in kept if own == here or Path(entry or here).resolve() != here]
        try:
            yield
        finally:
            sys.path = kept
            if former is None:
                del os.environ[variable]
            else:
                os.environ[variable] = former


def tell(told: Path, done: int) -> None:
    """Write into a file how far a task is, for `follow` in the main process."""
    with contextlib.suppress(OSError):
        told.write_text(str(done))


def follow(task: "Future[Result]", told: Path, on_step: Callable[[int], None]) -> Result:
    """Wait for a task of a worker, and call what it tells meanwhile."""
    while not wait([task], timeout=FOLLOWED_SECONDS).done:
        said = told.read_text() if told.is_file() else ""
        if said:  # it is empty while it is written
            on_step(int(said))
    told.unlink(missing_ok=True)
    return task.result()


class _Worker(LokyProcess):  # type: ignore[misc]
    @staticmethod
    def _Popen(process: Any) -> Any:  # noqa: N802 - its name in multiprocessing
        with leave_out_current_folder():
            return LokyProcess._Popen(process)


class _Context(LokyContext):  # type: ignore[misc]
    Process = _Worker


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
