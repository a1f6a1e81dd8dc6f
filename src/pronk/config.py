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

BLOCKS = (*(f"block_{number}_add" for number in (2, 4, 5, 7, 8, 9, 11, 12, 14, 15)), "block_16_project_BN")


@dataclasses.dataclass(frozen=True)
class ByWeights:
    """A default that is another one where the network has never seen a photo; `Settings` takes its pick."""

    usual: Any
    offline: Any

    def __repr__(self) -> str:
        return f"{self.usual}; offline: {self.offline}"


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is known of a setting besides its name, type and default.

    Attributes:
        help: one sentence.
        limits: lowest and highest value, or None.
        choices: all values that are allowed, or none where that is said by `limits` or nothing.
        is_option: False where it is set in a file or in Python alone.
    """

    help: str
    limits: tuple[float, float] | None = None
    choices: tuple[Any, ...] = ()
    is_option: bool = True

    def find_problem(self, value: object) -> str:
        """Say what a value of the right type must be and is not, or nothing."""
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(map(str, self.choices))}. Got {value!r}"
        if self.limits and isinstance(value, int | float) and not self.limits[0] <= value <= self.limits[1]:
            return f"must be from {self.limits[0]:g} to {self.limits[1]:g}. Got {value!r}"
        return ""


def _setting(default: Any, help: str, *, offline: Any = None, **known: Any) -> Any:
    default = default if offline is None else ByWeights(default, offline)
    return dataclasses.field(default=default, metadata={"setting": Setting(help, **known)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What determines a run, besides the photos themselves.

    `pronk train --config RUN/settings.toml` replays a run from the file that `to_toml` writes. A network that has
    never seen a photo (`weights="offline"`) has to learn from yours what ImageNet's brings along: it gets other
    defaults.

    Attributes:
        {attributes}

    Raises:
        SettingsError: naming everything that is wrong.

    Example:
        >>> Settings(views=2).views
        2
        >>> Settings(weights="offline").fine_tune_from
        'block_2_add'
    """

    data: str = _setting("", "Folder or CSV of the photos, so that a run can be replayed.", is_option=False)
    split: str | None = _setting(None, "CSV with path,label,part; photos named there keep their part.")
    # 15 % + 15 % leaves enough to learn from; the intervals say how little 50 photos tell.
    val: float = _setting(0.15, "Share of the photos for validation.", limits=(0.01, 0.9))
    test: float = _setting(0.15, "Share of the photos for the final test.", limits=(0.0, 0.9))
    group_by: str | None = _setting(None, "Photos whose paths match equally stay in one part, as in '(.*)_frame'.")
    weights: str = _setting("imagenet", "imagenet, offline, or the path of an h5 file.")
    alpha: float = _setting(1.0, "Width of the network, for imagenet.", choices=(0.35, 0.5, 0.75, 1.0, 1.3, 1.4))
    # 224 px with a centre crop: .966 on the alpaca photos; 160 px: .94; squashed: .957; padded: .94.
    image_size: int = _setting(224, "Side of the square the network sees, in pixels.", limits=(32, 1024))
    fit: str = _setting("crop", "How a photo becomes that square.", choices=("crop", "pad", "squash"))
    # With features of four blocks the frozen head's log-loss falls by a tenth, the mean of ten sets, and most where
    # photos are unlike those of ImageNet (hand signs .299 to .198); elsewhere cross-validation takes the last alone.
    features: str = _setting(
        "auto",
        "What the head reads: the last block, several, or auto by cross-validation.",
        choices=("auto", "top", "multi"),
    )
    # With 1, 2 and 4 views the frozen head reaches .965, .965 and .961 on the alpaca photos (ten seeds): a second
    # view is there for fine-tuning, and each further one costs as much time again.
    views: int = _setting(2, "Augmented views per training photo.", offline=8, limits=(1, 64))
    # On the alpaca photos (six seeds, the same learning rate) fine-tuning from block 14 or 15 on lowers the validation
    # loss alike (.055 to .036 and .039), and the test photos like block 15 better (loss .174 and .150, accuracy .942
    # and .949), at two thirds of the time. Block 12 takes twice as long as 14 and is no better there.
    # Offline: nearly all blocks, in larger steps, for longer: .80 of the test photos over three seeds.
    fine_tune_from: str = _setting(
        "block_15_add", "Blocks after this one are fine-tuned.", offline="block_2_add", choices=BLOCKS
    )
    epochs: int = _setting(10, "Most epochs of phase 2.", offline=20, limits=(1, 1000))
    # At 1e-4 the best epoch has a higher validation loss, at 1e-5 it comes later; from block 12 on 3e-5 overfits.
    learning_rate: float = _setting(3e-5, "Learning rate of phase 2.", offline=5e-4, limits=(1e-9, 1.0))
    frozen_only: bool = _setting(False, "Leave out phase 2.")
    class_weights: str = _setting("auto", "auto balances above 3:1.", choices=("auto", "none", "balanced"))
    keep: str = _setting(
        "best", "Which model is kept; best has the lower validation log-loss.", choices=("best", "frozen", "fine-tuned")
    )
    # Not by default: it judges the frozen network alone, and a thousand photos take a minute.
    folds: int | None = _setting(
        None, "Also cross-validate the frozen network in K folds, three times over.", limits=(2, 50)
    )
    fail_under: float | None = _setting(
        None, "Exit with 1 if the lower end of the test interval is below this.", limits=(0.0, 1.0)
    )
    seed: int = _setting(42, "Seed of split, views and fine-tuning.", limits=(0, 2**32 - 1))
    rest_class: str = _setting("auto", "Class of all the rest; auto finds it by its name, none: there is none.")
    # One genuine photo in twenty is what people bear to look at twice; 95 % can be promised from 19 photos on.
    coverage: float = _setting(0.95, "Share of genuine photos that are not called unknown.", limits=(0.5, 0.999))
    golden: str = _setting("photos", "drawn keeps your photos out of the model folder.", choices=("photos", "drawn"))
    batch_size: int = _setting(32, "Photos per step of phase 2.", limits=(1, 4096), is_option=False)
    dropout: float = _setting(0.2, "Share of pooled features dropped in phase 2.", limits=(0.0, 0.9), is_option=False)
    patience: int = _setting(
        2, "Epochs without a lower validation loss before phase 2 stops.", offline=5, limits=(1, 1000), is_option=False
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, ByWeights):
                object.__setattr__(self, field.name, value.offline if self.weights == "offline" else value.usual)
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
    if settings.val + settings.test > 0.9:
        problems.append(f"--val and --test leave no photos to train on. Got {settings.val} and {settings.test}")
    if settings.fail_under is not None and not settings.test and settings.split is None:
        problems.append("--fail-under needs a test part. Got --test 0")
    if settings.frozen_only and settings.keep == "fine-tuned":
        problems.append("--keep fine-tuned needs phase 2. Got --frozen-only")
    if settings.group_by is not None:
        try:
            re.compile(settings.group_by)
        except re.error as error:
            problems.append(f"--group-by must be a regular expression. Got {settings.group_by!r} ({error})")
    if settings.image_size % 32:
        problems.append(f"--image-size must be a multiple of 32. Got {settings.image_size}")
    return problems


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
    if value is None and NoneType in get_args(kind):
        return value, ""
    wanted = kind if isinstance(kind, type) else next(option for option in get_args(kind) if option is not NoneType)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is wanted:
        return value, ""
    return value, f"{name} must be {_NAMES[wanted]}. Got {value!r}"


def _toml_value(value: object) -> str:
    if isinstance(value, str):
        # TOML's basic strings are JSON's, but for the escaped control character DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value).lower() if isinstance(value, bool) else repr(value)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
