"""Address -> an executor like any other, whose tasks run on the machines of a Ray cluster: behind `--engine ray`.

What travels are small values: paths, settings, counts. The machines read photos from, and write results to, storage
that all of them see.
"""

import contextlib
import functools
import importlib
import importlib.util
import os
import platform
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, InvalidStateError
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pronk.errors import MissingExtra, PronkError, SettingsError
from pronk.pools import available_cores

OWN_CLUSTER = "local"  # Ray's word for one that is started for this process alone
CONNECT_SECONDS = 5.0
# Ray itself would try for minutes: with these it gives up after 15 s where something else answers at the address.
QUICK_TO_GIVE_UP = {"RAY_py_gcs_connect_timeout_s": "5", "RAY_gcs_server_port_wait_time_s": "1"}
OBJECT_STORE_BYTES = 80 * 1024**2  # about Ray's least; results are small
RETRIES = 4  # of a task whose machine was lost
WATCH_SECONDS, PATIENCE_SECONDS = 5.0, 60.0
MOST_UNANSWERED = 3  # looks at the first machine
# Pixels and numbers depend on these, so they have to be the same on all machines: packages, and their import names.
SAME_EVERYWHERE = {"numpy": "numpy", "pillow": "PIL", "onnxruntime": "onnxruntime"}
START = "on its first machine: ray start --head --port 6379 --include-dashboard=false"
INSTALL = "install the same versions of Python, ray and pronk on all machines, or let them share one environment"
SHARE = "photos, model, --cache and --out must lie on storage that all machines see under the same path"
AGAIN = "run the same command again: what is finished is kept"


@contextlib.contextmanager
def connect(address: str | None = None, *, shared: Sequence[Path] = ()) -> Iterator["RayExecutor"]:
    """Connect to a cluster, or start one of this machine's cores; leave or end it on the way out.

    A connection that is open already is used, and stays open. Ray takes a minute to end all processes of a cluster that
    was started here, when this one is stopped or killed. Arguments and errors are those of `engines.open_engine`; the
    address may also be "auto", for the cluster that this machine belongs to.
    """
    address = check_cluster(address)
    with contextlib.ExitStack() as at_end:
        at_end.enter_context(_set_environment(address))
        import ray

        # Ray prints its remarks on lost machines, which do not belong among the data.
        at_end.enter_context(contextlib.redirect_stdout(sys.stderr))
        if not ray.is_initialized():
            at_end.callback(_restore_sigterm, signal.getsignal(signal.SIGTERM))
            at_end.callback(ray.shutdown)
            _start_ray(ray, address)
        executor = RayExecutor(ray, shared)
        at_end.callback(executor.shutdown)
        if not executor.workers:
            hint = f"on each machine that is to work: ray start --address {address}"
            raise PronkError(f"the Ray cluster at {address} has no processor to work with", hint=hint)
        yield executor


def check_cluster(address: str | None = None) -> str:
    """Return the address that counts, once something listens there; Ray itself, slow to import, is not asked.

    Without one it is $RAY_ADDRESS, else Ray's word for a cluster of one's own. Errors are those of
    `engines.check_engine`.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingExtra("ray", "--engine ray")
    address = address or os.environ.get("RAY_ADDRESS") or OWN_CLUSTER
    if address not in (OWN_CLUSTER, "auto"):
        _knock(address)
    return address


def _knock(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in address:
        raise SettingsError(f"--address must be host:port. Got {address!r}", hint="such as --address head:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise PronkError(f"no Ray cluster answers at {address}: {cause}", hint=f"start one {START}") from error


def _start_ray(ray: Any, address: str) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}
    if address == OWN_CLUSTER:
        options |= {"num_cpus": available_cores(), "object_store_memory": OBJECT_STORE_BYTES}
        options["include_dashboard"] = False  # its API runs what anybody sends
    try:
        ray.init(address=address, **options)
    except Exception as error:  # Ray raises many kinds, also assertions
        raise explain_refusal(error, address) from error


def _restore_sigterm(handler: Any) -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray put its own there


@functools.cache
def _own_token() -> str:
    return secrets.token_hex(32)  # Ray reads it once per process, so it stays the same


@contextlib.contextmanager
def _set_environment(address: str) -> Iterator[None]:
    # Ray listens on all interfaces and runs what it is sent, even for one machine alone, and would leave a token that
    # other users can read in the home folder; so its own cluster gets one that only these processes know.
    values = {"RAY_USAGE_STATS_ENABLED": "0"}
    if address != OWN_CLUSTER:
        values |= QUICK_TO_GIVE_UP
    else:
        values |= {"OMP_NUM_THREADS": "1"}
        if "RAY_AUTH_MODE" not in os.environ:
            values |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _own_token()}
    former = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def explain_refusal(error: BaseException, address: str) -> PronkError:
    """Say what keeps Ray from connecting."""
    causes: list[str] = []
    cause: BaseException | None = error
    while cause:
        causes.append(f"{type(cause).__name__}: {cause}")
        cause = cause.__cause__ or cause.__context__
    reasons = "\n".join(causes)
    first = str(error).partition("\n")[0].strip()
    if "Version mismatch" in reasons:
        said = " ".join(reasons[reasons.index("Version mismatch") :].partition("\nTraceback")[0].split())
        return PronkError(f"the Ray cluster at {address} is another one: {said}", hint=INSTALL)
    if "AuthenticationError" in reasons or "token-auth" in reasons:
        hint = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a copy of the token of its first machine"
        return PronkError(f"the Ray cluster at {address} wants a token, or another one", hint=hint)
    if address == OWN_CLUSTER:
        return PronkError(f"Ray does not start here: {first}", hint="use --engine local, or see the logs in /tmp/ray")
    return PronkError(
        f"no Ray cluster answers at {address}: {first}",
        hint=f"start one {START}; then join this machine to it: ray start --address head:6379 --num-cpus 0",
    )


class RayExecutor(Executor):
    """Run functions as tasks of the Ray cluster that this process is connected to.

    A task that was lost with its machine runs again elsewhere, so work must be such that running it twice does no
    harm. Errors come back as they were raised.

    Args:
        ray: the module, connected.
        shared: files or folders that every machine must see before it does a task.
    """

    def __init__(self, ray: Any, shared: Sequence[Path] = ()) -> None:
        self._ray = ray
        self._running: set[Future[Any]] = set()
        self._ended = threading.Event()
        self._workers = self._count_processors()
        remote = ray.remote(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(run_task)
        self._start = functools.partial(remote.remote, tuple(Path(path).absolute() for path in shared), list_versions())
        threading.Thread(target=self._watch, args=[ray.get_runtime_context().gcs_address], daemon=True).start()

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
        """Give up the tasks that are not done."""
        self._ended.set()
        self._give_up("the cluster was left before a task was done")

    def _watch(self, first: str) -> None:
        # Ray would wait for ever for a machine that can do the tasks, and end this process without a word where the
        # first machine is gone for a minute.
        unanswered, since = 0, time.monotonic()
        while not self._ended.wait(WATCH_SECONDS):
            try:
                _knock(first)
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


def run_task(
    shared: Sequence[Path], versions: dict[str, str], work: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    """Do a task on this machine, if it has the same versions and sees the same files; an error is returned, not raised.

    So it comes back as it is: what a task raises, Ray wraps into an error of its own.
    """
    try:
        # Another machine would give other results, or put them where nobody finds them.
        for name, here in list_versions().items():
            if here != versions[name]:
                fault = f"has {name} {here}, this one has {versions[name]}"
                raise PronkError(f"the machine {platform.node()} {fault}", hint=INSTALL)
        for path in shared:
            if not path.exists():
                raise PronkError(f"the machine {platform.node()} does not see {path}", hint=SHARE)
        return work(*args, **kwargs)
    except Exception as error:
        return error


@functools.cache
def list_versions() -> dict[str, str]:
    """Return the versions of pronk and of SAME_EVERYWHERE on this machine."""
    found = {name: importlib.import_module(module).__version__ for name, module in SAME_EVERYWHERE.items()}
    try:
        return found | {"pronk": version("pronk")}
    except PackageNotFoundError:  # it may be on PYTHONPATH only
        return found | {"pronk": ""}


def _settle(future: "Future[Any]", done: "Future[Any]") -> None:
    # Runs in a thread of Ray's.
    try:
        result = done.result()
    except Exception as lost:
        result = explain_loss(lost)
    with contextlib.suppress(InvalidStateError):  # given up meanwhile
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)


def explain_loss(error: Exception) -> Exception:
    """Say what became of a task that did not come back; errors that are not Ray's are returned as they are."""
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
