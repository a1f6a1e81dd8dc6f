"""`pronk check`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pronk.cli.console import check_page, open_console, print_json, say, show_progress
from pronk.cli.settings import Place
from pronk.text import plural, quote, visible

if TYPE_CHECKING:
    from pronk.dataset.checkup import Checkup
    from pronk.dataset.findings import Fault, Finding
    from pronk.moving.quarantine import Quarantined

MOST_EXAMPLES = 5
SET_ASIDE = "set-aside"


@click.command()
@click.argument("data", type=Place())
@click.option("--json", "as_json", is_flag=True, help="Print all findings as JSON.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a page with all findings and pictures.")
@click.option("--fix", is_flag=True, help="Move unusable files, second copies and blank pictures aside.")
@click.option("--quarantine", type=click.Path(path_type=Path), metavar="DIR", help="Where --fix moves them.")
def check(data: Path, as_json: bool, html: Path | None, fix: bool, quarantine: Path | None) -> None:
    """Say what is wrong with the photos in DATA, and what to do.

    Files that cannot be used, copies, one picture in two classes or in two parts, blurred, blank and tiny photos, names
    and classes that make trouble, and shortcuts: whether a class can be told without looking at the subject. For labels
    that look wrong there is pronk audit. Nothing is changed, unless --fix moves files aside, with an undo file; nothing
    is deleted.

    Exit code 0: nothing that matters; 1: findings of severity error or warning, also where --fix moved them.

    \b
    Example:
        pronk check photos
        pronk check photos --html check.html
        pronk check photos --fix --quarantine set-aside
    """
    from pronk.dataset.checkup import check as check_photos
    from pronk.moving.quarantine import check_folders, move_aside
    from pronk.report.check_page import render_check
    from pronk.storage.files import write_atomically

    check_page("--html", html, data)
    if fix != bool(quarantine):
        raise click.UsageError("--fix and --quarantine DIR need each other")
    if quarantine:
        check_folders(data, quarantine)
    with open_console() as console:
        with show_progress(console) as on_progress:
            checkup = check_photos(data, on_progress=on_progress)
        if html:
            page = render_check(checkup, title=data.resolve().name, data=quote(str(data)))
            write_atomically(html, page.encode())
        moved = move_aside(checkup, quarantine) if quarantine else None
        if as_json:
            print_json(_record(checkup, moved))
        else:
            _print_checkup(checkup, data)
            if moved:
                _print_moved(moved)
        notes = sum(finding.severity == "info" for finding in checkup.findings)
        counts = plural(len(checkup.findings) - notes, "finding"), plural(notes, "note")
        where = f"with pictures in {html}" if html else "all of them with --json, with pictures by --html"
        console.print(f"{plural(checkup.files, 'file')} looked at, {', '.join(counts)} ({where}).", markup=False)
    sys.exit(1 if checkup.matters else 0)


def _record(checkup: "Checkup", moved: "Quarantined | None") -> dict[str, Any]:
    from pronk.dataset.checkup import checkup_record

    record = checkup_record(checkup)
    if moved:
        record["moved"] = [{"path": finding.path, "target": target} for finding, target in moved.moved]
        record["kept"] = [{"path": finding.path, "reason": reason} for finding, reason in moved.kept]
        record["undo"] = str(moved.journal) if moved.journal else None
    return record


def _print_checkup(checkup: "Checkup", data: Path) -> None:
    from pronk.dataset.findings import group_findings

    for name, usable in checkup.classes.items():
        say(f"{visible(name)}: {plural(usable, 'usable photo')}")
    for fault, findings in group_findings(checkup.findings):
        say("")
        _print_group(fault, findings, data)


def _print_group(fault: "Fault", findings: Sequence["Finding"], data: Path) -> None:
    """Say what is wrong, why it matters, and what to type."""
    severity = "note" if fault.severity == "info" else fault.severity
    say(f"{severity}: {fault.title} ({fault.code}, {len(findings):,})")
    hints = {finding.hint for finding in findings}
    shared = hints.pop() if len(hints) == 1 else ""
    label = "what"
    for finding in findings[:MOST_EXAMPLES]:
        where = f"{visible(finding.path)}: " if finding.path else ""
        joint = " " if finding.message.endswith(".") else "; "
        own = f"{joint}{visible(finding.hint)}" if finding.hint and not shared else ""
        say(f"  {label:<5} {where}{visible(finding.message)}{own}")
        label = ""
    if len(findings) > MOST_EXAMPLES:
        say(f"        and {len(findings) - MOST_EXAMPLES:,} more")
    if fault.why:
        say(f"  why   {fault.why}")
    typed = [visible(shared)] if shared else []
    if fault.movable and not data.is_file():
        typed.append(f"pronk check {quote(str(data))} --fix --quarantine {SET_ASIDE}")
    if typed:
        say(f"  type  {'; or '.join(typed)}")


def _print_moved(moved: "Quarantined") -> None:
    say("")
    for finding, target in moved.moved:
        say(f"moved {visible(finding.path)} -> {visible(target)}")
    for finding, reason in moved.kept:
        say(f"kept {visible(finding.path)}: {visible(reason)}")
    if moved.journal:
        say(f"{plural(len(moved.moved), 'file')} moved. To take it back: pronk undo {quote(str(moved.journal))}")
    else:
        say("There was nothing to move.")
