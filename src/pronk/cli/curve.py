"""`pronk curve`."""

from pathlib import Path
from typing import Any

import click

from pronk.cli.settings import CACHE_HELP, FROZEN_OPTIONS, Place, make_settings, settings_options

GROUP_HELP = "Photos whose paths match equally are on one side only, as in '(.*)_frame'."


@click.command()
@click.argument("data", type=Place())
@settings_options(*FROZEN_OPTIONS, group_by=GROUP_HELP, seed="Random seed.")
@click.option("--cache", type=click.Path(path_type=Path), help=CACHE_HELP)
@click.option("--html", type=click.Path(path_type=Path), help="Page to write, with the plot.")
@click.option("--json", "as_json", is_flag=True, help="Print {points[], forecast, confused[], advice} as JSON.")
def curve(data: Path, cache: Path | None, html: Path | None, as_json: bool, **values: Any) -> None:
    """Say how much more photos than those in DATA would help.

    Heads on the frozen network learn from 10, 20, 40, 80 and 100 % of the photos and are judged by others; a curve
    through these results is carried on. Takes seconds once pronk train or audit has run. Nothing in DATA is changed.

    \b
    Example:
        pronk curve photos --html curve.html
    """
    import pronk
    from pronk.cli.console import check_page, open_console, print_json, show_progress
    from pronk.cli.summary import accuracy_text
    from pronk.report.pages import render_page
    from pronk.report.plots import draw_growth
    from pronk.storage.files import write_atomically
    from pronk.text import plural, visible

    check_page("--html", html, data)
    settings = make_settings(None, values)
    with open_console() as console, show_progress(console) as on_progress:
        record = pronk.curve(data, settings=settings, cache=cache, on_progress=on_progress)
    if html:
        page = render_page("curve.html", title=data.resolve().name, curve=record, growth=draw_growth(record))
        write_atomically(html, page.encode())
    if as_json:
        print_json(record)
        return
    for point in record["points"]:
        click.echo(f"{plural(point['photos'], 'photo')}: {accuracy_text(point['accuracy'])}")
    click.echo(visible(record["advice"]))
