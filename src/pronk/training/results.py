"""Two phases and a bundle -> the numbers and files of the run folder."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pronk.backbone.weights import Backbone
from pronk.config import Settings
from pronk.dataset.findings import Finding, changed, left_out
from pronk.dataset.loading import Dataset, Photo
from pronk.errors import Reason
from pronk.model.bundle import Bundle
from pronk.model.evaluation import calibration_errors, prediction_row, row_columns, score_rows, watch
from pronk.model.predictor import Predictor
from pronk.model.run import FOLDS, HISTORY, METRICS, MODEL, PREDICTIONS, REPORT, Metrics, threshold_record
from pronk.progress import Progress
from pronk.report.card import render_card
from pronk.report.gallery import Gallery, make_gallery
from pronk.report.run_page import ReportContent, render_report
from pronk.storage.files import write_atomically, write_csv, write_json
from pronk.training.phases import FineTuned, Frozen, Kept, part_record
from pronk.training.rows import Job, Recipe, draw_job, load_square
from pronk.training.surveys import Studied

VIEWS_SHOWN = 9
HISTORY_COLUMNS = ("phase", "epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")


@dataclasses.dataclass(frozen=True)
class Judged:
    """What the bundle says of the validation and test photos.

    Attributes:
        rows: of predictions.csv.
        lost: findings for photos that were changed or removed meanwhile.
        gallery: pictures of the most telling answers.
    """

    rows: list[dict[str, Any]]
    lost: tuple[Finding, ...]
    gallery: Gallery


def judge(
    bundle: Bundle,
    dataset: Dataset,
    squares: Path,
    cache: Path,
    on_progress: Progress,
    *,
    views: Sequence[np.ndarray] = (),
) -> Judged:
    """Predict the validation and test photos with the bundle itself.

    Args:
        bundle: the model folder.
        dataset: the photos.
        squares: folder of those that workers of this run have decoded already.
        cache: remembers that the model has tested itself here.
        on_progress: called with ("evaluate", done, total).
        views: one photo as training saw it, from `draw_example`.
    """
    photos = (*dataset.part("val"), *dataset.part("test"))

    def load(photo: Photo) -> np.ndarray:
        return load_square(squares, dataset.root, photo, size=bundle.size, fit=bundle.fit)

    predictor = Predictor.load(bundle.folder, cache=cache)
    predictions = watch(predictor.stream(photos, load=load), len(photos), "evaluate", on_progress)
    rows, lost = [], []
    for photo, prediction in zip(photos, predictions, strict=True):
        if prediction.error is None:
            rows.append(prediction_row(photo.path, photo.part, photo.label, prediction))
        elif prediction.error.reason is Reason.CHANGED:
            lost.append(changed(photo.path))
        else:
            lost.append(left_out(photo.path, prediction.error))
    by_path = {photo.path: photo for photo in photos}
    gallery = make_gallery(predictor, rows, lambda row: load(by_path[row["path"]]), views=views)
    return Judged(rows, tuple(lost), gallery)


def draw_example(dataset: Dataset, recipe: Recipe, settings: Settings) -> list[np.ndarray]:
    """Draw one training photo as it is and augmented nine ways; nothing where the run has no augmentation."""
    if settings.views == 1:
        return []
    drawn = draw_job(recipe, Job(dataset.part("train")[0], tuple(range(1 + VIEWS_SHOWN))))
    return [] if isinstance(drawn, Finding) else list(drawn)  # it may be gone by now


def summarise(
    dataset: Dataset,
    settings: Settings,
    backbone: Backbone,
    frozen: Frozen,
    fine_tuned: FineTuned | None,
    kept: Kept,
    bundle: Bundle,
    rows: list[dict[str, Any]],
) -> Metrics:
    """Return the numbers of metrics.json, but for studies, seconds and memory."""
    targets = dataset.targets(dataset.part("val"))
    tested = [row for row in rows if row["part"] == "test"]
    judged = {"val": [row for row in rows if row["part"] == "val"], "test": tested}
    errors = {
        part: calibration_errors(some, dataset.classes, bundle.temperature) if some else None
        for part, some in judged.items()
    }
    return Metrics(
        classes=dataset.classes,
        counts=dataset.counts,
        seed=settings.seed,
        weights={"name": backbone.name, "sha256": backbone.sha256},
        frozen={"val": part_record(frozen.val_probabilities, targets)},
        fine_tuned={"val": part_record(fine_tuned.val_probabilities, targets)} if fine_tuned else None,
        comparison=kept.comparison,
        calibration={"temperature": bundle.temperature, "ece": errors},
        unknown=threshold_record(bundle.unknown),
        test=score_rows(tested, dataset.classes) if tested else None,
        seconds={},
        peak_memory_mb=0.0,
    )


def write_results(
    folder: Path,
    metrics: Metrics,
    dataset: Dataset,
    settings: Settings,
    frozen: Frozen,
    fine_tuned: FineTuned | None,
    judged: Judged,
    studied: Studied,
) -> None:
    """Write everything people look at into the run folder; metrics.json comes last and marks it whole."""
    history = [*frozen.history, *(fine_tuned.history if fine_tuned else ())]
    write_csv(folder / HISTORY, HISTORY_COLUMNS, history)
    write_csv(folder / PREDICTIONS, row_columns(dataset.classes), judged.rows)
    if studied.folds:
        columns = ("path", "label", "right", *(f"p_{name}" for name in dataset.classes))
        write_csv(folder / FOLDS, columns, studied.fold_rows)
    card = render_card(metrics, settings, class_counts=dataset.counts_by_class, findings=dataset.findings)
    write_atomically(folder / MODEL / "README.md", card.encode())
    content = ReportContent(
        title=Path(settings.data).name,
        metrics=metrics,
        history=history,
        gallery=judged.gallery,
        suspicions=studied.suspicions,
        folds=studied.fold_rows,
        predictions=judged.rows,
        findings=dataset.findings,
        shortcuts=dataset.shortcuts,
        class_counts=dataset.counts_by_class,
        settings=_shown_settings(settings),
        model_path=str(folder),
    )
    write_atomically(folder / REPORT, render_report(content).encode())
    write_json(folder / METRICS, metrics.to_json())


def _shown_settings(settings: Settings) -> dict[str, Any]:
    # The page may be shown to others: files are named without their folders, and `data` is the title already. The
    # width is a setting of Keras's own weights only; the others have theirs.
    hidden = {"data"} if settings.weights == "imagenet" else {"data", "alpha"}
    shown = {name: value for name, value in dataclasses.asdict(settings).items() if name not in hidden}
    return shown | {name: Path(shown[name]).name for name in ("weights", "split") if shown[name]}
