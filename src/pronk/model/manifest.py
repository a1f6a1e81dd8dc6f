"""model.json -> what a model folder says of itself, believed only where it can be true: it may come from a stranger."""

import json
import math
import re
from pathlib import Path, PurePosixPath
from typing import Any

from pronk.analysis.calibration import SetScores, Unknown
from pronk.config import SETTINGS
from pronk.errors import COPY_AGAIN, ModelError
from pronk.model.formats.table import MODEL_PATHS
from pronk.model.guards.files import check_ordinary
from pronk.storage.places import is_single_name

FORMAT = 1
MODEL_FILE = "model.json"
MOST_BYTES = 8 * 2**20
MOST_CLASSES = 10_000
MOST_FILES = 200
LONGEST_NAME = 255
HIGHEST_TEMPERATURE = 1000.0


def read_record(folder: Path) -> dict[str, Any]:
    """Read the object of model.json.

    Raises:
        ModelError: if it is damaged, or of a format that a newer version writes.

    Example:
        >>> read_record(Path("no such folder"))
        Traceback (most recent call last):
        pronk.errors.ModelError: ...
    """
    path = folder / MODEL_FILE
    check_ordinary(path, most=MOST_BYTES)
    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        written = record["format"]
        if type(written) is not int or written < 1:
            raise ValueError(f"no format {written!r}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: {error!r}", hint=COPY_AGAIN) from error
    if written > FORMAT:
        raise ModelError(
            f"{folder} has format {written}, and this pronk reads formats up to {FORMAT}", hint=_advise(record)
        )
    return dict(record)


def parse_record(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Turn the object of model.json into the fields of a Bundle.

    Raises:
        ModelError: if anything in it cannot be true.

    Example:
        >>> parse_record(Path("model"), {})
        Traceback (most recent call last):
        pronk.errors.ModelError: model/model.json is damaged: KeyError('classes')
    """
    try:
        return {
            "classes": _parse_classes(record["classes"]),
            "size": _parse_size(record["image"]["size"]),
            "fit": _parse_choice(record["image"]["fit"], SETTINGS["fit"].choices),
            "temperature": _parse_temperature(record["temperature"]),
            "files": _parse_files(record["files"]),
            "weights": dict(record["weights"]),
            "versions": dict(record["versions"]),
            # Models written before there were exports name no runtime.
            "runtime": _parse_choice(record.get("runtime", "onnx"), tuple(MODEL_PATHS)),
            "unknown": Unknown.from_record(record["unknown"]) if record.get("unknown") else None,
            "sets": SetScores.from_record(record["sets"]) if record.get("sets") else None,
        }
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ModelError(f"{folder / MODEL_FILE} is damaged: {error!r}", hint=COPY_AGAIN) from error


def _parse_classes(classes: Any) -> tuple[str, ...]:
    # They become names of folders where photos are sorted.
    if not (isinstance(classes, list) and 0 < len(classes) <= MOST_CLASSES and all(map(_is_name, classes))):
        raise ValueError(f"classes must be a list of names. Got {classes!r:.200}")
    if len(set(classes)) != len(classes):
        raise ValueError("a class is named twice")
    return tuple(classes)


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and len(name) <= LONGEST_NAME and is_single_name(name)


def _parse_size(size: Any) -> int:
    if type(size) is not int or SETTINGS["image_size"].find_problem(size):
        raise ValueError(f"no image of size {size!r}")
    return size


def _parse_choice(value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"must be one of {', '.join(allowed)}. Got {value!r:.200}")
    return str(value)


def _parse_temperature(temperature: Any) -> float:
    value = float(temperature)
    if not (math.isfinite(value) and 0 < value < HIGHEST_TEMPERATURE):
        raise ValueError(f"no temperature of {value}")
    return value


def _parse_files(files: Any) -> dict[str, str]:
    if len(files) > MOST_FILES:
        raise ValueError(f"{len(files)} files")
    for name, digest in files.items():
        parts = PurePosixPath(name).parts
        is_inside = parts and not PurePosixPath(name).is_absolute() and ".." not in parts
        if not is_inside or set(name) & {"\\", "\0"} or not isinstance(digest, str):
            raise ValueError(f"no file {name!r:.200} in a model folder")
    return dict(files)


def _advise(record: dict[str, Any]) -> str:
    # Into a shell, so nothing but a version may get into it.
    versions = record.get("versions")
    needed = versions.get("pronk") if isinstance(versions, dict) else None
    is_version = isinstance(needed, str) and re.fullmatch(r"\d+(\.\w+){0,4}", needed)
    return f'pip install "pronk>={needed}"' if is_version else "install a newer version of pronk"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")
