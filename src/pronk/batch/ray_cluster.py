"""Address -> connection to a Ray cluster, or to one that lives as long as it is needed: behind `--engine ray`."""

import contextlib
import functools
import importlib.util
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pronk.batch.ray_guard import guard
from pronk.batch.ray_tasks import INSTALL, RayExecutor
from pronk.errors import MissingExtra, PronkError, SettingsError
from pronk.pools import available_cores

OWN_CLUSTER = "local"  # Ray's word for one that is started for this process alone
CONNECT_SECONDS = 5.0
OBJECT_STORE_BYTES = 80 * 1024**2  # about Ray's least; results are small
# The first words of gRPC, which Ray speaks: whatever else listens at an address would keep Ray waiting for minutes.
HTTP2_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HTTP2_SETTINGS
START = "on its first machine: ray start --head --port 6379 --include-dashboard=false"


@contextlib.contextmanager
def connect(address: str | None = None, *, shared: Sequence[Path] = ()) -> Iterator[RayExecutor]:
    """Connect to a cluster, or start one of this machine's cores; leave or end it on the way out.

    A connection that is open already is used, and stays open.

    Args:
        address: host:port of the cluster's first machine, or "auto" for the one this machine belongs to; None takes
            $RAY_ADDRESS, else starts one.
        shared: files or folders that every machine must see.

    Raises:
        MissingExtra: without Ray.
        PronkError: if no cluster of the same version answers, or it has no processor.
    """
    require_ray()
    address = find_address(address)
    check_address(address)
    with contextlib.ExitStack() as at_end:
        at_end.enter_context(_ray_environment(own=address == OWN_CLUSTER))
        import ray

        if not ray.is_initialized():
            if address == OWN_CLUSTER:
                at_end.enter_context(guard())
            at_end.callback(_restore_sigterm, signal.getsignal(signal.SIGTERM))
            at_end.enter_context(_hush(ray))
            at_end.callback(ray.shutdown)
            _start_ray(ray, address)
        first = ray.get_runtime_context().gcs_address
        executor = RayExecutor(ray, shared, probe=functools.partial(check_address, first))
        at_end.callback(executor.shutdown, wait=False, cancel_futures=True)
        if not executor.workers:
            hint = f"on each machine that is to work: ray start --address {address}"
            raise PronkError(f"the Ray cluster at {address} has no processor to work with", hint=hint)
        yield executor


def check_address(address: str) -> None:
    """Look whether a Ray cluster may answer at an address, since Ray itself would wait for minutes.

    Raises:
        SettingsError: if the address is none.
        PronkError: if nothing does.

    Example:
        >>> check_address("local")
        >>> check_address("ray://head:10001")
        Traceback (most recent call last):
        pronk.errors.SettingsError: --address must be host:port. Got 'ray://head:10001'
    """
    if address in (OWN_CLUSTER, "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in address:
        raise SettingsError(f"--address must be host:port. Got {address!r}", hint="such as --address head:6379")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "1":
                return
            connection.sendall(HTTP2_GREETING)
            answer = connection.makefile("rb").read(len(HTTP2_SETTINGS))
    except (OSError, OverflowError, UnicodeError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise PronkError(f"no Ray cluster answers at {address}: {cause}", hint=f"start one {START}") from error
    if answer[3:4] != HTTP2_SETTINGS[3:4]:
        raise PronkError(f"what answers at {address} is no Ray cluster", hint=f"start one {START}")


def require_ray() -> None:
    """Say how to install Ray where it is missing; it is not imported, which takes a second.

    Raises:
        MissingExtra: without Ray.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingExtra("ray", "--engine ray")


def find_address(address: str | None) -> str:
    """Return the address that was given, else $RAY_ADDRESS, else Ray's word for a cluster of one's own.

    Example:
        >>> find_address("head:6379")
        'head:6379'
    """
    return address or os.environ.get("RAY_ADDRESS") or OWN_CLUSTER


def _start_ray(ray: Any, address: str) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}
    if address == OWN_CLUSTER:
        options |= {"num_cpus": available_cores(), "object_store_memory": OBJECT_STORE_BYTES}
        options["include_dashboard"] = False  # its API runs what anybody sends
    try:
        ray.init(address=address, **options)
    except Exception as error:  # Ray raises many kinds, also assertions
        raise explain(error, address) from error


@contextlib.contextmanager
def _hush(ray: Any) -> Iterator[None]:
    # Remarks on lost machines would go to stdout, among the data; there is no option against it.
    worker = ray._private.worker
    former = getattr(worker, "_worker_logs_enabled", True)
    worker._worker_logs_enabled = False
    try:
        yield
    finally:
        worker._worker_logs_enabled = former


def _restore_sigterm(handler: Any) -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray put its own there


def explain(error: BaseException, address: str) -> PronkError:
    """Say what keeps Ray from connecting.

    Example:
        >>> str(explain(ConnectionError("no luck"), "head:6379"))
        'no Ray cluster answers at head:6379: no luck'
    """
    causes: list[str] = []
    cause: BaseException | None = error
    while cause:
        causes.append(f"{type(cause).__name__}: {cause}")
        cause = cause.__cause__ or cause.__context__
    told = "\n".join(causes)
    first = str(error).partition("\n")[0].strip()
    if "Version mismatch" in told:
        said = " ".join(told[told.index("Version mismatch") :].partition("\nTraceback")[0].split())
        return PronkError(f"the Ray cluster at {address} is another one: {said}", hint=INSTALL)
    if "AuthenticationError" in told or "token-auth" in told:
        hint = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a copy of the token of its first machine"
        return PronkError(f"the Ray cluster at {address} wants a token, or another one", hint=hint)
    if address == OWN_CLUSTER:
        return PronkError(f"Ray does not start here: {first}", hint="use --engine local, or see the logs in /tmp/ray")
    return PronkError(
        f"no Ray cluster answers at {address}: {first}",
        hint=f"start one {START}; then join this machine to it: ray start --address head:6379 --num-cpus 0",
    )


@functools.cache
def _own_token() -> str:
    return secrets.token_hex(32)  # Ray reads it once per process, so it stays the same


@contextlib.contextmanager
def _ray_environment(*, own: bool) -> Iterator[None]:
    # Ray listens on all interfaces and runs what it is sent, even for one machine alone, and would leave a token that
    # other users can read in the home folder; so its own cluster gets one that only these processes know.
    values = {"RAY_USAGE_STATS_ENABLED": "0"}
    if own:
        values |= {"OMP_NUM_THREADS": "1"}
    if own and "RAY_AUTH_MODE" not in os.environ:
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
