"""Connections -> requests, as uvicorn reads them, with limits that it leaves to others."""

import asyncio
import functools
import types

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEADER_SECONDS = 10.0  # for all headers of a request, and until a new connection sends anything
MOST_HEADER_BYTES = 32_768
MOST_HEADERS = 100
PATIENCE = 1024  # pieces of a body that may be tiny, before they count as an attack
LEAST_MEAN = 64  # bytes; honest clients send some kilobytes at once
LINGER_SECONDS = 10.0  # in which a client whose body was refused may go on sending, and then read why
LINGER_BYTES = 64_000_000
CHUNKED_BYTES = 32_768  # read at once; asyncio takes 256 KiB, by which a body of unknown length may pass its limit


class _RefusedError(Exception):
    """Ends the parser's work; uvicorn answers 400 and closes the connection."""


class CautiousProtocol(HttpToolsProtocol):
    """Closes connections that send headers too slowly or too many of them, or a body in countless crumbs.

    Each crumb of a chunked body costs as much work as a whole piece of 64 KiB, so one client could keep the loop busy
    for all others. A client that is refused while it sends gets the answer all the same: closing at once would reset
    the connection, and most HTTP libraries read only after they have sent all.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of a new connection."""
        super().connection_made(transport)
        self._is_lingering = False
        self._pieces = self._body_bytes = self._header_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._start_clock()

    def data_received(self, data: bytes) -> None:
        """Read a request, or throw away what comes after its answer."""
        if not self._is_lingering:
            super().data_received(data)
            return
        self._body_bytes += len(data)
        if self._body_bytes > LINGER_BYTES:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Start the clock of a request on a connection that is used again."""
        super().on_message_begin()
        self._pieces = self._body_bytes = self._header_bytes = 0
        self._start_clock()

    def on_url(self, url: bytes) -> None:
        """Count the address with the headers."""
        self._count_header(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Refuse more headers than anybody needs."""
        self._count_header(len(name) + len(value))
        if len(self.headers) >= MOST_HEADERS:
            raise _RefusedError(f"more than {MOST_HEADERS} headers")
        if name.lower() == b"transfer-encoding" and hasattr(self.transport, "max_size"):
            self.transport.max_size = CHUNKED_BYTES
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Leave the rest of the time to whoever reads the body."""
        self._stop_clock()
        super().on_headers_complete()
        close = functools.partial(self._close_after, self.cycle)
        self.cycle.transport = types.SimpleNamespace(write=self.transport.write, close=close)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        """Refuse crumbs."""
        self._pieces += 1
        self._body_bytes += len(body)
        if self._pieces > PATIENCE and self._body_bytes < LEAST_MEAN * self._pieces:
            raise _RefusedError("a body in crumbs")
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Answer, unless an answer is already on its way; then only close."""
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()
            return
        super().send_400_response(msg)

    def on_response_complete(self) -> None:
        """Go on with the next request, except on a connection that only waits to be closed."""
        if self._is_lingering:
            self.server_state.total_requests += 1
        else:
            super().on_response_complete()

    def _close_after(self, cycle: RequestResponseCycle) -> None:
        """Close the connection; where its body is still under way, only for writing, and for a bounded time."""
        if not cycle.more_body or not cycle.response_complete or self.transport.is_closing():
            self.transport.close()
            return
        self._is_lingering, self._body_bytes = True, 0
        self.transport.write_eof()
        self.flow.resume_reading()
        self._start_clock(LINGER_SECONDS)

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MOST_HEADER_BYTES:
            raise _RefusedError(f"headers of more than {MOST_HEADER_BYTES} bytes")

    def _start_clock(self, seconds: float | None = None) -> None:
        self._stop_clock()
        self._deadline = self.loop.call_later(HEADER_SECONDS if seconds is None else seconds, self._give_up)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()
