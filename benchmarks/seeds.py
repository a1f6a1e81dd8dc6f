"""Photos, weights and seeds -> accuracy and losses of `pronk train` by seed, as a Markdown table and JSON.

    python benchmarks/seeds.py DATA --weights FILE.h5 --seeds 0-9 [--tutorial]

Each seed makes its own split. The runs share one cache: this is about accuracy, not about time.
"""

import argparse
import json
import shutil
from pathlib import Path
from statistics import mean

import numpy as np
from programs import (
    Bench,
    add_arguments,
    open_bench,
    report,
    train_pronk,
    train_tutorial,
    write_results,
)

from pronk.analysis.calibration import temper
from pronk.analysis.metrics import expected_calibration_error
from pronk.model.evaluation import read_rows
from pronk.storage.files import read_csv


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


def run_seed(bench: Bench, seed: int, *, cache: Path, tutorial: bool) -> tuple[dict, dict | None]:
    """Train once (and the tutorial on the same split); return the row, and the tutorial's whole record."""
    report(f"seed {seed}")
    folder = bench.out / f"seed-{seed}"
    record = train_pronk(bench, folder, cache=cache, seed=seed)
    metrics = record["metrics"]
    frozen, fine_tuned = metrics["frozen"]["val"], (metrics["fine_tuned"] or {}).get("val")
    kept = metrics["comparison"]["kept"]
    row = {
        "seed": seed,
        "n": record["test"]["n"],
        "test": record["test"]["value"],
        "frozen_val": frozen["accuracy"]["value"],
        "frozen_loss": frozen["loss"],
        "fine_tuned_val": fine_tuned and fine_tuned["accuracy"]["value"],
        "fine_tuned_loss": fine_tuned and fine_tuned["loss"],
        "kept": kept,
        "kept_loss": metrics[kept]["val"]["loss"],
        "temperature": metrics["calibration"]["temperature"],
        "known": (metrics["test"]["coverage"] or {}).get("value"),
        "seconds": record["wall_seconds"],
    }
    if not tutorial:
        return row, None
    other = train_tutorial(bench, folder / "split.csv", seed=seed)
    row["tutorial_test"] = other["test"]["value"]
    row["tutorial_seconds"] = other["wall_seconds"]
    return row, other


def pool_errors(folders: list[Path]) -> dict:
    """Return the calibration error over the test photos of all runs together, before and after the temperature."""
    found: dict[str, list[np.ndarray]] = {"before": [], "after": [], "targets": []}
    for folder in folders:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        rows = [row for row in read_csv(folder / "predictions.csv") if row["part"] == "test"]
        numbers = [row | {f"p_{name}": float(row[f"p_{name}"]) for name in metrics["classes"]} for row in rows]
        probabilities, targets = read_rows(numbers, metrics["classes"])
        found["before"].append(temper(probabilities, 1 / metrics["calibration"]["temperature"]))
        found["after"].append(probabilities)
        found["targets"].append(targets)
    pooled = {name: np.concatenate(parts) for name, parts in found.items()}
    errors = {name: expected_calibration_error(pooled[name], pooled["targets"]) for name in ("before", "after")}
    return {f"pooled_calibration_error_{name}": round(error, 4) for name, error in errors.items()}


def summarise(rows: list[dict]) -> dict:
    """Return the means, how often fine-tuning was kept, and how often at a loss above the frozen one."""
    tests = [row["test"] for row in rows]
    summary = {
        "mean_test": mean(tests),
        "least_test": min(tests),
        "greatest_test": max(tests),
        "kept_fine_tuned": sum(row["kept"] == "fine_tuned" for row in rows),
        "kept_worse_than_frozen": sum(row["kept_loss"] > row["frozen_loss"] for row in rows),
    }
    known = [row["known"] for row in rows if row["known"] is not None]
    if known:
        summary["mean_known"] = mean(known)  # share of genuine test photos that are not called unknown
    if "tutorial_test" in rows[0]:
        summary["mean_tutorial_test"] = mean(row["tutorial_test"] for row in rows)
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in summary.items()}


def write_table(rows: list[dict], summary: dict) -> str:
    """Return the Markdown table, one line per seed, and the means below it."""
    names = list(rows[0])

    def show(name: str, value: float | str | None) -> str:
        if value is None:
            return "-"
        if isinstance(value, float):
            return f"{value:.1f}" if name.endswith("seconds") else f"{value:.4f}"
        return str(value)

    lines = [f"| {' | '.join(name.replace('_', ' ') for name in names)} |", "|---" * len(names) + "|"]
    lines += [f"| {' | '.join(show(name, row[name]) for name in names)} |" for row in rows]
    lines += ["", *(f"- {name.replace('_', ' ')}: {value}" for name, value in summary.items())]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--seeds", type=parse_seeds, default="0-9", help='"0-9" or "0,3,7"')
    parser.add_argument("--tutorial", action="store_true", help="run the tutorial flow on each split too")
    parser.add_argument("--cache", type=Path, help="default: a folder inside --out, removed at the end")
    args = parser.parse_args()
    bench = open_bench(args, name="seeds")
    cache = args.cache or bench.out / "cache"

    rows, others = [], []
    for seed in args.seeds:
        row, other = run_seed(bench, seed, cache=cache, tutorial=args.tutorial)
        rows.append(row)
        others += [other] if other else []
        report(f"  test {row['test']:.4f}, kept {row['kept']}")
        summary = summarise(rows) | pool_errors([bench.out / f"seed-{done['seed']}" for done in rows])
        write_results(bench.out / "results.json", {"summary": summary, "rows": rows, "tutorial": others})
    if not args.cache:
        shutil.rmtree(cache, ignore_errors=True)
    table = write_table(rows, summary)
    (bench.out / "results.md").write_text(table + "\n", encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
