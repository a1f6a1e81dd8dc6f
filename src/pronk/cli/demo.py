"""`pronk demo`."""

from pathlib import Path

import click


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, help="Folder to make.")
@click.option("--json", "as_json", is_flag=True, help="Print metrics.json instead of the run folder.")
def demo(out: Path, as_json: bool) -> None:
    """Draw a small set of photo-like pictures and train on it, without a network.

    \b
    Example:
        pronk demo --out demo
    """
    from pronk.cli.console import open_console, show_progress
    from pronk.cli.train import run_training
    from pronk.demo import demo_settings, draw_demo

    with open_console() as console, show_progress(console) as on_progress:
        photos = draw_demo(out, on_progress=on_progress)
    run_training(photos, out=out / "run", settings=demo_settings(), cache=out / "cache", as_json=as_json)
