"""`pronk serve` as people start it: mistakes, signals, a model that is replaced, and the same answers as elsewhere."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import sys
import time
import urllib.error
import urllib.request

import pytest
from click.testing import CliRunner

from helpers.asgi import PHOTO
from helpers.commands import fails, wait_for
from helpers.pictures import draw_picture, encode
from helpers.scripts import load_benchmark
from helpers.servers import start_server
from helpers.training import run_pronk
from pronk.cli.serve import serve
from pronk.errors import SettingsError, StorageError
from pronk.model.predictor import Predictor
from pronk.storage.files import digest_file

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="signals and links")


@pytest.fixture(scope="module")
def server(served_model):
    with start_server(served_model) as running:
        yield running


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--host", "0.0.0.0"], "name a --token T, or --allow-anyone"),
        (["--host", "::"], "name a --token T, or --allow-anyone"),
        (["--host", "192.0.2.1", "--token", "t"], "cannot listen on 192.0.2.1"),
        (["--host", "no such host", "--token", "t"], "cannot listen on no such host"),
        (["--port", "65536"], "--port"),
        (["--token", ""], "--token must be printable"),
        (["--token", " t"], "--token must be printable"),
        (["--token", "a\nb"], "--token must be printable"),
        (["--body-limit", "nonsense"], "--body-limit must be a size. Got 'nonsense'"),
        (["--body-limit", "1KB"], "--body-limit must be at least 1024 bytes"),
    ],
)
def test_mistakes_are_named(served_model, options, says):
    done = CliRunner().invoke(serve, [str(served_model), "--port", "0", *options])
    assert says in f"{done.output} {done.exception}"
    assert isinstance(done.exception, SettingsError | StorageError) or done.exit_code == 2


def test_a_taken_port(served_model):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = CliRunner().invoke(serve, [str(served_model), "--port", str(port)]).exception
    assert str(error).startswith(f"cannot listen on 127.0.0.1, port {port}")
    assert f"--port {port + 1}" in error.hint


def test_without_the_extra_the_message_names_it(served_model, tmp_path):
    (tmp_path / "httptools.py").write_text("raise ModuleNotFoundError('none', name='httptools')")
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    text = fails(run_pronk("serve", served_model, "--port", "0", env=env))
    assert "pronk serve needs packages that are not installed" in text
    assert 'pip install "pronk[serve]"' in text


def test_a_second_ctrl_c_ends_it_at_once(served_model):
    with start_server(served_model) as server, slow_upload(server):
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert server.is_alive, "it finishes what it began"
        assert server.stop(signal.SIGINT, timeout=10) == 130
        assert "Traceback" not in server.words()


@contextlib.contextmanager
def slow_upload(server):
    """A request whose first 100 bytes the server has; the caller sends the rest."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.putrequest("POST", "/v1/predict")
    connection.putheader("content-length", str(len(PHOTO)))
    connection.endheaders(PHOTO[:100])
    try:
        wait_for(lambda: b"\npronk_requests_in_progress 2.0\n" in server.ask("GET", "/metrics").body)
        yield connection
    finally:
        connection.close()


def test_it_finishes_what_it_began(served_model):
    with start_server(served_model) as server, slow_upload(server) as upload:
        assert server.ask("GET", "/readyz").status == 200
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: b"about to stop" in server.ask("GET", "/readyz").body)
        reply = server.predict(PHOTO)
        assert reply.status == 200, "until balancers have heard, new requests are answered"
        assert reply.headers["connection"] == "close"
        time.sleep(1.2)
        upload.send(PHOTO[100:])
        response = upload.getresponse()
        assert json.loads(response.read()) == reply.json()
        assert server.process.wait(20) == 0


def test_whoever_sends_too_much_reads_why(server):
    """Python's clients read the answer only after they have sent all."""
    body = bytes(11_000_000)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{server.address}v1/predict", body, timeout=20)
    assert "--body-limit" in json.loads(caught.value.read())["hint"]
    chunks = server.ask("POST", "/v1/predict", (bytes(10**6) for _ in range(11)))
    assert (chunks.status, chunks.json()["code"]) == (413, "too_large")


def test_limit_and_token_are_options(served_model):
    env = {"PRONK_TOKEN": "t"}
    with start_server(served_model, "--host", "0.0.0.0", "--body-limit", "2KB", env=env) as server:
        shown = {"authorization": "Bearer t"}
        assert server.predict(PHOTO).status == 401
        for size, status in ((2000, 200), (2001, 413)):
            assert server.ask("POST", "/v1/predict", PHOTO + bytes(size - len(PHOTO)), shown).status == status
        assert server.ask("GET", "/v1/server", headers=shown).json()["limits"]["body_bytes"] == 2000
        assert server.ask("GET", "/healthz").status == 200
        assert server.ask("GET", "/metrics").status == 401
        assert "\nt\n" not in server.words()


@pytest.mark.more
def test_real_photos_are_answered_as_in_python(server, served_model, real_photos):
    """60 of them, each alone and in forms of 10: bit for bit."""
    photos = [path.read_bytes() for path in sorted(real_photos.rglob("*.*"))[::5][:60]]
    assert len(photos) == 60
    wanted = [prediction.record() for prediction in Predictor.load(served_model).predict(photos)]
    kind = {"content-type": "multipart/form-data; boundary=b0undary"}
    head = b'--b0undary\r\nContent-Disposition: form-data; name="a"; filename=""\r\n\r\n'
    for start in range(0, 60, 10):
        some, records = photos[start : start + 10], wanted[start : start + 10]
        for photo, record in zip(some, records, strict=True):
            reply = server.predict(photo)
            assert reply.json() == record["scores"]
            assert reply.headers["pronk-unknown"] == str(record["unknown"]).lower()
        body = b"".join(head + photo + b"\r\n" for photo in some) + b"--b0undary--\r\n"
        for answer, record in zip(server.ask("POST", "/v1/predict", body, kind).json(), records, strict=True):
            assert {key: answer[key] for key in record} == record


def test_it_says_where_it_is_and_writes_and_changes_nothing(served_model, tmp_path):
    """Without a folder to teach in, whatever strangers do."""
    before = {path: digest_file(path) for path in served_model.rglob("*") if path.is_file()}
    env = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "TMPDIR"), str(tmp_path))
    with start_server(served_model, env=env) as server:
        assert server.address == f"http://127.0.0.1:{server.port}/"
        assert f"serving {served_model.parent.name}" in server.words()
        words = server.words()
        server.predict(PHOTO, "?explain=true")
        server.predict(b"not a photo")
        server.ask("GET", "/nothing")
        with socket.create_connection(("127.0.0.1", server.port)) as stranger:
            stranger.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
            stranger.recv(1000)
        form = {"content-type": "multipart/form-data; boundary=b"}
        assert server.ask("POST", "/v1/predict", b"nonsense", form).status == 400
        assert server.ask("POST", "/v1/model/reload").status == 200
        kind = {"content-type": "application/json"}
        assert server.ask("POST", "/v1/teach/classes", b'{"name": "a"}', kind).status == 403
        assert server.words() == words, "what strangers do is no news"
        assert server.stop() == 0
        assert "Traceback" not in server.words()
    assert {path: digest_file(path) for path in served_model.rglob("*") if path.is_file()} == before
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


NAMES = ("blue", "green")


@pytest.fixture(scope="module")
def clients():
    return load_benchmark("clients")


@pytest.fixture
def plan(clients, tmp_path):
    """Make a plan of clients that always have a request under way."""
    (tmp_path / "photo.jpg").write_bytes(encode(draw_picture("circle", 1, (640, 480))))
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


def swap_models(server, models):
    """By route and by signal in turn; each time a damaged one comes first, and is refused."""
    for turn in range(20):
        former, wanted, by_signal = open_name(server), NAMES[(turn + 1) % 2], turn % 2 == 1
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


@posix_only
@pytest.mark.more
def test_models_are_replaced_under_load(models, clients, plan):
    with start_server(models) as server, clients.start_plan(plan(server, seconds=600.0)) as started:
        wait_for(lambda: b"pronk_photos_total{" in server.ask("GET", "/metrics").body)  # a first answer was counted
        swap_models(server, models)
        traffic = started.finish(now=True)
        assert server.is_alive
    assert len(traffic.rows["status"]) > 10
    assert set(traffic.rows["status"]) == {200}


@posix_only
@pytest.mark.parametrize(
    "repeat",
    [pytest.param(0, marks=pytest.mark.more), *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 20))],
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
