"""What a client may take of this machine -> the request's body, or a refusal before it costs much."""

import asyncio
import contextlib
import types
from collections.abc import AsyncIterator, Iterator

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from pronk.server.errors import HttpError, problem

RETRY_SECONDS = 1


class Gate:
    """Lets a bounded number of requests and bytes in; the rest is told at once to come again.

    A queue that may grow without bound answers everybody late; one that ends answers most people in time.

    Args:
        most: requests that are read, waiting or computed at once.
        most_bytes: of their bodies together.

    Example:
        >>> gate = Gate(most=1, most_bytes=100)
        >>> with gate.enter():
        ...     gate.busy
        1
    """

    def __init__(self, *, most: int, most_bytes: int) -> None:
        self.most = most
        self.most_bytes = most_bytes
        self.busy = 0
        self.held = 0

    @property
    def is_full(self) -> bool:
        """Whether no place is left."""
        return self.busy >= self.most

    @contextlib.contextmanager
    def enter(self) -> Iterator["Hold"]:
        """Take a place for the time of a request.

        Raises:
            HttpError: 503 where none is left.
        """
        if self.is_full:
            raise too_busy()
        self.busy += 1
        hold = Hold(self)
        try:
            yield hold
        finally:
            self.busy -= 1
            hold.release()


class Hold:
    """The bytes that one request keeps in memory."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.taken = 0

    def take(self, size: int) -> None:
        """Take room for that many more bytes, or raise HttpError 503."""
        if self.gate.held + size > self.gate.most_bytes:
            raise too_busy()
        self.gate.held += size
        self.taken += size

    def release(self) -> None:
        """Give all room back."""
        self.gate.held -= self.taken
        self.taken = 0


class Porch:
    """Turns photos away while the gate is full, before routes, parameters and body cost anything.

    Where three times as much comes as the machine can take, a refusal must cost next to nothing.

    Args:
        app: what lies behind.
        gate: that is full, or not.
        path: of the requests that would go through it.
    """

    def __init__(self, app: ASGIApp, gate: Gate, path: str) -> None:
        self.app = app
        self.gate = gate
        self.path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answer = self.app
        if self.gate.is_full and scope["type"] == "http" and (scope["method"], scope["path"]) == ("POST", self.path):
            answer = JSONResponse(problem(too_busy()), 503, {"retry-after": str(RETRY_SECONDS)})
            scope["route"] = types.SimpleNamespace(path=self.path)  # by which requests are counted
        await answer(scope, receive, send)


def too_busy() -> HttpError:
    """Return the answer for those who come while there is too much to do.

    Example:
        >>> too_busy().status
        503
    """
    return HttpError(503, "too many photos at once", code="busy", hint=f"send it again after {RETRY_SECONDS} s")


async def read_body(request: Request, hold: Hold, *, most: int, seconds: float) -> bytes:
    """Read a request's body.

    Args:
        request: whose body nobody has read yet.
        hold: takes the room for it.
        most: bytes; a longer body is refused by what it declares, or as soon as it is longer.
        seconds: that the client may take to send it.

    Raises:
        HttpError: 413 too long, 408 too slow, 503 no room, 400 a wrong length, or given up by the client.
    """
    declared = _declared_length(request)
    if declared is not None and declared > most:
        raise _too_large(declared, most)
    hold.take(declared or 0)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in _stream(request):
                body += chunk
                if len(body) > most:
                    raise _too_large(len(body), most)
                if declared is None:
                    hold.take(len(chunk))
    except TimeoutError as error:
        message = f"the body did not arrive within {seconds:g} s ({len(body)} bytes did)"
        raise HttpError(408, message, code="slow", hint="send it over a faster connection, or smaller") from error
    return bytes(body)


async def _stream(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect as error:
        raise HttpError(400, "the client went away", code="usage") from error


def _declared_length(request: Request) -> int | None:
    text = request.headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise HttpError(400, f"no Content-Length of {text!r:.50}", code="usage", hint="leave it to your HTTP library")
    return int(text)


def _too_large(size: int, most: int) -> HttpError:
    message = f"the body has {size / 1e6:.1f} MB, and {most / 1e6:.1f} MB are allowed"
    return HttpError(413, message, code="too_large", hint="send fewer or smaller photos, or raise --body-limit")
