"""Settings -> options of a command, and back."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from pronk.config import CHOICES, OFFLINE_DEFAULTS, Settings

HELP = {
    "split": "CSV with path,label,part; photos named there keep their part.",
    "val": "Share of the photos for validation.",
    "test": "Share of the photos for the final test.",
    "group_by": "Photos whose paths match equally stay in one part, as in '(.*)_frame'.",
    "weights": "imagenet, offline, or the path of an h5 file.",
    "alpha": "Width of the network, for imagenet.",
    "image_size": "Side of the square the network sees, in pixels.",
    "fit": "How a photo becomes that square.",
    "views": "Augmented views per training photo.",
    "fine_tune_from": "Blocks after this one are fine-tuned.",
    "epochs": "Most epochs of phase 2.",
    "learning_rate": "Learning rate of phase 2.",
    "frozen_only": "Leave out phase 2.",
    "class_weights": "auto balances above 3:1.",
    "keep": "Which model is kept; best has the lower validation log-loss.",
    "folds": "Also cross-validate the frozen network in K folds, three times over.",
    "fail_under": "Exit with 1 if the lower end of the test interval is below this.",
    "seed": "Seed of split, views and fine-tuning.",
    "coverage": "Share of genuine photos that are not called unknown.",
    "golden": "drawn keeps your photos out of the model folder.",
}


def _plain_type(kind: Any) -> Any:
    return kind if isinstance(kind, type) else kind.__args__[0]


def settings_options(*names: str, told: Mapping[str, str] = HELP) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add an option for each of these settings; config.py alone knows the defaults, so here they are None.

    Args:
        names: of the settings.
        told: help texts.
    """
    fields = {field.name: field for field in dataclasses.fields(Settings)}

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            default, option = fields[name].default, "--" + name.replace("_", "-")
            text = told[name] + ("" if default in (None, False) else f"  [default: {_show_default(name, default)}]")
            if fields[name].type is bool:
                command = click.option(option, is_flag=True, default=None, help=text)(command)
            else:
                kind = click.Choice(CHOICES[name]) if name in CHOICES else _plain_type(fields[name].type)
                metavar = "BLOCK" if name == "fine_tune_from" else None
                command = click.option(option, type=kind, default=None, help=text, metavar=metavar)(command)
        return command

    return decorate


def _show_default(name: str, default: Any) -> str:
    return f"{default}; offline: {OFFLINE_DEFAULTS[name]}" if name in OFFLINE_DEFAULTS else str(default)


def make_settings(config: Path | None, values: dict[str, Any]) -> Settings:
    """Merge a settings file and what was typed; what was typed wins."""
    from pronk.config import read_settings

    stored = read_settings(config) if config else {}
    given = stored | {name: value for name, value in values.items() if value is not None}
    return Settings.for_weights(given.pop("weights", Settings.weights), **given)
