"""Plan + bodies -> what each request got, and when: HTTP clients that leave the cores to the server.

    python benchmarks/clients.py PLAN.json OUT.npz

A client is one connection that is kept open and has one request under way. Without a rate each sends its next request
once the last is answered (closed loop). With one, each keeps a time-table of its own, so that all together send that
many a second, and a client whose answer is late sends as soon as it has come. Seconds then count from when a request
was due: what a slow answer holds up is not lost from the numbers.
"""

import argparse
import array
import asyncio
import dataclasses
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

COLUMNS = ("due", "sent", "done", "status", "body", "retry")
NO_ANSWER = 0  # the connection ended first
ABORTED = -1  # by the client, as planned
PATIENCE = 60.0  # seconds for an answer
STEP = 64  # KiB of a body that is sent before a client goes away


@dataclasses.dataclass(frozen=True)
class Plan:
    """What clients do.

    Attributes:
        port: the port of a server on this machine.
        bodies: files, sent in random order; the number of each is its `body` among the answers.
        seconds: time in which new requests are sent.
        clients: connections.
        rate: requests a second of all together; None sends the next once the last is answered.
        aborts: share of requests whose client goes away in the middle of its body.
        odd: files that are sent instead now and then, numbered after the others.
        odd_share: share of requests that send one of these.
        path: the route to ask.
        leave: a client whose connection the server ends does not come back, as behind a balancer that has looked.
        seed: seed of everything random.
    """

    port: int
    bodies: tuple[str, ...]
    seconds: float
    clients: int
    rate: float | None = None
    aborts: float = 0.0
    odd: tuple[str, ...] = ()
    odd_share: float = 0.0
    path: str = "/v1/predict"
    leave: bool = False
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What came of a plan.

    Attributes:
        rows: one a request, by COLUMNS: times in seconds since the first was due, `status` of HTTP, NO_ANSWER or
            ABORTED, `retry` 1 where a Retry-After came.
        cpu_seconds: CPU time of the clients themselves.
        seconds: time in which requests were sent.
    """

    rows: dict[str, np.ndarray]
    cpu_seconds: float
    seconds: float

    def count(self, *statuses: int) -> int:
        """Return how many requests got one of these."""
        return int(np.isin(self.rows["status"], statuses).sum())

    def choose(self, *, statuses: tuple[int, ...] = (200,), after: float = 0.0) -> np.ndarray:
        """Return the seconds that such answers took, of requests that were due then or later."""
        return self.since("sent")[np.isin(self.rows["status"], statuses) & (self.rows["due"] >= after)]

    def since(self, begin: str) -> np.ndarray:
        """Return the seconds to each answer since it was `sent`, or since it was `due`.

        The latter counts what one slow answer held up too: the client's next request left late.
        """
        return self.rows["done"] - self.rows[begin]


class Connection(asyncio.Protocol):
    """Just enough HTTP: one request, one answer with a Content-Length."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._answer: asyncio.Future[tuple[int, bool]] | None = None
        self._ends = -1

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, error):
        self.transport = None
        if self._answer and not self._answer.done():
            self._answer.set_result((NO_ANSWER, False))

    def data_received(self, data):
        self._buffer += data
        if self._ends < 0:
            head = self._buffer.find(b"\r\n\r\n")
            if head < 0:
                return
            fields = bytes(self._buffer[:head]).lower()
            start = fields.find(b"content-length: ")
            length = int(fields[start + 16 :].split(b"\r", 1)[0]) if start > 0 else 0
            self._ends, self._fields = head + 4 + length, fields
        if len(self._buffer) >= self._ends and self._answer and not self._answer.done():
            status = int(self._buffer[9:12])
            if b"connection: close" in self._fields and self.transport:
                self.transport.close()
                self.transport = None
            self._answer.set_result((status, b"\nretry-after: " in self._fields))

    async def ask(self, head: bytes, body: bytes) -> tuple[int, bool]:
        """Send a request; return the status, and whether it says when to come again."""
        self._buffer.clear()
        self._ends = -1
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.writelines((head, body))
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._answer
        except TimeoutError:
            self.drop()
            return NO_ANSWER, False

    def drop(self) -> None:
        """Close it without waiting for anything."""
        if self.transport:
            self.transport.abort()
            self.transport = None


class Crowd:
    """All clients of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.bodies = [Path(name).read_bytes() for name in (*plan.bodies, *plan.odd)]
        self.heads = [
            f"POST {plan.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            for body in self.bodies
        ]
        self.random = random.Random(plan.seed)
        self.end = plan.seconds
        self.rows = array.array("d")

    async def run(self) -> None:
        # Connections first: making five hundred at once is not part of what is measured.
        connections = [await self._connect() for _ in range(self.plan.clients)]
        self.start = time.perf_counter()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop)
        await asyncio.gather(*(self._client(connection) for connection in connections))

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, "127.0.0.1", self.plan.port)
        return connection

    async def _client(self, connection: Connection) -> None:
        period = self.plan.clients / self.plan.rate if self.plan.rate else 0.0
        turn = self.random.random() * period
        while turn < self.end:
            # A time-table, but no clockwork: regular clients would meet at the server always or never.
            due = turn + self.random.uniform(-0.25, 0.25) * period if period else self._now()
            await asyncio.sleep(max(0.0, due - self._now()))
            if self._now() > self.end:
                return
            if connection.transport is None:
                if self.plan.leave:
                    return
                connection = await self._connect_again(connection, due)
            if connection.transport is not None:
                await self._ask(connection, due)
            turn = turn + period if period else self._now()

    async def _connect_again(self, connection: Connection, due: float) -> Connection:
        try:
            return await self._connect()
        except OSError:
            self._note(due, due, NO_ANSWER, -1, False)
            await asyncio.sleep(0.1)
            return connection

    async def _ask(self, connection: Connection, due: float) -> None:
        plan, body = self.plan, self.random.randrange(len(self.plan.bodies))
        if plan.odd and self.random.random() < plan.odd_share:
            body = len(plan.bodies) + self.random.randrange(len(plan.odd))
        sent = self._now()
        if self.random.random() < plan.aborts:
            part = self.bodies[body][: min(STEP * 1024, len(self.bodies[body]) // 2)]
            connection.transport.writelines((self.heads[body], part))
            await asyncio.sleep(0.01)
            connection.drop()
            self._note(due, sent, ABORTED, body, False)
            return
        status, retry = await connection.ask(self.heads[body], self.bodies[body])
        self._note(due, sent, status, body, retry)

    def _note(self, due: float, sent: float, status: int, body: int, retry: bool) -> None:
        self.rows.extend((due, sent, self._now(), status, body, retry))

    def _stop(self) -> None:
        self.end = min(self.end, self._now())

    def _now(self) -> float:
        return time.perf_counter() - self.start


def run_plan(plan: Plan) -> Traffic:
    """Run the clients in a process of their own and return what they saw."""
    with start_plan(plan) as started:
        return started.finish()


class start_plan:  # noqa: N801 - reads as a verb, ends what it began
    """Start the clients; `finish` waits for their end."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __enter__(self) -> "start_plan":
        self.folder = tempfile.TemporaryDirectory()
        base = Path(self.folder.name)
        (base / "plan.json").write_text(json.dumps(dataclasses.asdict(self.plan)), encoding="utf-8")
        command = [sys.executable, os.fspath(Path(__file__).resolve()), base / "plan.json", base / "out.npz"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        return self

    def __exit__(self, *_) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()

    def finish(self, *, now: bool = False) -> Traffic:
        """Return what they saw; `now` lets them send nothing more."""
        if now:
            self.process.send_signal(signal.SIGTERM)
        if self.process.wait():
            raise RuntimeError(f"the clients ended with {self.process.returncode}")
        with np.load(Path(self.folder.name) / "out.npz") as file:
            table = file["rows"]
            rows = {name: table[:, i] for i, name in enumerate(COLUMNS)}
            return Traffic(rows, float(file["cpu_seconds"]), self.plan.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    crowd = Crowd(Plan(**json.loads(args.plan.read_text(encoding="utf-8"))))
    before = resource.getrusage(resource.RUSAGE_SELF)
    asyncio.run(crowd.run())
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    np.savez(args.out, rows=np.array(crowd.rows).reshape(-1, len(COLUMNS)), cpu_seconds=cpu)


if __name__ == "__main__":
    main()
