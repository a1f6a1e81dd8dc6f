"""`pronk train`."""

from pathlib import Path
from typing import Any

import click

from pronk.batch.engines import ENGINES
from pronk.cli.settings import CACHE_HELP, OPTIONS, Place, make_settings, settings_options
from pronk.config import Settings
from pronk.storage.remote import to_path
from pronk.text import say_time

ENGINE_HELP = "Who computes features: this machine, or a Ray cluster; results are the same."
PROGRESS = ("auto", "json")
PROGRESS_HELP = "json writes lines of stage, done and total to stderr, for programs."
ADDRESS_HELP = "Ray's first machine.  [default: $RAY_ADDRESS, else this one]"


@click.command()
@click.argument("data", required=False, type=Place())
@click.option("--out", type=click.Path(path_type=Path), help="Run folder to make.  [default: runs/<name of DATA>-<N>]")
@click.option("--config", type=click.Path(path_type=Path), help="Settings, such as RUN/settings.toml, DATA among them.")
@settings_options(*OPTIONS)
@click.option("--resume", is_flag=True, help="Go on with the run at --out, or the last one; start it if there is none.")
@click.option("--cache", type=click.Path(path_type=Path), help=CACHE_HELP)
@click.option(
    "--cache-limit", default="10GB", show_default=True, help="Most to keep; what was unused for longest goes first."
)
@click.option("--engine", type=click.Choice(ENGINES), default="local", show_default=True, help=ENGINE_HELP)
@click.option("--address", metavar="HOST:PORT", help=ADDRESS_HELP)
@click.option("--progress", type=click.Choice(PROGRESS), default="auto", show_default=True, help=PROGRESS_HELP)
@click.option("--dry-run", is_flag=True, help="Only say what would be done, how long, and how large the cache grows.")
@click.option("--json", "as_json", is_flag=True, help="Print metrics.json instead of the run folder.")
def train(data: Path | None, config: Path | None, dry_run: bool, **options: Any) -> None:
    """Train a classifier on DATA in two phases, and judge it.

    Phase 1 teaches a new last layer (the head) on a ready-made network that stays as it is (frozen); phase 2 adjusts
    the network's upper blocks, too (fine-tuning).

    DATA is a folder with one sub-folder of photos per class; or with folders for training, validation and test, called
    train, val2017, Test_Set or so, that hold these; a zip or tar of such, or its address, as s3://bucket/photos; or a
    CSV with a column for the path (path, file, image, ...), one for the label (label, class, category) and perhaps one
    for the part (part, split, set). Nothing in DATA is changed. 8 of your photos, made small, go into the model folder
    for its self-test; --golden drawn keeps them out.

    \b
    Example:
        pronk train photos --out runs/first
    """
    settings = make_settings(config, {name: options.pop(name) for name in OPTIONS})
    if data is None and not settings.data:
        raise click.UsageError("Missing argument 'DATA'.")
    data = data or to_path(settings.data)
    if dry_run:
        say_forecast(data, settings, cache=options["cache"], as_json=options["as_json"])
    else:
        run_training(data, settings=settings, **options)


def say_forecast(data: Path, settings: Settings, *, cache: Path | None, as_json: bool) -> None:
    """Say what training would do, and how long it would take."""
    from pronk.cli.console import open_console, print_json, say, show_progress
    from pronk.training.forecast import forecast

    with open_console() as console, show_progress(console) as on_progress:
        told = forecast(data, settings=settings, cache=cache, on_progress=on_progress)
    if as_json:
        print_json(told)
        return
    counts, rows, seconds = told["counts"], told["rows"], told["seconds"]
    parts = ", ".join(f"{part} {number:,}" for part, number in counts.items())
    say(f"photos: {sum(counts.values()):,} in {len(told['classes'])} classes; {parts}")
    say(f"findings: {told['findings']:,}, see pronk check")
    say(f"features: {rows['missing']:,} of {rows['all']:,} to compute; {_say_size(told['bytes'])} in the cache")
    say(f"time: features {say_time(seconds['extract'])}, phase 2 {_say_range(seconds['fine_tune'])}")
    why = "; longer where the frozen network is often wrong" if len(set(seconds["total"])) > 1 else ""
    say(f"      {_say_range(seconds['total'])} in all{why}")


def _say_range(seconds: list[float]) -> str:
    low, high = map(say_time, seconds)
    return low if low == high else f"{low} to {high}"


def _say_size(numbers: list[int]) -> str:
    low, high = (f"{number / 1e6:,.0f}" for number in numbers)
    return f"{low if low == high else f'{low} to {high}'} MB"


def run_training(data: Path, *, as_json: bool, settings: Settings, progress: str = "auto", **options: Any) -> None:
    """Train with progress on stderr, then print the run folder or the metrics."""
    import pronk
    from pronk.cli.console import open_console, print_json, show_progress
    from pronk.cli.summary import print_findings, print_training
    from pronk.text import plural

    with open_console() as console:
        with show_progress(console, form=progress) as on_progress:
            result = pronk.train(data, settings=settings, on_progress=on_progress, on_note=console.print, **options)
        print_findings(console, result.findings)
        print_training(console, result.folder, result.metrics)
        if settings.golden == "photos":
            golden = result.folder / "model" / "golden"
            number = len(list(golden.glob("*.jpg")))
            console.print(f"{plural(number, 'photo')}, made small, went into {golden} (--golden drawn keeps them out).")
    print_json(result.metrics.to_json()) if as_json else click.echo(str(result.folder))
    if result.gate:
        raise result.gate
