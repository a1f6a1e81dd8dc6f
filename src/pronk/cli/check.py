"""`pronk check`."""

import dataclasses
import sys
from pathlib import Path

import click


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(data: Path, as_json: bool) -> None:
    """Look for files in DATA that cannot be used, and for duplicates. Nothing is changed.

    Exit code 0: nothing that matters; 1: findings of severity error or warning.

    \b
    Example:
        pronk check photos
    """
    from pronk.cli.console import open_console, print_json, show_progress
    from pronk.cli.summary import print_findings
    from pronk.scan import check_dataset
    from pronk.text import count

    with open_console() as console:
        with show_progress(console) as on_progress:
            checked = check_dataset(data, on_progress=on_progress)
        if as_json:
            findings = [dataclasses.asdict(finding) for finding in checked.findings]
            print_json({"files": checked.files, "classes": checked.classes, "findings": findings})
        else:
            for name, usable in checked.classes.items():
                click.echo(f"{name}: {count(usable, 'usable photo')}".encode("utf-8", "backslashreplace").decode())
            print_findings(console, checked.findings, most=20)
            notes = sum(finding.severity == "info" for finding in checked.findings)
            told = count(len(checked.findings) - notes, "finding"), count(notes, "note")
            console.print(f"{count(checked.files, 'file')} looked at, {', '.join(told)} (all of them with --json).")
    sys.exit(1 if any(finding.severity != "info" for finding in checked.findings) else 0)
