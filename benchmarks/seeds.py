"""Photos, weights and seeds -> accuracy and losses of `pronk train` by seed, as a Markdown table and JSON.

    python benchmarks/seeds.py DATA --weights FILE.h5 --seeds 0-9 [--tutorial]

Each seed makes its own split. The runs share one cache: this is about accuracy, not about time.
"""

import argparse
import os
import shlex
import sys
from pathlib import Path
from statistics import mean

from programs import WEIGHTS_NAME, Bench, make_bench, make_folder, report, train_pronk, train_tutorial, write_results


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


def run_seed(bench: Bench, seed: int, *, cache: Path, tutorial: bool) -> dict:
    """Train once, and the tutorial on the same split if wanted; return the row of the table."""
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
        "calibration_error": metrics["test"]["ece"],
        "known": (metrics["test"]["coverage"] or {}).get("value"),
        "seconds": record["wall_seconds"],
    }
    if tutorial:
        other = train_tutorial(bench, folder / "split.csv", seed=seed)
        row |= {"tutorial_test": other["test"]["value"], "tutorial_seconds": other["wall_seconds"]}
    return row


def summarise(rows: list[dict]) -> dict:
    """Return the means of all columns, and how often fine-tuning was kept.

    >>> summarise([{"test": 0.5, "known": None, "kept": "frozen"}, {"test": 1.0, "known": 0.9, "kept": "fine_tuned"}])
    {'kept_fine_tuned': 1, 'test': 0.75, 'known': 0.9}
    """
    columns = {name: [row[name] for row in rows if isinstance(row[name], float)] for name in rows[0]}
    means = {name: round(mean(values), 4) for name, values in columns.items() if values}
    return {"kept_fine_tuned": sum(row["kept"] == "fine_tuned" for row in rows), **means}


def write_table(rows: list[dict], summary: dict) -> str:
    """Return the Markdown table, one line per seed, and the means below it."""
    lines = [f"| {' | '.join(name.replace('_', ' ') for name in rows[0])} |", "|---" * len(rows[0]) + "|"]
    for row in rows:
        cells = (f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values())
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"- {name.replace('_', ' ')}: {value}" for name, value in summary.items())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = os.environ.get("PRONK_WEIGHTS")
    parser.add_argument("data", nargs="?", type=Path, default=os.environ.get("PRONK_PHOTOS"))
    parser.add_argument("--weights", type=Path, default=folder and Path(folder, WEIGHTS_NAME), help="Keras h5, no top")
    parser.add_argument("--seeds", type=parse_seeds, default="0-9", help='"0-9" or "0,3,7"')
    parser.add_argument("--tutorial", action="store_true", help="run the tutorial flow on each split too")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--train-options", default="", metavar="TEXT", help='more options of pronk train: "--views 2"')
    parser.add_argument("--cache", type=Path, help="default: a folder inside --out")
    parser.add_argument("--out", type=Path, help="a folder for everything; default: the next free one in runs/")
    args = parser.parse_args()
    if not args.data or not args.weights:
        sys.exit("error: no photos or no weights\nhint: name them, or set PRONK_PHOTOS and PRONK_WEIGHTS")
    rest = {"weights": args.weights, "image_size": args.image_size, "out": make_folder(args.out, name="seeds")}
    bench = make_bench(
        args.data.resolve().name, args.data, **rest, train_options=tuple(shlex.split(args.train_options))
    )
    rows = []
    for seed in args.seeds:
        rows.append(run_seed(bench, seed, cache=args.cache or bench.out / "cache", tutorial=args.tutorial))
        write_results(bench.out / "results.json", {"summary": summarise(rows), "rows": rows})
    print(write_table(rows, summarise(rows)))


if __name__ == "__main__":
    main()
