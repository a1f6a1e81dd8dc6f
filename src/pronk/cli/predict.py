"""`pronk predict`."""

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pronk.batch.engines import ENGINES
from pronk.batch.tables import FORMS, SUFFIXES
from pronk.text import count, quote, visible

if TYPE_CHECKING:
    from rich.console import Console

    from pronk.batch.plans import Request
    from pronk.batch.shards import Batch
    from pronk.batch.tables import Record
    from pronk.model.predictor import Predictor

SHOWN = 20  # photos named on stderr
OTHER_OUT = "name another --out, or remove that file"


@dataclasses.dataclass(frozen=True)
class Task:
    """A checked command line, with the model opened."""

    request: "Request"
    paths: tuple[str, ...]
    predictor: "Predictor"
    lines: list[str]
    form: str
    columns: list[str]
    out: Path | None
    work: Path | None


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, help="Classes shown per photo.")
@click.option("--format", "form", type=click.Choice(FORMS), help="[default: suffix of --out, else table]")
@click.option("--out", type=click.Path(path_type=Path), help="File to write instead of stdout.")
@click.option(
    "--unknown",
    type=click.Choice(["keep", "off"]),
    default="keep",
    show_default=True,
    help="Label photos of other things `unknown`, or give them the most likely class.",
)
@click.option(
    "--sets",
    "coverage",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="F",
    help="Add the set of classes that holds the right one with probability F.",
)
@click.option("--sort-into", type=click.Path(path_type=Path), metavar="DIR", help="Put photos into DIR/<label>/.")
@click.option("--move", is_flag=True, help="With --sort-into: move. [default: hard link where possible, else copy]")
@click.option("--copy", is_flag=True, help="With --sort-into: copy.")
@click.option("--strict", is_flag=True, help="Exit with 1 if any photo cannot be used.")
@click.option("--engine", type=click.Choice(ENGINES), default="local", show_default=True, help="What runs the model.")
@click.option("--address", metavar="HOST:PORT", help="Of the Ray cluster. [default: $RAY_ADDRESS, else this machine]")
def predict(
    model: Path,
    paths: tuple[str, ...],
    top: int,
    form: str | None,
    out: Path | None,
    unknown: str,
    coverage: float | None,
    sort_into: Path | None,
    move: bool,
    copy: bool,
    strict: bool,
    engine: str,
    address: str | None,
) -> None:
    """Predict the class of photos.

    PATH is a photo, a folder, a pattern, or - for a list of paths on standard input. With --out or --sort-into, a
    command that was stopped goes on when it is given again. What --sort-into did, pronk undo DIR/undo.csv takes back.

    \b
    Example:
        pronk predict runs/photos-1 holiday/*.jpg --out answers.csv
    """
    from pronk.batch.engines import check_engine
    from pronk.batch.plans import Request, is_pending
    from pronk.batch.shards import load_model
    from pronk.batch.tables import list_columns, require_parquet
    from pronk.errors import DataError, SettingsError
    from pronk.moving.sorting import check_folder_names, check_place

    form = _choose_form(form, out)
    if (move or copy) and (not sort_into or (move and copy)):
        raise click.UsageError("--move or --copy say how --sort-into does it; give one of them, with --sort-into DIR")
    if engine != "local" and not (out or sort_into):
        raise click.UsageError(f"--engine {engine} needs --out or --sort-into")
    check_engine(engine, address=address)
    if form == "parquet":
        require_parquet()
    if out:
        _check_out(out, paths, form)
    digest, predictor = load_model(os.fspath(model.absolute()))
    if sort_into:
        check_folder_names(predictor.classes)
        check_place(sort_into, arguments=paths, photos=(), classes=predictor.classes)  # before a folder is made
    work = out.with_name(f".{out.name}.parts") if out else sort_into and sort_into / ".parts"
    lines = _read_lines(work, out) if "-" in paths else []
    request = Request(
        model=os.fspath(model.absolute()),
        digest=digest,
        asked=hashlib.sha256(json.dumps([paths, lines]).encode("ascii")).hexdigest(),
        folder="" if all(map(os.path.isabs, paths)) else os.fspath(Path.cwd()),
        top=min(top, len(predictor.classes)),
        unknown=unknown,
        coverage=coverage,
        sort_into=os.fspath(sort_into.absolute()) if sort_into else None,
        mode="move" if move else "copy" if copy else "link",
    )
    if out and work and move and out.exists() and not is_pending(work, request):
        raise SettingsError(f"--out would replace the answers for moved photos in {str(out)!r}", hint=OTHER_OUT)
    columns = list_columns(request.top or 0, sets=coverage is not None)
    task = Task(request, paths, predictor, lines, form, columns, out, work)
    done = _predict_batch(task, engine, address) if work else _stream(task)
    if done.failed == done.photos:
        raise DataError(f"none of {done.photos} photos can be used", hint="see the messages above, or pronk check")
    unsorted = len(done.sorted.left) if done.sorted else 0
    if unsorted:
        raise DataError(f"{count(unsorted, 'photo')} could not be sorted", hint="see the messages above")
    sys.exit(1 if strict and done.failed else 0)


def _choose_form(form: str | None, out: Path | None) -> str:
    if out and not form and out.suffix.lower() not in SUFFIXES:
        raise click.UsageError(f"--out must end in {', '.join(SUFFIXES)}, or --format be given. Got {str(out)!r}")
    form = form or (SUFFIXES[out.suffix.lower()] if out else "table")
    if form == "parquet" and not out:
        raise click.UsageError(f"{form} cannot go to stdout; {', '.join(FORMS[:-1])} can")
    return form


def _check_out(out: Path, paths: tuple[str, ...], form: str) -> None:
    """Refuse what would be lost, or fail after hours of work."""
    from pronk.batch.tables import is_former_output
    from pronk.errors import SettingsError

    if out.exists() and not out.is_file():
        raise click.UsageError(f"--out must be a file. Got {str(out)!r}")
    if any(_is_same(path, out) for path in paths):
        raise click.UsageError(f"--out would replace the photo {str(out)!r}")
    if out.exists() and not is_former_output(out, form):
        raise SettingsError(f"--out would replace {str(out)!r}, which is no {form} of predictions", hint=OTHER_OUT)


def _is_same(path: str, other: Path) -> bool:
    try:
        return os.path.samefile(path, other)  # noqa: PTH121 - says no to impossible names
    except (OSError, ValueError):
        return False


def _read_lines(work: Path | None, out: Path | None) -> list[str]:
    """Read paths from standard input, without what an earlier run of the same command left among them."""
    own = {path.absolute() for path in (work, out) if path}
    lines = (os.fsdecode(line) for line in sys.stdin.buffer)
    return [line for line in lines if own.isdisjoint((path := Path(line.rstrip("\r\n")).absolute(), *path.parents))]


def _list_photos(task: Task) -> list[str]:
    from pronk.errors import DataError
    from pronk.model.predictor import expand_paths
    from pronk.moving.sorting import check_place

    request, out = task.request, task.out
    photos = list(map(os.fspath, expand_paths(task.paths, task.lines)))
    if out and out.exists():  # what a former run wrote there is no photo
        photos = [path for path in photos if not (path.endswith(out.name) and _is_same(path, out))]
    if not photos:
        raise DataError(f"no photo at {', '.join(map(repr, task.paths))}", hint="name a folder with photos")
    if request.sort_into:
        check_place(Path(request.sort_into), arguments=task.paths, photos=photos, classes=task.predictor.classes)
    return photos


def _stream(task: Task) -> "Batch":
    """Answer photo by photo on stdout."""
    from pronk.batch.shards import Batch
    from pronk.cli.console import open_console, show_progress

    photos, request, failed = _list_photos(task), task.request, 0
    # A bar amid the answers on one terminal would garble both.
    has_bar = len(photos) > 1 and not sys.stdout.isatty()
    with open_console() as console, show_progress(console, shown=has_bar) as on_progress:

        def records() -> "Iterator[Record]":
            nonlocal failed
            for done, prediction in enumerate(task.predictor.stream(photos), start=1):
                failed += prediction.error is not None
                on_progress("predict", done, len(photos))
                yield prediction.record(request.top, unknown=request.unknown, coverage=request.coverage)

        _print(task, records())
    return Batch(len(photos), failed)


def _print(task: Task, records: "Iterable[Record]") -> None:
    from pronk.batch.tables import write_text

    for piece in write_text(task.form, records, task.columns):
        click.echo(piece.encode("utf-8", "surrogateescape"), nl=False)


def _predict_batch(task: Task, engine: str, address: str | None) -> "Batch":
    """Work through shards that survive a kill, then write --out, then sort."""
    from pronk.batch.shards import predict_batch
    from pronk.batch.tables import save_records
    from pronk.cli.console import open_console, show_progress

    out, work = task.out, task.work
    assert work is not None, "the command looks first"

    def deliver(records: "Iterator[Record]") -> None:
        if out:
            save_records(out, task.form, records, task.columns, work=work)
        else:
            _print(task, records)

    with open_console() as console, show_progress(console) as on_progress:
        done = predict_batch(
            task.request,
            work,
            list_photos=lambda: _list_photos(task),
            deliver=deliver,
            out=out,
            engine=engine,
            address=address,
            on_progress=lambda stage, n, total: on_progress(stage, n, total) if total > 1 else None,
            tell=_teller(console),
        )
        if done.sorted:
            tell = _teller(console)
            tell(f"sorted: {count(done.sorted.placed, 'photo')}; undo: pronk undo {quote(done.sorted.undo)}")
    if done.sorted:
        for path, why in done.sorted.left[:SHOWN]:
            _warn(f"left where it is: {path}: {why}")
    return done


def _warn(text: str) -> None:
    """Say what --quiet does not hide."""
    click.echo(visible(text), err=True)


def _teller(console: "Console") -> Callable[[str], None]:
    return lambda text: console.print(visible(text), markup=False)
