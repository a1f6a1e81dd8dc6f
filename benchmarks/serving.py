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
import functools
import operator
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bodies import MIX, write_bodies, write_large
from programs import describe_machine, report, show_machine, write_results
from scenarios import (
    GOALS,
    measure_capacity,
    measure_load,
    measure_memory,
    measure_overload,
    measure_rate,
    measure_soak,
    serve,
)

USUAL = 100_000  # bytes of the photo that capacity is measured with
SECONDS = {"capacity": 10.0, "load": 600.0, "overload": 60.0, "memory": 0.0, "soak": 7200.0}


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
    contents = {"half.jpg": data[: len(data) // 2], "text.jpg": b"this is no photo\n" * 100}
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
    args = parser.parse_args()
    if not args.photos:
        sys.exit("error: no photos\nhint: name a folder, or set PRONK_PHOTOS")
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
