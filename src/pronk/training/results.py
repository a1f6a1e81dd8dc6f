"""Two phases and a bundle -> the numbers and files of the run folder."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from pronk.analysis.metrics import accuracy_record, log_loss
from pronk.config import Settings
from pronk.dataset.findings import Finding, left_out
from pronk.dataset.loading import Dataset
from pronk.dataset.shortcuts import list_warnings
from pronk.model.bundle import Bundle
from pronk.model.evaluation import calibration_errors, prediction_row, row_columns, score_rows, watch
from pronk.model.predictor import Predictor
from pronk.model.run import (
    HISTORY,
    METRICS,
    MODEL,
    PREDICTIONS,
    REPORT,
    ChosenRecord,
    CrossRecord,
    Metrics,
    PhaseRecord,
    threshold_record,
)
from pronk.report.card import render_card
from pronk.report.gallery import Gallery, make_gallery
from pronk.report.run_page import ReportContent, render_report
from pronk.storage.files import write_atomically, write_csv, write_json
from pronk.training.cross_fitting import FOLDS
from pronk.training.features import Features
from pronk.training.kept_model import Kept
from pronk.training.phase_one import Frozen
from pronk.training.phase_two import FineTuned
from pronk.training.plan import Plan
from pronk.training.rows import PhotoViews, draw_wanted, load_square
from pronk.training.run_folder import Run, write_settings
from pronk.training.surveys import Studies
from pronk.training.usage import Usage

VIEWS_SHOWN = 9
HISTORY_COLUMNS = ("phase", "epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")


@dataclasses.dataclass(frozen=True)
class Judged:
    """What the bundle says of the validation and test photos.

    Attributes:
        rows: rows of predictions.csv.
        lost: findings for photos that were changed or removed meanwhile.
        gallery: pictures of the most telling predictions.
    """

    rows: list[dict[str, Any]]
    lost: tuple[Finding, ...]
    gallery: Gallery


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the steps of a run came to.

    Attributes:
        run: with the settings as chosen.
        plan: what was chosen, and why.
        dataset: the photos, and all that was found in them.
        frozen: the result of phase 1.
        fine_tuned: the result of phase 2; None where it was left out.
        kept: the model that was chosen.
        bundle: its folder.
        judged: its predictions for the validation and test photos.
        studies: studies of the features.
    """

    run: Run
    plan: Plan
    dataset: Dataset
    frozen: Frozen
    fine_tuned: FineTuned | None
    kept: Kept
    bundle: Bundle
    judged: Judged
    studies: Studies

    def judged_by(self, others: list[dict[str, Any]]) -> "Outcome":
        """Return the same with what models that had not seen them say of all photos, rows of predictions.csv."""
        return dataclasses.replace(self, judged=dataclasses.replace(self.judged, rows=self.judged.rows + others))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was left out or is worth a look."""
        return (*self.dataset.findings, *list_warnings(self.dataset.shortcuts))

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows of history.csv: both phases, one after the other."""
        return [*self.frozen.history, *(self.fine_tuned.history if self.fine_tuned else ())]


def judge(bundle: Bundle, features: Features, run: Run, *, views: Sequence[np.ndarray] = ()) -> Judged:
    """Predict the validation and test photos with the bundle itself.

    The run's cache remembers that the model has tested itself here; progress is told as ("evaluate", done, total).
    `views` are one photo as training saw it, from `draw_example`.
    """
    dataset = features.dataset
    photos = (*dataset.part("val"), *dataset.part("test"))
    load = functools.partial(load_square, features.extraction)
    predictor = Predictor.load(bundle.folder, cache=run.cache)
    predictions = watch(predictor.stream(photos, load=load), len(photos), "evaluate", run.on_progress)
    rows, lost = [], []
    for photo, prediction in zip(photos, predictions, strict=True):
        if prediction.error is None:
            rows.append(prediction_row(photo.path, photo.part, photo.label, prediction))
        else:
            lost.append(left_out(photo.path, prediction.error))
    by_path = {photo.path: photo for photo in photos}
    gallery = make_gallery(predictor, rows, lambda row: load(by_path[row["path"]]), views=views)
    return Judged(rows, tuple(lost), gallery)


def draw_example(features: Features, settings: Settings) -> list[np.ndarray]:
    """Draw one training photo as it is and augmented nine ways; nothing where the run has no augmentation."""
    if features.views == 1:
        return []
    photo = features.dataset.part("train")[0]
    drawn = draw_wanted(features.extraction, PhotoViews(photo, tuple(range(1 + VIEWS_SHOWN))))
    return [] if isinstance(drawn, Finding) else list(drawn)  # it may be gone by now


def summarise(outcome: Outcome, usage: Usage) -> Metrics:
    """Return the numbers of metrics.json."""
    run, dataset, bundle, studies = outcome.run, outcome.dataset, outcome.bundle, outcome.studies
    rows = {part: [row for row in outcome.judged.rows if row["part"] == part] for part in ("val", "test")}
    is_crossed = run.settings.judge == "cross"
    own = {**rows, "test": []} if is_crossed else rows  # the other models had temperatures of their own
    errors = {
        part: calibration_errors(some, dataset.classes, bundle.temperature) if some else None
        for part, some in own.items()
    }
    return Metrics(
        classes=list(dataset.classes),
        counts=dataset.counts,
        seed=run.settings.seed,
        weights={"name": run.backbone.name, "sha256": run.backbone.sha256},
        chosen=cast(ChosenRecord, {**outcome.plan.chosen, "why": outcome.plan.why}),
        frozen=_phase_record(outcome.frozen, dataset),
        fine_tuned=_phase_record(outcome.fine_tuned, dataset) if outcome.fine_tuned else None,
        comparison=outcome.kept.comparison,
        calibration={"temperature": bundle.temperature, "ece": errors},
        unknown=threshold_record(bundle.unknown),
        rest_class=bundle.rest_class,
        test=score_rows(rows["test"], dataset.classes) if rows["test"] else None,
        cross=CrossRecord(models=FOLDS) if is_crossed else None,
        curve=studies.curve,
        seconds=usage.seconds(),
        peak_memory_mb=usage.peak_memory_mb(),
    )


def _phase_record(phase: Frozen | FineTuned, dataset: Dataset) -> PhaseRecord:
    probabilities, targets = phase.val_probabilities, dataset.targets(dataset.part("val"))
    correct = probabilities.argmax(axis=1) == targets
    return {"val": {"accuracy": accuracy_record(correct), "loss": log_loss(probabilities, targets)}}


def write_results(outcome: Outcome, metrics: Metrics) -> Metrics:
    """Write all that people look at; metrics.json comes last and marks the run whole. Return what is in it."""
    run, dataset, studies = outcome.run, outcome.dataset, outcome.studies
    folder = run.folder
    write_csv(folder / HISTORY, HISTORY_COLUMNS, outcome.history)
    write_csv(folder / PREDICTIONS, row_columns(dataset.classes), outcome.judged.rows)
    card = render_card(metrics, run.settings, class_counts=dataset.counts_by_class, findings=dataset.findings)
    write_atomically(folder / MODEL / "README.md", card.encode())
    content = ReportContent(
        title=Path(run.settings.data).name,
        metrics=metrics,
        history=outcome.history,
        gallery=outcome.judged.gallery,
        suspicions=studies.suspicions,
        predictions=outcome.judged.rows,
        findings=dataset.findings,
        shortcuts=dataset.shortcuts,
        class_counts=dataset.counts_by_class,
        settings=_shown_settings(run.settings),
        model_path=str(folder),
    )
    write_atomically(folder / REPORT, render_report(content).encode())
    # Only now: until a run is done, what goes on with it chooses again, and comes to the same.
    write_settings(folder, run.settings)
    write_json(folder / METRICS, metrics.to_json())
    return metrics


def _shown_settings(settings: Settings) -> dict[str, Any]:
    # The page may be shown to others: files are named without their folders, and `data` is the title already. The
    # width is a setting of Keras's own weights only; the others have theirs.
    hidden = {"data"} if settings.weights == "imagenet" else {"data", "alpha"}
    shown = {name: value for name, value in dataclasses.asdict(settings).items() if name not in hidden}
    return shown | {name: Path(shown[name]).name for name in ("weights", "split") if shown[name]}
