"""A running server -> what it does under one kind of load, as a plain record; serving.py is the program."""

import contextlib
import dataclasses
import http.client
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
from clients import ABORTED, NO_ANSWER, Plan, Traffic, run_plan, start_plan
from programs import report
from watching import Watch, read_cpu, read_memory, read_peak

CORES = len(os.sched_getaffinity(0))
CLIENTS = 4 * CORES  # in a closed loop: enough that no thread of the server ever waits for work
LOAD_CLIENTS = 4 * CORES
CROWD = 500
AT_ONCE = 10
GOALS = {
    "share": 0.8,
    "p50_ms": 40.0,
    "p99_ms": 200.0,
    "slope_mib_per_minute": 1.0,
    "goodput": 0.8,
    "refused_p99_ms": 100.0,
    "served_p99_ms": 1000.0,
    "recovery_seconds": 5.0,
    "peak_mib": 350.0,
    "growth_mib": 50.0,
    "files": 5,
}
BARE, LEAKING = (Path(__file__).resolve().with_name(name) for name in ("bare.py", "leaking.py"))


@dataclasses.dataclass(frozen=True)
class Server:
    """A server on this machine."""

    port: int
    pid: int


@contextlib.contextmanager
def serve(model: Path, *, leak: bool = False, options: tuple[str, ...] = ()) -> Iterator[Server]:
    """Start a server and end it with the block."""
    program = [sys.executable, LEAKING] if leak else [sys.executable, "-m", "pronk", "serve"]
    command = list(map(str, [*program, model, "--port", "0", *options]))
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().strip().rstrip("/")
        if not address:
            sys.exit(f"error: the server ended with {process.wait()}")
        yield Server(int(address.rpartition(":")[2]), process.pid)
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def ask(server: Server, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Send one request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def send(server: Server, bodies: list[Path], *, seconds: float, clients: int = CLIENTS, **more) -> tuple[Traffic, dict]:
    """Let clients send; return what they saw, and the CPU seconds of both sides."""
    plan = make_plan(server, bodies, seconds=seconds, clients=clients, **more)
    before = read_cpu(server.pid)
    traffic = run_plan(plan)
    cpu = {"server": round(read_cpu(server.pid) - before, 2), "clients": round(traffic.cpu_seconds, 2)}
    return traffic, cpu


def make_plan(server: Server, bodies: list[Path], **more) -> Plan:
    return Plan(server.port, tuple(map(str, bodies)), **more)


def quantiles(seconds: np.ndarray) -> dict:
    """Return p50, p95, p99 and the greatest in milliseconds; None where there is nothing.

    >>> quantiles(np.array([0.01, 0.02, 0.03]))["p50_ms"]
    20.0
    """
    names = {"p50_ms": 50, "p95_ms": 95, "p99_ms": 99, "max_ms": 100}
    if not len(seconds):
        return dict.fromkeys(names)
    return {name: round(1000 * float(np.percentile(seconds, share)), 1) for name, share in names.items()}


def measure_rate(server: Server, bodies: list[Path], *, seconds: float) -> float:
    """Return the photos a second of a closed loop, after a short warm-up."""
    send(server, bodies, seconds=min(3.0, seconds))
    return send(server, bodies, seconds=seconds)[0].count(200) / seconds


def measure_capacity(server: Server, model: Path, bodies: list[Path], *, seconds: float, repeats: int = 5) -> dict:
    """Measure the server and the bare process by turns."""
    send(server, bodies, seconds=3)
    served, bare, cpu, latencies = [], [], {"server": 0.0, "clients": 0.0}, []
    for repeat in range(repeats):
        traffic, took = send(server, bodies, seconds=seconds, seed=repeat)
        served.append(round(traffic.count(200) / seconds, 2))
        cpu = {side: round(cpu[side] + took[side], 2) for side in cpu}
        latencies.append(traffic.choose())
        bare.append(round(measure_bare(model, bodies, seconds=seconds), 2))
        report(f"repeat {repeat + 1}: {served[-1]} photos a second served, {bare[-1]} bare")
    return {
        "capacity": median(served),
        "served": served,
        "bare": bare,
        "shares": [round(a / b, 3) for a, b in zip(served, bare, strict=True)],
        "clients": CLIENTS,
        "cpu_share_of_server": round(cpu["server"] / seconds / repeats / CORES, 3),
        "cpu_share_of_clients": round(cpu["clients"] / seconds / repeats / CORES, 3),
        **quantiles(np.concatenate(latencies)),
    }


def measure_bare(model: Path, bodies: list[Path], *, seconds: float) -> float:
    """Return the photos a second of decoding and model alone, in a process with a thread per core."""
    command = [sys.executable, BARE, model, bodies[0].parent, seconds]
    return float(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)


def measure_load(server: Server, bodies: list[Path], *, seconds: float, share: float = 0.7) -> dict:
    """Send a share of what the same photos reach in a closed loop with as many clients."""
    capacity = measure_rate(server, bodies, seconds=min(20.0, max(5.0, seconds / 5)))
    with Watch(server.pid) as watch:
        traffic, cpu = send(server, bodies, seconds=seconds, clients=LOAD_CLIENTS, rate=share * capacity, seed=1)
    rows = traffic.rows
    return {
        "capacity_of_mix": round(capacity, 2),
        "rate": round(share * capacity, 2),
        "seconds": seconds,
        "answers": traffic.count(200),
        "errors": int((rows["status"] != 200).sum()),
        "cpu_seconds": cpu,
        **quantiles(traffic.choose()),
        "p99_ms_since_due": quantiles(traffic.since("due"))["p99_ms"],
        **watch.fit(after=min(60.0, seconds / 3)),
    }


def measure_overload(
    server: Server, bodies: list[Path], *, seconds: float, capacity: float, calm: float = 15.0, times: float = 3
) -> dict:
    """Send several times as much as the server can do over many connections, then a usual load at once."""
    with Watch(server.pid) as watch:
        traffic, cpu = send(server, bodies, seconds=seconds, clients=CROWD, rate=times * capacity)
        after, _ = send(server, bodies, seconds=calm, clients=LOAD_CLIENTS, rate=0.7 * capacity)
    statuses, retry = traffic.rows["status"], traffic.rows["retry"]
    refused, served = traffic.count(503), traffic.count(200)
    return {
        "capacity": round(capacity, 2),
        "offered": round(len(statuses) / seconds, 1),
        "goodput": round(served / seconds / capacity, 3),
        "served": served,
        "refused": refused,
        "other": len(statuses) - served - refused,
        "refused_without_retry": int(((statuses == 503) & (retry == 0)).sum()),
        "served_latency": quantiles(traffic.choose()),
        "refused_latency": quantiles(traffic.choose(statuses=(503,))),
        "recovery_seconds": find_recovery(after),
        "errors_afterwards": int((after.rows["status"] != 200).sum()),
        "cpu_seconds": cpu,
        **watch.fit(after=0),
    }


def find_recovery(traffic: Traffic) -> float | None:
    """Return the first second from which on there is no error and the latencies are those of a usual load."""
    rows = traffic.rows
    for start in range(int(traffic.seconds)):
        later = rows["due"] >= start
        found = quantiles(traffic.since("sent")[later])
        if not later.any():
            return None
        is_quick = all(found[name] <= GOALS[name] for name in ("p50_ms", "p99_ms"))
        if is_quick and (rows["status"][later] == 200).all():
            return float(start)
    return None


def measure_memory(server: Server, bodies: list[Path], large: list[Path], *, requests: int = 10_000) -> dict:
    """Send many photos, then ten of 49 megapixels of each kind at once."""
    rate = measure_rate(server, bodies, seconds=2)
    with Watch(server.pid) as watch:
        seconds = requests / rate
        sent = send(server, bodies, seconds=seconds)[0].count(200)
    record = {"requests": sent, **watch.fit(after=seconds / 3), "large": {}}
    for path in large:
        with Watch(server.pid, interval=0.05) as watch, ThreadPoolExecutor(AT_ONCE) as pool:
            body = path.read_bytes()
            asked = [pool.submit(ask, server, "POST", "/v1/predict", body) for _ in range(AT_ONCE)]
            statuses = [answer.result()[0] for answer in asked]
        counts = {str(status): statuses.count(status) for status in sorted(set(statuses))}
        record["large"][path.name] = {"answers": counts, "peak_mib": watch.peak}
        record["peak_mib"] = max(record["peak_mib"], watch.peak)
    return record | {
        "peak_with_files_mib": round(read_peak(server.pid), 1),
        "after_mib": round(read_memory(server.pid), 1),
    }


def measure_soak(
    server: Server,
    bodies: list[Path],
    bad: list[Path],
    *,
    seconds: float,
    rate: float,
    reload_minutes: float = 5.0,
) -> dict:
    """Send for long, with bad photos, clients that go away, and the model opened again and again."""
    plan = make_plan(
        server,
        bodies,
        seconds=seconds,
        clients=LOAD_CLIENTS,
        rate=rate,
        aborts=0.01,
        odd=tuple(map(str, bad)),
        odd_share=0.01,
    )
    reloads = []
    with Watch(server.pid) as watch, start_plan(plan) as started, every(60 * reload_minutes) as repeat:
        repeat(lambda: reloads.append(ask(server, "POST", "/v1/model/reload")[0]))
        traffic = started.finish()
    is_bad = traffic.rows["body"] >= len(bodies)
    statuses = traffic.rows["status"]
    asked = statuses != ABORTED
    wanted = np.where(is_bad, (statuses == 422) | (statuses == 415), statuses == 200)
    return {
        "seconds": seconds,
        "rate": round(rate, 2),
        "answers": int((asked & wanted).sum()),
        "lost": int((asked & ~wanted).sum()),
        "lost_statuses": sorted({int(status) for status in statuses[asked & ~wanted]}),
        "bad": int((asked & is_bad).sum()),
        "aborted": int((~asked).sum()),
        "unanswered": traffic.count(NO_ANSWER),
        "reloads": reloads,
        **quantiles(traffic.choose()),
        **watch.fit(after=min(120.0, seconds / 3)),
    }


@contextlib.contextmanager
def every(seconds: float) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Do something again and again while the block runs."""
    done, threads = threading.Event(), []

    def start(task: Callable[[], None]) -> None:
        def run() -> None:
            while not done.wait(seconds):
                task()

        threads.append(threading.Thread(target=run, daemon=True))
        threads[-1].start()

    try:
        yield start
    finally:
        done.set()
        for thread in threads:
            thread.join()
