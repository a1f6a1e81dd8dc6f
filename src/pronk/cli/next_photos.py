"""`pronk next`."""

import sys
from pathlib import Path

import click

from pronk.storage.remote import to_path
from pronk.text import visible


@click.command("next")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--count", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Photos to choose.")
@click.option("--html", type=click.Path(path_type=Path), help="Contact sheet to write.")
@click.option("--json", "as_json", is_flag=True, help="Print the photos, and why each was chosen, as JSON.")
def next_photos(model: Path, paths: tuple[str, ...], count: int, html: Path | None, as_json: bool) -> None:
    """Choose the unlabelled photos that are worth labelling next.

    Those that MODEL is least sure of, or that resemble nothing it learned from, no two much alike, best first. PATH is
    as for pronk predict; photos that MODEL was trained with are left out. Label them, add them to your photos, and
    train again with --split RUN/split.csv, so that both models are judged by the same photos.

    \b
    Example:
        pronk next runs/photos-1 archive --count 50 --html next.html
    """
    from pronk.cli.console import check_page, open_console, print_json, show_progress
    from pronk.model.next_photos import choose_next
    from pronk.model.predictor import Predictor, expand_paths
    from pronk.report.next_page import render_next
    from pronk.storage.files import write_atomically

    for path in paths:
        check_page("--html", html, to_path(path))
    predictor = Predictor.load(model)
    photos = expand_paths(paths, sys.stdin if "-" in paths else ())
    with open_console() as console, show_progress(console) as on_progress:
        chosen = choose_next(predictor, photos, count=count, on_progress=on_progress)
        if html:
            write_atomically(html, render_next(chosen, photos=len(photos)).encode())
            console.print(f"a contact sheet is in {html}", markup=False)
    if as_json:
        print_json(chosen)
        return
    for one in chosen:
        click.echo(visible(f"{one['path']}  {one['why']}"))
