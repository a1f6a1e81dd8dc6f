"""`pronk predict`."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from pronk.files import format_csv_line
from pronk.text import visible

FORMATS = ("table", "csv", "json", "jsonl")
SUFFIXES = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".txt": "table"}
COLUMNS = ("path", "label", "score", "unknown", "distance", "error_code", "error_message")


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, help="Classes shown per photo.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="[default: suffix of --out, else table]")
@click.option("--out", type=click.Path(path_type=Path), help="File to write instead of stdout.")
@click.option("--strict", is_flag=True, help="Exit with 1 if any photo cannot be used.")
def predict(model: Path, paths: tuple[str, ...], top: int, form: str | None, out: Path | None, strict: bool) -> None:
    """Predict the class of photos.

    PATH is a photo, a folder, a pattern, or - for a list of paths on standard input.

    \b
    Example:
        pronk predict runs/photos-1 holiday/*.jpg --out answers.csv
    """
    from pronk.cli.console import open_console, show_progress
    from pronk.errors import DataError
    from pronk.files import write_atomically
    from pronk.predictor import Predictor, expand_paths
    from pronk.scan import Progress

    if out and not form and out.suffix.lower() not in SUFFIXES:
        raise click.UsageError(f"--out must end in {', '.join(SUFFIXES)}, or --format be given. Got {str(out)!r}")
    predictor = Predictor.load(model)
    photos = expand_paths(paths, sys.stdin if "-" in paths else ())
    if out and out.resolve() in {photo.resolve() for photo in photos}:
        raise click.UsageError(f"--out would replace the photo {str(out)!r}")
    form = form or (SUFFIXES[out.suffix.lower()] if out else "table")
    failed = 0

    def records(on_progress: Progress) -> Iterator[dict[str, Any]]:
        nonlocal failed
        for done, prediction in enumerate(predictor.stream(photos), start=1):
            failed += prediction.error is not None
            on_progress("predict", done, len(photos))
            yield prediction.record(top)

    # A bar amid the answers on one terminal would garble both.
    has_bar = len(photos) > 1 and (out is not None or not sys.stdout.isatty())
    with open_console() as console, show_progress(console, shown=has_bar) as on_progress:
        lines = write_records(form, records(on_progress), min(top, len(predictor.classes)))
        if out:
            write_atomically(out, "".join(lines).encode("utf-8", "surrogateescape"))
        else:
            for line in lines:
                click.echo(line.encode("utf-8", "surrogateescape"), nl=False)
    if failed == len(photos):
        raise DataError(f"none of {failed} photos can be used", hint="see the messages above, or pronk check")
    sys.exit(1 if strict and failed else 0)


def write_records(form: str, records: Iterable[dict[str, Any]], top: int) -> Iterator[str]:
    """Yield the text of records in one of FORMATS, piece by piece."""
    if form == "csv":
        return write_csv(records, top)
    return {"table": write_table, "json": write_json, "jsonl": write_jsonl}[form](records)


def write_table(records: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield one line per photo, for people."""
    for record in records:
        name = visible(record["path"])
        if record["error"]:
            yield f"{name}  error {record['error']['code']}: {visible(record['error']['message'])}\n"
        else:
            scores = "  ".join(f"{visible(score['label'])} {100 * score['score']:.1f} %" for score in record["scores"])
            yield f"{name}  {scores}\n"


def write_jsonl(records: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield one JSON object per line."""
    return (json.dumps(record) + "\n" for record in records)


def write_json(records: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield the pieces of one JSON list."""
    opening = "[\n"
    for record in records:
        yield opening + json.dumps(record)
        opening = ",\n"
    yield "\n]\n"


def write_csv(records: Iterable[dict[str, Any]], top: int) -> Iterator[str]:
    """Yield CSV lines; the scores become label_1, score_1 and so on."""
    columns = [*COLUMNS, *(f"{key}_{rank}" for rank in range(1, top + 1) for key in ("label", "score"))]
    yield format_csv_line(columns)
    for record in records:
        flat = dict(record)
        for rank, score in enumerate(record["scores"], start=1):
            flat |= {f"{key}_{rank}": value for key, value in score.items()}
        flat |= {f"error_{key}": value for key, value in (record["error"] or {}).items()}
        yield format_csv_line([flat.get(column) for column in columns])
