"""`pronk bench`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import numpy as np

    from pronk.model.bundle import Bundle


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="MODEL...")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def bench(models: tuple[Path, ...], as_json: bool) -> None:
    """Time models side by side: one photo alone, and all cores.

    A run's exports are timed too. Times are in milliseconds, from pixels to probabilities, without reading and decoding
    a photo.

    \b
    Example:
        pronk bench runs/photos-1
    """
    from pronk.cli.console import open_console, print_json, show_progress
    from pronk.errors import MissingExtra
    from pronk.model.agreement import count_bytes, measure_speed
    from pronk.model.bundle import open_bundle, open_runtime

    records: list[dict[str, Any]] = []
    folders = [folder for model in models for folder in with_exports(model)]
    with open_console() as console, show_progress(console) as on_progress:
        for done, folder in enumerate(folders, start=1):
            bundle = open_bundle(folder)
            if bundle.format.engine is None and folder not in models:
                console.print(f"left out {folder}: pronk does not open it", markup=False)
                continue
            try:
                speed = measure_speed(open_runtime(bundle), golden_pixels(bundle))
            except MissingExtra as error:
                if folder in models:  # asked for by name
                    raise
                console.print(f"left out {folder}: {error}; {error.hint}", markup=False)
                continue
            record = {"model": str(folder), "format": bundle.runtime, "bytes": count_bytes(bundle.model_path)}
            records.append(record | dataclasses.asdict(speed))
            on_progress("bench", done, len(folders))
    if as_json:
        print_json(records)
    else:
        print_speeds(records)


def with_exports(model: Path) -> list[Path]:
    """List a model, and after a run folder's its exports."""
    from pronk.model.run import EXPORTS, MODEL

    folders = sorted((model / EXPORTS).glob("[!.]*/")) if (model / MODEL).is_dir() else []
    return [model, *(folder for folder in folders if folder.suffix != ".rejected")]


def golden_pixels(bundle: "Bundle") -> "list[np.ndarray]":
    """Return the golden photos as the network sees them, or noise where the model has none."""
    import numpy as np

    from pronk.photos.decoding import load_pixels

    photos = [
        load_pixels(bundle.folder / name, size=bundle.size, fit=bundle.fit, version=bundle.decoding)
        for name in bundle.golden()
    ]
    noise = np.random.default_rng(0).integers(0, 256, (bundle.size, bundle.size, 3), np.uint8)
    return photos or [noise]


def print_speeds(records: list[dict[str, Any]]) -> None:
    """Print a line per model, in columns."""
    rows = [("model", "format", "ms p50", "ms p95", "photos/s", "MB")]
    for record in records:
        times = (f"{record[name]:.1f}" for name in ("p50", "p95", "throughput"))
        rows.append((record["model"], record["format"], *times, f"{record['bytes'] / 1e6:.1f}"))
    model, form, *numbers = (max(map(len, column)) for column in zip(*rows, strict=True))
    for row in rows:
        cells = [row[0].ljust(model), row[1].ljust(form), *map(str.rjust, row[2:], numbers)]
        click.echo("  ".join(cells))
