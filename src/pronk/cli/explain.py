"""`pronk explain`."""

import os
import sys
from pathlib import Path

import click

from pronk.storage.places import lies_in
from pronk.text import visible


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder for the pictures, not that of the photos."
)
@click.option("--label", metavar="NAME", help="Class to explain. [default: each photo's most likely one]")
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
def explain(model: Path, paths: tuple[str, ...], out: Path, label: str | None, as_json: bool) -> None:
    """Show where in photos MODEL sees a class, as heat maps over them.

    PATH is a photo, a folder, a zip or tar, an address, a pattern, or - for paths on standard input. 1.jpg gives 1.png,
    the photo under its heat map, and 1-beside.png, both side by side. Nothing is overwritten.

    \b
    Example:
        pronk explain runs/photos-1 holiday/*.jpg --out heat-maps
    """
    from pronk.cli.console import open_console, print_json, show_progress
    from pronk.errors import DataError
    from pronk.model.heat_maps import explain as draw
    from pronk.model.predictor import Predictor, expand_paths

    for folder in filter(os.path.isdir, paths):
        if lies_in(out, Path(folder)):
            raise click.UsageError(f"--out must lie outside of the folder of photos {folder!r}. Got {str(out)!r}")
    predictor = Predictor.load(model)
    photos = expand_paths(paths, sys.stdin if "-" in paths else ())
    with open_console() as console, show_progress(console, shown=len(photos) > 1) as on_progress:
        records = draw(predictor, photos, out=out, label=label, on_progress=on_progress)
    for record in records:
        if record["error"]:
            error = f"error {record['error']['code']}: {record['error']['message']}"
            click.echo(visible(f"{record['path']}  {error}"), err=True)
        elif not as_json:
            click.echo(visible(record["image"]))
    if as_json:
        print_json(records)
    if all(record["error"] for record in records):
        raise DataError(f"none of {len(records)} photos can be used", hint="see the messages above, or pronk check")
