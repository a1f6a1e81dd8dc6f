"""`pronk serve`."""

import signal
import sys
from pathlib import Path
from typing import Any

import click

from pronk.cli.console import installed_version
from pronk.config import SETTINGS, Settings

DEFAULT_WORK = "taught"


@click.command()
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; the default is this machine alone."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes any that is free."
)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    help=f"Folder to teach in, the only one that is written to.  [default: none; without MODEL: {DEFAULT_WORK}]",
)
@click.option("--weights", help=f"Network to teach from: {SETTINGS['weights'].help}  [default: {Settings.weights}]")
@click.option(
    "--token",
    envvar="PRONK_TOKEN",
    help="Clients must show it, as Authorization: Bearer TOKEN.  [default: $PRONK_TOKEN]",
)
@click.option("--allow-anyone", is_flag=True, help="Let all machines that reach HOST in without a token.")
@click.option("--body-limit", default="10MB", show_default=True, help="Most that one request may send.")
def serve(model: Path | None, token: str | None, host: str, allow_anyone: bool, **options: Any) -> None:
    """Show MODEL as a page in the browser, and answer programs.

    The page takes photos by drop, paste and camera. With --work, or without MODEL, it also teaches new models. Photos
    stay on this machine. The routes for programs, and how to put it behind another server: docs/serving.md of the
    source.

    \b
    Example:
        pronk serve runs/photos-1
        pronk serve --work taught
    """
    from pronk.errors import need_extra

    if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token and token):
        raise click.UsageError("--token must be printable ASCII without spaces around it")
    with need_extra("serve", "pronk serve"):
        from pronk.server.gateway import LOOPBACK, Access
        from pronk.server.process import ServeOptions, serve_model
    if not (host.lower() in LOOPBACK or token or allow_anyone):
        raise click.UsageError(
            f"on --host {host} others can reach the server: name a --token T, or --allow-anyone to let everybody in"
        )
    asked = ServeOptions(
        model=model,
        work=options.pop("work") or (None if model else Path(DEFAULT_WORK)),
        access=Access(host, token, allow_anyone),
        version=installed_version(),
        **options,
    )
    code = serve_model(asked, tell=lambda text: click.echo(text, err=True), on_ready=click.echo)
    sys.exit(130 if code == signal.SIGINT else 0)
