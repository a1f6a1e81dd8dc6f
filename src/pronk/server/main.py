"""`pronk serve`: the story of a server from its options to its end."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from pronk.errors import SettingsError
from pronk.server.app import Limits, make_app
from pronk.server.guard import Access
from pronk.server.memory import return_large_blocks
from pronk.server.running import listen, run
from pronk.server.service import Service
from pronk.server.tutor import open_tutor
from pronk.storage.cache import parse_size

LEAST_BODY = 1024


def serve_model(
    model: Path | None,
    *,
    host: str,
    port: int,
    work: Path | None,
    weights: str | None,
    token: str | None,
    anyone: bool,
    body_limit: str,
    version: str,
    tell: Callable[[str], None],
    on_ready: Callable[[str], None],
) -> int:
    """Serve until a signal comes, and return its number.

    Args:
        model: a run folder, a `model/` or an export; None where one is yet to be taught.
        host: address to listen on.
        port: 0 takes any that is free.
        work: folder to teach in; None where nothing may be taught.
        weights: what is taught begins with; None takes the default of training.
        token: that clients must show.
        anyone: whether clients may call the server by any name.
        body_limit: most that one request may send, as in "10MB".
        version: of pronk.
        tell: is given what an operator should read.
        on_ready: is given the address, once requests are answered.

    Raises:
        ModelError: if the model does not open.
        StorageError: if the port is taken, or the work folder cannot be written.
        RunError: if another server holds the work folder.
        SettingsError: for an impossible limit.
    """
    return_large_blocks()
    limits = Limits(body_bytes=_parse_limit(body_limit))
    with contextlib.ExitStack() as open_:
        address = listen(host, port)
        open_.callback(address.socket.close)
        tutor = open_.enter_context(open_tutor(work, weights=weights)) if work else None
        service = Service()
        open_.callback(service.close)
        if model:
            service.open(model)
        app = make_app(service, access=Access(host, token, anyone), limits=limits, version=version, tutor=tutor)

        def greet() -> None:
            tell(f"serving {service.model.record['name']}" if model else "no model yet: teach one on the page")
            if work:
                tell(f"what is taught goes into {work}")
            tell("Ctrl-C ends")
            on_ready(address.url)

        return run(app, address, service, on_ready=greet, tell=tell)


def _parse_limit(text: str) -> int:
    size = parse_size(text, option="--body-limit")
    if size < LEAST_BODY:
        raise SettingsError(f"--body-limit must be at least {LEAST_BODY} bytes. Got {text!r}", hint="as in 10MB")
    return size
