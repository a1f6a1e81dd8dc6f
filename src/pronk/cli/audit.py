"""`pronk audit`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pronk.cli.settings import CACHE_HELP, FROZEN_OPTIONS, Place, make_settings, settings_options
from pronk.cli.undo import end_undo
from pronk.text import percent, plural, quote, visible

if TYPE_CHECKING:
    from rich.console import Console

    from pronk.training.surveys import Audit

GROUP_HELP = "Regular expression; paths with equal matches do not judge each other, as '(.*)_frame'."
WEAK = 0.8  # below, heads are wrong so often that their suspicions are as well


@click.command()
@click.argument("data", type=Place())
@settings_options(*FROZEN_OPTIONS, group_by=GROUP_HELP, seed="Random seed.")
@click.option("--cache", type=click.Path(path_type=Path), help=CACHE_HELP)
@click.option("--most", type=click.IntRange(1), default=200, show_default=True, help="Most labels to list.")
@click.option("--html", type=click.Path(path_type=Path), help="Page to write, to decide on each and save review.csv.")
@click.option("--json", "as_json", is_flag=True, help="Print the labels, or what --apply did, as JSON.")
@click.option("--apply", "review", metavar="FILE", type=click.Path(path_type=Path), help="A saved review.csv to apply.")
@click.option("--out", type=click.Path(path_type=Path), help="Corrected list to write.  [default: corrected.csv]")
@click.option("--split", type=click.Path(path_type=Path), help="RUN/split.csv: the list keeps its parts.")
@click.option("--move", is_flag=True, help="Move the photos themselves instead of writing a list.")
@click.option(
    "--quarantine", metavar="DIR", type=click.Path(path_type=Path), help="Folder for dropped photos and the undo file."
)
@click.option("--undo", is_flag=True, help="Take back what the same command did without it.")
def audit(data: Path, as_json: bool, undo: bool, review: Path | None, **options: Any) -> None:
    """Find photos in DATA whose label looks wrong, and correct them.

    Each photo is judged by a network that has not seen it and by the photos most alike; the worst come first. A
    suspicion is not a fault: the exit code stays 0.

    With --apply, what you decided on the page of --html becomes a corrected list for `pronk train`; with --move and
    --quarantine the photos move to the folders of their classes. Photos that have changed since are left alone and
    named; then the exit code is 1.

    \b
    Example:
        pronk audit photos --html review.html
        pronk audit photos --apply review.csv --out corrected.csv
    """
    applying = {name: options.pop(name) for name in ("out", "split", "move", "quarantine")}
    if review is None:
        _refuse(applying | {"undo": undo}, "belongs to --apply")
        _report(data, as_json, **options)
        return
    _refuse({name: value for name, value in options.items() if name != "most"}, "has no meaning with --apply")
    if applying["move"]:
        _refuse({name: applying[name] for name in ("out", "split")}, "has no meaning with --move")
        if applying["quarantine"] is None:
            raise click.UsageError("--move needs --quarantine DIR, for dropped photos and the undo file")
    else:
        _refuse({"quarantine": applying["quarantine"]}, "belongs to --move")
    change = _take_back if undo else _apply
    out = applying["out"] or Path("corrected.csv")
    change(review, data, as_json, out=out, split=applying["split"], quarantine=applying["quarantine"])


def _refuse(options: dict[str, Any], why: str) -> None:
    for name, value in options.items():
        if value is not None and value is not False:
            raise click.UsageError(f"--{name.replace('_', '-')} {why}")


def _report(data: Path, as_json: bool, *, cache: Path | None, most: int, html: Path | None, **values: Any) -> None:
    import pronk
    from pronk.analysis.labels import suspicion_records
    from pronk.cli.console import check_page, open_console, print_json, show_progress
    from pronk.cli.summary import print_findings
    from pronk.report.audit_page import render_audit
    from pronk.storage.files import write_atomically

    check_page("--html", html, data)
    settings = make_settings(None, values)
    with open_console() as console:
        with show_progress(console) as on_progress:
            found: Audit = pronk.audit(data, settings=settings, cache=cache, on_progress=on_progress)
        shown = found.suspicions[:most]
        if html:
            page = render_audit(
                found.suspicions,
                root=found.root,
                classes=found.classes,
                data=str(data),
                photos=found.photos,
                accuracy=found.accuracy["value"],
                most=most,
            )
            write_atomically(html, page.encode())
        print_findings(console, [finding for finding in found.findings if finding.severity == "error"])
        if as_json:
            print_json(suspicion_records(shown))
        else:
            for row in shown:
                names = "  ".join(visible(name) for name in (row.path, f"{row.given} -> {row.suggested}"))
                click.echo(f"{names}  {row.score:.2f}")
        _say_what_next(console, found, len(shown), data, html)


def _say_what_next(console: "Console", found: "Audit", shown: int, data: Path, html: Path | None) -> None:
    n = len(found.suspicions)
    listed = f", the {shown:,} worst listed" if shown < n else ""
    console.print(
        f"{plural(n, 'label')} of {plural(found.photos, 'photo')} {'looks' if n == 1 else 'look'} wrong{listed}.",
        markup=False,
    )
    accuracy = found.accuracy["value"]
    if n and accuracy < WEAK:
        console.print(
            f"Only {percent(accuracy)} of the photos were recognised by heads that had not seen them: most of these "
            "labels will be right. Other --weights may see more.",
            style="yellow",
            markup=False,
        )
    if html:
        console.print(f"Decide on each: {html}", markup=False)
        console.print(f"Then:           pronk audit {quote(str(data))} --apply review.csv", markup=False)
    elif n:
        console.print(f"Look at them:   pronk audit {quote(str(data))} --html review.html", markup=False)


def _apply(review: Path, data: Path, as_json: bool, *, out: Path, split: Path | None, quarantine: Path | None) -> None:
    from pronk.cli.console import open_console, print_json
    from pronk.moving.review import move_photos, write_list

    done = move_photos(review, data, quarantine) if quarantine else write_list(review, data, out, split=split)
    with open_console() as console:
        for path, reason in done.left:
            console.print(visible(f"left as it is: {path}: {reason}"), style="yellow", markup=False)
        counts = f"{done.moved} moved, {done.dropped} dropped, {done.kept} kept, {len(done.left)} left as they are."
        console.print(counts, markup=False)
        what_next = "To take it back: pronk undo" if quarantine else "Train on it: pronk train"
        console.print(f"{what_next} {quote(str(done.file))}", markup=False)
    if as_json:
        left = [{"path": path, "reason": reason} for path, reason in done.left]
        record = {"file": str(done.file), "moved": done.moved, "dropped": done.dropped, "kept": done.kept}
        print_json(record | {"left": left})
    else:
        click.echo(visible(str(done.file)))
    sys.exit(1 if done.left else 0)


def _take_back(
    review: Path, data: Path, as_json: bool, *, out: Path, split: Path | None, quarantine: Path | None
) -> None:
    from pronk.moving.journal import Undone
    from pronk.moving.review import remove_list, undo_moves

    if quarantine:
        end_undo(undo_moves(review, data, quarantine), as_json)
    else:
        remove_list(review, data, out, split=split)
        end_undo(Undone(1, ()), as_json)
