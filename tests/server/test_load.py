"""Load, overload and long runs of a real server: nothing is lost, nothing grows.

Latencies want an idle machine: benchmarks/serving.py measures and judges them, for as long as the goals say.
"""

import sys

import pytest

from helpers.bad_files import blank_png
from helpers.pictures import write_pictures
from helpers.scripts import load_benchmark
from helpers.servers import start_server

pytestmark = [
    pytest.mark.more,
    pytest.mark.alone,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]
SMALL = (20_000, 45_000, 95_000, 200_000, 425_000)
GROWTH = 24.0  # MiB that a short run may still take: what the first photos of each size leave behind
OPEN_FILES = 5


@pytest.fixture(scope="module")
def scenarios():
    return load_benchmark("serving")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("drawn") / "photos")


@pytest.fixture(scope="module")
def mix(drawn, tmp_path_factory):
    """Photos of 20 to 425 KB."""
    return load_benchmark("bodies").write_bodies(drawn, tmp_path_factory.mktemp("mix"), sizes=SMALL, each=1)


@pytest.fixture(scope="module")
def usual(drawn, tmp_path_factory):
    """Photos of about 100 KB."""
    return load_benchmark("bodies").write_bodies(drawn, tmp_path_factory.mktemp("usual"), sizes=(100_000,), each=8)


@pytest.fixture(scope="module")
def bad(usual, tmp_path_factory):
    return load_benchmark("serving").write_bad(usual[0], tmp_path_factory.mktemp("bad") / "photos")


@pytest.fixture(scope="module")
def server(served_model, scenarios):
    with start_server(served_model) as running:
        yield scenarios.Server(running.port, running.process.pid)


# First, on a server that has done nothing yet.
def test_large_pictures_leave_no_memory_behind(server, scenarios, usual, tmp_path, monkeypatch):
    large = tmp_path / "large.png"
    large.write_bytes(blank_png(7000, 7000, depth=8, colour=2))
    monkeypatch.setattr(scenarios, "AT_ONCE", 4)  # more only take longer
    record = scenarios.measure_memory(server, usual, [large], requests=100)
    assert record["large"][large.name]["answers"] == {"200": 4}
    assert record["peak_mib"] <= 350
    assert record["after_mib"] <= record["memory_mib"] + GROWTH


@pytest.fixture(scope="module")
def capacity(server, scenarios, usual):
    """Photos a second."""
    return scenarios.measure_rate(server, usual, seconds=1)


def test_a_usual_load_is_served_whole(server, scenarios, usual, bad, mix, capacity):
    """With bad photos among it, clients that go away, and a model that is opened again and again."""
    record = scenarios.measure_soak(server, usual + mix, bad, seconds=5, rate=capacity / 2, reload_minutes=0.02)
    assert record["answers"] > 100
    assert record["lost"] == 0, record["lost_statuses"]
    assert record["bad"] > 0
    assert record["aborted"] > 0
    assert len(record["reloads"]) >= 3
    assert set(record["reloads"]) == {200}
    assert record["growth_mib"] < GROWTH
    assert abs(record["files"][1] - record["files"][0]) <= OPEN_FILES


def test_a_server_that_leaks_is_found_out(served_model, scenarios, usual, bad):
    """Else the limits above would say nothing."""
    with scenarios.serve(served_model, leak=True) as leaking:
        record = scenarios.measure_soak(leaking, usual, bad, seconds=5, rate=40, reload_minutes=1)
    assert record["growth_mib"] > GROWTH
    assert record["files"][1] - record["files"][0] > OPEN_FILES


def test_what_is_too_much_is_told_to_come_again(server, scenarios, usual, capacity):
    record = scenarios.measure_overload(server, usual, seconds=3, calm=2, capacity=capacity)
    assert record["refused"] > 100
    assert record["served"] > 100
    assert record["other"] == 0
    assert record["refused_without_retry"] == 0
    assert record["errors_afterwards"] == 0
    assert record["files"][1] < 100  # of the five hundred connections nothing is left
