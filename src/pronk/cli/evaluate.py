"""`pronk evaluate`."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pronk.model.evaluation import Evaluation
    from pronk.model.predictor import Predictor


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
    from pronk.cli.console import check_page, open_console, print_json, show_progress
    from pronk.cli.summary import accuracy_text, print_confusion, print_findings
    from pronk.model.evaluation import evaluate as judge
    from pronk.model.predictor import Predictor

    check_page("--report", report, data)
    predictor = Predictor.load(model)
    with open_console() as console:
        with show_progress(console) as on_progress:
            evaluation = judge(predictor, data, on_progress=on_progress)
        print_findings(console, evaluation.findings)
        print_confusion(console, evaluation.classes, evaluation.result["confusion"])
    if report:
        write_report(report, predictor, evaluation, title=data.resolve().name, model_path=str(model))
    if as_json:
        print_json(evaluation.result)
    else:
        click.echo(accuracy_text(evaluation.result["accuracy"]))
        if evaluation.result["coverage"]:
            click.echo(accuracy_text(evaluation.result["coverage"], "not called unknown"))


def write_report(
    report: Path, predictor: "Predictor", evaluation: "Evaluation", *, title: str, model_path: str
) -> None:
    """Write the page; without matplotlib it has no plot."""
    from pronk.errors import MissingExtra
    from pronk.model.evaluation import calibration_errors
    from pronk.photos.decoding import load_pixels
    from pronk.report import ReportContent, render_report
    from pronk.report.curves import draw_calibration
    from pronk.report.gallery import make_gallery
    from pronk.storage.files import write_atomically

    size, fit = predictor.bundle.size, predictor.bundle.fit
    calibration = []
    try:
        calibration = draw_calibration(evaluation.rows)
    except MissingExtra as error:
        click.echo(f"note: {error}; {error.hint}", err=True)
    counted = Counter(row["label"] for row in evaluation.rows)
    bundle, classes = predictor.bundle, evaluation.classes
    errors = calibration_errors(evaluation.rows, classes, bundle.temperature)
    metrics = {
        "classes": classes,
        "counts": {"test": len(evaluation.rows)},
        "calibration": {"temperature": bundle.temperature, "ece": {"test": errors}},
        "test": evaluation.result,
    }
    if bundle.unknown:
        metrics["unknown"] = {"coverage": bundle.unknown.coverage, "n": bundle.unknown.n}
    content = ReportContent(
        title=title,
        metrics=metrics,
        calibration=calibration,
        gallery=make_gallery(
            predictor, evaluation.rows, lambda row: load_pixels(evaluation.root / row["path"], size=size, fit=fit)
        ),
        predictions=evaluation.rows,
        findings=[dataclasses.asdict(finding) for finding in evaluation.findings],
        class_counts={name: {"test": counted[name]} for name in classes},
        model_path=model_path,
    )
    write_atomically(report, render_report(content).encode())
