"""The server inside the test's own process, quick to start, and what tests of the server send it."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from helpers.pictures import draw_picture, encode
from pronk.server.app import Limits, make_app
from pronk.server.gateway import Access
from pronk.server.service import Service

HERE = Access("127.0.0.1")
# What a server hands to an app, where a test calls it as a server does.
SCOPE = {"type": "http", "query_string": b"", "headers": [(b"host", b"localhost")], "root_path": "", "scheme": "http",
         "http_version": "1.1", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000)}  # fmt: skip


class Inside:
    """A server that is asked without a network in between; uvicorn would call its app."""

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


PHOTO = encode(draw_picture("circle", 7))


def form(*files, field="photo"):
    """Files for httpx: (name, data) each."""
    return [(field, file) for file in files]


PATHS = [
    ("GET", "/", 200), ("GET", "/docs", 200), ("GET", "/openapi.json", 200), ("GET", "/healthz", 200),
    ("GET", "/readyz", 200), ("GET", "/metrics", 200), ("GET", "/v1/server", 200), ("GET", "/v1/model", 200),
    ("GET", "/page/style.css", 200), ("GET", "/page/nothing.js", 404), ("GET", "/nothing", 404),
    ("GET", "/page/..%2fapp.py", 404), ("GET", "/page/%2e%2e/app.py", 404), ("GET", "/page//etc/passwd", 404),
    ("PUT", "/v1/predict", 405), ("DELETE", "/", 405), ("OPTIONS", "/v1/predict", 405), ("GET", "/v1/predict", 405),
    ("POST", "/v1/predict", 422), ("POST", "/v1/predict?top=0", 422), ("GET", "/v2/models/nothing", 404),
    ("GET", "/nothing%0d%0aset-cookie:%20a=b", 404), ("GET", "/healthz/", 404),
]  # fmt: skip
