"""`pronk evaluate`."""

from pathlib import Path

import click

from pronk.cli.settings import Place


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=Place())
@click.option("--report", type=click.Path(path_type=Path), help="Page to write.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
def evaluate(model: Path, data: Path, report: Path | None, as_json: bool) -> None:
    """Judge MODEL on the labelled photos in DATA.

    Where DATA has a test folder, only that is used; else all of it. Photos that the model learned from are named,
    and count all the same.

    \b
    Example:
        pronk evaluate runs/photos-1 more-photos --report more.html
    """
    from pronk.cli.console import check_page, open_console, print_json, show_progress
    from pronk.cli.summary import accuracy_text, print_confusion, print_findings
    from pronk.model.evaluation import evaluate as judge
    from pronk.model.predictor import Predictor
    from pronk.report.run_page import write_evaluation

    check_page("--report", report, data)
    predictor = Predictor.load(model)
    with open_console() as console:
        with show_progress(console) as on_progress:
            evaluation = judge(predictor, data, on_progress=on_progress)
        print_findings(console, evaluation.findings)
        print_confusion(console, evaluation.classes, evaluation.result["confusion"])
    if report:
        write_evaluation(report, predictor, evaluation, title=data.resolve().name, model_path=str(model))
    if as_json:
        print_json(evaluation.result)
    else:
        click.echo(accuracy_text(evaluation.result["accuracy"]))
        if evaluation.result["coverage"]:
            click.echo(accuracy_text(evaluation.result["coverage"], "not called unknown"))
