"""Photos and weights -> where the wall time of `pronk train` goes, step by step, as a Markdown table and a picture.

Each repeat runs two whole processes, with an empty cache and then with another learning rate, under the stop-watch
of marked.py. The steps follow each other without a gap, so they add up to the whole; what runs beside them in
another thread is told apart.
"""

import json
import shutil
from pathlib import Path

from programs import BENCHMARKS, Bench, report, spread, train_pronk, write_results

from pronk.storage.segments import count_records

RUNS = {"cold": "empty cache", "warm": "again, other learning rate"}
BEGINS, ENDS = 0, 1
# A step lasts from the end of the one before it to the moment named here.
STEPS = (
    ("start Python, import pronk", "list_photos", BEGINS),
    ("list photos, read weights, start workers", "load_dataset", BEGINS),
    ("check and split the photos", "load_dataset", ENDS),
    ("compute the missing features", "extract_features", ENDS),
    ("phase 1: solve for the head", "solve_head", ENDS),
    ("wait for Keras", "fine_tune", BEGINS),
    ("phase 2: first step, with its tracing", "first_step", ENDS),
    ("phase 2: all other steps", "fine_tune", ENDS),
    ("write the model", "write_kept", ENDS),
    ("judge the model", "judge", ENDS),
    ("wait for the comparison with Keras", "write_results", BEGINS),
    ("write report and results", "write_results", ENDS),
)
LAST_STEP = "trim the cache, end"
BESIDE = {
    "beside: import Keras, build the network": "import_network",
    "beside: compare the model with Keras": "compare_frameworks",
}
INK, WAIT, BAR, SIDE = "#787878", "#b9b9b9", "#3f86c6", "#d0893b"  # seen on white and on black alike


def profile(bench: Bench, *, repeats: int, seed: int, learning_rate: str) -> dict[str, list[dict]]:
    """Run pronk `repeats` times with an empty cache and with a full one; return what each step took."""
    runs: dict[str, list[dict]] = {name: [] for name in RUNS}
    for number in range(seed, seed + repeats):
        cache = bench.out / f"stages-cache-{number}"
        shutil.rmtree(cache, ignore_errors=True)
        for name, options in (("cold", ()), ("warm", ("--learning-rate", learning_rate))):
            report(f"seed {number}: steps of pronk, {RUNS[name]}")
            runs[name].append(run_marked(bench, name, cache=cache, seed=number, options=options))
            report(f"  {runs[name][-1]['wall_seconds']:.1f} s")
        shutil.rmtree(cache)
        write_results(bench.out / "stages.json", runs)
    return runs


def run_marked(bench: Bench, name: str, *, cache: Path, seed: int, options: tuple) -> dict:
    """Run pronk under the stop-watch; return its steps and what ran beside them."""
    moments = bench.out / f"stages-{name}-{seed}.json"
    before = count_rows(cache)
    record = train_pronk(
        bench,
        bench.out / f"stages-{name}-{seed}",
        cache=cache,
        seed=seed,
        options=options,
        program=(BENCHMARKS / "marked.py", moments),
    )
    known = json.loads(moments.read_text(encoding="utf-8"))
    wall = record["wall_seconds"]
    return {
        "seed": seed,
        "wall_seconds": wall,
        "steps": split_time(known, wall),
        "beside": {title: known[mark] for title, mark in BESIDE.items() if mark in known},
        "decode_seconds": record["metrics"]["seconds"]["decode"],
        "features": count_rows(cache) - before,
    }


def split_time(moments: dict[str, list[float]], wall: float) -> dict[str, float]:
    """Return seconds by step, in order; steps that a run leaves out are left out.

    >>> split_time({"list_photos": [0.5, 0.6], "load_dataset": [0.7, 1.0]}, 1.25)
    {'start Python, import pronk': 0.5, 'list photos, read weights, start workers': 0.2, \
'check and split the photos': 0.3, 'trim the cache, end': 0.25}
    """
    seconds, before = {}, 0.0
    for title, mark, edge in STEPS:
        if mark in moments:
            seconds[title] = round(moments[mark][edge] - before, 3)
            before = moments[mark][edge]
    return {**seconds, LAST_STEP: round(wall - before, 3)}


def count_rows(cache: Path) -> int:
    """Count the features in a cache."""
    return count_records(cache / "rows")


def write_table(runs: dict[str, list[dict]]) -> str:
    """Return the Markdown: seconds by step, then what ran beside them, and the speed of extraction."""
    lines = [f"| step | {' | '.join(f'{title}, seconds' for title in RUNS.values())} |", "|---|---|---|"]
    titles = [title for title, _, _ in STEPS] + [LAST_STEP]
    rows = {title: [[run["steps"].get(title) for run in runs[name]] for name in RUNS] for title in titles}
    rows["**whole process**"] = [[run["wall_seconds"] for run in runs[name]] for name in RUNS]
    rows |= {title: [[_length(run["beside"].get(title)) for run in runs[name]] for name in RUNS] for title in BESIDE}
    for title, columns in rows.items():
        cells = [spread(column, ".2f") if None not in column else "-" for column in columns]
        lines.append(f"| {' | '.join([title, *cells])} |")
    speeds = [run["features"] / run["steps"]["compute the missing features"] for run in runs["cold"]]
    decode = [run["decode_seconds"] for run in runs["cold"]]
    return "\n".join(
        [
            *lines,
            "",
            f"With an empty cache pronk computes {runs['cold'][0]['features']} features, {spread(speeds, '.0f')} a"
            f" second with decoding and drawing of the views ({spread(decode, '.1f')} s of that step, measured by"
            " pronk itself) and while one core imports Keras.",
        ]
    )


def _length(span: list[float] | None) -> float | None:
    return None if span is None else span[1] - span[0]


def draw_picture(profiles: dict[str, dict[str, list[dict]]], path: Path) -> None:
    """Draw the run in the middle of each kind as bars over time: one row of plots per set of photos."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "pronk", "font.size": 9}):
        figure = Figure(figsize=(10, 0.6 + 3.4 * len(profiles)), layout="constrained")
        FigureCanvasSVG(figure)
        grid = figure.subplots(len(profiles), len(RUNS), sharey=True, sharex="row", squeeze=False)
        for row, (data, runs) in zip(grid, profiles.items(), strict=True):
            for axes, (name, title) in zip(row, RUNS.items(), strict=True):
                _draw_run(axes, find_middle(runs[name]), f"{data}: {title}")
        temporary = path.with_suffix(".tmp")
        figure.savefig(temporary, format="svg", transparent=True, metadata={"Date": None})
    temporary.replace(path)


def find_middle(runs: list[dict]) -> dict:
    """Return the run whose wall time is the median, or next below it."""
    return sorted(runs, key=lambda run: run["wall_seconds"])[(len(runs) - 1) // 2]


def _draw_run(axes, run: dict, title: str) -> None:
    titles, began = [], 0.0
    for step, seconds in run["steps"].items():
        axes.barh(len(titles), seconds, left=began, height=0.7, color=WAIT if step.startswith("wait") else BAR)
        axes.text(began + seconds, len(titles), f" {seconds:.1f}", va="center", color=INK, fontsize=8)
        titles.append(step)
        began += seconds
    for step, (begins, ends) in run["beside"].items():
        axes.barh(len(titles), ends - begins, left=begins, height=0.7, color=SIDE)
        axes.text(ends, len(titles), f" {ends - begins:.1f}", va="center", color=INK, fontsize=8)
        titles.append(step)
    axes.set_yticks(range(len(titles)), titles)
    if not axes.yaxis_inverted():
        axes.invert_yaxis()
    axes.margins(x=0.08)
    axes.set_xlim(left=0)
    axes.set_title(title, color=INK, fontsize=10)
    axes.set_xlabel("seconds", color=INK)
    axes.tick_params(colors=INK, length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.grid(axis="x", color=INK, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
