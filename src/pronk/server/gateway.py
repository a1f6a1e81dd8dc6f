"""Every request -> let through, refused or told to come again, before anything reads it; every answer -> counted."""

import contextlib
import dataclasses
import hmac
import time
import types
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pronk.server.http_errors import RETRY_SECONDS, HttpError
from pronk.server.service import Service

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(self), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
LOOPBACK = ("localhost", "127.0.0.1", "::1")  # names that only this machine can reach
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# What needs no token: the page holds no data, and whoever watches the server's health has none.
OPEN_PATHS = ("/", "/healthz", "/readyz", "/docs", "/openapi.json")
PREDICT_PATH = "/v1/predict"
SECONDS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclasses.dataclass(frozen=True)
class Access:
    """Who may use the server.

    Attributes:
        host: address that the server listens on.
        token: secret that clients must show; None lets everybody in who can reach the server.
        anyone: clients may call the server by any name.
    """

    host: str
    token: str | None = None
    anyone: bool = False

    def allows_host(self, host: str) -> bool:
        """Tell whether a request for that name is meant for this server.

        A page elsewhere can make its own name point to this machine (DNS rebinding); its requests then carry that name.
        """
        return self.anyone or self.token is not None or _name_of(host) in (*LOOPBACK, self.host.lower())

    def allows_token(self, authorization: str) -> bool:
        """Tell whether an Authorization header shows the token."""
        if self.token is None:
            return True
        kind, _, given = authorization.partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self.token.encode())


class Admission:
    """Admits a bounded number of requests and bytes; the rest is told at once to come again.

    A queue that may grow without bound answers everybody late; one that ends answers most people in time.
    """

    def __init__(self, *, most: int, most_bytes: int) -> None:
        self.most = most
        self.most_bytes = most_bytes
        self.requests = 0
        self.bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether no place is left."""
        return self.requests >= self.most

    @contextlib.contextmanager
    def enter(self) -> Iterator[Callable[[int], None]]:
        """Take a place for the time of a request, or raise HttpError 503 where none is left.

        The block gets a function that takes room for that many more bytes, or raises HttpError 503.
        """
        if self.is_full:
            raise too_busy()
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if self.bytes + size > self.most_bytes:
                raise too_busy()
            self.bytes += size
            taken += size

        self.requests += 1
        try:
            yield take
        finally:
            self.requests -= 1
            self.bytes -= taken


def too_busy() -> HttpError:
    """Return the answer for those who come while there is too much to do."""
    return HttpError(503, "too many photos at once", code="busy", hint=f"send it again after {RETRY_SECONDS} s")


class Meters:
    """The counters of one server, for Prometheus; each server has its own, so that tests can run several at once."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        # Routes are those of the description, never addresses as typed: strangers would fill the memory with labels.
        self.requests = Counter("pronk_requests", "Requests answered", ["route", "status"], registry=self._registry)
        self.seconds = Histogram(
            "pronk_request_seconds", "Time per request", ["route"], buckets=SECONDS, registry=self._registry
        )
        self.photos = Counter("pronk_photos", "Photos answered", ["outcome"], registry=self._registry)
        self.busy = Gauge("pronk_requests_in_progress", "Requests under way", registry=self._registry)
        self.ready = Gauge("pronk_ready", "Whether a model answers", registry=self._registry)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """Return all numbers in Prometheus's text form."""
        return generate_latest(self._registry)


@dataclasses.dataclass(frozen=True)
class Gateway:
    """The outermost layer of the app, as ASGI has it.

    Attributes:
        app: application behind it.
        access: who may use the server.
        admission: places for photos; while none is left, photos are turned away here, before routes, parameters and
            body cost anything: where three times as much comes as the machine can take, a refusal must be cheap.
        service: tells whether the server is about to leave.
        meters: count every answer.
    """

    app: ASGIApp
    access: Access
    admission: Admission
    service: Service
    meters: Meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def finish(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(MutableHeaders(scope=message))
            await send(message)

        self.meters.busy.inc()
        try:
            refusal = self._refuse(scope)
            await (refusal.response() if refusal else self.app)(scope, receive, finish)
        finally:
            self.meters.busy.dec()
            route = getattr(scope.get("route"), "path", "other")
            self.meters.requests.labels(route, str(status)).inc()
            self.meters.seconds.labels(route).observe(time.perf_counter() - started)

    def _refuse(self, scope: Scope) -> HttpError | None:
        headers, path = Headers(scope=scope), scope["path"]
        if not self.access.allows_host(headers.get("host", "")):
            message = f"this server is not called {headers.get('host', '')!r:.100}"
            return HttpError(403, message, code="forbidden", hint="use the address that pronk serve printed")
        if scope["method"] not in SAFE_METHODS and not _is_same_site(headers):
            hint = "call it from its own page, or from a program"
            return HttpError(403, "another site's page sent this", code="forbidden", hint=hint)
        is_open = path in OPEN_PATHS or path.startswith("/page/")
        if not is_open and not self.access.allows_token(headers.get("authorization", "")):
            hint = "send the header Authorization: Bearer TOKEN, with what --token says"
            return HttpError(401, "the token is missing or wrong", code="unauthorized", hint=hint)
        if self.admission.is_full and (scope["method"], path) == ("POST", PREDICT_PATH):
            scope["route"] = types.SimpleNamespace(path=path)  # by which requests are counted
            return too_busy()
        return None

    def _add_headers(self, headers: MutableHeaders) -> None:
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        if self.service.is_leaving:
            headers["connection"] = "close"  # so that no client sends its next request to a closing connection


def _is_same_site(headers: Headers) -> bool:
    # Browsers say where a request comes from; other programs send neither header.
    origin = headers.get("origin")
    if origin is not None:
        _, _, netloc = origin.lower().partition("://")
        return netloc != "" and netloc == headers.get("host", "").lower()
    return headers.get("sec-fetch-site", "none") in ("same-origin", "none")


def _name_of(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:  # a bracket that is never closed
        return ""
