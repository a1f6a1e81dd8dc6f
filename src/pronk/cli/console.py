"""What a command has to say -> stderr: progress with time left, summaries; stdout stays for data."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO

import click

from pronk.progress import STAGES
from pronk.storage.places import lies_in

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress

PLAIN_SECONDS = 10.0
JSON_SECONDS = 0.25
LOG_WIDTH = 500


def installed_version() -> str:
    """Return pronk's version."""
    try:
        return version("pronk")
    except PackageNotFoundError:
        return "0.0"


def note_flag(context: click.Context, option: click.Parameter, value: bool) -> None:
    """Remember --quiet or --debug, before or after the name of the command, for `has_flag`."""
    if value:
        context.meta[f"pronk.{option.name}"] = True


def has_flag(name: str) -> bool:
    """Tell whether `quiet` or `debug` was typed, before or after the name of the command that runs."""
    context = click.get_current_context(silent=True)
    return context is not None and f"pronk.{name}" in context.meta


@contextlib.contextmanager
def open_console() -> Iterator["Console"]:
    """Give a console on stderr, and let nothing else write there meanwhile; it respects NO_COLOR."""
    from rich.console import Console

    with _hush_libraries() as stderr:
        # In a log file nobody gains by lines broken at 80 characters.
        width = None if stderr.isatty() else LOG_WIDTH
        yield Console(file=stderr, quiet=has_flag("quiet"), highlight=False, width=width)


@contextlib.contextmanager
def show_progress(
    console: "Console", *, shown: bool = True, form: str = "auto"
) -> Iterator[Callable[[str, int, int], None]]:
    """Give a progress callback (stage, done, total): live bars on a terminal, plain lines elsewhere.

    With form `json` it writes a line of JSON per step instead, also with --quiet, which is about what people read.
    """
    if form == "json":
        yield _JsonLines(console.file)
    elif has_flag("quiet") or not shown:
        yield lambda stage, done, total: None
    elif console.is_terminal:
        with _bars(console) as bars:
            yield _Live(bars)
    else:
        yield _Plain(console)


@contextlib.contextmanager
def _hush_libraries() -> Iterator[TextIO]:
    """Give the real stderr, while what libraries written in C print there goes nowhere.

    Training frameworks greet with a screenful, and decoders remark on damaged files. `--debug` shows it all.
    """
    if has_flag("debug"):
        yield sys.stderr
        return
    sys.stderr.flush()
    kept, former = os.dup(2), sys.stderr
    with os.fdopen(kept, "w", buffering=1, errors="backslashreplace") as real:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        sys.stderr = real
        try:
            yield real
        finally:
            real.flush()
            os.dup2(kept, 2)
            os.close(nowhere)
            sys.stderr = former


class _Live:
    def __init__(self, bars: "RichProgress") -> None:
        self.bars = bars
        self.tasks: dict[str, Any] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self.tasks:
            self.tasks[stage] = self.bars.add_task(STAGES.get(stage, stage), total=total or None)
        self.bars.update(self.tasks[stage], completed=done, total=total or None)


class _Plain:
    def __init__(self, console: "Console") -> None:
        self.console = console
        self.started: dict[str, float] = {}
        self.first: dict[str, tuple[float, int]] = {}
        self.written = 0.0
        self.last = ("", 0, 0)

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        started = self.started.setdefault(stage, now)
        # From the first step on: before it workers start.
        begun, first = self.first.setdefault(stage, (now, done)) if done else (now, done)
        if (done != total and now - max(self.written, started) < PLAIN_SECONDS) or self.last == (stage, done, total):
            return
        self.last = (stage, done, total)
        self.written = now
        left = f", about {(now - begun) / (done - first) * (total - done):.0f} s left" if first < done < total else ""
        self.console.print(f"{STAGES.get(stage, stage)}: {done}{f' of {total}' if total else ''}{left}", markup=False)


class _JsonLines:
    """For a program that watches: of each stage a few steps a second, its first and its last always."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file
        self.written: dict[str, tuple[float, tuple[int, int]]] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        before, last = self.written.get(stage, (float("-inf"), None))
        if (done, total) == last or (done != total and now - before < JSON_SECONDS):
            return
        self.written[stage] = now, (done, total)
        self.file.write(json.dumps({"stage": stage, "done": done, "total": total}) + "\n")
        self.file.flush()


def _bars(console: "Console") -> "RichProgress":
    from rich import progress

    return progress.Progress(
        progress.TextColumn("{task.description:<26}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
        console=console,
    )


def check_page(option: str, path: Path | None, data: Path) -> None:
    """Refuse a page whose name no browser would open, or that would lie among the photos."""
    if path and data.is_dir() and lies_in(path, data):
        raise click.UsageError(f"{option} must lie outside of the photos in {data}. Got {str(path)!r}")
    if path and path.suffix.lower() not in (".html", ".htm"):
        raise click.UsageError(f"{option} must end in .html. Got {str(path)!r}")


def say(text: str, *, err: bool = False) -> None:
    """Write a line to stdout or stderr, whatever a name in it is made of."""
    click.echo(text, err=err)


def print_json(value: object) -> None:
    """Write one JSON value to stdout."""
    click.echo(json.dumps(value, indent=2))
