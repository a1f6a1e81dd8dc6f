"""Trained network -> model folder -> checked again on every opening. No framework is needed to use it."""

import dataclasses
import hashlib
import io
import json
import os
import platform
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from pronk.analysis.calibration import SetScores, Unknown
from pronk.config import SETTINGS as CONFIG
from pronk.errors import COPY_AGAIN, ModelError
from pronk.model.first_format import HEAD_FILE, FirstFormat
from pronk.model.formats.runtimes import FIRST_MAP, Runtime
from pronk.model.formats.table import FORMATS, TRAINED, Format
from pronk.model.guards.files import check_ordinary, read_limited
from pronk.model.run import EXPORTS, MODEL, SETTINGS
from pronk.photos.decoding import DECODING_VERSION
from pronk.storage.files import digest_file, write_atomically, write_json
from pronk.storage.places import lies_in
from pronk.text import find_label_fault

FORMAT = 2
TOP = ("out_relu",)  # what heads read before there were others
MODEL_FILE = "model.json"
MOST_BYTES = 8 * 2**20
MOST_CLASSES = 10_000
MOST_FILES, MOST_BLOCKS = 200, 20
HIGHEST_TEMPERATURE = 1000.0
GOLDEN_SIDE = 512
GOLDEN_EXPECTED = "golden/expected.json"
MOST_GOLDEN = 64
GOLDEN_BYTES = 2**20  # of expected.json


@dataclasses.dataclass(frozen=True)
class Bundle:
    """An opened model folder.

    Attributes:
        folder: where it is.
        classes: in the order of the probabilities.
        size: side of the square the network sees, in pixels.
        fit: how a photo becomes that square.
        temperature: the logits are divided by it inside the graph.
        files: sha256 of each file, by its path in the folder.
        weights: name and sha256 of the pre-trained weights.
        blocks: layers of the network whose pooled outputs the head reads, in order.
        versions: versions of the software that wrote it.
        runtime: name of its format, a key of FORMATS.
        unknown: how to tell photos of other things, where there were enough validation photos.
        sets: how to answer with several classes, where there were validation photos.
        rest_class: the class of whatever belongs to no other one; then `unknown` is None.
        decoding: version of the rules by which files become pixels, as it was trained with.
    """

    folder: Path
    classes: tuple[str, ...]
    size: int
    fit: str
    temperature: float
    files: Mapping[str, str]
    weights: Mapping[str, str]
    versions: Mapping[str, str]
    blocks: tuple[str, ...] = TOP
    runtime: str = TRAINED
    unknown: Unknown | None = None
    sets: SetScores | None = None
    rest_class: str | None = None
    decoding: int = DECODING_VERSION

    @property
    def model_path(self) -> Path:
        """The model's file; a folder for savedmodel."""
        return self.folder / self.format.path

    @property
    def opened_path(self) -> Path:
        """The file that pronk opens for prediction."""
        opened = self.format.opened
        return self.folder / opened if opened and opened in self.files else self.model_path

    @property
    def format(self) -> Format:
        """What the model is written as."""
        return FORMATS[self.runtime]

    @property
    def run_folder(self) -> Path:
        """That of the run, where this is a run's model or one of its exports."""
        around = (self.folder.absolute() if self.folder.name in ("", "..") else self.folder).parent
        return around.parent if self.runtime != TRAINED and around.name == EXPORTS else around

    def to_record(self) -> dict[str, Any]:
        """Return the object of model.json."""
        return {
            "format": FORMAT,
            "classes": list(self.classes),
            "image": {"size": self.size, "fit": self.fit, "resample": "bilinear", "decoding": self.decoding},
            "blocks": list(self.blocks),
            "runtime": self.runtime,
            "temperature": self.temperature,
            "unknown": self.unknown and self.unknown.to_record(),
            "sets": self.sets and self.sets.to_record(),
            "rest_class": self.rest_class,
            "files": dict(self.files),
            "weights": dict(self.weights),
            "versions": dict(self.versions),
        }

    def golden(self) -> dict[str, list[float]]:
        """Return the golden photos' expected probabilities by path, if any; ModelError where they do not fit."""
        if GOLDEN_EXPECTED not in self.files:
            return {}
        path = self.folder / GOLDEN_EXPECTED
        try:
            check_ordinary(path, most=GOLDEN_BYTES * len(self.classes))
            expected = json.loads(path.read_text(encoding="utf-8"))
            golden = {f"golden/{name}": [float(value) for value in values] for name, values in expected.items()}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise ModelError(f"{path} is damaged: {error!r}", hint=COPY_AGAIN) from error
        for name, values in golden.items():
            is_whole = len(values) == len(self.classes) and all(0 <= value <= 1 for value in values)
            if name not in self.files or not is_whole or len(golden) > MOST_GOLDEN:
                raise ModelError(f"{path} does not fit the model at {name!r}", hint=COPY_AGAIN)
        return golden


def write_bundle(
    folder: Path,
    contents: Mapping[str, bytes],
    *,
    classes: Iterable[str],
    size: int,
    fit: str,
    weights: Mapping[str, str],
    blocks: Iterable[str] = TOP,
    temperature: float = 1.0,
    runtime: str = TRAINED,
    unknown: Unknown | None = None,
    sets: SetScores | None = None,
    rest_class: str | None = None,
    decoding: int = DECODING_VERSION,
) -> Bundle:
    """Write a model folder; model.json, which names the checksum of everything else, comes last.

    The contents are bytes by path in the folder, the model among them; the other values are those of a Bundle.
    """
    for name, data in contents.items():
        write_atomically(folder / name, data)
    files = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(contents.items())}
    bundle = Bundle(
        folder,
        tuple(classes),
        size,
        fit,
        temperature,
        files,
        weights,
        installed_versions(),
        tuple(blocks),
        runtime,
        unknown,
        sets,
        rest_class,
        decoding,
    )
    write_json(folder / MODEL_FILE, bundle.to_record())
    return open_bundle(folder)


def open_bundle(model: Path | str) -> Bundle:
    """Open a run folder, its `model/`, or an export, and verify every file's checksum.

    Raises:
        ModelError: if it is missing, damaged, altered or made by a newer version.
    """
    folder = _find(Path(model))
    bundle = Bundle(folder, **_parse_record(folder, read_record(folder)))
    _check_files(bundle)
    return bundle


def open_runtime(bundle: Bundle) -> Runtime:
    """Open a bundle's model.

    Raises:
        ModelError: if it cannot be opened, or is not for the bundle's classes, image size and distance.
        MissingExtra: if what opens it is not installed.
    """
    if bundle.format.engine is None:
        raise ModelError(
            f"{bundle.folder} is an export to {bundle.runtime}, which pronk writes and does not open",
            hint="name the run, or its export to onnx-int8 or litert; predict_example.py beside it needs no pronk",
        )
    engine = bundle.format.engine()
    # The bytes that are opened are those that are checked, whatever becomes of the file meanwhile.
    data = read_limited(bundle.opened_path)
    engine.check(data)
    if hashlib.sha256(data).hexdigest() != bundle.files[bundle.opened_path.name]:
        raise ModelError(f"{bundle.opened_path} was altered", hint=COPY_AGAIN)
    runtime = engine.open(data)
    wanted = {"image": [bundle.size, bundle.size, 3], "probabilities": [len(bundle.classes)]}
    if bundle.unknown:
        wanted["features"] = [bundle.unknown.novelty.centre.size]
    heat = runtime.shapes.get("heat")
    sides = [[bundle.size // stride] * 2 for stride in (8, 32)]
    fits = heat is None or (heat[:-1] in sides and heat[-1] == len(bundle.classes))
    if not fits or any(runtime.shapes.get(name) != shape for name, shape in wanted.items()):
        raise ModelError(f"{bundle.opened_path} does not fit its model.json", hint=COPY_AGAIN)
    if FIRST_MAP in runtime.shapes:
        file = bundle.folder / HEAD_FILE if HEAD_FILE in bundle.files else bundle.opened_path
        return FirstFormat(runtime, file, classes=len(bundle.classes))
    return runtime


def golden_photo(image: Image.Image) -> bytes:
    """Encode a photo for the golden set: its own aspect, at most 512 px long, nothing but pixels."""
    small = image.copy()
    small.thumbnail((GOLDEN_SIDE, GOLDEN_SIDE))
    buffer = io.BytesIO()
    # Through an array, so that comments and other notes of the original stay behind.
    Image.fromarray(np.asarray(small)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def installed_versions() -> dict[str, str]:
    """Return the versions of what wrote or runs a model."""
    versions = {"python": platform.python_version()}
    for package in ("pronk", "numpy", "pillow", "onnxruntime", "keras"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    versions.setdefault("pronk", "0")
    return versions


def read_record(folder: Path) -> dict[str, Any]:
    """Read the object of model.json; ModelError if it is damaged, or of a format that a newer version writes."""
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


def _parse_record(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Turn the object of model.json into the fields of a Bundle, unless anything in it cannot be true."""
    try:
        classes, image, files = record["classes"], record["image"], record["files"]
        temperature = float(record["temperature"])
        # Models written before there were exports name no runtime.
        runtime, blocks = record.get("runtime", TRAINED), record.get("blocks", TOP)
        _require(isinstance(classes, list) and 0 < len(classes) <= MOST_CLASSES, "classes", classes)
        _require(all(map(_is_name, classes)) and len(set(classes)) == len(classes), "classes", classes)
        is_size = type(image["size"]) is int and not CONFIG["image_size"].find_problem(image["size"])
        _require(is_size and image["fit"] in CONFIG["fit"].choices, "image", image)
        decoding = image.get("decoding", 1)  # models written before there were two name none
        _require(type(decoding) is int and 0 < decoding <= DECODING_VERSION, "decoding", decoding)
        _require(0 < temperature < HIGHEST_TEMPERATURE, "temperature", temperature)
        _require(len(files) <= MOST_FILES and all(map(_is_inside, files)), "files", files)
        _require(all(isinstance(digest, str) for digest in files.values()), "files", files)
        _require(runtime in FORMATS, "runtime", runtime)
        _require(0 < len(blocks) <= MOST_BLOCKS and all(map(_is_name, blocks)), "blocks", blocks)
        _require(record.get("rest_class") in (None, *classes), "rest_class", record.get("rest_class"))
        return {
            "classes": tuple(classes),
            "size": image["size"],
            "fit": image["fit"],
            "temperature": temperature,
            "files": dict(files),
            "weights": dict(record["weights"]),
            "versions": dict(record["versions"]),
            "blocks": tuple(blocks),
            "runtime": runtime,
            "unknown": Unknown.from_record(record["unknown"]) if record.get("unknown") else None,
            "sets": SetScores.from_record(record["sets"]) if record.get("sets") else None,
            "rest_class": record.get("rest_class"),
            "decoding": decoding,
        }
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ModelError(f"{folder / MODEL_FILE} is damaged: {error!r}", hint=COPY_AGAIN) from error


def _require(is_true: bool, name: str, value: object) -> None:
    if not is_true:
        raise ValueError(f"{name} cannot be {value!r:.200}")


def _is_name(name: object) -> bool:
    return isinstance(name, str) and not find_label_fault(name)


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and not set(name) & {"\\", "\0"}


def _advise(record: dict[str, Any]) -> str:
    # Into a shell, so nothing but a version may get into it.
    versions = record.get("versions")
    needed = versions.get("pronk") if isinstance(versions, dict) else None
    is_version = isinstance(needed, str) and re.fullmatch(r"\d+(\.\w+){0,4}", needed)
    return f'pip install "pronk>={needed}"' if is_version else "install a newer version of pronk"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _find(model: Path) -> Path:
    for folder in (model, model / MODEL):
        if (folder / MODEL_FILE).is_file():
            return folder
    if (model / SETTINGS).is_file():
        raise ModelError(
            f"the run {model} is not finished, so it has no model yet", hint="go on with pronk train ... --resume"
        )
    raise ModelError(f"no model at {model}", hint="name a run folder, its model/ or an export")


def _check_files(bundle: Bundle) -> None:
    wrong = []
    for name, digest in bundle.files.items():
        path = bundle.folder / name
        if not lies_in(path, bundle.folder):
            raise ModelError(f"{bundle.folder / MODEL_FILE} names a file outside the model folder: {name!r}")
        if not os.path.lexists(path):
            wrong.append(f"{name} is missing")
            continue
        check_ordinary(path)
        if digest_file(path) != digest:
            wrong.append(f"{name} was altered")
    model = bundle.format.path
    if not any(name == model or name.startswith(f"{model}/") for name in bundle.files):
        wrong.append(f"{model} is not named")
    if wrong:
        raise ModelError(
            f"the model in {bundle.folder} is not what was trained: {'; '.join(wrong)}",
            hint=f"{COPY_AGAIN}, or train again",
        )
