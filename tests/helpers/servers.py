"""A real `pronk serve` process for a test: started, watched and ended."""

import contextlib
import dataclasses
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

START_SECONDS = 120.0
STOP_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Reply:
    """What a request got."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Running:
    """A server in a process of its own, at the printed address; the log gets its standard error."""

    def __init__(self, address: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.address = address
        self.port = urlsplit(address).port or 80
        self.process = process
        self.log = log

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        timeout: float = 60,
    ) -> Reply:
        """Send one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, fields, response.read())
        finally:
            connection.close()

    def predict(self, photo: bytes, query: str = "") -> Reply:
        """Send the bytes of one photo."""
        return self.ask("POST", f"/v1/predict{query}", photo)

    def words(self) -> str:
        """Return what it has said on standard error so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def stop(self, number: int = signal.SIGTERM, *, timeout: float = STOP_SECONDS) -> int:
        """Send a signal and wait for the end; return the exit code."""
        if self.is_alive:
            self.process.send_signal(number)
        return self.process.wait(timeout)


@contextlib.contextmanager
def start_server(
    model: Path | None,
    *options: str | Path,
    env: dict[str, str] | None = None,
    command: Sequence[str | Path] = (sys.executable, "-m", "pronk", "serve"),
) -> Iterator[Running]:
    """Start `pronk serve` on a free port, with more variables of the environment, and end it with the block.

    Without a model it teaches first; a test that watches what the server does gives another command.
    """
    with contextlib.ExitStack() as stack:
        log = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "server.log"
        file = stack.enter_context(log.open("wb"))
        words = [*command, *([model] if model else []), "--port", "0", *options]
        process = subprocess.Popen(
            list(map(os.fspath, words)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | (env or {}),
        )
        stack.callback(_end, process)
        yield Running(_read_address(process, log), process, log)


def _read_address(process: subprocess.Popen[bytes], log: Path) -> str:
    assert process.stdout is not None
    patience = threading.Timer(START_SECONDS, process.kill)
    patience.start()
    line = process.stdout.readline().decode().strip()
    patience.cancel()
    if not line.startswith("http"):
        raise AssertionError(f"the server did not start: {log.read_text(encoding='utf-8', errors='replace')}")
    return line


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGINT)  # which waits for no balancer
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout:
        process.stdout.close()
