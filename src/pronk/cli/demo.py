"""`pronk demo`."""

from pathlib import Path

import click

from pronk.config import Settings

PHOTOS_PER_CLASS = 50
SETTINGS = Settings(weights="offline", image_size=160)  # drawn photos need no more


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, help="Folder to make.")
@click.option("--json", "as_json", is_flag=True, help="Print metrics.json instead of the run folder.")
def demo(out: Path, as_json: bool) -> None:
    """Draw a small set of pictures and train on it, offline.

    \b
    Example:
        pronk demo --out demo
    """
    from pronk.cli.console import open_console, show_progress
    from pronk.cli.train import run_training
    from pronk.photos.drawing import draw_photos

    with open_console() as console, show_progress(console) as on_progress:
        photos = draw_photos(
            out / "photos",
            photos_per_class=PHOTOS_PER_CLASS,
            on_progress=lambda done, total: on_progress("draw", done, total),
        )
    run_training(
        photos, out=out / "run", settings=SETTINGS.replace(golden="drawn"), cache=out / "cache", as_json=as_json
    )
