import importlib.util
import socket
from unittest import mock

import pytest

from pronk.batch.engines import check_engine, open_engine
from pronk.batch.ray_cluster import (
    OWN_CLUSTER,
    SAME_EVERYWHERE,
    SHARE,
    RayExecutor,
    explain_loss,
    explain_refusal,
    list_versions,
    run_task,
)
from pronk.errors import MissingExtra, PronkError, SettingsError


def test_an_unknown_engine_is_refused():
    with pytest.raises(SettingsError, match="--engine must be one of local, ray"), open_engine("dask"):
        pass


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as raised, open_engine("ray"):
        pass
    assert raised.value.hint == 'pip install "pronk[ray]"'


@pytest.fixture
def with_ray(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


@pytest.mark.parametrize("address", ["head", "ray://head:10001", "head:", ":6379", "http://head:8265"])
def test_what_is_not_an_address_is_refused(with_ray, address):
    with pytest.raises(SettingsError, match="--address must be host:port"):
        check_engine("ray", address=address)


def test_where_nobody_listens_nobody_waits(with_ray, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        check_engine("ray", address=address)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(PronkError, match=f"no Ray cluster answers at {address}") as raised:
        check_engine("ray")
    assert "ray start --head" in raised.value.hint


def test_what_keeps_ray_from_connecting_is_said():
    mismatch = RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.59.0\n    Python: 3.12.1\n")
    outer = ConnectionError("Failed to connect to Ray cluster at head:6379")
    outer.__cause__ = mismatch
    error = explain_refusal(outer, "head:6379")
    assert str(error) == (
        "the Ray cluster at head:6379 is another one: Version mismatch: The cluster was started with: Ray: 2.59.0 "
        "Python: 3.12.1"
    )
    assert "same versions" in error.hint
    outer.__cause__ = RuntimeError("RPC error: InvalidAuthToken, see https://docs.ray.io/en/latest/token-auth.html")
    assert "RAY_AUTH_TOKEN" in explain_refusal(outer, "head:6379").hint
    outer.__cause__ = None
    assert "--num-cpus 0" in explain_refusal(outer, "head:6379").hint
    assert "--engine local" in explain_refusal(outer, OWN_CLUSTER).hint


def test_versions_are_those_that_are_imported(monkeypatch):
    """ONNX Runtime's distribution may also be onnxruntime-gpu."""
    monkeypatch.setattr("onnxruntime.__version__", "1.2.3")
    list_versions.cache_clear()
    try:
        assert list_versions()["onnxruntime"] == "1.2.3"
        assert all(list_versions()[name] for name in SAME_EVERYWHERE)
    finally:
        list_versions.cache_clear()


def test_a_machine_must_have_the_same_versions_and_see_the_same_files(tmp_path):
    assert run_task([tmp_path], list_versions(), divmod, 7, 2) == (3, 1)
    error = run_task([tmp_path], list_versions() | {"pillow": "9.0"}, divmod, 7, 2)
    assert isinstance(error, PronkError)
    assert "has pillow" in str(error)
    assert "this one has 9.0" in str(error)
    error = run_task([tmp_path / "gone"], list_versions(), divmod, 7, 2)
    assert f"does not see {tmp_path / 'gone'}" in str(error)
    assert error.hint == SHARE
    assert isinstance(run_task([], list_versions(), divmod, 7, 0), ZeroDivisionError)


@pytest.mark.parametrize(
    ("answers", "says"), [(False, "no Ray cluster answers at"), (True, "the cluster has had no machine to work with")]
)
def test_a_cluster_that_dies_is_named(monkeypatch, answers, says):
    """Ray itself would end the process after a minute without a word, or wait for ever."""
    monkeypatch.setattr("pronk.batch.ray_cluster.WATCH_SECONDS", 0.01)
    monkeypatch.setattr("pronk.batch.ray_cluster.PATIENCE_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        ray = mock.Mock(**{"cluster_resources.return_value": {}})
        ray.get_runtime_context.return_value.gcs_address = address if answers else "127.0.0.1:1"
        executor = RayExecutor(ray)
        with pytest.raises(PronkError, match=says):
            executor.submit(abs, 1).result(timeout=60)
        executor.shutdown()


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


def test_what_became_of_a_task_is_said():
    error = explain_loss(RayTaskError("Traceback\n ...\nModuleNotFoundError: No module named 'pronk'\n"))
    assert str(error) == "a machine of the cluster cannot do the work: ModuleNotFoundError: No module named 'pronk'"
    assert "on all machines" in error.hint
    error = explain_loss(RayError("The node died.\nSee the logs."))
    assert str(error) == "a task was lost 5 times with its process or machine (RayError: The node died.)"
