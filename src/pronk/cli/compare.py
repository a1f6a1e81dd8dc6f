"""`pronk compare`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pronk.cli.settings import Place

if TYPE_CHECKING:
    from rich.console import Console

    from pronk.model.comparison import Comparison

MOST_SHOWN = 10


@click.command()
@click.argument("run_a", type=click.Path(path_type=Path))
@click.argument("run_b", type=click.Path(path_type=Path))
@click.argument("data", required=False, type=Place())
@click.option("--json", "as_json", is_flag=True, help="Print the numbers, and each photo that changed, as JSON.")
def compare(run_a: Path, run_b: Path, data: Path | None, as_json: bool) -> None:
    """Say whether RUN_B is better than RUN_A on the same photos.

    Without DATA these are the test photos that both runs share: train the second with --split RUN_A/split.csv. With
    DATA, a folder of labelled photos, they are those that neither was trained or chosen with; RUN_A and RUN_B may then
    be exports, too. The exit code is 0, whichever is better.

    \b
    Example:
        pronk compare runs/photos-1 runs/photos-2
        pronk compare runs/photos-1 runs/photos-2 new-photos
    """
    from pronk.cli.console import open_console, print_json, show_progress
    from pronk.cli.summary import print_findings
    from pronk.model.comparison import compare as judge

    with open_console() as console:
        with show_progress(console) as on_progress:
            comparison = judge(run_a, run_b, data, on_progress=on_progress)
        print_findings(console, comparison.left_out)
        print_changes(console, comparison)
    if as_json:
        print_json(comparison.record())
    else:
        print_comparison(comparison)


def print_comparison(comparison: "Comparison") -> None:
    """Print the accuracies, their difference, and what it allows to say."""
    from pronk.cli.summary import accuracy_text
    from pronk.text import visible

    for letter, side in (("A", comparison.a), ("B", comparison.b)):
        numbers = f"{accuracy_text(side.accuracy)}, log-loss {side.log_loss:.3f}"
        click.echo(f"{letter}  {visible(side.name)}: {numbers}")
    value, low, high = (f"{100 * comparison.difference[name]:+z.1f}" for name in ("value", "low", "high"))
    changed = f"{comparison.gained} gained, {comparison.lost} lost (exact McNemar p = {comparison.p:.2g})"
    click.echo(f"B - A: {value} points (95 % interval {low} to {high}), {changed}")
    click.echo(comparison.verdict)


def print_changes(console: "Console", comparison: "Comparison") -> None:
    """List the photos that one model gets right and the other wrong."""
    from rich.table import Table
    from rich.text import Text

    from pronk.text import visible

    lost = [change for change in comparison.changed if change.a == change.label]
    gained = [change for change in comparison.changed if change.b == change.label]
    for title, changes in (("only A gets right", lost), ("only B gets right", gained)):
        if not changes:
            continue
        table = Table(title, "label", "A says", "B says", box=None, padding=(0, 2, 0, 0))
        for change in changes[:MOST_SHOWN]:
            table.add_row(*(Text(visible(text)) for text in (change.path, change.label, change.a, change.b)))
        console.print()
        console.print(table)
        if len(changes) > MOST_SHOWN:
            console.print(f"and {len(changes) - MOST_SHOWN:,} more; --json lists them all", markup=False)
