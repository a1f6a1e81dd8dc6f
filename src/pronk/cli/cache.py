"""`pronk cache`."""

from pathlib import Path

import click


@click.command()
@click.option("--clear", "clear_it", is_flag=True, help="Remove all features; they are computed again when needed.")
@click.option("--cache", "folder", type=click.Path(path_type=Path), help="Another folder than the usual one.")
def cache(clear_it: bool, folder: Path | None) -> None:
    """Show where features are kept and how large they are.

    \b
    Example:
        pronk cache --clear
    """
    from pronk.storage.cache import clear, default_cache, measure
    from pronk.text import plural

    root = folder or default_cache()
    if clear_it:
        clear(root)
    files, size = measure(root)
    click.echo(f"{root}: {plural(files, 'file')}, {size / 1e6:.1f} MB")
