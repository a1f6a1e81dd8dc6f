"""Command line and TOML -> Settings: every default of the project, each with its reason, in one place."""

import dataclasses
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from pronk.errors import SettingsError

AUTO = ("auto",)  # chosen by the photos
Changes = tuple[str, ...]  # some of CHANGES, in this order
CHANGES: Changes = ("crop", "turn", "stretch", "mirror", "brightness", "colour", "upside-down", "quarter-turns")
USUAL: Changes = CHANGES[:6]
BLOCKS = (*(f"block_{number}_add" for number in (2, 4, 5, 7, 8, 9, 11, 12, 14, 15)), "block_16_project_BN")


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is known of a setting besides its name, type and default.

    Attributes:
        help: one sentence.
        limits: lowest and highest value, or None.
        choices: all values that are allowed beside those within the limits; none where nothing is said of them.
        is_option: False where it is set in a file or in Python alone.
    """

    help: str
    limits: tuple[float, float] | None = None
    choices: tuple[Any, ...] = ()
    is_option: bool = True

    def find_problem(self, value: object) -> str:
        """Say what a value of the right type must be and is not, or nothing."""
        if value is None or value in self.choices:
            return ""
        allowed = [f"one of {', '.join(map(str, self.choices))}"] if self.choices else []
        if self.limits:
            low, high = self.limits
            if isinstance(value, int | float) and low <= value <= high:
                return ""
            allowed = [*self.choices, f"from {low:g} to {high:g}"]
        return f"must be {' or '.join(allowed)}. Got {value!r}" if allowed else ""


def _setting(default: Any, help: str, **known: Any) -> Any:
    return dataclasses.field(default=default, metadata={"setting": Setting(help, **known)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What determines a run, besides the photos themselves.

    `pronk train --config RUN/settings.toml` replays a run from the file that `to_toml` writes; what `auto` came to
    stands there as chosen.

    Attributes:
        {attributes}

    Raises:
        SettingsError: naming everything that is wrong.

    Example:
        >>> Settings(views=2).views, Settings().views
        (2, 'auto')
    """

    data: str = _setting("", "Folder or CSV of the photos, so that a run can be replayed.", is_option=False)
    split: str | None = _setting(None, "RUN, or a CSV path,label,part: its photos keep their part.")
    # 15 % + 15 % leaves enough to learn from; the intervals say how little 50 photos tell.
    val: float = _setting(0.15, "Share of the photos for validation.", limits=(0.01, 0.9))
    test: float = _setting(0.15, "Share of the photos for the final test.", limits=(0.0, 0.9))
    group_by: str | None = _setting(
        None, "Regular expression; paths with equal matches stay in one part, as '(.*)_frame'."
    )
    weights: str = _setting("imagenet", "imagenet (downloaded once), offline (small, comes with pronk), or an h5 file.")
    alpha: float = _setting(1.0, "Width of the network, of imagenet only.", choices=(0.35, 0.5, 0.75, 1.0, 1.3, 1.4))
    # 224 px with a centre crop: .966 on the alpaca photos; 160 px: .94; squashed: .957; padded: .94.
    image_size: int = _setting(224, "Side of the square the network sees, in steps of 32 px.", limits=(32, 1024))
    fit: str = _setting(
        "crop", "How a photo becomes that square: cut, pad with grey, or distort.", choices=("crop", "pad", "squash")
    )
    # With features of four blocks the frozen head's log-loss falls by a tenth, the mean of ten sets, and most where
    # photos are unlike those of ImageNet (hand signs .299 to .198); elsewhere cross-validation takes the last alone.
    features: str = _setting(
        "auto",
        "What the head reads: top, the last block; multi, several; auto, what does better.",
        choices=("auto", "top", "multi"),
    )
    # What `auto` comes to, and why, stands in training/plan.py.
    views: int | str = _setting("auto", "Changed copies per photo to learn from.", limits=(1, 64), choices=AUTO)
    augment: str = _setting("auto", f"How copies are changed: {', '.join(CHANGES)}, with commas; or none.")
    fine_tune_from: str = _setting("auto", "Fine-tune after this one, as block_12_add.", choices=(*AUTO, *BLOCKS))
    epochs: int | str = _setting("auto", "Epochs (passes over the photos) of phase 2.", limits=(1, 1000), choices=AUTO)
    learning_rate: float | str = _setting(
        "auto", "Largest step of phase 2, as a share of the weights.", limits=(1e-9, 1.0), choices=AUTO
    )
    frozen_only: bool = _setting(False, "Leave out phase 2: train the head alone.")
    class_weights: str = _setting(
        "auto",
        "auto balances where the largest class has over 3 times the smallest.",
        choices=("auto", "none", "balanced"),
    )
    keep: str = _setting(
        "best",
        "Which model is kept; best does better on the validation photos.",
        choices=("best", "frozen", "fine-tuned"),
    )
    # Not by default: it takes about five times as long. Heads that learn all photos instead of 70 % have .87 of the
    # log-loss and .87 of the mistakes, the mean of ten sets.
    judge: str = _setting(
        "held-out",
        "Judge by photos set aside for the test; or cross: by all, each by one of five models made without it.",
        choices=("held-out", "cross"),
    )
    fail_under: float | None = _setting(
        None, "Exit with 1 if the lower end of the test accuracy's interval is below this.", limits=(0.0, 1.0)
    )
    seed: int = _setting(42, "Seed of split, views and fine-tuning.", limits=(0, 2**32 - 1))
    rest_class: str = _setting("auto", "Class of everything else; auto finds it by its name; none: there is none.")
    # One genuine photo in twenty is what people bear to look at twice; 95 % can be promised from 19 photos on.
    coverage: float = _setting(0.95, "Share of your classes' photos not called unknown.", limits=(0.5, 0.999))
    golden: str = _setting(
        "photos",
        "Photos for the model's self-test: 8 of yours, made small, or drawn ones.",
        choices=("photos", "drawn"),
    )
    batch_size: int = _setting(16, "Photos per step of phase 2.", limits=(1, 4096), is_option=False)
    dropout: float = _setting(0.2, "Share of pooled features dropped in phase 2.", limits=(0.0, 0.9), is_option=False)

    def __post_init__(self) -> None:
        problems = find_problems(self)
        if problems:
            raise SettingsError("; ".join(problems), hint="see `pronk train --help` for what is allowed")

    def replace(self, **changes: Any) -> "Settings":
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)


SETTINGS: Mapping[str, Setting] = {field.name: field.metadata["setting"] for field in dataclasses.fields(Settings)}
if Settings.__doc__:  # Python leaves docstrings out on request
    _lines = [f"{name}: {setting.help}" for name, setting in SETTINGS.items()]
    Settings.__doc__ = Settings.__doc__.replace("{attributes}", "\n        ".join(_lines))


def find_problems(settings: Settings) -> list[str]:
    """List everything that is wrong with the values, in words."""
    kinds = {field.name: field.type for field in dataclasses.fields(settings)}
    problems = [text for name in kinds if (text := _convert(name, getattr(settings, name), kinds[name])[1])]
    if problems:
        return problems
    for name, setting in SETTINGS.items():
        if problem := setting.find_problem(getattr(settings, name)):
            problems.append(f"{_option(name)} {problem}")
    if settings.val + settings.test > 0.9 and not problems:
        problems.append(f"--val and --test leave no photos to train on. Got {settings.val} and {settings.test}")
    if settings.judge == "cross" and settings.split is not None:
        problems.append(f"--judge cross deals all photos anew. Got --split {settings.split}")
    if settings.judge == "cross" and settings.test not in (0, Settings.test):
        problems.append(f"--judge cross sets no photos aside. Got --test {settings.test}")
    if settings.fail_under is not None and not settings.test and (settings.split, settings.judge) == (None, "held-out"):
        problems.append("--fail-under needs a test part. Got --test 0")
    if settings.frozen_only and settings.keep == "fine-tuned":
        problems.append("--keep fine-tuned needs phase 2. Got --frozen-only")
    if settings.augment not in ("auto", "none") and set(settings.augment.split(",")) - set(CHANGES):
        problems.append(f"--augment knows auto, none, {', '.join(CHANGES)}, with commas. Got {settings.augment!r}")
    if settings.augment == "none" and settings.views not in ("auto", 1):
        problems.append(f"--augment none leaves the photo itself. Got --views {settings.views}")
    if settings.group_by is not None:
        try:
            re.compile(settings.group_by)
        except re.error as error:
            problems.append(f"--group-by must be a regular expression. Got {settings.group_by!r} ({error})")
    if settings.image_size % 32 and not SETTINGS["image_size"].find_problem(settings.image_size):
        problems.append(f"--image-size must be a multiple of 32. Got {settings.image_size}")
    return problems


def parse_changes(augment: str) -> Changes:
    """Return the changes that a setting names, in the order of CHANGES; `auto` are the usual ones.

    Example:
        >>> parse_changes("mirror,crop"), parse_changes("none")
        (('crop', 'mirror'), ())
    """
    return USUAL if augment == "auto" else tuple(name for name in CHANGES if name in augment.split(","))


def read_settings(path: Path) -> dict[str, Any]:
    """Read a TOML file into arguments for `Settings`; all unknown keys and wrong types are named in one error."""
    try:
        # Folder names that are not UTF-8 keep their bytes; editors on Windows put a mark at the start.
        values = tomllib.loads(path.read_text(encoding="utf-8-sig", errors="surrogateescape"))
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}", hint="name an existing TOML file") from error
    except (ValueError, RecursionError, OverflowError) as error:  # TOMLDecodeError is a ValueError
        raise SettingsError(f"{path} is not valid TOML: {error}", hint="each line reads: name = value") from error
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    problems = [f"unknown setting {name!r}" for name in values if name not in fields]
    for name in values.keys() & fields.keys():
        values[name], problem = _convert(name, values[name], fields[name].type)
        problems += [problem] if problem else []
    if problems:
        raise SettingsError(f"{path}: {'; '.join(sorted(problems))}", hint=f"known settings: {', '.join(fields)}")
    return values


def to_toml(settings: Settings) -> str:
    """Write the settings as TOML that `read_settings` reads back."""
    values = dataclasses.asdict(settings)
    lines = [f"{name} = {_toml_value(value)}" for name, value in values.items() if value is not None]
    return "\n".join(lines) + "\n"


_NAMES = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}


def _convert(name: str, value: object, kind: Any) -> tuple[object, str]:
    kinds = get_args(kind) or (kind,)
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) in kinds:
        return value, ""
    wanted = " or ".join(_NAMES[one] for one in kinds if one is not NoneType)
    return value, f"{name} must be {wanted}. Got {value!r}"


def _toml_value(value: object) -> str:
    if isinstance(value, str):
        # TOML's basic strings are JSON's, but for the escaped control character DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value).lower() if isinstance(value, bool) else repr(value)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
