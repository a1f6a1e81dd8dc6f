"""`pronk audit`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pronk.cli.settings import FROZEN_OPTIONS, make_settings, settings_options
from pronk.text import percent, plural, quote, visible

if TYPE_CHECKING:
    from rich.console import Console

    from pronk.moving.review import Applied
    from pronk.training.surveys import Audit

GROUP_HELP = "Photos whose paths match equally do not judge each other, as in '(.*)_frame'."
WEAK = 0.8  # below, heads are wrong so often that their suspicions are as well


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@settings_options(*FROZEN_OPTIONS, group_by=GROUP_HELP, seed="Seed of the folds.")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder for features.  [default: $PRONK_CACHE]")
@click.option("--most", type=click.IntRange(1), default=200, show_default=True, help="Most labels to list.")
@click.option("--html", type=click.Path(path_type=Path), help="Page to write, to decide on each and save review.csv.")
@click.option("--json", "as_json", is_flag=True, help="Print [{path, given, suggested, score, neighbours}] as JSON.")
@click.option("--apply", "review", metavar="FILE", type=click.Path(path_type=Path), help="A saved review.csv to apply.")
@click.option("--out", type=click.Path(path_type=Path), help="Corrected list to write.  [default: corrected.csv]")
@click.option("--split", type=click.Path(path_type=Path), help="RUN/split.csv: the list keeps its parts.")
@click.option("--move", is_flag=True, help="Move the photos themselves instead of writing a list.")
@click.option(
    "--quarantine", metavar="DIR", type=click.Path(path_type=Path), help="Folder for dropped photos and the undo file."
)
@click.option("--undo", is_flag=True, help="Take back what the same command did.")
def audit(
    data: Path,
    cache: Path | None,
    most: int,
    html: Path | None,
    as_json: bool,
    review: Path | None,
    out: Path | None,
    split: Path | None,
    move: bool,
    quarantine: Path | None,
    undo: bool,
    **values: Any,
) -> None:
    """Find photos in DATA whose label looks wrong, and correct them as you decide.

    Each photo is judged by a network that has not seen it and by the photos most alike; the worst come first. A
    suspicion is no fault: the exit code stays 0, and nothing changes.

    With --apply, what you decided on the page of --html becomes a corrected list for `pronk train`; with --move and
    --quarantine the photos move to the folders of their classes. Changed photos are left alone and named; then the
    exit code is 1.

    \b
    Example:
        pronk audit photos --html review.html
        pronk audit photos --apply review.csv --out corrected.csv
    """
    typed = {"--out": out, "--split": split, "--move": move, "--quarantine": quarantine, "--undo": undo}
    if review is None:
        _refuse(typed, "belongs to --apply")
        _report(data, make_settings(None, values), cache, most, html, as_json)
        return
    _refuse({"--html": html, "--cache": cache, **_options(values)}, "has no meaning with --apply")
    if move:
        _refuse({"--out": out, "--split": split}, "has no meaning with --move")
        if quarantine is None:
            raise click.UsageError("--move needs --quarantine DIR, for dropped photos and the undo file")
    else:
        _refuse({"--quarantine": quarantine}, "belongs to --move")
    out = out or Path("corrected.csv")
    if undo:
        _take_back(data, review, out, split, quarantine, as_json)
    else:
        _apply(data, review, out, split, quarantine, as_json)


def _refuse(options: dict[str, Any], why: str) -> None:
    for name, value in options.items():
        if value:
            raise click.UsageError(f"{name} {why}")


def _options(values: dict[str, Any]) -> dict[str, Any]:
    return {"--" + name.replace("_", "-"): value is not None for name, value in values.items()}


def _report(data: Path, settings: Any, cache: Path | None, most: int, html: Path | None, as_json: bool) -> None:
    from pronk.analysis.labels import suspicion_records
    from pronk.cli.console import check_page, open_console, print_json, show_progress
    from pronk.cli.summary import print_findings

    check_page("--html", html, data)
    with open_console() as console:
        with show_progress(console) as on_progress:
            found: Audit = _load_audit()(data, settings=settings, cache=cache, on_progress=on_progress)
        shown = found.suspicions[:most]
        if html:
            write_page(html, found, data, most)
        print_findings(console, [finding for finding in found.findings if finding.severity == "error"])
        if as_json:
            print_json(suspicion_records(shown))
        else:
            for row in shown:
                names = "  ".join(visible(name) for name in (row.path, f"{row.given} -> {row.suggested}"))
                click.echo(f"{names}  {row.score:.2f}")
        _say_what_next(console, found, len(shown), data, html)


def write_page(path: Path, found: "Audit", data: Path, most: int) -> None:
    """Write the page to decide on each suspicion."""
    from pronk.report.audit_page import render_audit
    from pronk.storage.files import write_atomically

    page = render_audit(
        found.suspicions,
        root=found.root,
        classes=found.classes,
        data=str(data),
        photos=found.photos,
        accuracy=found.accuracy["mean"],
        most=most,
    )
    write_atomically(path, page.encode())


def _say_what_next(console: "Console", found: "Audit", shown: int, data: Path, html: Path | None) -> None:
    n = len(found.suspicions)
    listed = f", the {shown:,} worst listed" if shown < n else ""
    console.print(
        f"{plural(n, 'label')} of {plural(found.photos, 'photo')} {'looks' if n == 1 else 'look'} wrong{listed}.",
        markup=False,
    )
    accuracy = found.accuracy["mean"]
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


def _apply(data: Path, review: Path, out: Path, split: Path | None, quarantine: Path | None, as_json: bool) -> None:
    from pronk.cli.console import open_console, print_json

    done = _do(data, review, out, split, quarantine)
    with open_console() as console:
        for path, reason in done.left:
            console.print(visible(f"left as it is: {path}: {reason}"), style="yellow", markup=False)
        told = f"{done.moved} moved, {done.dropped} dropped, {done.kept} kept, {len(done.left)} left as they are."
        console.print(told, markup=False)
        if quarantine:
            console.print(f"To take it back: pronk undo {quote(str(done.file))}", markup=False)
        else:
            console.print(f"Train on it: pronk train {quote(str(done.file))}", markup=False)
    if as_json:
        left = [{"path": path, "reason": reason} for path, reason in done.left]
        record = {"file": str(done.file), "moved": done.moved, "dropped": done.dropped, "kept": done.kept}
        print_json(record | {"left": left})
    else:
        click.echo(visible(str(done.file)))
    sys.exit(1 if done.left else 0)


def _do(data: Path, review: Path, out: Path, split: Path | None, quarantine: Path | None) -> "Applied":
    from pronk.moving.review import move_photos, write_list

    return move_photos(review, data, quarantine) if quarantine else write_list(review, data, out, split=split)


def _take_back(data: Path, review: Path, out: Path, split: Path | None, quarantine: Path | None, as_json: bool) -> None:
    from pronk.cli.console import print_json
    from pronk.moving.review import remove_list, undo_moves

    undone, kept = 1, []
    if quarantine is None:
        remove_list(review, data, out, split=split)
    else:
        done = undo_moves(review, data, quarantine)
        undone, kept = done.reversed, [{"path": action.target, "reason": reason} for action, reason in done.kept]
    for row in kept:
        click.echo(visible(f"kept {row['path']}: {row['reason']}"), err=True)
    if as_json:
        print_json({"undone": undone, "kept": kept})
    else:
        click.echo(f"undone: {plural(undone, 'file')}; kept: {len(kept)}")
    sys.exit(1 if kept else 0)


def _load_audit() -> Any:
    import pronk

    return pronk.audit
