"""Numbers of a run and names of its photos -> one HTML page that answers in words first.

The page is a single file without scripts, external addresses or dates: equal content gives equal bytes. File
and class names come from strangers: every text passes `visible` and Jinja's escaping on its way into it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pronk.dataset.findings import SEVERITIES, describe_fault
from pronk.dataset.shortcuts import Shortcut
from pronk.errors import Reason
from pronk.report.gallery import Gallery, sort_mistakes
from pronk.report.pages import mark_name, render_page
from pronk.report.plots import PHASE_NAMES, draw_calibration, draw_growth, draw_learning
from pronk.report.promises import USUAL_COVERAGE, describe_sureness, describe_unknown
from pronk.text import count, percent, quote

MOST_LISTED = 200
MOST_SUSPICIONS = 12
MOST_UNSTABLE = 30
WIDE = 0.12  # an interval this wide deserves a word
LEFT_OUT = frozenset(Reason) - {Reason.OK, Reason.OK_WITH_WARNING}
PART_NAMES = {"train": "training", "val": "validation", "test": "test"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportContent:
    """Everything the page is made of.

    Attributes:
        title: the page's heading.
        metrics: the object of metrics.json; `pronk evaluate` has only classes, counts and test.
        history: rows of history.csv.
        suspicions: photos whose labels look wrong: path, given, suggested, score, and picture as a `data:` address.
        folds: rows of folds.csv with path, label and right.
        gallery: pictures, from `pronk.report.gallery.make_gallery`.
        predictions: rows of predictions.csv with path, part, label, predicted and score.
        findings: what `check` found: path, code, severity, message and hint.
        shortcuts: from `pronk.dataset.shortcuts.measure_shortcuts`.
        class_counts: photos per class and part, `{class: {part: n}}`, if known.
        settings: what the run was asked to do; may be nested.
        model_path: how the reader names the model on the command line.

    Example:
        >>> content = ReportContent(title="Pets", metrics={"classes": ["a", "b"], "counts": {}, "test": None})
        >>> content.model_path
        'RUN'
    """

    title: str
    metrics: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]] = ()
    suspicions: Sequence[Mapping[str, Any]] = ()
    folds: Sequence[Mapping[str, Any]] = ()
    gallery: Gallery = dataclasses.field(default_factory=Gallery)
    predictions: Sequence[Mapping[str, Any]] = ()
    findings: Sequence[Mapping[str, Any]] = ()
    shortcuts: Sequence[Shortcut] = ()
    class_counts: Mapping[str, Mapping[str, int]] | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    model_path: str = "RUN"


def render_report(content: ReportContent) -> str:
    """Write the page.

    Returns:
        A whole HTML document that can be encoded as UTF-8, whatever the file names.

    Example:
        >>> metrics = {"classes": ["cat", "dog"], "counts": {"test": 0}, "test": None}
        >>> page = render_report(ReportContent(title="<Pets>", metrics=metrics))
        >>> "<h1>&lt;Pets&gt;</h1>" in page
        True
    """
    metrics, mistakes = content.metrics, sort_mistakes(content.predictions)
    return render_page(
        "report.html",
        title=content.title,
        metrics=metrics,
        trained="frozen" in metrics,
        answer=_answer(metrics),
        fine_tuning=_fine_tuning(metrics),
        curves=draw_learning(content.history),
        calibration=draw_calibration(content.predictions),
        growth=draw_growth(metrics["curve"]) if metrics.get("curve") else None,
        suspicions=content.suspicions[:MOST_SUSPICIONS],
        more_suspicions=max(0, len(content.suspicions) - MOST_SUSPICIONS),
        unstable=_unstable(content.folds),
        gallery=content.gallery,
        sureness=describe_sureness(metrics),
        unknown=describe_unknown(
            metrics,
            content.predictions,
            pictured=content.gallery.thumbnails,
            asked=content.settings.get("coverage", USUAL_COVERAGE),
        ),
        cells=_cells(content),
        mistakes=mistakes[:MOST_LISTED],
        more_mistakes=max(0, len(mistakes) - MOST_LISTED),
        has_predictions=bool(content.predictions),
        findings=_group(content.findings),
        shortcuts=content.shortcuts,
        class_counts=content.class_counts,
        part_names=PART_NAMES,
        settings=_flat(content.settings),
        settings_views=content.settings.get("views"),
        command=quote(content.model_path),
        python_path=repr(content.model_path),
    )


# --- the answer in words


def _answer(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Say how good the model is and how sure that is; `tone` is good, unsure, bad or none."""
    test, trained = metrics["test"], "frozen" in metrics
    if test is not None:
        accuracy = test["accuracy"]
        which, seen = ("test photo", " it had never seen") if trained else ("photo", "")
        tone, comparison, baseline = _against_largest_class(test)
        sentences = [_hits_in_words(accuracy, which, seen), comparison]
        if not trained:
            sentences.append("Photos the model was trained on would make this number too good.")
    elif trained:
        kept = metrics["fine_tuned"] if _kept(metrics) == "fine_tuned" else metrics["frozen"]
        accuracy, tone, baseline = kept["val"]["accuracy"], "unsure", None
        sentences = [
            "No photos were set aside as a test, so there is no fully honest number.",
            _hits_in_words(accuracy, "validation photo", ""),
            "Those photos also chose the model, so expect a little less on new ones.",
        ]
    else:
        accuracy, tone, baseline, sentences = None, "none", None, ["There is nothing to judge."]
    if accuracy and accuracy["high"] - accuracy["low"] > WIDE:
        few = f"The interval is wide because {count(accuracy['n'], 'photo')} cannot say more"
        sentences.append(f"{few}: four times as many would about halve it.")
    return {"tone": tone, "accuracy": accuracy, "baseline": baseline, "sentences": sentences}


def _hits_in_words(accuracy: Mapping[str, Any], which: str, seen: str) -> str:
    n = accuracy["n"]
    hits = round(accuracy["value"] * n)
    right = "none was" if hits == 0 else f"{hits:,} {'was' if hits == 1 else 'were'}"
    return (
        f"Of {count(n, which)}{seen}, {right} right: {percent(accuracy['value'])}, and with 95\u00a0% certainty "
        f"between {percent(accuracy['low'])} and {percent(accuracy['high'])}."
    )


def _against_largest_class(test: Mapping[str, Any]) -> tuple[str, str, float]:
    accuracy, support = test["accuracy"], {name: row["support"] for name, row in test["per_class"].items()}
    largest = max(support, key=lambda name: support[name])
    share = support[largest] / accuracy["n"]
    always = Markup("Always answering “{}” would be right for {}").format(mark_name(largest), percent(share))
    if accuracy["value"] <= share:
        return "bad", always + ": on these photos the model is no better than that.", share
    if accuracy["low"] <= share:
        doubt = ", which lies inside that interval: so few photos cannot show that the model is better."
        return "unsure", always + doubt, share
    return "good", always + ": the model is clearly better than that.", share


def _kept(metrics: Mapping[str, Any]) -> str:
    comparison = metrics.get("comparison")
    return str(comparison["kept"]) if comparison else "frozen"


def _fine_tuning(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Say whether phase 2 helped, by how many photos, and what was kept; None for `evaluate`."""
    if "frozen" not in metrics:
        return None
    frozen, tuned, comparison = metrics["frozen"], metrics["fine_tuned"], metrics.get("comparison")
    kept, why = _kept(metrics), comparison["why"] if comparison else ""
    models = [("frozen", "frozen network, new head", frozen), ("fine_tuned", "fine-tuned top blocks", tuned)]
    rows = [{"name": text, "val": model["val"], "kept": key == kept} for key, text, model in models if model]
    if tuned is None or comparison is None:
        verdict, sentences = "Fine-tuning was not run.", []
    else:
        gained = comparison["gained"] - comparison["lost"]
        verdict = "Yes." if comparison["p"] < 0.05 else "It seems so, a little."
        verdict = verdict if gained >= 0 else "Not clearly."
        verdict = verdict if tuned["val"]["loss"] < frozen["val"]["loss"] else "No."
        sentences = _comparison_in_words(frozen["val"], tuned["val"], comparison)
    return {"verdict": verdict, "sentences": sentences, "kept": PHASE_NAMES[kept], "why": why, "rows": rows}


def _comparison_in_words(
    frozen: Mapping[str, Any], tuned: Mapping[str, Any], comparison: Mapping[str, Any]
) -> list[str]:
    gained, lost, p = comparison["gained"], comparison["lost"], comparison["p"]
    before, after = (round(model["accuracy"]["value"] * model["accuracy"]["n"]) for model in (frozen, tuned))
    photos = count(tuned["accuracy"]["n"], "validation photo")
    move = "fell" if tuned["loss"] < frozen["loss"] else "did not fall"
    loss = f"The validation loss {move}: {frozen['loss']:.3f} before, {tuned['loss']:.3f} after."
    if gained == lost == 0:
        return [loss, f"On the same {photos}, no answer changed sides: {before} right before and after."]
    shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    luck = "luck alone rarely does that" if p < 0.05 else "luck alone could well do that"
    return [
        loss,
        f"On the same {photos}, {gained} became right (gained) and {lost} became wrong (lost): "
        f"{before} right before, {after} after.",
        f"By this count {luck} (exact McNemar test, {shown}).",
    ]


# --- tables


def _cells(content: ReportContent) -> list[dict[str, Any]]:
    """Return the cells of the confusion matrix that have photos to show, wrong answers first."""
    names, thumbnails = list(content.metrics["classes"]), content.gallery.thumbnails
    cells: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for row in content.predictions:
        if row["path"] in thumbnails and row["part"] == "test":
            cells.setdefault((names.index(row["label"]), names.index(row["predicted"])), []).append(row)
    ordered = sorted(cells.items(), key=lambda cell: (cell[0][0] == cell[0][1], cell[0]))
    return [{"place": place, "rows": sorted(rows, key=lambda row: float(row["score"]))} for place, rows in ordered]


def _unstable(folds: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the photos that were recognised in some repeats only, the most doubtful first."""
    mixed = [row for row in folds if 0 < row["right"] < 1]
    return sorted(mixed, key=lambda row: abs(row["right"] - 0.5))[:MOST_UNSTABLE]


def _group(findings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    groups: dict[tuple[int, int, str], list[Mapping[str, Any]]] = {}
    for finding in findings:
        severity = SEVERITIES.index(finding["severity"])
        groups.setdefault((finding["code"] not in LEFT_OUT, severity, finding["code"]), []).append(finding)
    lost = {finding["path"] for finding in findings if finding["code"] in LEFT_OUT}
    ordered = []
    for stays, severity, code in sorted(groups):
        rows = groups[stays, severity, code]
        hints = {row["hint"] for row in rows}
        hint = hints.pop() if len(hints) == 1 else None
        fault = describe_fault(code)
        group = {
            "code": code,
            "title": fault.title,
            "why": fault.why,
            "severity": SEVERITIES[severity],
            "left_out": not stays,
            "hint": hint,
            "rows": rows[:MOST_LISTED],
            "number": len(rows),
        }
        ordered.append(group)
    return {"left_out": len(lost), "groups": ordered}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            text = "–" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            rows.append((prefix + key, text))
    return rows
