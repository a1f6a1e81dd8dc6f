"""Sets of photos and seeds -> how right `pronk train` is on each, beside two Keras programs: docs/accuracy.md.

    python benchmarks/sets.py [--sets NAME,...] [--seeds 1-3] [--flows pronk,tutorial,full] [--out FOLDER]

Each run is a whole process with an empty cache, on the split that belongs to its set and seed. It leaves a line of JSON
in FOLDER/results.jsonl at once: a stopped benchmark goes on, and its table is written again by the same command.
The sets are the folders in $PRONK_SETS, and $PRONK_PHOTOS; the weights are those in $PRONK_WEIGHTS, or `--weights`.
"""

import argparse
import csv
import dataclasses
import json
import math
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from unittest import mock

import numpy as np
from programs import (
    BENCHMARKS,
    WEIGHTS_NAME,
    Bench,
    describe_machine,
    fill_marked,
    make_bench,
    make_folder,
    report,
    run_measured,
    show_machine,
    train_pronk,
    train_tutorial,
)

from pronk.analysis.metrics import confidence_error, score, wilson_interval
from pronk.model.evaluation import read_rows
from pronk.storage.files import write_atomically

SHARES = ("--val", "0.15", "--test", "0.2")  # more test photos than by default: differences are seen sooner
FLOWS = {"tutorial": "tutorial flow", "full": "full fine-tuning", "former": "pronk before", "pronk": "pronk"}
SCORES = ("accuracy", "log_loss", "ece")
NAME = "accuracy"

INTRODUCTION = """\
# How right it is

`make accuracy` writes this page; no number is typed by hand. pronk has its default settings. The tutorial flow is what
the well-known MobileNetV2 notebooks do; the full fine-tuning is what a careful user of Keras would write
([benchmarks/full_fine_tuning.py](../benchmarks/full_fine_tuning.py)). All get the same photos, the same weights and,
for each seed, the same split: 15 % of the photos for validation, 20 % for the test. Seconds are those of whole
processes.

Machine: {machine}
"""


def find_sets(names: list[str] | None) -> dict[str, Path]:
    """Return the folders of photos by name, in order; all, or those that are named."""
    roots = [Path(os.environ["PRONK_PHOTOS"])] if os.environ.get("PRONK_PHOTOS") else []
    if os.environ.get("PRONK_SETS"):
        roots += sorted(path for path in Path(os.environ["PRONK_SETS"]).iterdir() if path.is_dir())
    sets = {root.resolve().name: root for root in roots}
    missing = sorted(set(names or ()) - set(sets))
    if missing or not sets:
        sys.exit(
            f"error: no set {', '.join(missing)}\nhint: set PRONK_SETS to a folder of sets, each with class folders"
        )
    return {name: root for name, root in sets.items() if not names or name in names}


def run_pronk(bench: Bench, split: Path, seed: int, *, name: str = "pronk") -> dict:
    """Train with the defaults and an empty cache."""
    folder, cache = split.parent / name, split.parent / "cache"
    for former in (folder, cache):
        shutil.rmtree(former, ignore_errors=True)
    given = ("--split", split) if split.exists() else ()
    record = train_pronk(bench, folder, cache=cache, seed=seed, options=(*SHARES, *given))
    if not given:
        shutil.copyfile(folder / "split.csv", split)
    metrics = record["metrics"]
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "test"]
    chances, labels = read_rows(rows, metrics["classes"])
    shutil.rmtree(cache)
    chosen = {"kept": metrics["comparison"]["kept"], **(metrics.get("chosen") or {})}
    return record | judge(chances, labels, metrics["classes"]) | {"chosen": chosen}


def run_former(bench: Bench, split: Path, seed: int) -> dict:
    """Train with the code of another checkout, $PRONK_FORMER."""
    with mock.patch.dict(os.environ, PYTHONPATH=os.environ["PRONK_FORMER"]):
        return run_pronk(bench, split, seed, name="former")


def run_tutorial(bench: Bench, split: Path, seed: int) -> dict:
    """Run tutorial.py, which keeps no probabilities."""
    record = train_tutorial(dataclasses.replace(bench, out=split.parent), split, seed=seed)
    return record | {"accuracy": record["test"], "log_loss": record["result"]["fine_tuned"]["test"]["loss"]}


def run_full(bench: Bench, split: Path, seed: int) -> dict:
    """Run full_fine_tuning.py."""
    result = split.parent / "full.json"
    command = [sys.executable, BENCHMARKS / "full_fine_tuning.py", bench.data, "--split", split, "--out", result]
    command += ["--weights", bench.weights, "--alpha", bench.alpha, "--image-size", bench.image_size, "--seed", seed]
    record = run_measured(command, log=result.with_suffix(".log"))
    content = json.loads(result.read_text(encoding="utf-8"))
    return record | judge(content["probabilities"], content["labels"], content["classes"])


RUNNERS: dict[str, Callable[[Bench, Path, int], dict]] = {
    "pronk": run_pronk,
    "former": run_former,
    "tutorial": run_tutorial,
    "full": run_full,
}
KEPT = ("accuracy", "log_loss", "ece", "surest", "chosen", "wall_seconds", "cpu_seconds", "peak_memory_mb", "load")


def judge(chances: Sequence, labels: Sequence, classes: list[str]) -> dict:
    """Return accuracy, log-loss and calibration error, and how sure and how right each answer was."""
    table = np.array(chances)
    scores = score(table, labels, classes)
    surest = zip(
        table.max(axis=1).round(4).tolist(), (table.argmax(axis=1) == labels).astype(int).tolist(), strict=True
    )
    return {name: scores[name] for name in SCORES} | {"surest": list(surest)}


def measure_sets(args: argparse.Namespace, out: Path) -> list[dict]:
    """Run what results.jsonl lacks; return all its records of the wanted sets and seeds."""
    results = out / "results.jsonl"
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    done = {(record["set"], record["seed"], record["flow"]): record for record in map(json.loads, lines)}
    wanted = []
    settings = {"weights": args.weights, "image_size": 224, "train_options": tuple(shlex.split(args.train_options))}
    for name, data in find_sets(args.sets).items():
        bench = None
        for seed in args.seeds:
            split = out / f"{name}-{seed}" / "split.csv"
            split.parent.mkdir(exist_ok=True)
            for flow in (flow for flow in RUNNERS if flow in args.flows):  # pronk first: its split is everybody's
                if (name, seed, flow) not in done:
                    bench = bench or make_bench(name, data, out=out, **settings)
                    record = RUNNERS[flow](bench, split, seed)
                    record = {"set": name, "seed": seed, "flow": flow} | {k: record[k] for k in KEPT if k in record}
                    with results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(record) + "\n")
                    done[name, seed, flow] = record
                    report(f"{name} {seed} {flow}: {show_record(record)}")
                wanted.append(done[name, seed, flow])
    return wanted


def show_record(record: dict) -> str:
    accuracy = record["accuracy"]
    return (
        f"{accuracy['value']:.3f} of {accuracy['n']}, log-loss {record['log_loss']:.3f}, {record['wall_seconds']:.0f} s"
    )


def mean_of(records: list[dict], name: str) -> float:
    """Return the mean over seeds.

    >>> mean_of([{"accuracy": {"value": 0.5}}, {"accuracy": {"value": 1.0}}], "accuracy")
    0.75
    """
    return fmean(record[name]["value"] if name == "accuracy" else record[name] for record in records)


def ratio(former: list[float], new: list[float]) -> float:
    """Return the geometric mean of the ratios new / former.

    >>> ratio([1.0, 4.0], [4.0, 1.0])
    1.0
    """
    return math.exp(fmean(math.log(b / a) for a, b in zip(former, new, strict=True)))


def group(records: list[dict]) -> dict[str, dict[str, list[dict]]]:
    """Return the records by set and flow, in the order of FLOWS."""
    table: dict[str, dict[str, list[dict]]] = {}
    for record in records:
        table.setdefault(record["set"], {}).setdefault(record["flow"], []).append(record)
    return {name: {flow: flows[flow] for flow in FLOWS if flow in flows} for name, flows in table.items()}


def keep_shared(records: list[dict], flows: Sequence[str]) -> list[dict]:
    """Return the records of some flows, of the splits that all of them have."""
    runs = {(record["set"], record["seed"], record["flow"]) for record in records}
    return [
        record
        for record in records
        if record["flow"] in flows and all((record["set"], record["seed"], flow) in runs for flow in flows)
    ]


def calibration_error(records: list[dict]) -> float:
    """Return the calibration error of all answers together."""
    surest, is_right = np.array([pair for record in records for pair in record["surest"]]).T
    return confidence_error(surest, is_right == 1)


def write_table(records: list[dict]) -> str:
    """Return the Markdown table: a row for each set and flow, means over seeds."""
    lines = [
        "| set | program | splits | test accuracy | log-loss | calibration error | seconds | MiB at most | chosen |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, flows in group(records).items():
        for flow, runs in flows.items():
            value, n = mean_of(runs, "accuracy"), runs[0]["accuracy"]["n"]
            low, high = wilson_interval(round(value * n), n)
            cells = [
                name,
                FLOWS[flow],
                str(len(runs)),
                f"{value:.3f} [{low:.2f}, {high:.2f}; n {n}]",
                f"{mean_of(runs, 'log_loss'):.3f}",
            ]
            cells += [f"{mean_of(runs, 'ece'):.3f}" if "ece" in runs[0] else "", f"{mean_of(runs, 'wall_seconds'):.0f}"]
            cells += [f"{max(run['peak_memory_mb'] for run in runs):.0f}", show_choices(runs)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def show_choices(runs: list[dict]) -> str:
    """Return what the runs chose, once where it is the same for all seeds."""
    texts = [
        ", ".join(str(value) for key, value in run.get("chosen", {}).items() if key != "why" and value is not None)
        for run in runs
    ]
    return "; ".join(dict.fromkeys(texts))


def compare_flows(records: list[dict]) -> str:
    """Return sentences: pronk against each of the others, over all splits that both have."""
    lines = []
    for flow in (flow for flow in FLOWS if flow != "pronk"):
        shared = keep_shared(records, (flow, "pronk"))
        if not shared:
            continue
        both = list(group(shared).values())
        means = {
            name: [[mean_of(flows[who], name) for flows in both] for who in (flow, "pronk")]
            for name in ("accuracy", "log_loss", "wall_seconds")
        }
        (other, own), error = means["accuracy"], [1 - fmean(values) for values in means["accuracy"]]
        losses, seconds = ratio(*means["log_loss"]), ratio(*means["wall_seconds"])
        lines.append(
            f"- Over {len(both)} sets, {len(shared) // 2} splits, pronk is right on {fmean(own):.3f} of the photos,"
            f" {FLOWS[flow]} on {fmean(other):.3f}: {error[1] / error[0]:.2f} of the errors,"
            f" {losses:.2f} of the log-loss, {seconds:.2f} of the seconds (geometric means of the sets' ratios)."
        )
    own = [record for record in records if record["flow"] == "pronk"]
    if own:
        lines.append(f"- The calibration error of pronk's answers, all sets together, is {calibration_error(own):.3f}.")
    return "\n".join(lines)


def write_summary(records: list[dict]) -> str:
    """Return the README's table: test accuracy of each program, a row for each set of photos."""
    flows = [flow for flow in FLOWS if any(record["flow"] == flow for record in records)]
    lines = [f"| photos | {' | '.join(FLOWS[flow] for flow in flows)} |", "|---" * (1 + len(flows)) + "|"]
    shared = keep_shared(records, flows)
    for name, runs in group(shared).items():
        cells = [
            f"{100 * mean_of(runs[flow], 'accuracy'):.1f} % in {mean_of(runs[flow], 'wall_seconds'):.0f} s"
            for flow in flows
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    seeds = len({record["seed"] for record in shared})
    return "\n".join(
        [*lines, "", f"Test photos right, mean of {seeds} split(s); `make accuracy`: [docs/{NAME}.md](docs/{NAME}.md)."]
    )


def publish(records: list[dict], docs: Path) -> None:
    """Write the page, then the README's table; how another checkout fares is nobody else's concern."""
    records = [record for record in records if record["flow"] != "former"]
    parts = [
        INTRODUCTION.format(machine=show_machine(describe_machine())),
        write_table(records),
        compare_flows(records),
    ]
    write_atomically(docs / f"{NAME}.md", ("\n\n".join(parts) + "\n").encode())
    fill_marked(docs.parent / "README.md", write_summary(records), NAME)


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of "0-9" or "0,3,7-9".

    >>> parse_seeds("0,3,7-9")
    [0, 3, 7, 8, 9]
    """
    seeds = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


def split_names(text: str) -> list[str]:
    return text.split(",")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = os.environ.get("PRONK_WEIGHTS")
    parser.add_argument("--sets", type=split_names, help="names, with commas; default: all")
    parser.add_argument("--seeds", type=parse_seeds, default="1-3", help='"1-3" or "1,3,7"')
    parser.add_argument(
        "--flows", type=lambda text: text.split(","), default="pronk,tutorial,full", help=", ".join(FLOWS)
    )
    parser.add_argument("--weights", type=Path, default=folder and Path(folder, WEIGHTS_NAME), help="Keras h5, no top")
    parser.add_argument("--train-options", default="", metavar="TEXT", help='options of pronk train: "--views 2"')
    parser.add_argument("--out", type=Path, help="a folder for everything; default: the next free one in runs/")
    parser.add_argument("--docs", type=Path, help="the folder of the page; default: none is written")
    args = parser.parse_args()
    if not args.weights:
        sys.exit("error: no weights\nhint: name them with --weights, or set PRONK_WEIGHTS")
    unknown = sorted(set(args.flows) - RUNNERS.keys())
    if unknown or "pronk" not in args.flows or ("former" in args.flows and not os.environ.get("PRONK_FORMER")):
        sys.exit(
            f"error: --flows {','.join(args.flows)}\nhint: pronk, whose split all get, and any of {', '.join(FLOWS)};"
            " former needs PRONK_FORMER, the src of another checkout"
        )
    records = measure_sets(args, make_folder(args.out, name="sets"))
    if args.docs:
        publish(records, args.docs)
    print(write_table(records), compare_flows(records), sep="\n\n")


if __name__ == "__main__":
    main()
