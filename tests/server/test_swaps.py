"""A real server under load whose model is replaced, or that is told to stop: no request that it took is lost."""

import shutil
import signal
import sys

import pytest

from helpers.commands import wait_for
from helpers.pictures import draw_picture, encode
from helpers.scripts import load_benchmark
from helpers.servers import start_server

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and links")
PHOTO = encode(draw_picture("circle", 1, (640, 480)))
NAMES = ("blue", "green")


@pytest.fixture(scope="module")
def clients():
    return load_benchmark("clients")


@pytest.fixture
def plan(clients, tmp_path):
    """Make a plan of clients that always have a request under way."""
    (tmp_path / "photo.jpg").write_bytes(PHOTO)
    bodies = (str(tmp_path / "photo.jpg"),)
    return lambda server, **options: clients.Plan(server.port, bodies, clients=6, **options)


@pytest.fixture
def models(served_model, tmp_path):
    """Two runs that are called otherwise, one that is damaged, and a link that names one of them."""
    for name in (*NAMES, "broken"):
        shutil.copytree(served_model, tmp_path / name / "model")
    model = tmp_path / "broken" / "model" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1000])
    (tmp_path / "current").symlink_to("blue")
    return tmp_path / "current"


def name(link, run):
    """Let the link name another run, from one moment to the next."""
    link.with_name("next").symlink_to(run)
    link.with_name("next").replace(link)


def open_name(server):
    return server.ask("GET", "/v1/model").json()["name"]


def swap_models(server, models, number):
    """By route and by signal in turn; each time a damaged one comes first, and is refused."""
    for turn in range(number):
        former, wanted = open_name(server), NAMES[(turn + 1) % 2]
        by_signal = turn % 2 == 1
        name(models, "broken")
        refusals = server.words().count("not reloaded")
        if by_signal:
            server.process.send_signal(signal.SIGHUP)
            wait_for(lambda n=refusals: server.words().count("not reloaded") > n)
        else:
            reply = server.ask("POST", "/v1/model/reload")
            assert (reply.status, reply.json()["code"]) == (409, "conflict")
            assert "the former model goes on answering" in reply.json()["hint"]
        assert open_name(server) == former
        name(models, wanted)
        if by_signal:
            server.process.send_signal(signal.SIGHUP)
            wait_for(lambda w=wanted: open_name(server) == w)
        else:
            assert server.ask("POST", "/v1/model/reload").json()["name"] == wanted
    assert server.ask("GET", "/readyz").status == 200


@pytest.mark.parametrize("number", [pytest.param(2, marks=pytest.mark.more), pytest.param(20, marks=pytest.mark.slow)])
def test_models_are_replaced_under_load(models, clients, plan, number):
    with start_server(models) as server, clients.start_plan(plan(server, seconds=600.0)) as started:
        wait_for(lambda: b"pronk_photos_total{" in server.ask("GET", "/metrics").body)  # a first answer was counted
        swap_models(server, models, number)
        traffic = started.finish(now=True)
        assert server.is_alive
    assert len(traffic.rows["status"]) > 10
    assert set(traffic.rows["status"]) == {200}


@pytest.mark.parametrize(
    "repeat", [pytest.param(n, marks=pytest.mark.more if n < 1 else pytest.mark.slow) for n in range(20)]
)
def test_a_stop_under_load_loses_nothing(served_model, clients, plan, repeat):
    """Readiness ends first, while all are still served; then whoever was taken in gets an answer."""
    with start_server(served_model) as server, clients.start_plan(plan(server, seconds=60.0, leave=True)) as started:
        wait_for(lambda: b"pronk_photos_total{" in server.ask("GET", "/metrics").body)  # a first answer was counted
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: server.ask("GET", "/readyz").status == 503)
        assert server.ask("GET", "/healthz").status == 200
        assert server.predict(PHOTO).status == 200
        traffic = started.finish()
        assert server.process.wait(30) == 0
    assert len(traffic.rows["status"]) >= 6
    assert set(traffic.rows["status"]) == {200}
