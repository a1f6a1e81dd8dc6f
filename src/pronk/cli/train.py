"""`pronk train`."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from pronk.batch.engines import ENGINES
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
ENGINE_HELP = "Where features are extracted: here, or on the machines of a Ray cluster; results are the same."
PROGRESS = ("auto", "json")
PROGRESS_HELP = "json writes a line of stage, done and total per step, for programs."
ADDRESS_HELP = "First machine of the cluster.  [default: $RAY_ADDRESS, else one of this machine's cores]"


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


@click.command()
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Run folder to make.  [default: runs/<name of DATA>-<N>]")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file of settings, such as RUN/settings.toml.")
@settings_options(*HELP)
@click.option("--resume", is_flag=True, help="Go on with a run that was stopped; start it if it is not there.")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder for features.  [default: $PRONK_CACHE]")
@click.option("--cache-limit", default="10GB", show_default=True, help="Least recently used features go above it.")
@click.option("--engine", type=click.Choice(ENGINES), default="local", show_default=True, help=ENGINE_HELP)
@click.option("--address", metavar="HOST:PORT", help=ADDRESS_HELP)
@click.option("--progress", type=click.Choice(PROGRESS), default="auto", show_default=True, help=PROGRESS_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print metrics.json instead of the run folder.")
def train(
    data: Path | None,
    out: Path | None,
    config: Path | None,
    resume: bool,
    cache: Path | None,
    cache_limit: str,
    engine: str,
    address: str | None,
    progress: str,
    as_json: bool,
    **values: Any,
) -> None:
    """Train a classifier on DATA in two phases, and judge it.

    DATA is a folder with one sub-folder of photos per class, or of train/val/test folders of such, or a CSV with
    path,label and perhaps part. Nothing in it is changed. Some of your photos (8, made small) go into the model
    folder for its self-test; --golden drawn keeps them out.

    \b
    Example:
        pronk train photos --out runs/first
    """
    settings = make_settings(config, values)
    if data is None and not settings.data:
        raise click.UsageError("Missing argument 'DATA'.")
    run_training(
        data or Path(settings.data),
        out=out,
        settings=settings,
        resume=resume,
        cache=cache,
        cache_limit=cache_limit,
        engine=engine,
        address=address,
        progress=progress,
        as_json=as_json,
    )


def run_training(data: Path, *, as_json: bool, settings: Settings, progress: str = "auto", **options: Any) -> None:
    """Train with progress on stderr, then print the run folder or the metrics."""
    from pronk.cli.console import open_console, print_json, show_progress
    from pronk.cli.summary import print_findings, print_training
    from pronk.text import count

    train_run = _load_train()
    with open_console() as console:
        with show_progress(console, form=progress) as on_progress:
            result = train_run(data, settings=settings, on_progress=on_progress, **options)
        print_findings(console, result.findings)
        print_training(console, result.folder, result.metrics)
        if settings.golden == "photos":
            golden = result.folder / "model" / "golden"
            number = len(list(golden.glob("*.jpg")))
            console.print(f"{count(number, 'photo')}, made small, went into {golden} (--golden drawn keeps them out).")
    print_json(result.metrics) if as_json else click.echo(str(result.folder))
    if result.gate:
        raise result.gate


def _load_train() -> Any:
    import pronk

    return pronk.train
