"""Photos, weights, seed -> one measured run of `pronk train` or of the tutorial flow, as plain records.

A record holds what processes.py measured plus the accuracies, each as {value, low, high, n} with a 95 % interval, and
no path of this machine, so that it can be published.
"""

import dataclasses
import json
import math
import os
import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path
from statistics import median

from processes import measure

from pronk.storage.files import write_atomically

BENCHMARKS = Path(__file__).resolve().parent
WEIGHTS_NAME = "mobilenet_v2_1.0_224_no_top.h5"
PACKAGES = ("pronk", "keras", "tensorflow", "tensorflow-cpu", "onnxruntime", "numpy", "pillow")
PHOTO_SIZE = (1024, 768)
PRONK = ("-m", "pronk")


@dataclasses.dataclass(frozen=True)
class Bench:
    """What all runs of one benchmark share; `title` says in public what the photos are."""

    title: str
    data: Path
    weights: Path
    alpha: float
    image_size: int
    out: Path
    train_options: tuple[str, ...] = ()


def make_bench(title: str, data: Path, *, weights: Path, **rest) -> Bench:
    """Read the width off the weights, and each photo once, so that no run finds them colder."""
    from pronk.backbone.weights import load_backbone

    for path in data.rglob("*"):
        if path.is_file():
            path.read_bytes()
    return Bench(title, data, weights, load_backbone(str(weights)).alpha, **rest)


def make_folder(out: Path | None, *, name: str) -> Path:
    """Make a folder for everything; without a name the next free one in runs/."""
    out = out or next(folder for n in range(1, 10_000) if not (folder := Path(f"runs/{name}-{n}")).exists())
    out.mkdir(parents=True, exist_ok=True)
    return out


def draw(photos: int, folder: Path) -> Path:
    """Draw at least `photos` photos, the same number in each of three classes."""
    from pronk.photos.drawing import draw_photos

    return draw_photos(folder, photos_per_class=math.ceil(photos / 3), seed=42, size=PHOTO_SIZE)


def drawn_title() -> str:
    return f"drawn, {'x'.join(map(str, PHOTO_SIZE))}"


def train_pronk(
    bench: Bench, run: Path, *, cache: Path, seed: int, options: tuple = (), program: tuple = PRONK
) -> dict:
    """Run `pronk train` as a whole process; return its record, with metrics.json as `metrics`."""
    command = [sys.executable, *program, "train", bench.data, "--weights", bench.weights]
    command += ["--image-size", bench.image_size, "--seed", seed, "--cache", cache, "--out", run]
    record = run_measured([*command, *bench.train_options, *options], log=run.with_suffix(".log"))
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    kept = "frozen" if metrics["comparison"]["kept"] == "frozen" else "fine_tuned"  # or the mean of both: "mixed"
    return {
        "seed": seed,
        **record,
        "val": metrics[kept]["val"]["accuracy"],
        "test": metrics["test"]["accuracy"],
        "metrics": metrics,
    }


def train_tutorial(bench: Bench, split: Path, *, seed: int) -> dict:
    """Run tutorial.py on the same split as a whole process; return its record."""
    from pronk.analysis.metrics import wilson_interval

    result = bench.out / f"tutorial-{seed}.json"
    command = [sys.executable, BENCHMARKS / "tutorial.py", bench.data, "--split", split, "--out", result]
    command += ["--weights", bench.weights, "--alpha", bench.alpha]
    command += ["--image-size", bench.image_size, "--seed", seed]
    record = run_measured(command, log=result.with_suffix(".log"))
    content = json.loads(result.read_text(encoding="utf-8"))
    accuracies = {}
    for part, scores in content["fine_tuned"].items():
        n = content["counts"][part]
        low, high = wilson_interval(round(scores["accuracy"] * n), n)
        accuracies[part] = {"value": scores["accuracy"], "low": low, "high": high, "n": n}
    return {"seed": seed, **record, **accuracies, "result": content}


def run_measured(command: list, *, log: Path) -> dict:
    """Measure the command; end the benchmark with the last lines of its output where it fails."""
    measurement = measure(command, log=log)
    if measurement.returncode:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        sys.exit(f"{tail}\nerror: {shlex.join(map(str, command))} ended with {measurement.returncode}")
    return dataclasses.asdict(measurement)


def spread(values: list[float], form: str) -> str:
    """Return "median (least to greatest)".

    >>> spread([3.0, 1.0, 2.0], ".0f")
    '2 (1 to 3)'
    >>> spread([2.04, 1.96], ".1f")
    '2.0'
    """
    least, middle, greatest = (format(value, form) for value in (min(values), median(values), max(values)))
    return middle if least == greatest else f"{middle} ({least} to {greatest})"


def describe_machine() -> dict:
    """Return processor, cores and versions: what a reader needs to judge the seconds."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    installed = {dist.name.lower().replace("_", "-"): dist.version for dist in metadata.distributions() if dist.name}
    return {
        "processor": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: installed[name] for name in PACKAGES if name in installed},
    }


def show_machine(machine: dict) -> str:
    """Return one sentence.

    >>> show_machine({"processor": "Z80", "cores": 1, "python": "3.11", "versions": {"numpy": "2.0"}})
    '1 core(s) of Z80; Python 3.11, numpy 2.0.'
    """
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{machine['cores']} core(s) of {machine['processor']}; Python {machine['python']}, {versions}."


def fill_marked(page: Path, table: str, name: str) -> None:
    """Put a table between the marks of that name; a page without them, or none at all, stays as it is."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    if begin in text and end in text:
        before, _, rest = text.partition(begin)
        write_atomically(page, f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}".encode())


def write_results(path: Path, content: dict) -> None:
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
