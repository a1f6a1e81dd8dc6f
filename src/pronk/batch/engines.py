"""Tasks -> results, by the threads of this process or the machines of a Ray cluster: one choice for all who compute."""

from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from pathlib import Path

from pronk.errors import SettingsError
from pronk.pools import start_threads

ENGINES = ("local", "ray")


def open_engine(
    name: str, *, address: str | None = None, shared: Sequence[Path] = ()
) -> AbstractContextManager[Executor]:
    """Open what runs tasks: the threads of this process, or the machines of a Ray cluster.

    On the way out, also by an error or Ctrl-C, tasks that wait are dropped and a cluster is left; one that was started
    here is ended.

    Args:
        name: one of ENGINES.
        address: the cluster's, as host:port; None takes $RAY_ADDRESS, else starts one of this machine's cores.
        shared: files or folders that every machine of a cluster must see, under the same path.

    Raises:
        SettingsError: if there is no such engine, or an address without a cluster.
        MissingExtra: without Ray.
        PronkError: if no cluster of the same version answers at the address.
    """
    if name == "ray":
        from pronk.batch.ray_cluster import connect  # which looks at the address itself

        return connect(address, shared=shared)
    check_engine(name, address=address)
    return start_threads()


def check_engine(name: str, *, address: str | None = None) -> None:
    """Refuse at once what would fail later, by the errors of `open_engine`; Ray itself is not asked."""
    if name not in ENGINES:
        raise SettingsError(f"--engine must be one of {', '.join(ENGINES)}. Got {name!r}")
    if name == "ray":
        from pronk.batch.ray_cluster import check_cluster

        check_cluster(address)
    elif address:
        raise SettingsError(f"--address needs a cluster. Got {address!r}", hint="add --engine ray")
