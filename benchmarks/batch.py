"""Model + photos -> photos a second of `pronk predict --out`, against the bare runtime with the same decoding.

    python benchmarks/batch.py MODEL [PHOTOS] [--rows 2000] [--repeats 3]

Bare is a loop of `load_pixels` and `session.run`, one photo at a time, in a thread per core and in a process per core;
the faster of the two counts. It writes nothing, checks nothing and survives nothing. All three read the same files
(links to the photos, repeated until there are enough), as whole processes from start to end, by turns.
"""

import argparse
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

GOAL = 0.85
WAYS = ("threads", "processes")


def run_bare(model: Path, folder: Path, way: str) -> None:
    """Predict all photos of a folder and forget what they are."""
    paths = sorted(folder.iterdir())
    cores = len(os.sched_getaffinity(0))
    shares = [paths[core::cores] for core in range(cores)]
    if way == "processes":
        context = get_context("fork")  # before a runtime is imported, so nothing is started twice
        processes = [context.Process(target=predict_share, args=(open_model(model), share)) for share in shares]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            sys.exit("error: a process of the benchmark failed")
        return
    opened = open_model(model)()
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(lambda share: predict_share(lambda: opened, share), shares))


class open_model:  # noqa: N801 - a function that can travel to another process
    """Open the model when called."""

    def __init__(self, model: Path) -> None:
        self.model = model

    def __call__(self):
        import json

        from pronk.model.formats.onnx import open_session

        record = json.loads((self.model / "model.json").read_text(encoding="utf-8"))
        return open_session((self.model / "model.onnx").read_bytes(), threads=1), record["image"]


def predict_share(open_it, paths: list[Path]) -> None:
    from pronk.photos.decoding import load_pixels

    session, image = open_it()
    for path in paths:
        pixels = load_pixels(path, size=image["size"], fit=image["fit"])
        session.run(["probabilities"], {"image": pixels[None]})


def link_photos(photos: Path, folder: Path, rows: int) -> None:
    """Give each photo several names, so that there are enough."""
    found = sorted(path for path in photos.rglob("*") if path.is_file() and not path.name.startswith("."))
    if not found:
        sys.exit(f"error: no photos at {photos}\nhint: name a folder, or set PRONK_PHOTOS")
    folder.mkdir()
    for number in range(rows):
        path = found[number % len(found)]
        path.read_bytes()
        (folder / f"{number:07}{path.suffix}").symlink_to(path.resolve())


def measure_ways(model: Path, photos: Path, *, rows: int, repeats: int) -> dict:
    from programs import describe_machine, report, run_measured

    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        link_photos(photos, base / "photos", rows)
        bare = [sys.executable, Path(__file__), model, base / "photos", "--bare"]
        pronk = [sys.executable, "-m", "pronk", "predict", model, base / "photos", "--quiet", "--out"]
        commands = {way: [*bare, way] for way in WAYS}
        runs: dict[str, list[dict]] = {"pronk": []} | {way: [] for way in WAYS}
        for repeat in range(repeats):
            for way in ("pronk", *WAYS):
                command = commands.get(way) or [*pronk, base / f"{repeat}.csv"]
                runs[way].append(run_measured(command, log=base / "log"))
                report(f"repeat {repeat + 1}, {way}: {rows / runs[way][-1]['wall_seconds']:.1f} photos a second")
    speeds = {way: [rows / run["wall_seconds"] for run in of_way] for way, of_way in runs.items()}
    work = {way: [run["cpu_seconds"] / rows * 1000 for run in of_way] for way, of_way in runs.items()}
    ratios = [speed / max(speeds[way][i] for way in WAYS) for i, speed in enumerate(speeds["pronk"])]
    peaks = {way: max(run["peak_memory_mb"] for run in of_way) for way, of_way in runs.items()}
    return {
        "rows": rows,
        "machine": describe_machine(),
        "speeds": speeds,
        "cpu_ms": work,
        "ratios": ratios,
        "peaks": peaks,
    }


def write_page(content: dict) -> str:
    from programs import show_machine, spread

    lines = ["| | photos a second | CPU ms per photo | peak MiB |", "|---|---|---|---|"]
    for way, title in (
        ("pronk", "pronk predict --out"),
        ("threads", "bare, threads"),
        ("processes", "bare, processes"),
    ):
        speed, cpu = spread(content["speeds"][way], ".1f"), spread(content["cpu_ms"][way], ".1f")
        lines.append(f"| {title} | {speed} | {cpu} | {content['peaks'][way]:.0f} |")
    share = f"{spread(content['ratios'], '.0%')} of the faster bare loop (goal: {GOAL:.0%})"
    return "\n".join([*lines, "", f"{content['rows']} photos; {share}. {show_machine(content['machine'])}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a model folder with model.onnx")
    parser.add_argument("photos", nargs="?", type=Path, default=os.environ.get("PRONK_PHOTOS"))
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bare", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.photos:
        sys.exit("error: no photos\nhint: name a folder, or set PRONK_PHOTOS")
    model = args.model / "model" if (args.model / "model").is_dir() else args.model
    if args.bare:
        run_bare(model, args.photos, args.bare)
        return
    content = measure_ways(model, args.photos, rows=args.rows, repeats=args.repeats)
    print(write_page(content))
    sys.exit(0 if median(content["ratios"]) >= GOAL else 1)


if __name__ == "__main__":
    main()
