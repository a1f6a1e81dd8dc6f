"""A run's model -> an export that has proven itself on the user's own photos, or is set aside."""

import contextlib
import dataclasses
import importlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pronk.analysis.calibration import SetScores, conformal_threshold
from pronk.config import read_settings
from pronk.dataset.listing import list_photos
from pronk.dataset.split import take_in_turn
from pronk.errors import DataError, GateError, ImageError, ModelError, RunError, SettingsError, need_extra
from pronk.model.agreement import compare_answers, count_bytes, measure_speed, run_all
from pronk.model.bundle import MODEL_FILE, Bundle, open_bundle, open_runtime, read_record, write_bundle
from pronk.model.formats.example_programs import travel_files
from pronk.model.formats.runtimes import Runtime
from pronk.model.formats.table import FORMATS
from pronk.model.run import EXPORTS, PARITY, REPORT, SETTINGS, read_split
from pronk.photos.decoding import load_pixels
from pronk.pools import run_in_order
from pronk.progress import Progress, no_progress
from pronk.report.run_page import note_exports
from pronk.storage.files import digest_file, lock_folder, storage_error, write_json
from pronk.training.conversions import CONVERSIONS, convert

STEPS = 4
SAMPLES = 200  # photos that the ranges of 8-bit activations are taken from

Named = tuple[Path, str]  # a photo and its class


@dataclasses.dataclass(frozen=True)
class Exported:
    """What came of an export.

    Attributes:
        folder: folder of the export; its name ends in `.rejected` where it failed.
        parity: the record of parity.json.
        gate: the error to raise because too few predictions agree; None where the export may be used.
    """

    folder: Path
    parity: dict[str, Any]
    gate: GateError | None


@dataclasses.dataclass(frozen=True)
class ExportPhotos:
    """What an export is made and judged with.

    Attributes:
        samples: photos that ranges of activations are taken from, uint8 [size, size, 3] each.
        compared: photos to compare the predictions on, uint8 [size, size, 3] each.
        targets: class indices of those, int [n].
        is_validation: those are the run's own validation photos, which the model was not trained with.
    """

    samples: Sequence[np.ndarray]
    compared: Sequence[np.ndarray]
    targets: np.ndarray
    is_validation: bool


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

    With the run's own photos, the export gets its own threshold for `unknown` and its own prediction sets; compared on
    other photos, it keeps those of the model, since nobody knows whether the model has seen them.

    Args:
        model: a run folder or its `model/`.
        to: a key of CONVERSIONS, such as onnx-int8.
        calibration: folder of labelled photos, used in the parts that the run's split.csv gives their content; None
            takes the run's own training and validation photos, where they were.
        min_agreement: least share of equal top classes; None means .99, and .97 with 8 bits.
        out: folder of the export; None means `exports/<to>` in the run folder. A former export is replaced.
        on_progress: called with ("export", step, steps).

    Raises:
        PronkError: if something else lies at `out`, there are no photos to compare, or the model cannot be converted.
    """
    bundle = _open_run(model, to)
    folder = Path(out) if out else bundle.run_folder / EXPORTS / to
    check_place(folder, to)
    photos = gather_photos(bundle, calibration)
    on_progress("export", 1, STEPS)
    contents = convert(bundle, to, np.stack(photos.samples)) | travel_files(bundle, to)
    on_progress("export", 2, STEPS)
    with hold_place(folder) as working:
        exported, parity = prove(working, bundle, to, contents, photos)
        on_progress("export", 3, STEPS)
        gate = judge_parity(parity, min_agreement)
        parity["accepted"] = gate is None
        kept = put_in_place(exported, folder, is_accepted=gate is None)
        if out:
            note_parity(kept / PARITY, parity)  # a folder of the user's own gets no files beside the export
        else:
            note_exports(bundle.run_folder / REPORT, note_parity(folder.parent / PARITY, parity))
    on_progress("export", STEPS, STEPS)
    return Exported(kept, parity, gate)


def _open_run(model: Path | str, to: str) -> Bundle:
    bundle = open_bundle(model)
    if bundle.runtime != "onnx" or to not in CONVERSIONS:
        raise ModelError(
            f"cannot export {bundle.runtime} to {to}", hint=f"name a run; it goes to {', '.join(CONVERSIONS)}"
        )
    if "litert" in to:  # said at once, not after the work
        with need_extra("litert", f"export to {to}"):
            importlib.import_module("ai_edge_litert")
    return bundle


def check_place(folder: Path, to: str) -> None:
    """Refuse a folder that holds anything but a former export to the same format, which would be replaced."""
    for taken in (folder, _rejected(folder)):
        if os.path.lexists(taken) and not _is_export(taken, to):
            raise RunError(f"{taken} exists and is not an export to {to}", hint="name a folder that is not there yet")


@contextlib.contextmanager
def hold_place(folder: Path) -> Iterator[Path]:
    """Give a working folder beside the export, that is gone afterwards.

    Raises:
        RunError: if another process exports there.
    """
    place = folder.absolute()
    working = place.with_name(f".{place.name}.tmp")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(place.parent, error) from error
    with lock_folder(place.parent):
        shutil.rmtree(working, ignore_errors=True)  # of an export that was killed
        try:
            yield working
        finally:
            shutil.rmtree(working, ignore_errors=True)


def prove(
    folder: Path, bundle: Bundle, to: str, contents: dict[str, bytes], photos: ExportPhotos
) -> tuple[Bundle, dict[str, Any]]:
    """Write the export, and compare it with the model it was made of.

    Returns:
        The export, and the record of parity.json but for `accepted`.
    """
    exported, runtime, answers = write_export(folder, bundle, to, contents, photos)
    reference, _ = run_all(open_runtime(bundle), photos.compared)
    speed = measure_speed(runtime, photos.compared)
    parity = {
        "format": to,
        **compare_answers(reference, answers, photos.targets),
        "latency_ms": {"p50": speed.p50, "p95": speed.p95},
        "bytes": count_bytes(exported.model_path),
    }
    return exported, parity


def write_export(
    folder: Path, bundle: Bundle, to: str, contents: dict[str, bytes], photos: ExportPhotos
) -> tuple[Bundle, Runtime, np.ndarray]:
    """Write the export's model folder: with the golden photos of the run, and all that follows from its own numbers.

    Returns:
        The export, what opened it, and its probabilities for the photos that are compared, float32 [n, C].
    """
    golden = list(bundle.golden())
    contents = contents | {name: (bundle.folder / name).read_bytes() for name in golden}
    options: dict[str, Any] = {
        "classes": bundle.classes,
        "size": bundle.size,
        "fit": bundle.fit,
        "weights": bundle.weights,
        "blocks": bundle.blocks,
        "temperature": bundle.temperature,
        "runtime": to,
        "rest_class": bundle.rest_class,
        "decoding": bundle.decoding,
    }
    runtime = CONVERSIONS[to].open(write_bundle(folder, contents, **options))
    if golden:
        pixels = [
            load_pixels(contents[name], size=bundle.size, fit=bundle.fit, version=bundle.decoding) for name in golden
        ]
        rows = run_all(runtime, pixels)[0].tolist()
        expected = {name.removeprefix("golden/"): row for name, row in zip(golden, rows, strict=True)}
        contents["golden/expected.json"] = json.dumps(expected).encode()
    probabilities, features = run_all(runtime, photos.compared)
    unknown, sets = bundle.unknown, bundle.sets
    if photos.is_validation:
        sets = SetScores.fit(probabilities, photos.targets)
        if unknown:
            threshold = conformal_threshold(unknown.novelty.distance(features), unknown.coverage)
            if threshold is not None:
                unknown = dataclasses.replace(unknown, threshold=threshold, n=len(photos.compared))
    return write_bundle(folder, contents, unknown=unknown, sets=sets, **options), runtime, probabilities


def judge_parity(parity: dict[str, Any], min_agreement: float | None) -> GateError | None:
    """Return what to say of an export whose predictions agree too rarely."""
    to, agreement = parity["format"], parity["agreement"]
    least = FORMATS[to].min_agreement if min_agreement is None else min_agreement
    if agreement >= least:
        return None
    return GateError(
        f"{to} gives {agreement:.1%} of {parity['accuracy']['exported']['n']} photos the same class, below {least:.1%}",
        hint="it was set aside as .rejected; try another format, or lower --min-agreement",
    )


def put_in_place(exported: Bundle, folder: Path, *, is_accepted: bool) -> Path:
    """Rename the working folder to where it belongs; a former export, kept or rejected, goes."""
    target = folder if is_accepted else _rejected(folder)
    try:
        for former in (folder, _rejected(folder)):
            if former.is_dir():
                shutil.rmtree(former)
        exported.folder.rename(target)
    except OSError as error:
        raise storage_error(target, error) from error
    return target


def note_parity(path: Path, parity: dict[str, Any]) -> list[dict[str, Any]]:
    """Put a record into the list of parity.json, in the place of the former one for its format; return the list."""
    records = [*(record for record in read_parity(path) if record["format"] != parity["format"]), parity]
    write_json(path, records)
    return records


def read_parity(path: Path) -> list[dict[str, Any]]:
    """Return the records of parity.json; none where it is missing or damaged, since any export writes it again."""
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        return [record for record in records if record["format"] in CONVERSIONS]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _rejected(folder: Path) -> Path:
    return folder.absolute().with_name(f"{folder.absolute().name}.rejected")


def _is_export(folder: Path, to: str) -> bool:
    try:
        return (folder / MODEL_FILE).is_file() and read_record(folder).get("runtime") == to
    except ModelError:
        return False


def gather_photos(bundle: Bundle, calibration: Path | str | None) -> ExportPhotos:
    """Read the photos to take ranges from, classes in turn, and those to compare on.

    Raises:
        DataError: if there are none: those of the run are gone, or were changed.
    """
    parts: dict[str, str] = {}
    with contextlib.suppress(RunError):
        parts = {photo.digest: photo.part for photo in read_split(bundle.run_folder)}
    found = _photos_of_run(bundle) if calibration is None else _photos_of_folder(Path(calibration))
    foreign = sorted({label for _, label in found} - set(bundle.classes))
    if foreign:
        raise DataError(
            f"the model does not know the class {', '.join(map(repr, foreign))}",
            hint=f"its classes are {', '.join(bundle.classes)}",
        )
    by_part = {
        part: [photo for photo in found if parts.get(digest_file(photo[0])) == part] for part in ("train", "val")
    }
    train, val = by_part["train"], by_part["val"]
    is_validation = bool(train and val)
    if not is_validation and calibration is not None:
        # Every second photo is compared, so that none is judged by ranges that it has set itself.
        train, val = found[::2], found[1::2]
    in_turn = take_in_turn([[photo for photo in train if photo[1] == name] for name in bundle.classes])
    samples = _load(bundle, in_turn[:SAMPLES])
    compared = _load(bundle, val)
    if not samples or not compared:
        raise DataError(
            "no photos to compare the export with", hint="name a folder of labelled photos with --calibration"
        )
    targets = np.array([bundle.classes.index(label) for _, label in compared])
    return ExportPhotos([pixels for pixels, _ in samples], [pixels for pixels, _ in compared], targets, is_validation)


def _photos_of_run(bundle: Bundle) -> list[Named]:
    try:
        data = Path(read_settings(bundle.run_folder / SETTINGS)["data"])
        photos = [photo for photo in read_split(bundle.run_folder) if photo.part != "test"]
    except (KeyError, RunError, SettingsError) as error:
        raise DataError(
            f"{bundle.folder} does not lie in a run folder, so its photos are not known",
            hint="name a folder of labelled photos with --calibration",
        ) from error
    root = data if data.is_dir() else data.parent
    return [(root / photo.path, photo.label) for photo in photos if (root / photo.path).is_file()]


def _photos_of_folder(data: Path) -> list[Named]:
    listing = list_photos(data, min_classes=1)
    photos = [(listing.root / entry.path, entry.label) for entry in listing.entries]
    return [(path, label) for path, label in photos if path.is_file()]


def _load(bundle: Bundle, photos: Sequence[Named]) -> list[tuple[np.ndarray, str]]:
    def load(photo: Named) -> tuple[np.ndarray, str] | None:
        with contextlib.suppress(ImageError):
            return load_pixels(photo[0], size=bundle.size, fit=bundle.fit, version=bundle.decoding), photo[1]
        return None

    return [photo for photo in run_in_order(load, photos) if photo is not None]
