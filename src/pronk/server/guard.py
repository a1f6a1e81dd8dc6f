"""Every request -> let through or refused, before anything reads it; every answer -> with its safety headers."""

import dataclasses
import hmac
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pronk.server.errors import HttpError, problem
from pronk.server.measuring import Meters
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
LOOPBACK = ("localhost", "127.0.0.1", "::1")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# What needs no token: the page holds no data, and whoever watches the server's health has none.
OPEN_PATHS = ("/", "/healthz", "/readyz", "/docs", "/openapi.json")


@dataclasses.dataclass(frozen=True)
class Access:
    """Who may use the server.

    Attributes:
        host: the address it listens on.
        token: that clients must show; None lets everybody in who can reach it.
        anyone: clients may call the server by any name.

    Example:
        >>> Access("127.0.0.1").allows_host("localhost:8000"), Access("127.0.0.1").allows_host("evil.example")
        (True, False)
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


class Guard:
    """The outermost layer of the app.

    Args:
        app: what it protects.
        access: who may use the server.
        service: tells whether the server is about to leave.
        meters: count every answer.
    """

    def __init__(self, app: ASGIApp, *, access: Access, service: Service, meters: Meters) -> None:
        self.app = app
        self.access = access
        self.service = service
        self.meters = meters

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
            handler = JSONResponse(problem(refusal), refusal.status, _challenge(refusal)) if refusal else self.app
            await handler(scope, receive, finish)
        finally:
            self.meters.busy.dec()
            route = getattr(scope.get("route"), "path", "other")
            self.meters.requests.labels(route, str(status)).inc()
            self.meters.seconds.labels(route).observe(time.perf_counter() - started)

    def _refuse(self, scope: Scope) -> HttpError | None:
        headers = Headers(scope=scope)
        if not self.access.allows_host(headers.get("host", "")):
            message = f"this server is not called {headers.get('host', '')!r:.100}"
            return HttpError(403, message, code="forbidden", hint="use the address that pronk serve printed")
        if scope["method"] not in SAFE_METHODS and not _is_same_site(headers):
            hint = "call it from its own page, or from a program"
            return HttpError(403, "another site's page sent this", code="forbidden", hint=hint)
        path = scope["path"]
        if (
            path in OPEN_PATHS
            or path.startswith("/page/")
            or self.access.allows_token(headers.get("authorization", ""))
        ):
            return None
        hint = "send the header Authorization: Bearer TOKEN, with what --token says"
        return HttpError(401, "the token is missing or wrong", code="unauthorized", hint=hint)

    def _add_headers(self, headers: MutableHeaders) -> None:
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        if self.service.is_leaving:
            headers["connection"] = "close"  # so that no client sends its next request to a closing connection


def _challenge(refusal: HttpError) -> Mapping[str, str]:
    return {"www-authenticate": "Bearer"} if refusal.status == 401 else {}


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


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
        (True, False)
    """
    return host.lower() in LOOPBACK
