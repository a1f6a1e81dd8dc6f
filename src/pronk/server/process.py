"""Options of `pronk serve` -> a server that runs until it is told to stop, and then finishes what it began."""

import asyncio
import contextlib
import dataclasses
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from pronk.errors import SettingsError, StorageError
from pronk.photos import heif
from pronk.server.app import Limits, make_app
from pronk.server.gateway import Access
from pronk.server.http_errors import HttpError
from pronk.server.protocol import CautiousProtocol
from pronk.server.service import Service, return_large_blocks
from pronk.server.training_jobs import open_trainings
from pronk.storage.cache import parse_size

LEAST_BODY = 1024
DRAIN_SECONDS = 1.0  # between "not ready" and the last connection: time for a balancer to look
FINISH_SECONDS = 30
KEEP_ALIVE_SECONDS = 30
BACKLOG = 2048
Tell = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class ServeOptions:
    """What `pronk serve` was asked for.

    Attributes:
        model: run folder, `model/` or export; None where one is yet to be taught.
        work: folder to teach in; None where nothing may be taught.
        weights: weights that a training starts from; None takes the default of training.
        access: who may use the server, with the address to listen on.
        port: port to listen on; 0 takes any that is free.
        body_limit: most that one request may send, as in "10MB".
    """

    model: Path | None
    work: Path | None
    weights: str | None
    access: Access
    port: int
    body_limit: str
    version: str


def serve_model(options: ServeOptions, *, tell: Tell, on_ready: Tell) -> int:
    """Serve until a signal comes, and return its number; an operator is told what to read, and the address.

    Raises:
        ModelError: if the model does not open.
        StorageError: if the port is taken, or the work folder cannot be written.
        RunError: if another server holds the work folder.
        SettingsError: for an impossible limit.
    """
    return_large_blocks()
    heif.is_allowed = False  # its decoder is no place for files of strangers
    model, work = options.model, options.work
    limits = Limits(body_bytes=_parse_limit(options.body_limit))
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(listen(options.access.host, options.port))
        trainings = stack.enter_context(open_trainings(work, weights=options.weights)) if work else None
        service = Service()
        stack.callback(service.close)
        if model:
            service.open(model)
        app = make_app(service, access=options.access, limits=limits, version=options.version, trainings=trainings)

        def greet() -> None:
            tell(f"serving {service.model.record['name']}" if model else "no model yet: teach one on the page")
            if work:
                tell(f"what is taught goes into {work}")
            tell("Ctrl-C ends")
            on_ready(_url(options.access.host, opened))

        server = _Server(app, service, on_ready=greet, tell=tell)
        server.run(sockets=[opened])
        return server.ended_by


def _parse_limit(text: str) -> int:
    size = parse_size(text, option="--body-limit")
    if size < LEAST_BODY:
        raise SettingsError(f"--body-limit must be at least {LEAST_BODY} bytes. Got {text!r}", hint="as in 10MB")
    return size


def listen(host: str, port: int) -> socket.socket:
    """Take a port, 0 for any that is free; StorageError where it is taken, or the host is not this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends without delay only where the protocol is named: else each answer waits 40 ms for a client's receipt.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":  # there it would let two servers share a port
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        opened.listen(BACKLOG)
    except (OSError, UnicodeError, OverflowError) as error:
        opened.close()
        cause = getattr(error, "strerror", None) or error
        hint = f"name another, as in --port {port + 1 if 0 < port < 65535 else 8000}, or --port 0 for any"
        raise StorageError(f"cannot listen on {host}, port {port}: {cause}", hint=hint) from error
    return opened


def _url(host: str, opened: socket.socket) -> str:
    """Return the address to type into a browser."""
    name = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{name}]' if ':' in name else name}:{opened.getsockname()[1]}/"


class _Server(uvicorn.Server):
    """uvicorn's server with pronk's signals; `ended_by` is the number of the one that ended it.

    SIGTERM: readiness turns false, a second later no new connection is taken, and what is under way is finished.
    SIGINT (Ctrl-C): the same without the second. SIGHUP: the model is opened again from its folder.
    """

    def __init__(self, app: ASGIApp, service: Service, *, on_ready: Callable[[], None], tell: Tell) -> None:
        config = uvicorn.Config(
            app,
            http=CautiousProtocol,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            log_level="critical",  # strangers' broken requests are no news
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=FINISH_SECONDS,
        )
        super().__init__(config)
        self.service = service
        self.on_ready = on_ready
        self.tell = tell
        self.ended_by = 0
        self._reloads: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop, former = asyncio.get_running_loop(), {}

        def hear(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self._heed, number)

        names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
        try:
            for name in filter(lambda name: hasattr(signal, name), names):
                number = getattr(signal, name)
                former[number] = signal.signal(number, hear)
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _heed(self, number: int) -> None:
        if number == getattr(signal, "SIGHUP", None):
            task = asyncio.get_running_loop().create_task(self._reload())
            self._reloads.add(task)  # the loop alone would let it be collected
            task.add_done_callback(self._reloads.discard)
            return
        again, self.ended_by = bool(self.ended_by), number
        self.service.is_leaving = True
        if again:
            self.should_exit = self.force_exit = True
        elif number == signal.SIGTERM:
            asyncio.get_running_loop().call_later(DRAIN_SECONDS, self._stop)
        else:
            self._stop()

    def _stop(self) -> None:
        self.should_exit = True

    async def _reload(self) -> None:
        try:
            model = await self.service.replace()
        except HttpError as error:
            self.tell(f"not reloaded: {error}; {error.hint}")
        else:
            self.tell(f"reloaded {model.record['name']}")
