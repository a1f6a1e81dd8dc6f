"""`pronk export`."""

from pathlib import Path
from typing import Any

import click

from pronk.cli.settings import Place
from pronk.model.formats.table import FORMATS, TRAINED
from pronk.text import plural

EXPORTS = tuple(name for name in FORMATS if name != TRAINED)


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(EXPORTS), required=True, multiple=True, help="Format; may be repeated.")
@click.option("--calibration", type=Place(), help="Labelled photos to try it with.  [default: those of the run]")
@click.option(
    "--min-agreement",
    type=click.FloatRange(0, 1),
    help="Least share of photos that get the same class.  [default: .99; int8 .97; micro .95]",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write.  [default: RUN/exports/<format>]")
@click.option("--runtime", type=click.Path(path_type=Path), help="For web: ONNX Runtime.  [default: fetched by npm]")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def export(model: Path, to: tuple[str, ...], out: Path | None, as_json: bool, **options: Any) -> None:
    """Convert MODEL for another program or device, and test it.

    onnx-int8 is for ONNX Runtime, in 8 bits (RUN/model is ONNX in full already); litert for phones; web a page that
    answers in the visitor's browser, for any web server; micro C for microcontrollers; savedmodel and keras for
    TensorFlow. All but web carry labels.txt and an example that needs no pronk. predict, evaluate, verify and bench
    take all but savedmodel and keras. One that gives too many validation photos another class than MODEL does is set
    aside as <format>.rejected, and the exit code is 1.

    \b
    Example:
        pronk export runs/photos-1 --to onnx-int8 --to litert
    """
    import pronk
    from pronk.cli.console import open_console, print_json, show_progress
    from pronk.training.micro import say_size

    if out and len(to) > 1:
        raise click.UsageError("--out names one folder, so --to can be given once only")
    done = []
    with open_console() as console:
        for form in to:
            with show_progress(console) as on_progress:
                exported = pronk.export_model(model, form, out=out, on_progress=on_progress, **options)
            done.append(exported)
            console.print(describe_agreement(exported.parity), markup=False)
            if "arena_bytes" in exported.parity:
                console.print(f"  {say_size(exported.parity)}", markup=False)
    if as_json:
        print_json([exported.parity for exported in done])
    else:
        for exported in done:
            click.echo(str(exported.folder))
    for exported in done:
        if exported.gate:
            raise exported.gate


def describe_agreement(parity: dict[str, Any]) -> str:
    """Say in two lines how an export compares with the model it was made of."""
    accuracy, latency = parity["accuracy"], parity["latency_ms"]
    photos = plural(accuracy["exported"]["n"], "photo")
    return (
        f"{parity['format']}: {100 * parity['agreement']:.1f} % of {photos} get the same class "
        f"(largest difference of a probability {parity['max_difference']:.2g})\n"
        f"  accuracy {100 * accuracy['exported']['value']:.1f} % (was {100 * accuracy['reference']['value']:.1f} %), "
        f"{latency['p50']:.1f} ms a photo, 95 % within {latency['p95']:.1f} ms, {parity['bytes'] / 1e6:.1f} MB"
    )
