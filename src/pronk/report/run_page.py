"""A run, or an evaluation -> report.html, one page that answers in words first.

The page is a single file without scripts, external addresses or dates: equal content gives equal bytes. File
and class names come from strangers: every text passes `visible` and Jinja's escaping on its way into it.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pronk.analysis.metrics import most_confused, show_metrics
from pronk.dataset.findings import Finding, group_findings
from pronk.dataset.shortcuts import Shortcut
from pronk.model.evaluation import Evaluation, calibration_errors
from pronk.model.predictor import Predictor
from pronk.model.run import EvaluationMetrics, Metrics, threshold_record
from pronk.photos.decoding import load_pixels
from pronk.report.gallery import MOST_SUSPICIONS, Gallery, make_gallery, sort_mistakes
from pronk.report.pages import Row, render_page
from pronk.report.plots import draw_calibration, draw_growth, draw_learning
from pronk.report.words import (
    PARTS,
    USUAL_COVERAGE,
    describe_calibration,
    describe_fine_tuning,
    describe_result,
    describe_unknown,
)
from pronk.storage.files import write_atomically
from pronk.text import quote

MOST_LISTED = 200
MOST_UNKNOWN = 24
MOST_IN_MATRIX = 40  # classes; nobody can read a larger one
MOST_PAIRS = 40
EXPORTS_START, EXPORTS_END = "<!-- exports -->", "<!-- /exports -->"
LEAST_SHOWN = 0.0001


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportContent:
    """Everything the page is made of.

    Attributes:
        title: the page's heading.
        metrics: the numbers of a run, or of `pronk evaluate`.
        history: rows of history.csv.
        suspicions: photos whose labels look wrong: path, given, suggested, score, and picture as a `data:` address.
        gallery: pictures, from `pronk.report.gallery.make_gallery`.
        predictions: rows of predictions.csv with path, part, label, predicted and score.
        findings: everything found wrong; those of severity error were left out.
        shortcuts: from `pronk.dataset.shortcuts.measure_shortcuts`.
        class_counts: photos per class and part, `{class: {part: n}}`, if known.
        settings: the settings of the run; may be nested.
        model_path: how the reader names the model on the command line.
    """

    title: str
    metrics: EvaluationMetrics
    history: Sequence[Row] = ()
    suspicions: Sequence[Row] = ()
    gallery: Gallery = dataclasses.field(default_factory=Gallery)
    predictions: Sequence[Row] = ()
    findings: Sequence[Finding] = ()
    shortcuts: Sequence[Shortcut] = ()
    class_counts: Mapping[str, Mapping[str, int]] | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    model_path: str = "RUN"


def render_report(content: ReportContent) -> str:
    """Write the page, a whole HTML document that can be encoded as UTF-8, whatever the file names."""
    metrics, mistakes = content.metrics, sort_mistakes(content.predictions)
    curve = metrics.curve if isinstance(metrics, Metrics) else None
    return render_page(
        "report.html",
        content=content,
        metrics=metrics,
        show_metrics=show_metrics,
        trained=isinstance(metrics, Metrics),
        answer=describe_result(metrics, scene=_find_scene(content.findings)),
        fine_tuning=describe_fine_tuning(metrics),
        curves=draw_learning(content.history),
        calibration=draw_calibration(content.predictions),
        sureness=describe_calibration(metrics),
        unknown=describe_unknown(metrics, asked=content.settings.get("coverage", USUAL_COVERAGE)),
        strange=_strange(content),
        growth=draw_growth(curve) if curve else None,
        suspicions=content.suspicions[:MOST_SUSPICIONS],
        cells=_cells(content),
        pairs=_pairs(metrics),
        mistakes=mistakes[:MOST_LISTED],
        more_mistakes=max(0, len(mistakes) - MOST_LISTED),
        left_out=len({finding.path for finding in content.findings if finding.severity == "error"}),
        findings=_describe_findings(content.findings),
        part_names=PARTS,
        settings=_flat(content.settings),
        command=quote(content.model_path),
    )


def write_evaluation(path: Path, predictor: Predictor, evaluation: Evaluation, *, title: str, model_path: str) -> None:
    """Write the page of how a model does on labelled photos."""
    bundle, rows, classes = predictor.bundle, evaluation.rows, evaluation.classes

    def load(row: Row) -> Any:
        return load_pixels(evaluation.root / row["path"], size=bundle.size, fit=bundle.fit, version=bundle.decoding)

    counted = Counter(row["label"] for row in rows)
    errors = calibration_errors(rows, classes, bundle.temperature)
    metrics = EvaluationMetrics(
        classes=classes,
        counts={"test": len(rows)},
        test=evaluation.result,
        calibration={"temperature": bundle.temperature, "ece": {"test": errors}},
        unknown=threshold_record(bundle.unknown),
        rest_class=bundle.rest_class,
    )
    content = ReportContent(
        title=title,
        metrics=metrics,
        gallery=make_gallery(predictor, rows, load),
        predictions=rows,
        findings=evaluation.findings,
        class_counts={name: {"test": counted[name]} for name in classes},
        model_path=model_path,
    )
    write_atomically(path, render_report(content).encode())


# --- tables


def _cells(content: ReportContent) -> list[dict[str, Any]]:
    """Return the cells of the confusion matrix that have photos to show, wrong answers first."""
    names, thumbnails = list(content.metrics.classes), content.gallery.thumbnails
    cells: dict[tuple[int, int], list[Row]] = {}
    for row in content.predictions:
        if row["path"] in thumbnails and row["part"] == "test":
            cells.setdefault((names.index(row["label"]), names.index(row["predicted"])), []).append(row)
    ordered = sorted(cells.items(), key=lambda cell: (cell[0][0] == cell[0][1], cell[0]))
    return [{"place": place, "rows": sorted(rows, key=lambda row: float(row["score"]))} for place, rows in ordered]


def _pairs(metrics: Metrics | EvaluationMetrics) -> list[tuple[int, int, int, float]] | None:
    """Return the classes that are confused most, where they are too many for a matrix."""
    if not metrics.test or len(metrics.classes) <= MOST_IN_MATRIX:
        return None
    return most_confused(metrics.test["confusion"], most=MOST_PAIRS)


def _strange(content: ReportContent) -> dict[str, Any]:
    """Return how many test photos were called unknown, and those with a picture, the farthest first."""
    if not content.metrics.unknown:
        return {"number": 0, "pictured": []}
    rows = [row for row in content.predictions if row["part"] == "test" and row.get("unknown")]
    rows.sort(key=lambda row: (-float(row["distance"]), row["path"]))
    return {
        "number": len(rows),
        "pictured": [row for row in rows if row["path"] in content.gallery.thumbnails][:MOST_UNKNOWN],
    }


def _find_scene(findings: Sequence[Finding]) -> str:
    return next((finding.message for finding in findings if finding.code == "one_scene"), "")


def _describe_findings(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Group findings by code, and say whether all of a group have one hint."""
    groups = []
    for fault, rows in group_findings(findings):
        hints = {row.hint for row in rows}
        hint = hints.pop() if len(hints) == 1 else None
        groups.append({"fault": fault, "hint": hint, "rows": rows[:MOST_LISTED], "number": len(rows)})
    return groups


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            text = "–" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            rows.append((prefix + key, text))
    return rows


# --- exports, which are made when the page is written already


def note_exports(report: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Put the table of exports into a report; one that is missing, or has no place for it, is left alone."""
    try:
        page = report.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        return
    changed = insert_exports(page, records)
    if changed != page:
        write_atomically(report, changed.encode())


def insert_exports(page: str, records: Iterable[Mapping[str, Any]]) -> str:
    """Return a report with a table of the records of parity.json in its marked place, instead of what stood there.

    A record that lacks a number is left out. Without a record that is left, or such a place, the page stays as it is.
    """
    head, start, rest = page.partition(EXPORTS_START)
    _, end, tail = rest.partition(EXPORTS_END)
    rows = [row for record in records if (row := _export_row(record))]
    if not end or not rows or EXPORTS_START in rest:
        return page
    return f"{head}{start}\n{render_page('exports.html', rows=rows)}\n{end}{tail}"


def _export_row(record: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        exported, reference = (
            {name: float(record["accuracy"][which][name]) for name in ("value", "low", "high", "n")}
            for which in ("exported", "reference")
        )
        return {
            "format": str(record["format"]),
            "accepted": bool(record.get("accepted", True)),
            "agreement": float(record["agreement"]),
            "mean": _show_difference(float(record["mean_difference"])),
            "largest": _show_difference(float(record["max_difference"])),
            "exported": exported,
            "reference": reference,
            "n": round(exported["n"]),
            "p50": f"{float(record['latency_ms']['p50']):.1f}",
            "p95": f"{float(record['latency_ms']['p95']):.1f}",
            "size": f"{float(record['bytes']) / 1e6:.1f}",
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def _show_difference(value: float) -> str:
    return f"{value:.4f}" if value >= LEAST_SHOWN else f"under {LEAST_SHOWN:.4f}"
