"""Model + photos -> how many photos `pronk serve` answers, how fast, and what it does when there are too many.

    python benchmarks/serving.py MODEL [PHOTOS] --scenario capacity|load|overload|memory|soak [--seconds N]

Server and clients are processes of their own on the same cores; the clients' own CPU time is in the results.

    capacity   C: photos a second of ~100 KB that clients get who send the next once the last is answered, against a
               process that decodes and predicts the same files in a thread per core and does nothing else, by turns
    load       70 % of what a mix of 20 KB to 4 MB photos reaches: errors, latencies, slope of memory
    overload   3 C over 500 connections: goodput, how soon the rest is refused, how soon all is well again
    memory     10,000 photos, then ten of 49 megapixels at once: JPEG, progressive JPEG and PNG
    soak       half of C with bad photos, clients that go away and reloads: what is lost, what grows
"""

import argparse
import contextlib
import dataclasses
import functools
import http.client
import operator
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import psutil
from bodies import MIX, write_bodies, write_large
from clients import ABORTED, NO_ANSWER, Plan, Traffic, run_plan, start_plan
from processes import Watch, read_cpu, read_memory, read_peak
from programs import describe_machine, report, show_machine, write_results

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
LEAKING = Path(__file__).resolve().with_name("leaking.py")
USUAL = 100_000  # bytes of the photo that capacity is measured with
SECONDS = {"capacity": 10.0, "load": 600.0, "overload": 60.0, "memory": 0.0, "soak": 7200.0}


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
    process = psutil.Process(server.pid)
    before = read_cpu(process)
    traffic = run_plan(plan)
    cpu = {"server": round(read_cpu(process) - before, 2), "clients": round(traffic.cpu_seconds, 2)}
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
    command = [sys.executable, __file__, model, bodies[0].parent, "--bare", "--seconds", seconds]
    return float(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)


def run_bare(model: Path, folder: Path, seconds: float) -> float:
    """Decode and predict the files of a folder again and again, in this process."""
    from pronk.model.predictor import Predictor
    from pronk.photos.decoding import load_pixels

    predictor = Predictor.load(model)
    bundle, files = predictor.bundle, [path.read_bytes() for path in sorted(folder.iterdir())]
    predictor.predict(files[:8])
    start = time.perf_counter()

    def work(number: int) -> int:
        done = 0
        while time.perf_counter() - start < seconds:
            pixels = load_pixels(files[(number + CORES * done) % len(files)], size=bundle.size, fit=bundle.fit)
            predictor.runtime.run(pixels[None])
            done += 1
        return done

    with ThreadPoolExecutor(CORES) as pool:
        done = sum(pool.map(work, range(CORES)))
        return done / (time.perf_counter() - start)


def measure_load(server: Server, bodies: list[Path], *, seconds: float, share: float = 0.7) -> dict:
    """Send a share of what the same photos reach in a closed loop with as many clients."""
    capacity = measure_rate(server, bodies, seconds=min(20.0, max(2.0, seconds / 5)))
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
    reloads: list[int] = []

    def reload() -> None:
        reloads.append(ask(server, "POST", "/v1/model/reload")[0])

    with Watch(server.pid) as watch, start_plan(plan) as started, every(60 * reload_minutes, reload):
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
def every(seconds: float, task: Callable[[], None]) -> Iterator[None]:
    """Do something again and again while the block runs."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(seconds):
            task()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def run_scenario(name: str, model: Path, photos: Path, *, seconds: float, leak: bool, reload_minutes: float) -> dict:
    """Start a server, run one scenario against it."""
    with tempfile.TemporaryDirectory() as folder, serve(model, leak=leak) as server:
        base = Path(folder)
        sizes, each = (MIX, 4) if name == "load" else ((USUAL,), 32)
        bodies = write_bodies(photos, base / "bodies", sizes=sizes, each=each)
        if name == "capacity":
            return measure_capacity(server, model, bodies, seconds=seconds)
        if name == "load":
            return measure_load(server, bodies, seconds=seconds)
        if name == "memory":
            return measure_memory(server, bodies, write_large(base / "large"))
        capacity = measure_rate(server, bodies, seconds=10)
        if name == "overload":
            return measure_overload(server, bodies, seconds=seconds, capacity=capacity)
        bad = write_bad(bodies[0], base / "bad")
        return measure_soak(server, bodies, bad, seconds=seconds, rate=capacity / 2, reload_minutes=reload_minutes)


def write_bad(photo: Path, folder: Path) -> list[Path]:
    """Write what no server can predict: a photo cut in half, and a text."""
    folder.mkdir()
    data = photo.read_bytes()
    contents = {"half.jpg": data[: len(data) // 2], "text.jpg": b"this is not a photo\n" * 100}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


# What is judged: a title, the value in the record, and what it must keep to.
Check = tuple[str, Callable[[dict], float | None], Callable[[float], bool], str]


def _at_most(goal: str, title: str, *path: str, unit: str = "") -> Check:
    """Judge the number at that path of a record."""

    def read(record: dict) -> float | None:
        return functools.reduce(operator.getitem, path, record)

    return title, read, lambda value: value <= GOALS[goal], f"at most {GOALS[goal]:g}{unit}"


def _none(title: str, count: Callable[[dict], float]) -> Check:
    return title, count, lambda value: value == 0, "0"


CHECKS: dict[str, tuple[Check, ...]] = {
    "capacity": (
        ("photos a second", lambda record: record["capacity"], lambda value: True, ""),
        (
            "share of the bare process",
            lambda record: median(record["shares"]),
            lambda value: value >= GOALS["share"],
            f"at least {GOALS['share']:g}",
        ),
    ),
    "load": (
        ("photos a second", lambda record: record["rate"], lambda value: True, ""),
        _none("errors", lambda record: record["errors"]),
        _at_most("p50_ms", "p50", "p50_ms", unit=" ms"),
        _at_most("p99_ms", "p99", "p99_ms", unit=" ms"),
        _at_most("slope_mib_per_minute", "slope of memory", "slope_mib_per_minute", unit=" MiB/min"),
    ),
    "overload": (
        ("offered a second", lambda record: record["offered"], lambda value: True, ""),
        (
            "goodput, share of C",
            lambda record: record["goodput"],
            lambda value: value >= GOALS["goodput"],
            f"at least {GOALS['goodput']:g}",
        ),
        _none("neither served nor refused", lambda record: record["other"]),
        _none("refused without Retry-After", lambda record: record["refused_without_retry"]),
        _at_most("refused_p99_ms", "p99 of refusals", "refused_latency", "p99_ms", unit=" ms"),
        _at_most("served_p99_ms", "p99 of answers", "served_latency", "p99_ms", unit=" ms"),
        _at_most("recovery_seconds", "as usual again after", "recovery_seconds", unit=" s"),
    ),
    "memory": (
        ("photos", lambda record: record["requests"], lambda value: True, ""),
        _at_most("peak_mib", "most memory", "peak_mib", unit=" MiB"),
    ),
    "soak": (
        ("photos a second", lambda record: record["rate"], lambda value: True, ""),
        _none("lost requests", lambda record: record["lost"]),
        _none("reloads that failed", lambda record: sum(status != 200 for status in record["reloads"])),
        _at_most("growth_mib", "growth of memory", "growth_mib", unit=" MiB"),
        (
            "growth of open files",
            lambda record: abs(record["files"][1] - record["files"][0]),
            lambda value: value <= GOALS["files"],
            f"at most {GOALS['files']}",
        ),
    ),
}


def judge(name: str, record: dict) -> list[dict]:
    """Return what was measured beside its goal, one row a check.

    >>> judge("capacity", {"capacity": 140.0, "shares": [0.79, 0.85, 0.86]})[1]["ok"]
    True
    """
    rows = []
    for title, read, holds, goal in CHECKS[name]:
        value = read(record)
        rows.append({"what": title, "value": value, "goal": goal, "ok": value is not None and holds(value)})
    return rows


def write_page(name: str, content: dict) -> str:
    lines = [f"| {name} | measured | goal | |", "|---|---|---|---|"]
    for row in content["checks"]:
        value = "nothing" if row["value"] is None else f"{row['value']:g}"
        lines.append(f"| {row['what']} | {value} | {row['goal']} | {'' if row['ok'] else 'missed'} |")
    return "\n".join([*lines, "", show_machine(content["machine"])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a run or a model folder")
    parser.add_argument("photos", nargs="?", type=Path, default=os.environ.get("PRONK_PHOTOS"))
    parser.add_argument("--scenario", choices=sorted(SECONDS), action="append", help="may be repeated; default: all")
    parser.add_argument("--seconds", type=float, help="of a scenario; each has its own default")
    parser.add_argument("--reload-minutes", type=float, default=5.0, help="between reloads of a soak")
    parser.add_argument("--leak", action="store_true", help="serve with a leak, which a soak has to find")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.photos:
        sys.exit("error: no photos\nhint: name a folder, or set PRONK_PHOTOS")
    if args.bare:
        print(run_bare(args.model, args.photos, args.seconds))
        return
    contents = {}
    for name in args.scenario or SECONDS:
        report(f"{name} ...")
        record = run_scenario(
            name,
            args.model,
            args.photos,
            seconds=args.seconds or SECONDS[name],
            leak=args.leak,
            reload_minutes=args.reload_minutes,
        )
        contents[name] = {"record": record, "checks": judge(name, record), "machine": describe_machine()}
        print(write_page(name, contents[name]), flush=True)
        if args.json:
            write_results(args.json, contents)
    sys.exit(0 if all(row["ok"] for content in contents.values() for row in content["checks"]) else 1)


if __name__ == "__main__":
    main()
