"""Two machines played by one: what Ray computes equals what threads compute, also when a machine or the driver dies."""

import contextlib
import importlib.util
import json
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
import pytest

from helpers import TESTS
from helpers.training import CLASSES, draw_tiny, hear_interrupts, lively_backbone, read_run, run_pronk, tiny_settings
from pronk.batch.engines import open_engine
from pronk.dataset.loading import load_dataset
from pronk.errors import DataError, ImageError, PronkError, Reason
from pronk.training.features import extract_features
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
KILLS = 10
PATIENCE = 90.0  # seconds after which no process of Ray's may be left: two of them stay a minute when it was stopped

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="counts processes in /proc"),
    pytest.mark.skipif(
        SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free < 4 * STORE_BYTES,
        reason="too little room in /dev/shm",
    ),
]
more, slow = pytest.mark.more, pytest.mark.slow


class TwoNodes:
    """A cluster of two nodes with two logical processors each; the driver belongs to the first."""

    def __init__(self, *, processors=2):
        from ray.cluster_utils import Cluster

        options = {"include_dashboard": False, "include_log_monitor": False, "object_store_memory": STORE_BYTES}
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": processors, **options})
        self.second = None
        self.heal()

    @property
    def address(self):
        return self.cluster.address

    def heal(self):
        if self.second is None:
            self.second = self.cluster.add_node(num_cpus=2, object_store_memory=STORE_BYTES)

    def lose_first(self):
        self.cluster.remove_node(self.cluster.head_node, allow_graceful=False)

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
    before = set(children())
    cluster = TwoNodes()
    yield cluster
    cluster.cluster.shutdown()
    assert not wait_until_none(lambda: set(children()) - before)


def write_many(folder, count, *, size):
    """Write photos that take some milliseconds each, and one in fifty that cannot be used."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    drawn = []
    for number in range(12):
        drawn.append(folder / f"drawn-{number:02}.png")
        draw_tiny(rng, CLASSES[number % 2], size=size).save(drawn[-1], compress_level=1)
    for number in range(count):
        if number % 50 == 7:
            (folder / f"{number:05}.png").write_bytes(drawn[0].read_bytes()[: number + 100])
        else:
            os.link(drawn[number % 12], folder / f"{number:05}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_many(tmp_path_factory.mktemp("photos") / "some", 238, size=(800, 600))


@pytest.fixture(scope="module")
def expected(photos, whole_bundle, tmp_path_factory):
    """What threads predict for the photos."""
    return predict_locally(photos, whole_bundle, tmp_path_factory.mktemp("local") / "out.jsonl")


def predict_locally(photos, model, out):
    done = run_pronk("predict", model, photos, "--out", out)
    assert done.returncode == 0, done.stderr.decode()
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [Path(row["path"]).name for row in rows] == sorted(path.name for path in photos.iterdir())
    assert 0 < sum(row["error"] is not None for row in rows) < len(rows) / 10
    return out.read_bytes()


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


def live_processes():
    """Map each process that is not a zombie to its parent and session; what init does not reap is dead all the same."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            state, parent, _, session, *_ = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            if state != "Z":
                found[int(entry.name)] = int(parent), int(session)
    return found


def members(session):
    return [pid for pid, (_, own) in live_processes().items() if own == session]


def children():
    return [pid for pid, (parent, _) in live_processes().items() if parent == os.getpid()]


def wait_until_none(find):
    """Return what is still found when the patience is over."""
    deadline = time.monotonic() + PATIENCE
    while (found := find()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


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
def test_rows_are_whole_though_a_node_is_killed(nodes, photos, whole_bundle, expected, tmp_path):
    out = tmp_path / "out.jsonl"
    process = start_predicting(photos, whole_bundle, out, nodes.address)
    wait_for_parts(process, out, 4)
    nodes.lose_second()
    try:
        assert process.poll() is None
        finish(process)
    finally:
        nodes.heal()
    assert out.read_bytes() == expected


LOST = """
import sys, time
from pronk.batch.engines import open_engine
from pronk.pools import run_unordered
from pronk.errors import PronkError
try:
    with open_engine("ray", address=sys.argv[1]) as pool:
        for _ in run_unordered(time.sleep, [0.2] * 2000, pool=pool):
            print("done", file=sys.stderr, flush=True)
except PronkError as error:
    sys.exit(f"error: {error}")
"""


@slow
@pytest.mark.parametrize("first_dies", [True, False])
def test_a_cluster_that_dies_is_named(ray_environment, first_dies):
    """Ray itself would end the process after a minute without a word, or wait for ever."""
    own = TwoNodes(processors=2 if first_dies else 0)
    try:
        command = [sys.executable, "-c", LOST, own.address]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stderr.readline() == "done\n"
        own.lose_first() if first_dies else own.lose_second()
        stdout, stderr = process.communicate(timeout=120)
    finally:
        own.cluster.shutdown()
    assert process.returncode == 1
    assert stdout == ""
    said = "error: no Ray cluster answers at" if first_dies else "error: the cluster has had no machine to work with"
    assert said in stderr


@more
def test_a_stopped_driver_goes_on_and_leaves_no_process(photos, whole_bundle, expected, tmp_path):
    out, started = tmp_path / "out.jsonl", []
    for sent, code, parts in ((signal.SIGKILL, -signal.SIGKILL, 4), (signal.SIGINT, 130, 20)):
        started.append(process := start_predicting(photos, whole_bundle, out))
        wait_for_parts(process, out, parts)
        process.send_signal(sent)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == code
        assert b"Traceback" not in stderr
        assert not out.exists()
    started.append(again := start_predicting(photos, whole_bundle, out))
    assert "goes on" in finish(again)
    assert out.read_bytes() == expected
    assert not out.with_name(f".{out.name}.parts").exists()
    assert not wait_until_none(lambda: [pid for process in started for pid in members(process.pid)])


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
            features = extract_features(dataset, run)
        assert not features.missing
        assert not list(cache.rglob("*.tmp"))
        return features, {path.relative_to(cache): path.read_bytes() for path in cache.rglob("*.row")}

    return go


@more
def test_features_of_a_cluster_equal_those_of_this_machine(nodes, extract, tmp_path):
    (here, local), (there, remote) = extract("local"), extract("ray", nodes.address)
    assert local == remote
    assert here.computed == there.computed == len(local) > 28
    assert not there.extraction.squares.exists()
    shutil.rmtree(tmp_path / "run-local")
    again, _ = extract("ray", "127.0.0.1:1")  # all rows are there: nobody is asked
    assert again.computed == 0


@more
def test_a_machine_that_sees_other_photos_is_not_believed(nodes, extract, monkeypatch):
    def lie(self, fn, /, *args):
        return submit(self, vanish, *args)

    from pronk.batch.ray_cluster import RayExecutor

    submit = RayExecutor.submit
    monkeypatch.setattr(RayExecutor, "submit", lie)
    with pytest.raises(DataError, match="vanished on another machine, but not here"):
        extract("ray", nodes.address)


def vanish(jobs):
    from pronk.dataset.findings import Finding
    from pronk.training.rows import Extracted

    return Extracted(1, (Finding(jobs[0].photo.path, "vanished", "error", "is gone"),))


@slow
def test_training_by_a_cluster_equals_training_here(nodes, tiny_run, tiny_photos, tiny_weights, tmp_path):
    settings = tiny_run.folder / "settings.toml"
    done = run_pronk(
        "train", tiny_photos, "--config", settings, "--out", tmp_path / "run", "--cache", tmp_path / "cache",
        "--engine", "ray", "--address", nodes.address,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert read_run(tmp_path / "run") == read_run(tiny_run.folder)
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


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return write_many(tmp_path_factory.mktemp("many") / "photos", 4988, size=(400, 300))


@pytest.fixture(scope="module")
def undisturbed(many, nodes, whole_bundle, tmp_path_factory):
    """The rows that threads predict, and the seconds that the cluster takes for the same."""
    base = tmp_path_factory.mktemp("undisturbed")
    rows = predict_locally(many, whole_bundle, base / "out.jsonl")
    started = time.monotonic()
    finish(start_predicting(many, whole_bundle, base / "ray.jsonl", nodes.address))
    assert (base / "ray.jsonl").read_bytes() == rows
    return rows, time.monotonic() - started


@slow
@pytest.mark.parametrize("victim", ["node", "driver"])
def test_killed_at_ten_random_points(undisturbed, many, nodes, whole_bundle, tmp_path, record_property, victim):
    rows, seconds = undisturbed
    rng, ratios, sessions = random.Random(victim), [], []
    for number in range(KILLS):
        nodes.heal()
        out, address = tmp_path / f"{number}.jsonl", nodes.address if victim == "node" else None
        started = time.monotonic()
        process = start_predicting(many, whole_bundle, out, address)
        time.sleep(rng.uniform(0, seconds))
        if victim == "node":
            nodes.lose_second()
        else:
            process.kill()
            process.wait()
            sessions.append(process.pid)
            process = start_predicting(many, whole_bundle, out)
            sessions.append(process.pid)
        finish(process)
        ratios.append(round((time.monotonic() - started) / seconds, 2))
        assert out.read_bytes() == rows, number
    nodes.heal()
    record_property("undisturbed seconds", round(seconds, 1))
    record_property(f"{victim} killed, times undisturbed", ratios)
    assert not wait_until_none(lambda: [pid for session in sessions for pid in members(session)])
