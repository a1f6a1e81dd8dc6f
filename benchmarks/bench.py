"""Nothing, or photos and weights -> docs/benchmarks.md, .json, .svg and the README's table, from one run.

    python benchmarks/bench.py [--repeats 3] [--drawn 1400] [--skip PART]

Runs compare.py and stages.py on the photos of `pronk demo`, and, where PRONK_PHOTOS (a folder of class folders) and
PRONK_WEIGHTS (a folder of h5 files) are set, on those; then throughput.py. The pages are replaced at the very end,
when everything has succeeded. Keep the machine otherwise idle.
"""

import argparse
import importlib.resources
import os
import sys
from pathlib import Path
from statistics import median

import compare
import stages
import throughput
from programs import (
    BENCHMARKS,
    WEIGHTS_NAME,
    Bench,
    describe_machine,
    draw,
    drawn_title,
    fill_marked,
    make_bench,
    make_folder,
    report,
    show_machine,
    write_results,
)

from pronk.storage.files import write_atomically

PARTS = ("demo", "photos", "compare", "stages", "throughput")
SEED = 42  # of the first repeat
OTHER_RATE = "0.004"  # of the second run, where the first has the default
NAME = "benchmarks"
MARK = "benchmark"  # of the README's table

INTRODUCTION = """\
# Benchmarks

`make bench` writes this page and [{name}.json]({name}.json) from one run of its own; no number is typed by hand.
How it is measured, and how to repeat parts of it: [benchmarks/README.md](../benchmarks/README.md).

Machine: {machine}
"""

COMPARISON = """\
## pronk and the tutorial flow

Whole processes run one after the other, from their start to their end, imports and saving included:

- The tutorial flow is what the well-known MobileNetV2 notebooks do: photos read from folders, augmentation inside the
  model, 5 epochs with the network frozen and 5 more with its layers from 120 on, no cache.
- pronk trains with an empty cache, as on the first day with new photos.
- pronk trains again with another learning rate, as somebody does who tries settings: the features are in the cache.

All three get the same photos, split, weights and image size. Each repeat has its own seed, and so its own split.
"""

STAGES = """\
## Where the time of pronk train goes

Separate runs with a stop-watch at the borders between the steps. The steps follow each other without a gap and add up
to the whole process; what runs beside them in another thread is listed last. The picture shows the run in the middle
of each kind: blue is the main thread, grey its waiting, orange what runs beside it.
"""

THROUGHPUT = """\
## How fast the network itself runs

Features a second of the frozen network as pronk runs it, in one process per core and one photo at a time, without
reading photos; at alpha 1.0 and 224 px. The yardstick is the machine's fastest product of large float32 matrices.
"""

READING = """\
## How to read the numbers

- "12.1 (11.9 to 13.0)" is the median of the repeats, and the least and greatest of them.
- Seconds are wall time. CPU seconds are those of all processes of a run together, so on several cores they can exceed
  the wall time. Peak memory is the largest sum over all processes at one moment, without file-backed pages.
- An accuracy is followed by the 95 % interval and the number of photos of the run in the middle. Where intervals
  overlap widely, the difference may be chance; with few photos they are wide.
- Ratios are between medians. Times differ from machine to machine, ratios less so.
"""


def find_weights() -> Path | None:
    """Return the file of alpha 1.0 in $PRONK_WEIGHTS, where that is set."""
    folder = os.environ.get("PRONK_WEIGHTS")
    if not folder:
        return None
    path = Path(folder) / WEIGHTS_NAME
    if not path.is_file():
        sys.exit(f"error: no weights at {path}\nhint: set PRONK_WEIGHTS to the folder of that file, or unset it")
    return path


def open_demo(out: Path, *, image_size: int | None, weights: Path) -> Bench:
    """Draw the photos of `pronk demo`."""
    from pronk.cli.demo import PHOTOS_PER_CLASS, SETTINGS
    from pronk.photos.drawing import draw_photos

    return make_bench(
        "drawn by pronk demo",
        draw_photos(out / "photos", photos_per_class=PHOTOS_PER_CLASS),
        weights=weights,
        image_size=image_size or SETTINGS.image_size,
        out=out,
        train_options=("--weights", "offline"),  # by this name it brings its own defaults
    )


def open_benches(args: argparse.Namespace, out: Path) -> list[Bench]:
    """Find or draw all sets of photos."""
    from pronk.backbone.weights import OFFLINE_FILE
    from pronk.config import Settings

    photos, imagenet = os.environ.get("PRONK_PHOTOS"), find_weights()
    offline = Path(str(importlib.resources.files("pronk.backbone") / "offline_weights" / OFFLINE_FILE))
    weights = imagenet or offline
    size = args.image_size or Settings().image_size
    benches = []
    if "demo" not in args.skip:
        benches.append(open_demo(out / "demo", image_size=args.image_size, weights=offline))
    if "photos" not in args.skip and photos and imagenet:
        rest = {"weights": weights, "image_size": size, "out": make_folder(out / "photos", name="")}
        benches.append(make_bench(Path(photos).resolve().name, Path(photos), **rest))
    elif "photos" not in args.skip:
        report("no photos but drawn ones: PRONK_PHOTOS and PRONK_WEIGHTS are not both set")
    if args.drawn:
        rest = {"weights": weights, "image_size": size, "out": make_folder(out / "drawn", name="")}
        benches.append(make_bench(drawn_title(), draw(args.drawn, out / "drawn" / "photos"), **rest))
    return benches


def measure_all(args: argparse.Namespace, out: Path) -> dict:
    """Run every part that is not skipped; return all records."""
    content: dict = {"machine": describe_machine(), "comparisons": {}, "stages": {}, "throughput": None}
    benches = open_benches(args, out)
    for bench in benches:
        rest = {"repeats": args.repeats, "seed": SEED, "learning_rate": OTHER_RATE}
        if "compare" not in args.skip:
            report(f"{bench.title}: pronk and the tutorial flow")
            content["comparisons"][bench.title] = compare.compare(bench, **rest)
        if "stages" not in args.skip:
            report(f"{bench.title}: where the time goes")
            content["stages"][bench.title] = stages.profile(bench, **rest)
    if "throughput" not in args.skip:  # last, since its processes leave a helper that measure() would wait for
        content["throughput"] = throughput.measure_throughput(
            weights=find_weights(), repeats=args.repeats, seconds=args.seconds
        )
    return content


def shorten(content: dict) -> dict:
    """Return what is worth publishing: of each run its own numbers, without the whole metrics.json."""
    left_out = ("metrics", "result")
    comparisons = {}
    for title, comparison in content["comparisons"].items():
        short = {name: value for name, value in comparison.items() if name != "machine"}
        for name in compare.ROWS:
            records = comparison[name]
            short[name] = [{key: record[key] for key in record if key not in left_out} for record in records]
        comparisons[title] = short
    return content | {"comparisons": comparisons}


def write_page(content: dict) -> str:
    """Return the Markdown page.

    >>> machine = {"processor": "Z80", "cores": 1, "python": "3.11", "versions": {}}
    >>> page = write_page({"machine": machine, "comparisons": {}, "stages": {}, "throughput": None})
    >>> page.splitlines()[0], "Z80" in page
    ('# Benchmarks', True)
    """
    page = [INTRODUCTION.format(name=NAME, machine=show_machine(content["machine"]))]
    if content["comparisons"]:
        page.append(COMPARISON)
    for title, comparison in content["comparisons"].items():
        page.append(f"### Photos: {title}\n\n{compare.write_table(comparison)}\n")
    if content["stages"]:
        page.append(STAGES)
        page.append(f"![Steps of each run as bars over time]({NAME}.svg)\n")
    for title, runs in content["stages"].items():
        page.append(f"### Photos: {title}; step by step\n\n{stages.write_table(runs)}\n")
    if content["throughput"]:
        page.append(f"{THROUGHPUT}\n{throughput.write_table(content['throughput'])}\n")
    return "\n".join([*page, READING])


def write_summary(comparisons: dict[str, dict]) -> str:
    """Return the README's table: medians of seconds and test accuracy, a row for each set of photos."""
    lines = [f"| photos | {' | '.join(compare.ROWS.values())} |", "|---|---|---|---|"]
    for title, comparison in comparisons.items():
        cells = [f"{comparison['photos']:,}, {title}"]
        for name in compare.ROWS:
            seconds = median(record["wall_seconds"] for record in comparison[name])
            accuracy = median(record["test"]["value"] for record in comparison[name])
            times = comparison["times_faster"].get(name)
            faster = "" if times is None else f" ({times:.1f} times faster)"
            cells.append(f"{seconds:.0f} s{faster}, {100 * accuracy:.1f} % right")
        lines.append(f"| {' | '.join(cells)} |")
    repeats = max(len(comparison["cold"]) for comparison in comparisons.values())
    return "\n".join(
        [
            *lines,
            "",
            f"Whole processes on the same photos, split and weights; medians of {repeats} repeat(s), test photos."
            f" `make bench` measures it: [docs/{NAME}.md](docs/{NAME}.md).",
        ]
    )


def publish(content: dict, docs: Path) -> None:
    """Replace the pages, those that people read last."""
    if content["stages"]:
        stages.draw_picture(content["stages"], docs / f"{NAME}.svg")
    write_results(docs / f"{NAME}.json", shorten(content))
    write_atomically(docs / f"{NAME}.md", write_page(content).encode())
    if content["comparisons"]:
        fill_marked(docs.parent / "README.md", write_summary(content["comparisons"]), MARK)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip", action="append", default=[], choices=PARTS, help="leave a part out; may be repeated")
    parser.add_argument("--drawn", type=int, metavar="N", help="measure on N drawn photos too")
    parser.add_argument("--image-size", type=int, help="for all photos; default: 160 for the demo's, else 224")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement of throughput.py")
    parser.add_argument("--out", type=Path, help="a folder for all runs; default: the next free one in runs/")
    parser.add_argument("--docs", type=Path, default=BENCHMARKS.parent / "docs", help="the folder of the pages")
    args = parser.parse_args()
    content = measure_all(args, make_folder(args.out, name="bench"))
    publish(content, args.docs)
    print(args.docs / f"{NAME}.md")


if __name__ == "__main__":
    main()
