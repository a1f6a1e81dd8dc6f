"""Two machines played by one: what Ray computes equals what threads compute, also when a machine or the driver dies."""

import contextlib
import importlib.util
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from helpers import TESTS
from helpers.commands import predict
from helpers.training import (
    CLASSES,
    draw_tiny,
    hear_interrupts,
    lively_backbone,
    read_replayed,
    run_pronk,
    tiny_settings,
)
from pronk.batch.engines import open_engine
from pronk.dataset.findings import Finding
from pronk.dataset.loading import load_dataset
from pronk.errors import DataError, ImageError, PronkError, Reason
from pronk.training.features import extract_features
from pronk.training.rows import Extracted
from pronk.training.run_folder import Run

STORE_BYTES = 80 * 1024**2  # per node, in shared memory
SHARED_MEMORY = Path("/dev/shm")
# A lost node is noticed within some 2 s, not 15.
HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "2",
}
PATIENCE = 90.0  # seconds after which no process of Ray's may be left: two of them stay a minute when it was stopped

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for the processes of a session"),
    pytest.mark.skipif(
        SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free < 4 * STORE_BYTES,
        reason="too little room in /dev/shm",
    ),
]
more, slow = pytest.mark.more, pytest.mark.slow


class TwoNodes:
    """A cluster of two nodes with two logical processors each; the driver belongs to the first."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        options = {"include_dashboard": False, "include_log_monitor": False, "object_store_memory": STORE_BYTES}
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, **options})
        self.address, self.second = self.cluster.address, None
        self.heal()

    def heal(self):
        if self.second is None:
            self.second = self.cluster.add_node(num_cpus=2, object_store_memory=STORE_BYTES)

    def lose_second(self):
        self.cluster.remove_node(self.second, allow_graceful=False)
        self.second = None


@pytest.fixture(scope="module", autouse=True)
def ray_environment():
    """No report to Ray's makers, and a token: whoever reaches a cluster's ports may run anything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.delenv("RAY_ADDRESS", raising=False)
        for name, value in HEALTH_CHECKS.items():
            patch.setenv(name, value)
        # The nodes import by name what they are to run, also the functions of this file.
        patch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
        yield


@pytest.fixture(scope="module")
def nodes(ray_environment):
    cluster = TwoNodes()
    yield cluster
    cluster.cluster.shutdown()


@pytest.fixture(scope="module")
def sessions():
    """Drivers, each the first process of a session of its own, of whom none is left a minute after the last test."""
    started = []
    yield started
    deadline = time.monotonic() + PATIENCE
    while (left := [pid for process in started for pid in members(process.pid)]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photos that take some milliseconds each, and one in fifty that cannot be used."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("photos")
    drawn = [folder / f"drawn-{number:02}.png" for number in range(12)]
    for number, path in enumerate(drawn):
        draw_tiny(rng, CLASSES[number % 2], size=(800, 600)).save(path, compress_level=1)
    for number in range(238):
        if number % 50 == 7:
            (folder / f"{number:05}.png").write_bytes(drawn[0].read_bytes()[: number + 100])
        else:
            os.link(drawn[number % 12], folder / f"{number:05}.png")
    return folder


@pytest.fixture(scope="module")
def expected(photos, whole_bundle):
    """The rows that threads predict for the photos."""
    done, rows, _ = predict(whole_bundle, photos, form="jsonl")
    assert (done.photos, done.failed) == (250, 5)
    return rows.encode()


def start_predicting(photos, model, out, address=None):
    command = [sys.executable, "-m", "pronk", "predict", model, photos, "--out", out, "--engine", "ray"]
    command += ["--address", address] if address else []
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
    return subprocess.Popen(list(map(str, command)), preexec_fn=hear_interrupts, **options)


def finish(process, *, code=0, timeout=400):
    stdout, stderr = process.communicate(timeout=timeout)
    assert process.returncode == code, stderr.decode()
    assert b"Traceback" not in stderr
    assert not stdout.strip() or code == 0, stdout
    return stderr.decode()


def parts_of(out):
    return len(list(out.with_name(f".{out.name}.parts").glob("part-*")))


def wait_for_parts(process, out, count):
    while parts_of(out) < count:
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.005)


def members(session):
    """List the processes of a session that are not zombies; what init does not reap is dead all the same."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


@more
def test_a_stopped_driver_goes_on_and_leaves_no_process(photos, whole_bundle, expected, sessions, tmp_path):
    out = tmp_path / "out.jsonl"
    for sent, code, parts in ((signal.SIGKILL, -signal.SIGKILL, 4), (signal.SIGINT, 130, 20)):
        sessions.append(process := start_predicting(photos, whole_bundle, out))
        wait_for_parts(process, out, parts)
        process.send_signal(sent)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == code
        assert b"Traceback" not in stderr
        assert not out.exists()
    assert "goes on" in predict(whole_bundle, photos, out=out)[2][0], "by whatever engine"
    assert out.read_bytes() == expected
    assert not out.with_name(f".{out.name}.parts").exists()


def fail(number):
    raise ImageError(Reason.CHANGED, f"photo {number} is gone", hint="look")


def crash(number):
    os._exit(number)


@more
def test_errors_come_back_as_they_are_and_stdout_stays_clean(nodes, tmp_path, capfd):
    with open_engine("ray", address=nodes.address) as pool:
        assert pool.workers == 4
        assert sorted(pool.map(abs, range(-5, 0))) == [1, 2, 3, 4, 5]
        with pytest.raises(ImageError, match="photo 3 is gone") as raised:
            pool.submit(fail, 3).result()
        assert (raised.value.reason, raised.value.hint) == (Reason.CHANGED, "look")
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 1, 0).result()
        with pytest.raises(PronkError, match="was lost 5 times"):
            pool.submit(crash, 3).result()
    with (
        open_engine("ray", address=nodes.address, shared=[tmp_path, tmp_path / "gone"]) as pool,
        pytest.raises(PronkError, match=r"does not see .*gone"),
    ):
        pool.submit(abs, 1).result()
    assert capfd.readouterr().out == ""


@more
def test_what_is_not_a_cluster_is_named_soon(ray_environment, photos, whole_bundle, tmp_path):
    """Ray itself would try for minutes."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        address, started = f"127.0.0.1:{server.getsockname()[1]}", time.monotonic()
        process = start_predicting(photos, whole_bundle, tmp_path / "out.jsonl", address)
        stderr = finish(process, code=1)
    assert stderr.startswith(f"error: no Ray cluster answers at {address}"), stderr
    assert time.monotonic() - started < 60


@pytest.fixture
def extract(tiny_photos, tmp_path):
    """Extract features with a cache of its own per engine; give them with the rows that it holds then."""
    dataset = load_dataset(tiny_photos)

    def go(engine, address=None):
        cache = tmp_path / engine
        with ThreadPoolExecutor(2) as pool:
            run = Run(
                tiny_settings("unused"), lively_backbone(0.35), tmp_path / f"run-{engine}", cache, pool, engine, address
            )
            features = extract_features(dataset, run, views=2)
        assert features.dataset == dataset
        assert not list(cache.rglob("*.tmp"))
        return features, features.pooled(dataset.photos)

    return go


@more
def test_features_of_a_cluster_equal_those_of_this_machine(nodes, extract, tmp_path):
    (here, local), (there, remote) = extract("local"), extract("ray", nodes.address)
    np.testing.assert_array_equal(local, remote)
    assert here.computed == there.computed > 28
    assert not there.extraction.squares.exists()
    shutil.rmtree(tmp_path / "run-local")
    again, _ = extract("ray", "127.0.0.1:1")  # all rows are there: nobody is asked
    assert again.computed == 0


def test_a_machine_that_sees_other_photos_is_not_believed(extract, monkeypatch):
    @contextlib.contextmanager
    def open_engine(name, **_):
        with ThreadPoolExecutor(1) as pool:
            submit = pool.submit
            pool.submit = lambda work, jobs: submit(vanish, jobs)
            yield pool

    monkeypatch.setattr("pronk.training.features.open_engine", open_engine)
    with pytest.raises(DataError, match="vanished on another machine, but not here"):
        extract("ray")


def vanish(jobs):
    return Extracted(1, (Finding(jobs[0].photo.path, "vanished", "error", "is gone"),))


@slow
def test_training_by_a_cluster_equals_training_here(nodes, tiny_run, tiny_photos, tiny_weights, tmp_path):
    settings = tiny_run.folder / "settings.toml"
    done = run_pronk(
        "train", tiny_photos, "--config", settings, "--out", tmp_path / "run", "--cache", tmp_path / "cache",
        "--engine", "ray", "--address", nodes.address,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    again, here = read_replayed(tmp_path / "run", tiny_run.folder)
    assert again == here
    assert (tmp_path / "run" / "settings.toml").read_text() == settings.read_text()


@slow
def test_a_wrong_token_is_named(nodes, photos, whole_bundle, tmp_path):
    done = run_pronk(
        "predict", whole_bundle, photos, "--out", tmp_path / "out.csv", "--engine", "ray", "--address", nodes.address,
        env={"RAY_AUTH_TOKEN": "0" * 64},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: the Ray cluster at"), done.stderr
    assert b"wants a token" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("victim", "times"),
    [pytest.param("node", 1, marks=more), *(pytest.param(victim, 10, marks=slow) for victim in ("node", "driver"))],
)
def test_killed_at_random_points(photos, expected, nodes, whole_bundle, sessions, tmp_path, victim, times):
    rng = random.Random(victim)
    for number in range(times):
        nodes.heal()
        out, address = tmp_path / f"{number}.jsonl", nodes.address if victim == "node" else None
        sessions.append(process := start_predicting(photos, whole_bundle, out, address))
        wait_for_parts(process, out, rng.randrange(12))
        if victim == "node":
            nodes.lose_second()
        else:
            process.kill()
            process.wait()
            sessions.append(process := start_predicting(photos, whole_bundle, out))
        finish(process)
        assert out.read_bytes() == expected, number
    nodes.heal()
