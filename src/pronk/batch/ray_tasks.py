"""Work -> tasks on the machines of a Ray cluster: an executor like any other.

What travels are small values: paths, settings, counts. The machines read photos from, and write results to, storage
that all of them see.
"""

import contextlib
import dataclasses
import functools
import platform
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, InvalidStateError
from concurrent.futures import wait as wait_for
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pronk.errors import PronkError
from pronk.model.formats.opening import version_of

RETRIES = 4  # of a task whose machine was lost
WATCH_SECONDS, PATIENCE_SECONDS = 5.0, 60.0
MOST_UNANSWERED = 3  # looks at the first machine
# What pixels and numbers depend on has to be the same on all machines: packages, and what they are imported as.
SAME_EVERYWHERE = {"numpy": "numpy", "pillow": "PIL", "onnxruntime": "onnxruntime"}
INSTALL = "install the same versions of Python, ray and pronk on all machines, or let them share one environment"
SHARE = "photos, model, --cache and --out must lie on storage that all machines see under the same path"
AGAIN = "run the same command again: what is finished is kept"


class RayExecutor(Executor):
    """Run functions as tasks of the Ray cluster that this process is connected to.

    A task that was lost with its machine runs again elsewhere, so work must be such that running it twice does no
    harm. Errors come back as they were raised.

    Args:
        ray: the module, connected.
        shared: files or folders that every machine must see before it does a task.
        probe: raises PronkError where the first machine does not answer.
    """

    def __init__(self, ray: Any, shared: Sequence[Path] = (), *, probe: Callable[[], None]) -> None:
        self._ray = ray
        self._probe = probe
        self._running: set[Future[Any]] = set()
        self._ended = threading.Event()
        self._workers = self._count_processors()
        remote = ray.remote(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(run_task)
        self._start = functools.partial(remote.remote, tuple(Path(path).absolute() for path in shared), list_versions())
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def workers(self) -> int:
        """Tasks that the machines can do at a time, as of some seconds ago; machines may come and go."""
        return self._workers

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Start a task; its future cannot be cancelled."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        self._start(fn, *args, **kwargs).future().add_done_callback(functools.partial(_settle, future))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for all tasks, or give those up that are not done."""
        if wait and not cancel_futures:
            wait_for(self._running.copy())
        self._ended.set()
        self._give_up("the cluster was left before a task was done")

    def _watch(self) -> None:
        # Ray would wait for ever for a machine that can do the tasks, and end this process without a word where the
        # first machine is gone for a minute.
        unanswered, since = 0, time.monotonic()
        while not self._ended.wait(WATCH_SECONDS):
            try:
                self._probe()
            except PronkError as error:
                unanswered += 1
                if unanswered == MOST_UNANSWERED:
                    self._give_up(str(error))
                continue
            unanswered = 0
            self._workers = self._count_processors()
            if self._workers or not self._running:
                since = time.monotonic()
            elif time.monotonic() - since > PATIENCE_SECONDS:
                self._give_up(f"the cluster has had no machine to work with for {PATIENCE_SECONDS:.0f} s")

    def _count_processors(self) -> int:
        return int(self._ray.cluster_resources().get("CPU", 0))

    def _give_up(self, why: str) -> None:
        for future in self._running.copy():
            with contextlib.suppress(InvalidStateError):  # it became done meanwhile
                future.set_exception(PronkError(why, hint=AGAIN))


@dataclasses.dataclass(frozen=True)
class Raised:
    """An error that a task raised, on its way back."""

    error: Exception


def run_task(
    shared: Sequence[Path], versions: dict[str, str], work: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    """Do a task on this machine, if it is fit for it; return what `work` returns, or the error it raises.

    Args:
        shared: what this machine must see.
        versions: of the packages there, as `list_versions` gives them.
        work: what to do.
        *args: for `work`.
        **kwargs: for `work`.

    Example:
        >>> run_task((), list_versions(), abs, -2)
        2
        >>> str(run_task([Path("no such folder")], list_versions(), abs, -2).error).partition(" does ")[2]
        'not see no such folder'
    """
    try:
        check_machine(shared, versions)
        return work(*args, **kwargs)
    except Exception as error:
        return Raised(error)


def check_machine(shared: Sequence[Path], versions: dict[str, str]) -> None:
    """Refuse a machine that would give other results, or put them where nobody finds them.

    Raises:
        PronkError: naming the machine.

    Example:
        >>> check_machine([Path(".")], list_versions())
    """
    machine = f"the machine {platform.node()}"
    for name, here in list_versions().items():
        if here != versions[name]:
            raise PronkError(f"{machine} has {name} {here}, this one has {versions[name]}", hint=INSTALL)
    for path in shared:
        if not path.exists():
            raise PronkError(f"{machine} does not see {path}", hint=SHARE)


@functools.cache
def list_versions() -> dict[str, str]:
    """Return the versions of pronk and of SAME_EVERYWHERE on this machine.

    Example:
        >>> sorted(list_versions())
        ['numpy', 'onnxruntime', 'pillow', 'pronk']
    """
    found = {name: version_of(module) for name, module in SAME_EVERYWHERE.items()}
    try:
        return found | {"pronk": version("pronk")}
    except PackageNotFoundError:  # it may be on PYTHONPATH only
        return found | {"pronk": ""}


def _settle(future: "Future[Any]", done: "Future[Any]") -> None:
    # Runs in a thread of Ray's.
    try:
        result = done.result()
        error = result.error if isinstance(result, Raised) else None
    except Exception as lost:
        result, error = None, explain_loss(lost)
    with contextlib.suppress(InvalidStateError):  # given up meanwhile
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


def explain_loss(error: Exception) -> Exception:
    """Say what became of a task that did not come back; errors that are not Ray's are returned as they are.

    Example:
        >>> explain_loss(ValueError("no luck"))
        ValueError('no luck')
    """
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "RayTaskError" in kinds:
        last = str(error).strip().rpartition("\n")[2]
        hint = INSTALL if "ModuleNotFoundError" in str(error) or "ImportError" in str(error) else AGAIN
        return PronkError(f"a machine of the cluster cannot do the work: {last}", hint=hint)
    if "RayError" in kinds:
        first = str(error).strip().partition("\n")[0]
        return PronkError(
            f"a task was lost {RETRIES + 1} times with its process or machine ({type(error).__name__}: {first})",
            hint=f"{AGAIN}; see whether the machines have memory left",
        )
    return error
