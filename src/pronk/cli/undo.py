"""`pronk undo`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from pronk.text import plural, visible

if TYPE_CHECKING:
    from pronk.moving.journal import Undone


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print {undone, kept[{path, reason}]} as JSON.")
def undo(file: Path, as_json: bool) -> None:
    """Take back what predict, audit or check moved or copied.

    FILE is the undo.csv that predict --sort-into, audit --move or check --fix wrote. Moved photos go back, links and
    copies are removed. Nothing is overwritten, and no file is removed unless the same content lies where it came from.
    To repeat it does no harm.

    \b
    Example:
        pronk undo sorted/undo.csv
    """
    from pronk.moving.journal import undo as take_back

    done = take_back(file)
    if not (done.reversed or done.kept):
        others = sorted(path.name for path in file.absolute().parent.glob("undo*.csv") if path.name != file.name)
        beside = f"; beside it: {', '.join(others)}" if others else ""
        click.echo(visible(f"nothing was left to take back{beside}"), err=True)
    end_undo(done, as_json)


def end_undo(done: "Undone", as_json: bool) -> NoReturn:
    """Print how many files went back, and on stderr why the others did not; then the exit code is 1."""
    from pronk.cli.console import print_json

    for action, reason in done.kept:
        click.echo(visible(f"kept {action.target}: {reason}"), err=True)
    if as_json:
        kept = [{"path": action.target, "reason": reason} for action, reason in done.kept]
        print_json({"undone": done.reversed, "kept": kept})
    else:
        click.echo(f"undone: {plural(done.reversed, 'file')}; kept: {len(done.kept)}")
    sys.exit(1 if done.kept else 0)
