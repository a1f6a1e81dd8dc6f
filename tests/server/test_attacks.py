"""Clients that mean harm, or are broken: a real server answers each as it should, and the others as ever."""

import base64
import contextlib
import itertools
import json
import re
import socket
import sys
import time

import numpy as np
import pytest

from helpers import TESTS
from helpers.asgi import PATHS
from helpers.bad_files import make_samples
from helpers.pictures import draw_picture, encode
from helpers.scripts import load_benchmark
from helpers.servers import start_server

pytestmark = [pytest.mark.more, pytest.mark.skipif(sys.platform == "win32", reason="POSIX sockets")]
PHOTO = encode(draw_picture("circle", 1, (320, 240)))
LIMIT = 1_000_000  # as --body-limit 1MB
WATCHED = TESTS / "helpers" / "watched_server.py"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
EVIL_PATHS = (
    "//",
    "/..",
    "/../../etc/passwd",
    "/page/../app.py",
    "/page/..%5capp.py",
    "/page/",
    "/page/%00",
    "/page/" + "a" * 2000,
    "/%",
    "/%ff",
    "/%c0%ae%c0%ae/",
    "/?" + "a=b&" * 500,
    "/v1/predict?top=99999999999999999999",
    "/v1/predict?top=%00&explain=maybe",
    "/v1/predict/../predict",
    "/v1/teach/classes/%2e%2e/photos/x",
    "/v1/teach/runs/..%2f..%2fetc/report",
    "/v1/teach/runs/%2d1/download",
    "http://127.0.0.1:1/v1/predict",
)


@pytest.fixture(scope="module")
def server(served_model):
    """One server for all attacks; it must be the same process after them, and have called nobody."""
    with start_server(served_model, "--body-limit", "1MB", command=(sys.executable, WATCHED)) as running:
        yield running
        assert "called" not in running.words()


@pytest.fixture(autouse=True)
def well_afterwards(server):
    yield
    assert server.is_alive
    assert server.predict(PHOTO).status == 200
    assert "Traceback" not in server.words()


def open_socket(server, timeout=30.0):
    return socket.create_connection(("127.0.0.1", server.port), timeout=timeout)


def read_all(connection):
    """Read until the server closes, or says nothing more."""
    connection.settimeout(2.0)
    received = b""
    with contextlib.suppress(OSError):
        while piece := connection.recv(65536):
            received += piece
            connection.settimeout(0.2)
    return received


def send_raw(server, *pieces):
    """Send what no HTTP library would; return the statuses of all answers."""
    with open_socket(server) as connection:
        with contextlib.suppress(OSError):  # it may close the connection in the middle
            for piece in pieces:
                connection.sendall(piece)
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", read_all(connection))]


def head(*fields, method="POST", path="/v1/predict"):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *fields, "", ""]).encode()


def chunk(data):
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@pytest.mark.parametrize(
    ("fields", "body", "statuses"),
    [
        ((), b"", [422]),
        ((), PHOTO, [422, 400]),  # without a length there is no body; what comes is no request
        (("Content-Length: 0",), PHOTO, [422, 400]),
        ((f"Content-Length: {len(PHOTO) - 100}",), PHOTO, [422, 400]),
        ((f"Content-Length: {len(PHOTO) + 100}",), PHOTO, []),  # the rest never comes
        (("Content-Length: -1",), PHOTO, [400]),
        (("Content-Length: many",), PHOTO, [400]),
        (("Content-Length: 99999999999999999999999",), PHOTO, [400]),
        (("Content-Length: 5", "Content-Length: 6"), b"12345", [400]),
        (("Content-Length: 5", "Transfer-Encoding: chunked"), chunk(PHOTO) + b"0\r\n\r\n", [400]),
        (("Transfer-Encoding: chunked",), b"zz\r\n" + PHOTO, [400]),
        (("Transfer-Encoding: chunked",), b"fffffffffffffffff\r\n" + PHOTO, [400]),
        (("Transfer-Encoding: chunked",), chunk(PHOTO) + b"0\r\n\r\n", [200]),
        (("Transfer-Encoding: gzip, chunked",), chunk(PHOTO) + b"0\r\n\r\n", [200]),
        (("Transfer-Encoding: gzip",), PHOTO, [400]),
    ],
)
def test_wrong_lengths(server, fields, body, statuses):
    got = send_raw(server, head(*fields), body)
    assert got in (statuses, statuses[-1:])  # what is no request may be found before the request is answered


def test_every_method_on_every_path(server):
    statuses = {}
    for method, path in itertools.product(METHODS, [*EVIL_PATHS, *dict.fromkeys(path for _, path, _ in PATHS)]):
        body = b"x" if method in ("POST", "PUT", "PATCH") else b""
        got = send_raw(
            server, head(f"Content-Length: {len(body)}", "Connection: close", method=method, path=path), body
        )
        statuses[method, path] = got[0] if got else None
    faults = {case: status for case, status in statuses.items() if status is None or status >= 500}
    assert faults == {}
    assert statuses["GET", "/healthz"] == 200
    assert statuses["GET", "/page/../app.py"] == 404


def test_an_address_is_not_a_photo(server):
    """Nobody is called, whatever a request names; the audit hook of the server's process would tell."""
    with socket.create_server(("127.0.0.1", 0)) as trap:
        address = f"http://127.0.0.1:{trap.getsockname()[1]}/photo.jpg"
        as_json = {"Content-Type": "application/json"}
        assert server.ask("POST", "/v1/predict", json.dumps({"inputs": address}).encode(), as_json).status == 400
        assert server.predict(address.encode()).status == 415
        assert server.predict(PHOTO, f"?url={address}").status == 200
        encoded = base64.b64encode(address.encode()).decode()
        assert server.ask("POST", "/v1/predict", json.dumps({"inputs": encoded}).encode(), as_json).status == 415
        form = f'--b\r\nContent-Disposition: form-data; name="url"; filename="{address}"\r\n\r\n{address}\r\n--b--\r\n'
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        assert server.ask("POST", "/v1/predict", form.encode(), kind).status == 415
        svg = f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{address}"/></svg>'
        assert server.predict(svg.encode()).status == 415
        trap.settimeout(0.5)
        with pytest.raises(TimeoutError):
            trap.accept()


def attack(server, photos, seconds):
    """Send what is above, again and again, while others send a byte at a time; return whether each was thrown out."""
    deadline = time.monotonic() + seconds
    crumbs = b"".join(chunk(PHOTO[i : i + 1]) for i in range(2000))
    slow = [open_socket(server) for _ in range(200)]
    for byte in head("Content-Length: 5", *(f"X-{number}: slow" for number in range(20))):
        if time.monotonic() > deadline:
            break
        for connection in slow:
            with contextlib.suppress(OSError):
                connection.send(bytes([byte]))
        send_raw(server, head("Transfer-Encoding: chunked"), crumbs)
        send_raw(server, head(*(f"X-{number}: 1" for number in range(10_000))))
        send_raw(server, head("Content-Length: 20000000"), *[bytes(100_000)] * 20)
        for sample in photos[::7]:
            server.predict(sample.data)
    return [is_closed(connection) for connection in slow]


def is_closed(connection):
    with connection:
        connection.setblocking(False)
        try:
            return connection.recv(1000) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


@pytest.mark.parametrize("seconds", [5, pytest.param(30, marks=pytest.mark.slow)])
def test_others_are_answered_meanwhile(server, tmp_path, seconds):
    """On an idle machine well-meaning clients hardly wait longer, too."""
    clients = load_benchmark("clients")
    (tmp_path / "photo.jpg").write_bytes(PHOTO)
    plan = clients.Plan(server.port, (str(tmp_path / "photo.jpg"),), seconds=seconds, clients=4, rate=40)
    photos = [sample for sample in make_samples() if len(sample.data) <= LIMIT]
    alone = clients.run_plan(plan) if seconds > 10 else None
    with clients.start_plan(plan) as started:
        assert all(attack(server, photos, seconds))
        attacked = started.finish()
    assert set(attacked.rows["status"]) == {200}
    if alone:
        assert np.percentile(attacked.choose(), 99) <= 2 * np.percentile(alone.choose(), 99)
