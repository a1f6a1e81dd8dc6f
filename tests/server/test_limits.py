"""What a client may take: bytes, time and places; all of it is given back, whatever happened."""

import asyncio
import contextlib
import time

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse

from helpers.asgi import PHOTO, SCOPE, Inside, form, refused, serve_inside
from helpers.pictures import draw_picture, encode
from pronk.server import protocol
from pronk.server.app import Limits
from pronk.server.process import listen
from pronk.server.protocol import CautiousProtocol

LARGE = encode(draw_picture("circle", 3, (800, 600)), "BMP")


async def slowly(body, *, pause=0.05, piece=100):
    for start in range(0, len(body), piece):
        await asyncio.sleep(pause)
        yield body[start : start + piece]


async def endless(taken):
    while True:
        taken.append(50_000)
        yield bytes(50_000)


@pytest.fixture(scope="module")
def narrow(served_model):
    """A server with room for one body of the largest kind, and for one request."""
    limits = Limits(body_bytes=200_000, body_seconds=0.5, seconds=10, waiting=1, held_bytes=200_000)
    with serve_inside(served_model, limits=limits) as server:
        yield server


def still_answers(server: Inside):
    """All places and all bytes are free again: the largest body that is allowed just fits."""
    assert server.post("/v1/predict", content=PHOTO + bytes(200_000 - len(PHOTO))).status_code == 200
    assert server.post("/v1/predict", content=PHOTO).status_code == 200


def test_large_bodies_are_refused(narrow):
    declared = narrow.post("/v1/predict", content=bytes(200_001))
    body = refused(declared, 413, "too_large")
    assert "0.2 MB are allowed" in body["error"]
    assert "--body-limit" in body["hint"]
    assert declared.headers["connection"] == "close"

    async def never():
        raise AssertionError("nobody asked for it")
        yield b""

    declared = narrow.post("/v1/predict", content=never(), headers={"content-length": str(10**12)})
    refused(declared, 413, "too_large")
    taken = []
    refused(narrow.post("/v1/predict", content=endless(taken)), 413, "too_large")
    assert sum(taken) == 250_000, "the first piece beyond the limit is the last"
    refused(narrow.post("/v1/predict", files=form(("a", LARGE))), 413, "too_large")
    still_answers(narrow)


def test_bodies_of_all_together_are_bounded(served_model):
    limits = Limits(body_bytes=100_000, held_bytes=250_000)
    with serve_inside(served_model, limits=limits) as server:

        async def ask():
            body = PHOTO + bytes(100_000 - len(PHOTO))
            three = [
                server.send("POST", "/v1/predict", content=slowly(body, piece=20_000), headers=declared)
                for declared in [{"content-length": "100000"}] * 3
            ]
            return await asyncio.gather(*three)

        answers = asyncio.run(ask())
        assert sorted(answer.status_code for answer in answers) == [200, 200, 503]
        busy = next(answer for answer in answers if answer.status_code == 503)
        refused(busy, 503, "busy")
        assert busy.headers["retry-after"] == "1"
        assert server.post("/v1/predict", content=PHOTO).status_code == 200


def test_slow_bodies_are_given_up(narrow):
    started = time.monotonic()
    answer = narrow.post("/v1/predict", content=slowly(bytes(10_000)))
    assert time.monotonic() - started < 4, "the whole of it takes five seconds"
    assert "within 0.5 s" in refused(answer, 408, "slow")["error"]
    assert answer.headers["connection"] == "close"
    still_answers(narrow)


def test_slow_work_is_given_up(served_model, monkeypatch):
    async def dawdle(*_, **__):
        await asyncio.sleep(30)

    with serve_inside(served_model, limits=Limits(seconds=0.4, waiting=1)) as server:
        monkeypatch.setattr(server.service, "predict", dawdle)
        started = time.monotonic()
        answer = server.post("/v1/predict", content=PHOTO)
        assert 0.3 < time.monotonic() - started < 10
        assert "within 0.4 s" in refused(answer, 503, "busy")["error"]
        assert answer.headers["retry-after"] == "1"


def test_a_full_server_says_so_at_once(narrow):
    async def ask():
        go_on = asyncio.Event()

        async def body():
            await go_on.wait()
            yield PHOTO

        first = asyncio.create_task(narrow.send("POST", "/v1/predict", content=body()))
        while not narrow.app.admission.is_full:
            await asyncio.sleep(0.001)
        second = await narrow.send("POST", "/v1/predict", content=PHOTO)
        health = await narrow.send("GET", "/healthz")
        go_on.set()
        return await first, second, health

    first, second, health = asyncio.run(ask())
    assert first.status_code == health.status_code == 200
    assert "again" in refused(second, 503, "busy")["hint"]
    assert second.headers["retry-after"] == "1"
    still_answers(narrow)


@pytest.mark.parametrize("content", [b"", b"no photo", PHOTO[:500], LARGE])
def test_every_refusal_gives_its_place_back(narrow, content):
    for options in ({"content": content}, {"files": form(("a", content))}, {"json": {"inputs": "?"}}):
        narrow.post("/v1/predict", **options)
        narrow.post("/v1/predict?top=0", **options)
    still_answers(narrow)


def test_clients_that_go_away_leave_nothing_behind(narrow):
    async def go_away():
        messages = iter([{"type": "http.request", "body": bytes(50_000), "more_body": True}])

        async def receive():
            return next(messages, {"type": "http.disconnect"})

        async def send(message):
            pass

        await narrow.app(SCOPE | {"method": "POST", "path": "/v1/predict"}, receive, send)

    asyncio.run(go_away())
    still_answers(narrow)


async def echo(scope, receive, send):
    """Answer with the number of bytes of the body; one for /refused is not read."""
    if scope["path"] == "/refused":
        answer = JSONResponse({}, 413, {"connection": "close"})
    else:
        answer = PlainTextResponse(str(len(await Request(scope, receive).body())))
    await answer(scope, receive, send)


@contextlib.asynccontextmanager
async def listening():
    """A server with the connections of pronk's, and an app that counts bytes; gives its port."""
    opened = listen("127.0.0.1", 0)
    config = uvicorn.Config(
        echo, http=CautiousProtocol, ws="none", lifespan="off", log_config=None, log_level="critical",
        server_header=False, timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    task = asyncio.create_task(server.serve(sockets=[opened]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield opened.getsockname()[1]
    server.should_exit = True
    await task


SILENCE = 0.4


async def talk(port, *pieces, pause=0.0):
    """Send pieces and return everything that comes back until the server closes, or says nothing for a while."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = b""
    try:
        for number, piece in enumerate(pieces):
            await asyncio.sleep(pause if number else 0)
            writer.write(piece)
            await writer.drain()
        while chunk := await asyncio.wait_for(reader.read(65536), SILENCE):
            got += chunk
        return got, True
    except TimeoutError:
        return got, False
    except ConnectionError:
        return got, True
    finally:
        writer.close()


def converse(*pieces, **options):
    async def whole():
        async with listening() as port:
            return await talk(port, *pieces, **options)

    return asyncio.run(whole())


HEAD = b"POST / HTTP/1.1\r\nhost: localhost\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


def chunks(size, count):
    return (f"{size:x}\r\n".encode() + bytes(size) + b"\r\n") * count


def test_a_connection_may_be_used_again():
    request = HEAD + b"content-length: 5\r\n\r\n12345"
    got, _ = converse(*[request] * 5, pause=0.05)
    assert got.count(b"HTTP/1.1 200 ") == 5
    together, _ = converse(request * 5)
    assert together.count(b"HTTP/1.1 200 ") == 5


REFUSED = b"POST /refused HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n"


async def send_on(limit):
    """Send after a refusal; return how many pieces of 100 bytes the server took in before it closed the connection."""
    async with listening() as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REFUSED)
        for number in range(limit):
            try:
                writer.write(bytes(100))
                await writer.drain()
            except ConnectionError:
                return number
            await asyncio.sleep(0.02)
        writer.close()
    return limit


@pytest.mark.parametrize(("bound", "value"), [("LINGER_SECONDS", 0.2), ("LINGER_BYTES", 1000)])
def test_what_comes_after_a_refusal_is_thrown_away_for_a_while(monkeypatch, bound, value):
    got, closed = converse(REFUSED, *[bytes(100_000)] * 10)
    assert got.startswith(b"HTTP/1.1 413 ")
    assert closed
    assert asyncio.run(send_on(25)) == 25
    monkeypatch.setattr(protocol, bound, value)
    assert asyncio.run(send_on(100)) < 100


def test_headers_that_never_end(monkeypatch):
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.3)

    async def converse_all():
        async with listening() as port:
            slow = talk(port, HEAD, *[b"a: b\r\n"] * 10, pause=0.1)
            return await asyncio.gather(slow, *(talk(port, start) for start in (b"", b"POST /", HEAD)))

    for got, closed in asyncio.run(converse_all()):
        assert closed
        assert b"200" not in got
    # The body has a clock of its own; on a busy machine even the headers of this test come late.
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 1.0)
    got, _ = converse(HEAD + b"content-length: 2\r\n\r\n1", b"2", pause=1.3)
    assert got.endswith(b"\r\n\r\n2")


@pytest.mark.parametrize(
    "head",
    [
        b"".join(b"h%d: x\r\n" % number for number in range(100)),
        b"".join(b"h%d: %s\r\n" % (number, b"x" * 1000) for number in range(40)),
        b"x: " + b"x" * 40_000 + b"\r\n",
    ],
    ids=["many", "long", "one"],
)
def test_too_many_headers(head):
    got, closed = converse(HEAD + head + b"\r\n")
    assert got.startswith(b"HTTP/1.1 400 ")
    assert closed


def test_a_body_of_unknown_length_is_taken_in_small_pieces(monkeypatch):
    """So that little is taken beyond a limit, before the refusal."""
    sizes, take = [], CautiousProtocol.data_received

    def count(self, data):
        sizes.append(len(data))
        take(self, data)

    monkeypatch.setattr(CautiousProtocol, "data_received", count)
    got, _ = converse(CHUNKED, chunks(1_000_000, 3), b"0\r\n\r\n")
    assert got.endswith(b"\r\n\r\n3000000")
    assert max(sizes[1:]) <= protocol.CHUNKED_BYTES, "the first holds the headers too"


def test_a_body_in_crumbs():
    got, closed = converse(CHUNKED, chunks(1, 2000))
    assert b"HTTP/1.1 200 " not in got
    assert closed
    for size, count in ((1, 1000), (100, 3000)):
        got, _ = converse(CHUNKED, chunks(size, count), b"0\r\n\r\n")
        assert got.endswith(f"\r\n\r\n{size * count}".encode()), "who sends little at a time may, for a while"
