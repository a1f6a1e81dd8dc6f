"""Photos and weights -> the tutorial flow and `pronk train` side by side, as records and a Markdown table.

Each repeat runs three whole processes, one after the other, on the same photos, split, weights and image
size: pronk with an empty cache, the tutorial flow on the split that pronk made, pronk with another learning
rate on the cache that is now warm. Each repeat has its own seed, so its own split.
"""

import shutil
from statistics import median

from floor import measure_floor
from floor import write_table as write_floor
from programs import Bench, describe_machine, report, spread, train_pronk, train_tutorial, write_results

ROWS = {"tutorial": "tutorial flow", "cold": "pronk, empty cache", "warm": "pronk again, other learning rate"}


def run_repeat(bench: Bench, *, seed: int, learning_rate: str) -> dict[str, dict]:
    """Run the three programs once; return their records."""
    cache = bench.out / f"cache-{seed}"
    shutil.rmtree(cache, ignore_errors=True)
    folder = bench.out / f"cold-{seed}"
    records = {}
    report(f"seed {seed}: pronk, empty cache")
    records["cold"] = train_pronk(bench, folder, cache=cache, seed=seed)
    report(f"  {records['cold']['wall_seconds']:.1f} s; tutorial flow on the same split")
    records["tutorial"] = train_tutorial(bench, folder / "split.csv", seed=seed)
    report(f"  {records['tutorial']['wall_seconds']:.1f} s; pronk again, learning rate {learning_rate}")
    records["warm"] = train_pronk(
        bench, bench.out / f"warm-{seed}", cache=cache, seed=seed, options=("--learning-rate", learning_rate)
    )
    report(f"  {records['warm']['wall_seconds']:.1f} s")
    shutil.rmtree(cache)
    return records


def show_accuracy(records: list[dict], part: str) -> str:
    """Return median and range, and the interval of the run in the middle with its n."""
    scores = sorted((record[part] for record in records), key=lambda score: score["value"])
    middle = scores[(len(scores) - 1) // 2]
    values = spread([score["value"] for score in scores], ".3f")
    return f"{values} [{middle['low']:.2f}, {middle['high']:.2f}; n {middle['n']}]"


def compare_speed(runs: dict[str, list[dict]], field: str) -> dict[str, float]:
    """Return how many times the tutorial's median is that of pronk, cold and warm."""
    middle = {name: median(record[field] for record in records) for name, records in runs.items()}
    return {name: round(middle["tutorial"] / middle[name], 2) for name in ("cold", "warm")}


def compare(bench: Bench, *, repeats: int, seed: int, learning_rate: str) -> dict:
    """Run the three programs `repeats` times; return all records and the ratios of their medians."""
    content = {
        "data": bench.title,
        "photos": 0,
        "image_size": bench.image_size,
        "weights": bench.weights.name,
        "alpha": bench.alpha,
        "train_options": bench.train_options,
        "machine": describe_machine(),
    }
    runs: dict[str, list[dict]] = {name: [] for name in ROWS}
    for number in range(seed, seed + repeats):
        for name, record in run_repeat(bench, seed=number, learning_rate=learning_rate).items():
            runs[name].append(record)
        content |= runs | {
            "photos": sum(runs["cold"][0]["metrics"]["counts"].values()),
            "times_faster": compare_speed(runs, "wall_seconds"),
            "times_less_cpu": compare_speed(runs, "cpu_seconds"),
        }
        write_results(bench.out / "results.json", content)  # after each repeat: a stopped benchmark is not lost
    return content | {"floor": measure_floor(bench, find_middle(runs["cold"])["metrics"])}


def find_middle(records: list[dict]) -> dict:
    """Return the record with the median of the seconds, or the one below it."""
    return sorted(records, key=lambda record: record["wall_seconds"])[(len(records) - 1) // 2]


def write_table(content: dict) -> str:
    """Return the Markdown: the table, the ratios, and what was measured."""
    lines = [
        "| | seconds | CPU seconds | peak memory, MiB | validation accuracy | test accuracy |",
        "|---|---|---|---|---|---|",
    ]
    for name, title in ROWS.items():
        records = content[name]
        numbers = [
            spread([record[field] for record in records], form)
            for field, form in (("wall_seconds", ".1f"), ("cpu_seconds", ".1f"), ("peak_memory_mb", ".0f"))
        ]
        cells = [title, *numbers, show_accuracy(records, "val"), show_accuracy(records, "test")]
        lines.append(f"| {' | '.join(cells)} |")
    wall, cpu, floor = content["times_faster"], content["times_less_cpu"], content.get("floor")
    options = f", pronk train {' '.join(content['train_options'])}" if content["train_options"] else ""
    return "\n".join(
        [
            *lines,
            "",
            f"The tutorial flow takes {wall['cold']:.1f} times as long as pronk with an empty cache"
            f" ({cpu['cold']:.1f} times the CPU seconds) and {wall['warm']:.1f} times as long as pronk's"
            f" second run ({cpu['warm']:.1f} times).",
            "",
            f"{content['photos']} photos ({content['data']}), {content['image_size']} px,"
            f" {content['weights']}{options}."
            f" {len(content['cold'])} repeat(s): median (range), and of the middle accuracy the 95 % interval.",
            *(["", write_floor(floor, find_middle(content["cold"])["wall_seconds"])] if floor else []),
        ]
    )
