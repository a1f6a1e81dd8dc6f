"""Tasks -> results, by threads, processes or machines: the one way in which many photos are worked through."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

from pronk.errors import SettingsError
from pronk.files import available_cores

Task = TypeVar("Task")
Result = TypeVar("Result")
TASKS_AHEAD = 4  # per worker
ENGINES = ("local", "ray")


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


@contextlib.contextmanager
def open_engine(name: str, *, address: str | None = None, shared: Sequence[Path] = ()) -> Iterator[Executor]:
    """Open what runs tasks: the threads of this process, or the machines of a Ray cluster.

    On the way out, also by an error or Ctrl-C, tasks that wait are dropped and a cluster is left; one that was started
    here is ended.

    Args:
        name: one of ENGINES.
        address: of the cluster, as host:port; None takes $RAY_ADDRESS, else starts one of this machine's cores.
        shared: files or folders that every machine of a cluster must see, under the same path.

    Raises:
        SettingsError: if there is no such engine, or an address without a cluster.
        MissingExtra: without Ray.
        PronkError: if no cluster of the same version answers at the address.

    Example:
        >>> with open_engine("local") as pool:
        ...     pool.submit(abs, -2).result()
        2
    """
    if name == "ray":
        from pronk.engines.cluster import connect  # which looks at the address itself

        with connect(address, shared=shared) as executor:
            yield executor
    else:
        check_engine(name, address=address)
        with start_threads() as pool:
            yield pool


def check_engine(name: str, *, address: str | None = None) -> None:
    """Refuse at once what would fail later: an engine that is none, or a cluster where nothing answers.

    Raises:
        SettingsError: if there is no such engine, or an address without a cluster.
        MissingExtra: without Ray.
        PronkError: if nothing answers at the address.

    Example:
        >>> check_engine("local")
        >>> check_engine("steam")
        Traceback (most recent call last):
        pronk.errors.SettingsError: --engine must be one of local, ray. Got 'steam'
    """
    if name not in ENGINES:
        raise SettingsError(f"--engine must be one of {', '.join(ENGINES)}. Got {name!r}")
    if name == "ray":
        from pronk.engines.cluster import check_address, find_address, require_ray

        require_ray()
        check_address(find_address(address))
    elif address:
        raise SettingsError(f"--address needs a cluster. Got {address!r}", hint="add --engine ray")


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
