"""Settings -> options of a command, and back."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pronk.config import SETTINGS, Settings, read_settings
from pronk.errors import SettingsError
from pronk.storage.remote import to_path

Command = Callable[..., Any]
OPTIONS = tuple(name for name, setting in SETTINGS.items() if setting.is_option)
# Of these depends what features say, and with a seed what heads learn from them.
UNBOUNDED = ("seed", "learning_rate")  # their limits say nothing to a person
CACHE_HELP = "Folder for computed features.  [default: $PRONK_CACHE, else the user's own]"
FROZEN_OPTIONS = ("weights", "alpha", "image_size", "fit", "group_by", "seed")


def settings_options(*names: str, **helps: str) -> Callable[[Command], Command]:
    """Add an option for each of these settings, None where it was not typed: `Settings` alone knows the defaults.

    A setting that means something else to this command is given with its own help text instead.
    """

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            command = _make_option(name, helps.get(name, SETTINGS[name].help))(command)
        return command

    return decorate


class Place(click.ParamType):  # type: ignore[type-arg]  # generic from 8.4 on
    """A path of this machine, or one at an address such as s3://bucket/photos."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path; a PronkError where nothing here reads such an address."""
        return to_path(value)


class AutoOr(click.ParamType):  # type: ignore[type-arg]
    """A number, or the word auto."""

    def __init__(self, number: "click.ParamType[Any]") -> None:
        self.number = number
        self.name = "auto|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return auto or the number."""
        return value if value == "auto" else self.number.convert(value, param, ctx)


def _make_option(name: str, text: str) -> Callable[[Command], Command]:
    field = next(field for field in dataclasses.fields(Settings) if field.name == name)
    kind: Any = field.type if isinstance(field.type, type) else field.type.__args__[0]  # type: ignore[union-attr]
    choices, limits = SETTINGS[name].choices, SETTINGS[name].limits
    allowed = [f"{limits[0]:g} to {limits[1]:g}"] if limits and name not in UNBOUNDED else []
    allowed += [", ".join(map(str, choices))] if choices and kind is not str and not limits else []
    allowed += [] if field.default in (None, False) else [f"default: {field.default}"]
    text += f"  [{'; '.join(allowed)}]" if allowed else ""
    if choices and limits:
        kind = AutoOr(click.types.convert_type(kind))
    return click.option(
        "--" + name.replace("_", "-"),
        is_flag=kind is bool,
        type=click.Choice(choices) if kind is str and choices else kind,
        default=None,
        help=text,
        metavar={"fine_tune_from": "BLOCK", "augment": "auto|none|LIST"}.get(name),
    )


def make_settings(config: Path | None, values: dict[str, Any]) -> Settings:
    """Merge a settings file and what was typed; what was typed wins."""
    stored = read_settings(config) if config else {}
    typed = {name: value for name, value in values.items() if value is not None}
    try:
        settings = Settings(**stored | typed)
    except SettingsError as error:
        context = click.get_current_context(silent=True)
        raise SettingsError(str(error), hint=f"{context.command_path} --help" if context else error.hint) from error
    if "alpha" in typed and settings.weights != "imagenet":
        raise SettingsError(
            f"--alpha is for --weights imagenet. Got --weights {settings.weights}", hint="its width is in the weights"
        )
    return settings
