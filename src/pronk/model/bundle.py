"""Trained network -> model folder -> checked again on every opening. No framework is needed to use it."""

import dataclasses
import hashlib
import io
import json
import os
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from PIL import Image

from pronk.analysis.calibration import SetScores, Unknown
from pronk.errors import COPY_AGAIN, ModelError
from pronk.model.formats.table import GOLDEN_TOLERANCE, GOLDEN_TOLERANCES, MODEL_PATHS
from pronk.model.guards.files import check_ordinary
from pronk.model.manifest import FORMAT, MODEL_FILE, parse_record, read_record
from pronk.model.run import EXPORTS, MODEL, SETTINGS
from pronk.storage.files import digest_file, write_atomically, write_json
from pronk.storage.places import lies_in

HEAD_FILE = "head.npy"  # beside a model that is no ONNX file
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
        versions: of the software that wrote it.
        runtime: what opens the model: a key of MODEL_PATHS.
        unknown: how to tell photos of other things, where there were enough validation photos.
        sets: how to answer with several classes, where there were validation photos.
    """

    folder: Path
    classes: tuple[str, ...]
    size: int
    fit: str
    temperature: float
    files: Mapping[str, str]
    weights: Mapping[str, str]
    versions: Mapping[str, str]
    runtime: str = "onnx"
    unknown: Unknown | None = None
    sets: SetScores | None = None

    @property
    def model_path(self) -> Path:
        """The model's file; a folder for savedmodel."""
        return self.folder / MODEL_PATHS[self.runtime]

    @property
    def run_folder(self) -> Path:
        """That of the run, where this is a run's model or one of its exports."""
        around = (self.folder.absolute() if self.folder.name in ("", "..") else self.folder).parent
        return around.parent if self.runtime != "onnx" and around.name == EXPORTS else around

    @property
    def tolerance(self) -> float:
        """How much a golden photo's probability may differ."""
        return GOLDEN_TOLERANCES.get(self.runtime, GOLDEN_TOLERANCE)

    def golden(self) -> dict[str, list[float]]:
        """Return the expected probabilities of the golden photos, by path in the folder; none where it has none.

        Raises:
            ModelError: if they do not fit the classes or the files.
        """
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
    temperature: float = 1.0,
    runtime: str = "onnx",
    unknown: Unknown | None = None,
    sets: SetScores | None = None,
) -> Bundle:
    """Write a model folder; model.json, which names the checksum of everything else, comes last.

    Args:
        folder: created where it is missing.
        contents: bytes by path in the folder; the model must be among them.
        classes: in the order of the probabilities.
        size: of the image in pixels.
        fit: crop, pad or squash.
        weights: name and sha256 of the pre-trained weights.
        temperature: for the record; it lies inside the model.
        runtime: what opens the model: a key of MODEL_PATHS.
        unknown: how to tell photos of other things.
        sets: how to answer with several classes.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> args = dict(classes=["a", "b"], size=32, fit="crop", weights={})
        >>> write_bundle(folder, {"model.onnx": b"..."}, **args).classes
        ('a', 'b')
    """
    for name, data in contents.items():
        write_atomically(folder / name, data)
    record = {
        "format": FORMAT,
        "classes": list(classes),
        "image": {"size": size, "fit": fit, "resample": "bilinear"},
        "runtime": runtime,
        "temperature": temperature,
        "unknown": unknown and unknown.to_record(),
        "sets": sets and sets.to_record(),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(contents.items())},
        "weights": dict(weights),
        "versions": installed_versions(),
    }
    write_json(folder / MODEL_FILE, record)
    return open_bundle(folder)


def open_bundle(model: Path | str) -> Bundle:
    """Open a run folder, its `model/`, or an export, and verify every file's checksum.

    Raises:
        ModelError: if it is missing, damaged, altered or made by a newer version.

    Example:
        >>> open_bundle("no such model")
        Traceback (most recent call last):
        pronk.errors.ModelError: no model at no such model
    """
    folder = _find(Path(model))
    bundle = Bundle(folder, **parse_record(folder, read_record(folder)))
    _check_files(bundle)
    return bundle


def golden_photo(image: Image.Image) -> bytes:
    """Encode a photo for the golden set: its own aspect, at most 512 px long, nothing but pixels.

    Example:
        >>> Image.open(io.BytesIO(golden_photo(Image.new("RGB", (1024, 768))))).size
        (512, 384)
    """
    small = image.copy()
    small.thumbnail((GOLDEN_SIDE, GOLDEN_SIDE))
    buffer = io.BytesIO()
    # Through an array, so that comments and other notes of the original stay behind.
    Image.fromarray(np.asarray(small)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def installed_versions() -> dict[str, str]:
    """Return the versions of what wrote or runs a model.

    Example:
        >>> "pronk" in installed_versions()
        True
    """
    versions = {"python": platform.python_version()}
    for package in ("pronk", "numpy", "pillow", "onnxruntime", "keras"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    versions.setdefault("pronk", "0")
    return versions


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
    model = MODEL_PATHS[bundle.runtime]
    if not any(name == model or name.startswith(f"{model}/") for name in bundle.files):
        wrong.append(f"{model} is not named")
    if wrong:
        raise ModelError(
            f"the model in {bundle.folder} is not what was trained: {'; '.join(wrong)}",
            hint=f"{COPY_AGAIN}, or train again",
        )
