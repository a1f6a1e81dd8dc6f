"""`pronk evaluate`."""

import dataclasses
from collections import Counter
from pathlib import Path

import click


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--report", type=click.Path(path_type=Path), help="HTML file to write.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
def evaluate(model: Path, data: Path, report: Path | None, as_json: bool) -> None:
    """Judge MODEL on the labelled photos in DATA.

    Where DATA has a test folder, only that is used; else all of it. Photos that the model was trained with are named.

    \b
    Example:
        pronk evaluate runs/photos-1 more-photos --report more.html
    """
    from pronk.cli.console import open_console, print_json, show_progress
    from pronk.cli.summary import accuracy_text, print_confusion, print_findings
    from pronk.evaluation import evaluate as judge
    from pronk.files import write_atomically

    if report and report.suffix.lower() not in (".html", ".htm"):
        raise click.UsageError(f"--report must end in .html. Got {str(report)!r}")
    with open_console() as console:
        with show_progress(console) as on_progress:
            evaluation = judge(model, data, on_progress=on_progress)
        print_findings(console, evaluation.findings)
        print_confusion(console, evaluation.classes, evaluation.result["confusion"])
    if report:
        from pronk.report import ReportContent, render_report

        counted = Counter(row["label"] for row in evaluation.rows)
        content = ReportContent(
            title=data.resolve().name,
            metrics={
                "classes": evaluation.classes,
                "counts": {"test": len(evaluation.rows)},
                "test": evaluation.result,
            },
            predictions=evaluation.rows,
            findings=[dataclasses.asdict(finding) for finding in evaluation.findings],
            class_counts={name: {"test": counted[name]} for name in evaluation.classes},
            model_path=str(model),
        )
        write_atomically(report, render_report(content).encode())
    if as_json:
        print_json(evaluation.result)
    else:
        click.echo(accuracy_text(evaluation.result["accuracy"]))
