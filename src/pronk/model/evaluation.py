"""Model + labelled photos -> numbers, measured on the very file that is served."""

import contextlib
import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pronk.analysis.calibration import temper
from pronk.analysis.metrics import accuracy_record, expected_calibration_error, score
from pronk.dataset.findings import Finding, left_out
from pronk.dataset.listing import list_photos
from pronk.errors import DataError, Reason, RunError
from pronk.model.predictor import Prediction, Predictor
from pronk.model.run import JudgedRecord, read_split
from pronk.progress import Progress, no_progress
from pronk.storage.files import digest_file
from pronk.storage.remote import to_path


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How a model does on labelled photos.

    Attributes:
        root: folder that the paths are relative to.
        classes: names of the model's classes, in the order of the probabilities.
        result: the `test` part of metrics.json.
        rows: one per photo, as in predictions.csv.
        findings: photos that could not be used, and photos that the model was trained with.
    """

    root: Path
    classes: tuple[str, ...]
    result: JudgedRecord
    rows: tuple[dict[str, Any], ...]
    findings: tuple[Finding, ...]


def evaluate(model: Path | str | Predictor, data: Path | str, *, on_progress: Progress = no_progress) -> Evaluation:
    """Judge a model on a folder of labelled photos.

    Args:
        model: a run folder, its `model/`, an export, or an opened predictor.
        data: as for training. Where it has a test part, only that is used; else all of it.
        on_progress: called with ("evaluate", done, total).

    Raises:
        DataError: if there is no usable photo, or a class that the model does not know.
    """
    predictor = model if isinstance(model, Predictor) else Predictor.load(model)
    listing = list_photos(to_path(data), min_classes=1)
    tested = [entry for entry in listing.entries if entry.part == "test"] or listing.entries
    foreign = sorted({entry.label for entry in tested} - set(predictor.classes))
    if foreign:
        raise DataError(
            f"the model does not know the class {', '.join(map(repr, foreign))}",
            hint=f"its classes are {', '.join(predictor.classes)}; rename or move the folder",
        )
    predictions = watch(
        predictor.stream(listing.root / entry.path for entry in tested), len(tested), "evaluate", on_progress
    )
    rows, findings = [], []
    for entry, prediction in zip(tested, predictions, strict=True):
        if prediction.error:
            findings.append(left_out(entry.path, prediction.error))
        else:
            rows.append(prediction_row(entry.path, "test", entry.label, prediction))
    if not rows:
        is_list = listing.root != to_path(data) and all(finding.code == Reason.VANISHED for finding in findings)
        hint = f"its paths are relative to {listing.root}" if is_list else f"see pronk check {data}"
        raise DataError(f"none of {len(tested)} files in {data} is usable", hint=hint)
    findings += find_known(predictor.bundle.run_folder, listing.root, [row["path"] for row in rows])
    return Evaluation(
        listing.root, predictor.classes, score_rows(rows, predictor.classes), tuple(rows), tuple(findings)
    )


def find_known(run: Path, root: Path, paths: Iterable[str]) -> list[Finding]:
    """Find photos that the model was trained or chosen with: what it makes of them says little about new ones.

    Where the run has no split.csv, as beside a copied model, nothing is known.
    """
    parts: dict[str, str] = {}
    with contextlib.suppress(RunError):
        parts = {photo.digest: photo.part for photo in read_split(run) if photo.digest and photo.part != "test"}
    found = [(path, parts.get(digest_file(root / path))) for path in paths] if parts else []
    return [
        Finding(
            path,
            Reason.LEAK.value,
            "warning",
            f"the model knows it from its {part} part, so it says little about new photos",
            "judge the model on photos that it has not seen",
        )
        for path, part in found
        if part
    ]


def prediction_row(path: str, part: str, label: str, prediction: Prediction) -> dict[str, Any]:
    """Return a row of predictions.csv: path, part, label, predicted, score, p_<class> for each class, and the distance.

    The predicted class is the most likely one, whether or not the photo counts as unknown.
    """
    assert prediction.probabilities is not None
    row = {"path": path, "part": part, "label": label, "predicted": prediction.top, "score": prediction.score}
    row |= {f"p_{name}": float(p) for name, p in zip(prediction.classes, prediction.probabilities, strict=True)}
    return row | {"distance": prediction.distance, "unknown": prediction.unknown}


def row_columns(classes: Sequence[str]) -> tuple[str, ...]:
    """Name the columns of predictions.csv."""
    return "path", "part", "label", "predicted", "score", *(f"p_{name}" for name in classes), "distance", "unknown"


def score_rows(rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> JudgedRecord:
    """Turn rows of predictions.csv into the `test` part of metrics.json: `score`, and `coverage`.

    That is the share of photos that the model did not call unknown; None where it cannot tell.
    """
    coverage = None
    if all(row.get("distance") is not None for row in rows):
        coverage = accuracy_record([not row["unknown"] for row in rows])
    return {**score(*read_rows(rows, classes), classes), "coverage": coverage}


def calibration_errors(rows: Sequence[dict[str, Any]], classes: Sequence[str], temperature: float) -> dict[str, float]:
    """Say how far confidence and hit rate lie apart, without the temperature (before) and with it (after)."""
    probabilities, targets = read_rows(rows, classes)
    before = temper(probabilities, 1 / temperature)
    return {
        "before": expected_calibration_error(before, targets),
        "after": expected_calibration_error(probabilities, targets),
    }


def read_rows(rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities, float64 [n, C], and targets, int [n], of rows of predictions.csv."""
    probabilities = np.array([[row[f"p_{name}"] for name in classes] for row in rows], np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return probabilities, np.array([list(classes).index(row["label"]) for row in rows])


def watch(predictions: Iterable[Prediction], total: int, stage: str, on_progress: Progress) -> list[Prediction]:
    """Collect a stream, reporting progress."""
    collected = []
    for prediction in predictions:
        collected.append(prediction)
        on_progress(stage, len(collected), total)
    return collected
