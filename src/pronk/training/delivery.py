"""A run's model -> an export that has proven itself on the user's own photos, or is set aside."""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from pronk.bundle import Bundle, open_bundle, write_bundle
from pronk.calibration import SetScores, conformal_threshold
from pronk.config import read_settings
from pronk.errors import DataError, GateError, ImageError, ModelError, SettingsError
from pronk.files import available_cores, digest_file, read_csv, storage_error, write_json
from pronk.images import load_pixels
from pronk.listing import list_photos
from pronk.parity import compare_answers, count_bytes, measure_speed, run_all
from pronk.report.exports import note_exports
from pronk.runtime import Outputs, open_runtime
from pronk.scan import Progress, no_progress
from pronk.training.conversions import CONVERSIONS, convert
from pronk.training.examples import travel_files

SAMPLES = 200  # photos that the ranges of 8-bit activations are taken from
MIN_AGREEMENTS = {"onnx-int8": 0.97, "litert-int8": 0.97}
MIN_AGREEMENT = 0.99
PARITY = "parity.json"


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A photo as the network sees it, uint8 [size, size, 3], and the index of its class."""

    pixels: np.ndarray
    target: int


@dataclasses.dataclass(frozen=True)
class Exported:
    """What came of an export.

    Attributes:
        folder: of the export; ends in `.rejected` where it failed.
        parity: the record of parity.json.
        gate: the error to raise because too few answers agree; None where the export may be used.
    """

    folder: Path
    parity: dict[str, Any]
    gate: GateError | None


def export_model(
    model: Path | str,
    to: str,
    *,
    calibration: Path | str | None = None,
    min_agreement: float | None = None,
    out: Path | str | None = None,
    on_progress: Progress = no_progress,
) -> Exported:
    """Convert a run's model, compare it with the original on validation photos, and keep it if they agree.

    The export has its own threshold for `unknown` and its own prediction sets, set with the same photos.

    Args:
        model: a run folder or its `model/`.
        to: onnx-int8, litert, litert-int8, savedmodel or keras.
        calibration: labelled photos for both; None takes the run's own training and validation photos.
        min_agreement: least share of equal top classes; None means .99, and .97 with 8 bits.
        out: folder of the export; None means `exports/<to>` in the run folder.
        on_progress: called with ("export", step, steps).

    Raises:
        DataError: if there are no photos to compare with.
        ModelError: if the model cannot be converted.

    Example:
        >>> export_model("no such run", "litert")
        Traceback (most recent call last):
        pronk.errors.ModelError: no model at no such run
    """
    bundle = open_bundle(model)
    if bundle.runtime != "onnx" or to not in CONVERSIONS:
        raise ModelError(
            f"cannot export {bundle.runtime} to {to}", hint=f"name a run; it goes to {', '.join(CONVERSIONS)}"
        )
    home = bundle.run_folder
    folder = Path(out) if out else home / "exports" / to
    samples, compared = gather_photos(bundle, calibration)
    on_progress("export", 1, 4)
    contents = {**convert(bundle, to, np.stack([photo.pixels for photo in samples])), **travel_files(bundle, to)}
    on_progress("export", 2, 4)
    pixels, targets = [photo.pixels for photo in compared], np.array([photo.target for photo in compared])
    reference = run_all(open_runtime(bundle), pixels)
    working = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        written, answers = write_export(working, bundle, to, contents, pixels, targets)
        on_progress("export", 3, 4)
        speed = measure_speed(open_runtime(written), pixels)
        parity = {
            "format": to,
            **compare_answers(reference.probabilities, answers.probabilities, targets),
            "latency_ms": {"p50": speed.p50, "p95": speed.p95},
            "bytes": count_bytes(written.model_path),
        }
        least = MIN_AGREEMENTS.get(to, MIN_AGREEMENT) if min_agreement is None else min_agreement
        agrees = parity["accepted"] = parity["agreement"] >= least
        rejected = folder.with_name(f"{folder.name}.rejected")
        kept = _put_in_place(working, folder if agrees else rejected, replaces=(folder, rejected))
    finally:
        shutil.rmtree(working, ignore_errors=True)
    note_parity(folder.parent / PARITY, parity)
    if folder.parent.resolve() == (home / "exports").resolve():  # elsewhere there may be exports of other runs
        note_exports(home / "report.html", read_parity(folder.parent / PARITY))
    on_progress("export", 4, 4)
    gate = GateError(
        f"{to} gives {parity['agreement']:.1%} of {len(compared)} photos the same class, below {least:.1%}",
        hint=f"it was set aside as {kept}; try another format, or lower --min-agreement",
    )
    return Exported(kept, parity, None if agrees else gate)


def gather_photos(bundle: Bundle, calibration: Path | str | None) -> tuple[list[Labelled], list[Labelled]]:
    """Return photos to take ranges from, classes in turn, and photos to compare on.

    Raises:
        DataError: if there are none: those of the run are gone, or were changed.
    """
    if calibration is None:
        train, val = _photos_of_run(bundle)
    else:
        train, val = _photos_of_folder(Path(calibration))
    foreign = sorted({label for _, label in (*train, *val)} - set(bundle.classes))
    if foreign:
        raise DataError(
            f"the model does not know the class {', '.join(map(repr, foreign))}",
            hint=f"its classes are {', '.join(bundle.classes)}",
        )
    samples, compared = _load(bundle, _in_turn(train, bundle.classes)[:SAMPLES]), _load(bundle, val)
    if not samples or not compared:
        raise DataError(
            "no photos to compare the export with", hint="name a folder of labelled photos with --calibration"
        )
    return samples, compared


def write_export(
    folder: Path,
    bundle: Bundle,
    to: str,
    contents: dict[str, bytes],
    pixels: Sequence[np.ndarray],
    targets: np.ndarray,
) -> tuple[Bundle, Outputs]:
    """Write the export's model folder: with the golden photos of the run, and all that follows from its own numbers.

    Returns:
        The export, and its answers to `pixels`.
    """
    golden = list(bundle.golden())
    for name in golden:
        contents[name] = (bundle.folder / name).read_bytes()
    options: dict[str, Any] = {
        "classes": bundle.classes,
        "size": bundle.size,
        "fit": bundle.fit,
        "weights": bundle.weights,
        "temperature": bundle.temperature,
        "runtime": to,
    }
    runtime = open_runtime(write_bundle(folder, contents, **options))
    photos = [load_pixels(contents[name], size=bundle.size, fit=bundle.fit) for name in golden]
    if photos:
        rows = run_all(runtime, photos).probabilities.tolist()
        expected = {name.removeprefix("golden/"): row for name, row in zip(golden, rows, strict=True)}
        contents["golden/expected.json"] = json.dumps(expected).encode()
    answers = run_all(runtime, pixels)
    unknown = bundle.unknown
    if unknown:
        threshold = conformal_threshold(unknown.novelty.distance(answers.features), unknown.coverage)
        if threshold is not None:
            unknown = dataclasses.replace(unknown, threshold=threshold, n=len(pixels))
    sets = SetScores.fit(answers.probabilities, targets)
    return write_bundle(folder, contents, unknown=unknown, sets=sets, **options), answers


def note_parity(path: Path, parity: dict[str, Any]) -> None:
    """Put a record into the list of parity.json, in the place of the former one for its format."""
    write_json(path, [*(record for record in read_parity(path) if record["format"] != parity["format"]), parity])


def read_parity(path: Path) -> list[dict[str, Any]]:
    """Return the records of parity.json; none where it is missing or damaged, since any export writes it again.

    Example:
        >>> read_parity(Path("no such file"))
        []
    """
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        return [record for record in records if record["format"] in CONVERSIONS]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _photos_of_run(bundle: Bundle) -> tuple[list[tuple[Path, str]], list[tuple[Path, str]]]:
    home = bundle.run_folder
    try:
        data = Path(read_settings(home / "settings.toml")["data"])
        rows = read_csv(home / "split.csv")
    except (OSError, KeyError, SettingsError) as error:
        raise DataError(
            f"{bundle.folder} lies in no run folder, so its photos are not known",
            hint="name a folder of labelled photos with --calibration",
        ) from error
    root = data if data.is_dir() else data.parent
    parts: dict[str, list[tuple[Path, str]]] = {"train": [], "val": []}
    for row in rows:
        path = root / row["path"]
        if row["part"] in parts and path.is_file() and digest_file(path) == row["digest"]:
            parts[row["part"]].append((path, row["label"]))
    return parts["train"], parts["val"]


def _photos_of_folder(data: Path) -> tuple[list[tuple[Path, str]], list[tuple[Path, str]]]:
    listing = list_photos(data, min_classes=1)
    photos = [(listing.root / entry.path, entry.label, entry.part) for entry in listing.entries]
    train = [(path, label) for path, label, part in photos if part == "train"]
    val = [(path, label) for path, label, part in photos if part in ("val", "test")]
    if not train or not val:
        # Every second photo is compared, so that none is judged by ranges that it has set itself.
        both = [(path, label) for path, label, _ in photos]
        train, val = both[::2], both[1::2]
    return train, val


def _in_turn(photos: Iterable[tuple[Path, str]], classes: Sequence[str]) -> list[tuple[Path, str]]:
    by_class: dict[str, list[tuple[Path, str]]] = {name: [] for name in classes}
    for photo in photos:
        by_class[photo[1]].append(photo)
    most = max(map(len, by_class.values()))
    return [same[i] for i in range(most) for same in by_class.values() if i < len(same)]


def _load(bundle: Bundle, photos: Sequence[tuple[Path, str]]) -> list[Labelled]:
    def load(photo: tuple[Path, str]) -> Labelled | None:
        try:
            pixels = load_pixels(photo[0], size=bundle.size, fit=bundle.fit)
        except ImageError:
            return None
        return Labelled(pixels, bundle.classes.index(photo[1]))

    with ThreadPoolExecutor(available_cores()) as pool:
        return [photo for photo in pool.map(load, photos) if photo is not None]


def _put_in_place(working: Path, folder: Path, *, replaces: Iterable[Path]) -> Path:
    try:
        for former in replaces:
            if former.is_dir():
                shutil.rmtree(former)
        working.rename(folder)
    except OSError as error:
        raise storage_error(folder, error) from error
    return folder
