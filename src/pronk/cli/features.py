"""`pronk features`."""

import sys
from pathlib import Path
from typing import Any

import click

from pronk.cli.settings import Place, make_settings, settings_options
from pronk.text import plural, visible

FORMS = ("csv", "jsonl", "parquet")
NETWORKS = ("imagenet", "offline")
SHOWN = 20  # photos named on stderr


@click.command()
@click.argument("model")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--out", type=Place(), required=True, help="File to write; it must not exist.")
@click.option("--format", "form", type=click.Choice(FORMS), help="Form of the file.  [default: that of its suffix]")
@settings_options("alpha", "image_size", "fit")
def features(model: str, paths: tuple[str, ...], out: Path, form: str | None, **values: Any) -> None:
    """Write photos as numbers (features), for search and clustering.

    A row is the path of a photo, its sha256 and a vector. MODEL is a run or an export, whose features are those that
    its head reads, at its own size; or a network as it is, at the size and fit of the options: imagenet, offline, or an
    h5 file. PATH is a photo, a folder, a zip or tar, an address, a pattern, or - for paths on standard input.

    \b
    Example:
        pronk features runs/photos-1 archive --out features.parquet
        pronk features offline archive --image-size 160 --out features.csv
    """
    from pronk.batch.vectors import choose_form, save_vectors
    from pronk.cli.console import open_console, show_progress
    from pronk.errors import DataError
    from pronk.model.embedding import embed
    from pronk.model.predictor import Predictor, expand_paths

    chosen = choose_form(form, out)
    if model in NETWORKS or model.endswith(".h5"):
        from pronk.training.bare_network import embed_with_weights

        settings = make_settings(None, {"weights": model, **values})
        photos = expand_paths(paths, sys.stdin if "-" in paths else ())
        found = embed_with_weights(settings, photos)
    else:
        for name, value in values.items():
            if value is not None:
                raise click.UsageError(f"--{name.replace('_', '-')} belongs to weights; a model has its own")
        predictor = Predictor.load(model)
        photos = expand_paths(paths, sys.stdin if "-" in paths else ())
        found = embed(predictor, photos)
    with open_console() as console, show_progress(console) as on_progress:
        failed = save_vectors(out, chosen, found, len(photos), on_progress=on_progress)
    for path, error in failed[:SHOWN]:
        click.echo(visible(f"{path}  error {error.reason.value}: {error}"), err=True)
    if photos and len(failed) == len(photos):
        out.unlink()
        raise DataError(f"none of {plural(len(photos), 'photo')} can be used", hint="see pronk check")
    click.echo(str(out))
