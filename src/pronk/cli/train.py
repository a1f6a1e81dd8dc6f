"""`pronk train`."""

from pathlib import Path
from typing import Any

import click

from pronk.batch.engines import ENGINES
from pronk.cli.settings import OPTIONS, make_settings, settings_options
from pronk.config import Settings

ENGINE_HELP = "Where features are extracted: here, or on the machines of a Ray cluster; results are the same."
PROGRESS = ("auto", "json")
PROGRESS_HELP = "json writes a line of stage, done and total per step, for programs."
ADDRESS_HELP = "First machine of the cluster.  [default: $RAY_ADDRESS, else one of this machine's cores]"


@click.command()
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Run folder to make.  [default: runs/<name of DATA>-<N>]")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file of settings, such as RUN/settings.toml.")
@settings_options(*OPTIONS)
@click.option("--resume", is_flag=True, help="Go on with a run that was stopped; start it if it is not there.")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder for features.  [default: $PRONK_CACHE]")
@click.option("--cache-limit", default="10GB", show_default=True, help="Least recently used features go above it.")
@click.option("--engine", type=click.Choice(ENGINES), default="local", show_default=True, help=ENGINE_HELP)
@click.option("--address", metavar="HOST:PORT", help=ADDRESS_HELP)
@click.option("--progress", type=click.Choice(PROGRESS), default="auto", show_default=True, help=PROGRESS_HELP)
@click.option("--dry-run", is_flag=True, help="Say what would be done, how long it takes and how much is kept; stop.")
@click.option("--json", "as_json", is_flag=True, help="Print metrics.json instead of the run folder.")
def train(data: Path | None, config: Path | None, dry_run: bool, **options: Any) -> None:
    """Train a classifier on DATA in two phases, and judge it.

    DATA is a folder with one sub-folder of photos per class; or of folders for training, validation and test, by names
    such as train, val2017 or Test_Set, that hold those of the classes; or a CSV with a column for the path (path,
    file, image, ...), one for the label (label, class, category) and perhaps one for the part (part, split, set). A zip
    or tar of such folders is read in place. Nothing in DATA is changed. Some of your photos (8, made small) go into the
    model folder for its self-test; --golden drawn keeps them out.

    \b
    Example:
        pronk train photos --out runs/first
    """
    settings = make_settings(config, {name: options.pop(name) for name in OPTIONS})
    if data is None and not settings.data:
        raise click.UsageError("Missing argument 'DATA'.")
    data = data or Path(settings.data)
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
    say(f"features: {rows['missing']:,} of {rows['all']:,} to compute; {told['bytes'] / 1e6:,.0f} MB in the cache")
    say(f"time: features {_say_time(seconds['extract'])}, phase 2 {_say_range(seconds['fine_tune'])}")
    say(f"      {_say_range(seconds['total'])} in all; longer where the frozen network is often wrong")


def _say_range(seconds: list[float]) -> str:
    low, high = map(_say_time, seconds)
    return low if low == high else f"{low} to {high}"


def _say_time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


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
