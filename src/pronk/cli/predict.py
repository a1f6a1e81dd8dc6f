"""`pronk predict`."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from pronk.batch.engines import ENGINES
from pronk.batch.tables import FORMS
from pronk.cli.settings import Place
from pronk.text import plural, quote, visible

SHOWN = 20  # photos named on stderr


def _read_shard(context: click.Context, option: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    number, _, shards = value.partition("/")
    if not (number.isdecimal() and shards.isdecimal()):
        raise click.BadParameter(f"{value!r} is not K/N, such as 1/8")
    return int(number), int(shards)


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, help="Classes shown per photo.")
@click.option(
    "--format", "form", type=click.Choice(FORMS), help="Form of the answers.  [default: suffix of --out, else table]"
)
@click.option("--out", type=Place(), help="File to write instead of stdout; it must not exist.")
@click.option(
    "--unknown",
    type=click.Choice(["keep", "off"]),
    default="keep",
    show_default=True,
    help="keep labels photos of other things `unknown`, off gives them the most likely class.",
)
@click.option(
    "--sets",
    "coverage",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="F",
    help="Add the classes that hold the right one with probability F, as 0.95.",
)
@click.option(
    "--sort-into",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Put photos into DIR/<label>/, as hard links where possible, else copies.",
)
@click.option("--move", is_flag=True, help="With --sort-into: move them.")
@click.option("--copy", is_flag=True, help="With --sort-into: always copy.")
@click.option("--strict", is_flag=True, help="Exit with 1 if any photo cannot be used.")
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="local",
    show_default=True,
    help="Who works: this machine, or a Ray cluster.",
)
@click.option("--address", metavar="HOST:PORT", help="Ray's first machine.  [default: $RAY_ADDRESS, else this one]")
@click.option(
    "--shard", callback=_read_shard, metavar="K/N", help="Predict piece K of N, each on a machine of its own."
)
def predict(move: bool, copy: bool, strict: bool, **wanted: Any) -> None:
    """Predict the class of photos.

    PATH is a photo, a folder, a zip or tar, an address such as s3://bucket/inbox, a pattern, or - for paths on standard
    input. With --out or --sort-into, a command that was stopped goes on when it is given again. pronk undo DIR/undo.csv
    takes back what --sort-into did. The rows of all files of --shard, in order, are those of one command.

    \b
    Example:
        pronk predict runs/photos-1 holiday/*.jpg --out answers.csv
        pronk predict runs/photos-1 archive --shard 3/8 --out answers-3.jsonl
    """
    from pronk.batch.request import BatchRequest, predict_batch
    from pronk.cli.console import open_console, show_progress
    from pronk.errors import DataError

    if (move or copy) and (not wanted["sort_into"] or (move and copy)):
        raise click.UsageError("--move or --copy say how --sort-into does it; give one of them, with --sort-into DIR")
    mode = "move" if move else "copy" if copy else "link"
    request = BatchRequest(**wanted, mode=mode, lines=map(os.fsdecode, sys.stdin.buffer))
    # A bar amid the answers on one terminal would garble both.
    shown = request.work is not None or not sys.stdout.isatty()
    with open_console() as console, show_progress(console, shown=shown) as on_progress:
        done = predict_batch(
            request,
            write=lambda text: click.echo(text.encode("utf-8", "surrogateescape"), nl=False),
            on_progress=lambda stage, n, total: on_progress(stage, n, total) if total > 1 else None,
            tell=lambda text: console.print(visible(text), markup=False),
        )
        if done.sorted:
            undo = f"undo: pronk undo {quote(done.sorted.undo)}"
            console.print(visible(f"sorted: {plural(done.sorted.placed, 'photo')}; {undo}"), markup=False)
    left = done.sorted.left if done.sorted else []
    for path, why in left[:SHOWN]:  # also with --quiet
        click.echo(visible(f"left where it is: {path}: {why}"), err=True)
    if done.photos and done.failed == done.photos:
        raise DataError(f"none of {done.photos} photos can be used", hint="see the messages above, or pronk check")
    if left:
        raise DataError(f"{plural(len(left), 'photo')} could not be sorted", hint="see the messages above")
    sys.exit(1 if strict and done.failed else 0)
