"""Load, overload and long runs of a real server: nothing is lost, nothing grows.

Latencies are asked of the slow tests alone, which want an idle machine. $PRONK_LOAD_SECONDS shortens these.
"""

import os
import sys

import pytest

from helpers.bad_files import blank_png
from helpers.pictures import write_pictures
from helpers.scripts import BENCHMARKS, load_benchmark
from helpers.servers import start_server

pytestmark = [pytest.mark.alone, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]
SMALL = (20_000, 45_000, 95_000, 200_000, 425_000)
GROWTH = 24.0  # MiB that a short run may still take: what the first photos of each size leave behind
OPEN_FILES = 5


def seconds(otherwise):
    return float(os.environ.get("PRONK_LOAD_SECONDS", otherwise))


@pytest.fixture(scope="module")
def scenarios():
    return load_benchmark("serving")


@pytest.fixture(scope="module")
def judge(scenarios):
    """Tell which goals of a scenario a record misses."""
    return lambda name, record: [row["what"] for row in scenarios.judge(name, record) if not row["ok"]]


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


@pytest.fixture
def server(served_model, scenarios):
    with start_server(served_model) as running:
        yield scenarios.Server(running.port, running.pid)


@pytest.fixture(scope="module")
def capacity(served_model, scenarios, usual):
    """Photos a second."""
    with start_server(served_model) as running:
        return scenarios.measure_rate(scenarios.Server(running.port, running.pid), usual, seconds=2)


@pytest.mark.more
def test_a_usual_load_is_served_whole(server, scenarios, mix):
    record = scenarios.measure_load(server, mix, seconds=6)
    assert record["errors"] == 0
    assert record["answers"] > 100
    assert record["growth_mib"] < GROWTH
    assert abs(record["files"][1] - record["files"][0]) <= OPEN_FILES


@pytest.mark.more
def test_what_is_too_much_is_told_to_come_again(server, scenarios, usual, capacity):
    record = scenarios.measure_overload(server, usual, seconds=4, calm=3, capacity=capacity)
    assert record["refused"] > 100
    assert record["served"] > 100
    assert record["other"] == 0
    assert record["refused_without_retry"] == 0
    assert record["errors_afterwards"] == 0
    assert record["files"][1] < 100  # of the five hundred connections nothing is left


@pytest.mark.more
def test_a_short_soak_loses_nothing(server, scenarios, usual, bad, capacity):
    record = scenarios.measure_soak(server, usual, bad, seconds=8, rate=capacity / 2, reload_minutes=0.03)
    assert record["lost"] == 0, record["lost_statuses"]
    assert record["bad"] > 0
    assert record["aborted"] > 0
    assert len(record["reloads"]) >= 3
    assert set(record["reloads"]) == {200}
    assert record["growth_mib"] < GROWTH
    assert abs(record["files"][1] - record["files"][0]) <= OPEN_FILES


@pytest.mark.more
def test_a_leak_is_found(served_model, scenarios, judge, usual, bad, capacity):
    """The test of the tests."""
    with start_server(served_model, command=(sys.executable, BENCHMARKS / "leaking.py")) as running:
        server = scenarios.Server(running.port, running.pid)
        record = scenarios.measure_soak(server, usual, bad, seconds=6, rate=capacity / 2)
    assert record["growth_mib"] > GROWTH
    assert "growth of open files" in judge("soak", record)


@pytest.mark.more
def test_large_pictures_leave_no_memory_behind(server, scenarios, usual, tmp_path):
    large = tmp_path / "large.png"
    large.write_bytes(blank_png(7000, 7000, depth=8, colour=2))
    record = scenarios.measure_memory(server, usual, [large], requests=200)
    assert record["large"][large.name]["answers"] == {"200": 10}
    assert record["peak_mib"] <= 350
    assert record["after_mib"] <= record["memory_mib"] + GROWTH


# --- the numbers themselves, with the model and the photos that people have


@pytest.fixture
def real_server(real_model, scenarios):
    with start_server(real_model) as running:
        yield scenarios.Server(running.port, running.pid)


@pytest.fixture(scope="module")
def real_model(real_photos, real_weights, tmp_path_factory):
    from helpers.training import run_pronk

    run = tmp_path_factory.mktemp("real") / "run"
    weights = real_weights / "mobilenet_v2_1.0_224_no_top.h5"
    done = run_pronk("train", real_photos, "--weights", weights, "--out", run, timeout=1800)
    assert done.returncode == 0, done.stderr
    return run


@pytest.fixture(scope="module")
def real_usual(real_photos, tmp_path_factory):
    return load_benchmark("bodies").write_bodies(real_photos, tmp_path_factory.mktemp("u"), sizes=(100_000,), each=32)


@pytest.mark.slow
def test_latencies_under_a_usual_load(real_server, scenarios, judge, real_photos, tmp_path):
    bodies = load_benchmark("bodies")
    mix = bodies.write_bodies(real_photos, tmp_path, sizes=bodies.MIX, each=4)
    record = scenarios.measure_load(real_server, mix, seconds=seconds(600))
    # A short run is all warm-up: the first photos of each size take memory that is used again.
    unjudged = [] if record["seconds"] >= 300 else ["slope of memory"]
    assert [what for what in judge("load", record) if what not in unjudged] == [], record


@pytest.mark.slow
def test_goodput_under_three_times_the_load(real_server, scenarios, judge, real_usual):
    capacity = scenarios.measure_rate(real_server, real_usual, seconds=10)
    record = scenarios.measure_overload(real_server, real_usual, seconds=seconds(60), capacity=capacity)
    assert judge("overload", record) == [], record


@pytest.mark.slow
def test_the_share_of_what_the_machine_can_do(real_server, real_model, scenarios, judge, real_usual):
    record = scenarios.measure_capacity(real_server, real_model, real_usual, seconds=10)
    assert judge("capacity", record) == [], record


@pytest.mark.slow
def test_two_hours(real_server, scenarios, judge, real_usual, bad):
    rate = scenarios.measure_rate(real_server, real_usual, seconds=10) / 2
    record = scenarios.measure_soak(real_server, real_usual, bad, seconds=seconds(7200), rate=rate)
    assert judge("soak", record) == [], record


@pytest.mark.slow
def test_memory_after_ten_thousand_photos(real_server, scenarios, judge, real_usual, tmp_path):
    large = load_benchmark("bodies").write_large(tmp_path / "large")
    record = scenarios.measure_memory(real_server, real_usual, large)
    assert judge("memory", record) == [], record
