"""The server inside the test's own process: quick to start, and its parts can be looked at."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from pronk.server.app import Limits, make_app
from pronk.server.gateway import Access
from pronk.server.service import Service

HERE = Access("127.0.0.1")


class Inside:
    """A server that is asked without a network in between.

    Attributes:
        app: the whole of it, as uvicorn would call it.
        service: the service behind it.
    """

    def __init__(self, model: Path | None = None, *, access: Access = HERE, limits: Limits | None = None) -> None:
        self.service = Service(threads=2)
        if model:
            self.service.open(model)
        self.app = make_app(self.service, access=access, limits=limits, version="1.2.3")

    def ask(self, method: str, path: str, *, raising: bool = True, **options: Any) -> httpx.Response:
        """Send one request and return the answer; a fault of the server's own is raised, unless it is wanted."""
        return asyncio.run(self.send(method, path, raising=raising, **options))

    async def send(self, method: str, path: str, *, raising: bool = True, **options: Any) -> httpx.Response:
        """Do the same among other requests."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=raising)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            return await client.request(method, path, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.ask("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.ask("POST", path, **options)


@contextlib.contextmanager
def serve_inside(model: Path | None = None, **options: Any) -> Iterator[Inside]:
    """Start a server within this process, and end its threads."""
    inside = Inside(model, **options)
    try:
        yield inside
    finally:
        inside.service.close()


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, str]:
    """A refusal has its status, and says what is wrong and what to do; return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error", "code", "hint"]
    assert body["code"] == code
    assert body["error"]
    return dict(body)
