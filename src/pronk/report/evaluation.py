"""Model + labelled photos -> a page of how it does."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pronk.model.evaluation import Evaluation
    from pronk.model.predictor import Predictor


def write_report(
    report: Path, predictor: "Predictor", evaluation: "Evaluation", *, title: str, model_path: str
) -> None:
    """Write the page."""
    from pronk.model.evaluation import calibration_errors
    from pronk.photos.decoding import load_pixels
    from pronk.report import ReportContent, render_report
    from pronk.report.gallery import make_gallery
    from pronk.storage.files import write_atomically

    size, fit = predictor.bundle.size, predictor.bundle.fit
    counted = Counter(row["label"] for row in evaluation.rows)
    bundle, classes = predictor.bundle, evaluation.classes
    errors = calibration_errors(evaluation.rows, classes, bundle.temperature)
    metrics = {
        "classes": classes,
        "counts": {"test": len(evaluation.rows)},
        "calibration": {"temperature": bundle.temperature, "ece": {"test": errors}},
        "test": evaluation.result,
    }
    if bundle.unknown:
        metrics["unknown"] = {"coverage": bundle.unknown.coverage, "n": bundle.unknown.n}
    content = ReportContent(
        title=title,
        metrics=metrics,
        gallery=make_gallery(
            predictor, evaluation.rows, lambda row: load_pixels(evaluation.root / row["path"], size=size, fit=fit)
        ),
        predictions=evaluation.rows,
        findings=[dataclasses.asdict(finding) for finding in evaluation.findings],
        class_counts={name: {"test": counted[name]} for name in classes},
        model_path=model_path,
    )
    write_atomically(report, render_report(content).encode())
