"""`pronk cache`."""

from pathlib import Path

import click


@click.command()
@click.option("--clear", "clear_it", is_flag=True, help="Remove it all; it is computed again when needed.")
@click.option(
    "--cache",
    "folder",
    type=click.Path(path_type=Path),
    help="Another one than $PRONK_CACHE or the user's.",
)
def cache(clear_it: bool, folder: Path | None) -> None:
    """Show where computed features are kept, and how large they are.

    \b
    Example:
        pronk cache
        pronk cache --clear
    """
    from pronk.storage.cache import clear, default_cache, measure
    from pronk.text import plural

    root = folder or default_cache()
    if clear_it:
        clear(root)
    files, size = measure(root)
    click.echo(f"{root}: {plural(files, 'file')}, {size / 1e6:.1f} MB")
