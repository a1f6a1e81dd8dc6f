"""`pronk verify`."""

from pathlib import Path

import click


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print {ok, max_difference, checks} as JSON.")
def verify(model: Path, as_json: bool) -> None:
    """Test that MODEL is whole and answers as when it was trained.

    Every file's checksum is compared, then the photos in its folder golden are predicted.

    \b
    Example:
        pronk verify runs/photos-1
    """
    from pronk.cli.console import print_json
    from pronk.errors import COPY_AGAIN, ModelError
    from pronk.model.bundle import open_bundle, open_runtime
    from pronk.model.predictor import Predictor

    bundle = open_bundle(model)
    predictor = Predictor(bundle, open_runtime(bundle))
    checks = predictor.verify()
    problem = predictor.find_problem(checks)
    if not checks:
        problem = ModelError(f"{bundle.folder} has no golden photos to test with", hint=COPY_AGAIN)
    worst = max((check["difference"] for check in checks), default=0.0)
    if as_json:
        print_json({"ok": problem is None, "max_difference": worst, "checks": checks})
    elif problem is None:
        click.echo(f"ok: {len(bundle.files)} files whole, {len(checks)} golden photos, largest difference {worst:.2g}")
    if problem:
        raise problem
