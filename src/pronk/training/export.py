"""A run's model -> an export that has proven itself on the user's own photos, or is set aside."""

import contextlib
import dataclasses
import functools
import importlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pronk.analysis.calibration import SetScores, conformal_threshold
from pronk.config import read_settings
from pronk.dataset.listing import find_photo_root, list_photos
from pronk.dataset.split import take_in_turn
from pronk.errors import DataError, GateError, ImageError, ModelError, RunError, SettingsError, need_extra
from pronk.model.agreement import compare_answers, count_bytes, measure_speed, run_all
from pronk.model.bundle import GOLDEN_EXPECTED, MODEL_FILE, Bundle, open_bundle, open_runtime, read_record, write_bundle
from pronk.model.formats.example_programs import travel_files
from pronk.model.formats.runtimes import Runtime
from pronk.model.formats.table import FORMATS
from pronk.model.run import EXPORTS, PARITY, REPORT, SETTINGS, read_split
from pronk.photos.decoding import load_pixels
from pronk.pools import run_in_order
from pronk.progress import Progress, no_progress
from pronk.report.run_page import note_exports
from pronk.storage.files import digest_file, lock_folder, storage_error, write_json
from pronk.storage.remote import to_path
from pronk.storage.sources import is_there
from pronk.training.conversions import CONVERSIONS, convert
from pronk.training.kept_model import draw_golden
from pronk.training.litert import run_tflite
from pronk.training.micro import read_sizes
from pronk.training.web_export import load_runtime
from pronk.training.web_runtime import WebRuntime, find_browser, find_node

STEPS = 4
PAGES = ("web", "web-int8")
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
        files: where those are.
        targets: class indices of those, int [n].
        is_validation: those are the run's own validation photos, which the model was not trained with.
    """

    samples: Sequence[np.ndarray]
    compared: Sequence[np.ndarray]
    files: Sequence[Path]
    targets: np.ndarray
    is_validation: bool


def export_model(
    model: Path | str,
    to: str,
    *,
    calibration: Path | str | None = None,
    min_agreement: float | None = None,
    out: Path | str | None = None,
    runtime: Path | str | None = None,
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
        runtime: folder of ONNX Runtime's files for browsers, for a page; None means that npm fetches its package.
        on_progress: called with ("export", step, steps).

    Raises:
        PronkError: if something else lies at `out`, there are no photos to compare, or the model cannot be converted.
    """
    bundle = _open_run(model, to)
    in_browsers = _prepare_page(to, Path(runtime) if runtime else None)
    folder = Path(out) if out else bundle.run_folder / EXPORTS / to
    check_place(folder, to)
    photos = gather_photos(bundle, calibration)
    on_progress("export", 1, STEPS)
    contents = convert(bundle, to, np.stack(photos.samples), runtime=in_browsers) | travel_files(bundle, to)
    on_progress("export", 2, STEPS)
    with hold_place(folder) as working:
        exported, parity = prove(working, bundle, to, contents, photos)
        on_progress("export", 3, STEPS)
        report = None if out else bundle.run_folder / REPORT
        done = _settle(exported, parity, folder, gate=judge_parity(parity, min_agreement), report=report)
    on_progress("export", STEPS, STEPS)
    return done


def _open_run(model: Path | str, to: str) -> Bundle:
    bundle = open_bundle(model)
    if bundle.runtime != "onnx" or to not in CONVERSIONS:
        raise ModelError(
            f"cannot export {bundle.runtime} to {to}", hint=f"name a run; it goes to {', '.join(CONVERSIONS)}"
        )
    if "litert" in to or to == "micro":  # said at once, not after the work
        with need_extra("litert", f"export to {to}"):
            importlib.import_module("ai_edge_litert")
    return bundle


def _prepare_page(to: str, runtime: Path | None) -> dict[str, bytes] | None:
    """Return what runs a model in a browser, where a page is asked for; what is missing is said before any work."""
    if to not in PAGES:
        if runtime:
            raise SettingsError(f"--runtime is for pages, not for {to}", hint=f"leave it out, or --to {PAGES[0]}")
        return None
    if find_browser() is None:
        find_node()
    return load_runtime(runtime)


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
    contents = contents | _choose_golden(bundle, to)
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
    with _open_export(write_bundle(folder, contents, **options)) as runtime:
        contents |= _expect_golden(bundle, contents, runtime)
        answers, features = _ask(runtime, photos)
        if FORMATS[to].opened:  # what is proven is what phones get
            answers = run_tflite(contents[FORMATS[to].path], photos.compared)
        speed = measure_speed(runtime, photos.compared)
    exported = write_bundle(folder, contents, **options, **_fit_answers(bundle, answers, features, photos))
    reference, _ = run_all(open_runtime(bundle), photos.compared)
    parity = {
        "format": to,
        **compare_answers(reference, answers, photos.targets),
        "latency_ms": {"p50": speed.p50, "p95": speed.p95},
        "bytes": count_bytes(exported.model_path),
    }
    if isinstance(runtime, WebRuntime):
        parity |= {"ran_in": runtime.place, "not_decoded": runtime.not_decoded}
    return exported, parity | read_sizes(contents)


def _choose_golden(bundle: Bundle, to: str) -> dict[str, bytes]:
    """Return the photos that prove an export elsewhere, by path: those of the run, or for strangers drawn ones."""
    if to in PAGES:
        return {f"golden/{name}": data for name, data in draw_golden(0).items()}
    return {name: (bundle.folder / name).read_bytes() for name in bundle.golden()}


@contextlib.contextmanager
def _open_export(exported: Bundle) -> Iterator[Runtime]:
    runtime = CONVERSIONS[exported.runtime].open(exported)
    try:
        yield runtime
    finally:
        if isinstance(runtime, WebRuntime):
            runtime.close()


def _expect_golden(bundle: Bundle, contents: Mapping[str, bytes], runtime: Runtime) -> dict[str, bytes]:
    """Return the file that says what the export gives for the golden photos among the contents, if there are any."""
    golden = [name for name in contents if name.startswith("golden/")]
    if not golden:
        return {}
    load = functools.partial(load_pixels, size=bundle.size, fit=bundle.fit, version=bundle.decoding)
    rows = run_all(runtime, [load(contents[name]) for name in golden])[0].tolist()
    expected = {name.removeprefix("golden/"): row for name, row in zip(golden, rows, strict=True)}
    return {GOLDEN_EXPECTED: json.dumps(expected).encode()}


def _ask(runtime: Runtime, photos: ExportPhotos) -> tuple[np.ndarray, np.ndarray]:
    """Return what the export says of the photos that are compared: probabilities [n, C] and features [n, d]."""
    if isinstance(runtime, WebRuntime) and runtime.decodes:
        return runtime.run_files(photos.files, photos.compared)
    return run_all(runtime, photos.compared)


def _fit_answers(bundle: Bundle, answers: np.ndarray, features: np.ndarray, photos: ExportPhotos) -> dict[str, Any]:
    """Return the threshold of `unknown` and the sets that follow from the export's own numbers, or the run's."""
    # What gives no features cannot tell other things.
    unknown, sets = bundle.unknown if features.shape[1] else None, bundle.sets
    if photos.is_validation:
        sets = SetScores.fit(answers, photos.targets)
        if unknown:
            threshold = conformal_threshold(unknown.novelty.distance(features), unknown.coverage)
            if threshold is not None:
                unknown = dataclasses.replace(unknown, threshold=threshold, n=len(photos.compared))
    return {"unknown": unknown, "sets": sets}


def _settle(
    exported: Bundle, parity: dict[str, Any], folder: Path, *, gate: GateError | None, report: Path | None
) -> Exported:
    """Put an export where it belongs and note how it agrees; a folder of the user's own gets no files beside it."""
    parity["accepted"] = gate is None
    kept = put_in_place(exported, folder, is_accepted=gate is None)
    records = note_parity((folder.parent if report else kept) / PARITY, parity)
    if report:
        note_exports(report, records)
    return Exported(kept, parity, gate)


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
    found = _photos_of_run(bundle) if calibration is None else _photos_of_folder(to_path(calibration))
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
    return ExportPhotos(
        [pixels for pixels, _ in samples],
        [pixels for pixels, _ in compared],
        [path for _, (path, _) in compared],
        np.array([bundle.classes.index(label) for _, (_, label) in compared]),
        is_validation,
    )


def _photos_of_run(bundle: Bundle) -> list[Named]:
    try:
        data = to_path(read_settings(bundle.run_folder / SETTINGS)["data"])
        photos = [photo for photo in read_split(bundle.run_folder) if photo.part != "test"]
    except (KeyError, RunError, SettingsError) as error:
        raise DataError(
            f"{bundle.folder} does not lie in a run folder, so its photos are not known",
            hint="name a folder of labelled photos with --calibration",
        ) from error
    root = find_photo_root(data)
    return [(root / photo.path, photo.label) for photo in photos if is_there(root / photo.path)]


def _photos_of_folder(data: Path) -> list[Named]:
    listing = list_photos(data, min_classes=1)
    photos = [(listing.root / entry.path, entry.label) for entry in listing.entries]
    return [(path, label) for path, label in photos if is_there(path)]


def _load(bundle: Bundle, photos: Sequence[Named]) -> list[tuple[np.ndarray, Named]]:
    def load(photo: Named) -> tuple[np.ndarray, Named] | None:
        with contextlib.suppress(ImageError):
            return load_pixels(photo[0], size=bundle.size, fit=bundle.fit, version=bundle.decoding), photo
        return None

    return [photo for photo in run_in_order(load, photos) if photo is not None]
