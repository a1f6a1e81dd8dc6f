"""Rows of a history, or of predictions -> plots as inline SVG that follow the page's colours.

In the learning curves both phases share one axis. Their steps differ in kind (iterations of the head, epochs of
fine-tuning) and in number, so each phase gets about a third of the width at least, and its own tick marks.
"""

import contextlib
import dataclasses
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from pronk.analysis.metrics import accuracy_record
from pronk.errors import MissingExtra

PHASE_NAMES = {"frozen": "frozen", "fine_tuned": "fine-tuned"}
LEAST_WIDTH = 1 / 3
MOST_MARKED = 30
SIZE = (4.6, 2.5)
MOST_GROUPS = 10
LEAST_PER_GROUP = 8

# Drawn as these numbers, replaced by the page's own colours so that the curves follow light and dark.
INK, GRID, VALIDATION, TRAINING = "#010101", "#010102", "#010103", "#010104"
PAGE_COLOURS = {INK: "--muted", GRID: "--line", VALIDATION: "--accent", TRAINING: "--second"}


@dataclasses.dataclass(frozen=True)
class Curve:
    """One plot: its heading and the SVG element.

    Example:
        >>> Curve("Loss", Markup("<svg></svg>")).title
        'Loss'
    """

    title: str
    svg: Markup


def draw_curves(history: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """Draw loss and accuracy, training and validation, over both phases.

    Args:
        history: rows of history.csv in order, numbers or their texts; what is empty leaves a gap.

    Returns:
        One curve each for loss and accuracy, none for an empty history. Equal rows give equal text.

    Raises:
        MissingExtra: if there is something to draw and matplotlib is not installed.

    Example:
        >>> row = {"phase": "frozen", "loss": 0.5, "accuracy": 0.8, "val_loss": 0.6, "val_accuracy": 0.7}
        >>> [curve.title for curve in draw_curves([row, row])]
        ['Loss', 'Accuracy']
    """
    if not history:
        return []
    quantities = (("Loss", "loss"), ("Accuracy", "accuracy"))
    with _style():
        return [Curve(title, _draw_history(history, column, title)) for title, column in quantities]


def draw_calibration(predictions: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """Draw how sure answers were, and how many of them were right: a reliability diagram.

    The answers are sorted by their probability and cut into groups of equal size, ten at most (DeGroot and Fienberg
    1983). The groups stand side by side, since those of a sure model would all share one place on an axis of
    probabilities.

    Args:
        predictions: rows of predictions.csv; those of test photos are used.

    Returns:
        One curve, none where there are too few answers to make two groups.

    Raises:
        MissingExtra: if there is something to draw and matplotlib is not installed.

    Example:
        >>> row = {"part": "test", "label": "cat", "predicted": "cat", "score": 0.9}
        >>> [curve.title for curve in draw_calibration([row] * 16)]
        ['Sureness']
    """
    tested = [row for row in predictions if row["part"] == "test"]
    groups = min(MOST_GROUPS, len(tested) // LEAST_PER_GROUP)
    if groups < 2:
        return []
    pairs = np.array(sorted((float(row["score"]), row["label"] == row["predicted"]) for row in tested))
    sure, right, below, above = np.transpose([_group_point(group) for group in np.array_split(pairs, groups)])
    with _style():
        figure, axes = _open_figure(SIZE, (0.1, 0.2, 0.88, 0.76))
        places = np.arange(groups)
        axes.plot(places, sure, "--", marker="o", markersize=4, color=TRAINING, linewidth=1.4)
        axes.errorbar(places, right, (below, above), fmt="o", color=VALIDATION, markersize=5, linewidth=1.4, capsize=3)
        _dress(axes)
        axes.set_xticks(places, [f"{100 * value:.3g}" for value in sure])  # ten with a sign each would overlap
        axes.set_xlabel("how sure the answers of each group were, in %", color=INK)
        axes.set_xlim(-0.5, groups - 0.5)
        axes.set_ylim(max(0.0, math.floor(10 * min(sure.min(), (right - below).min())) / 10), 1.03)
        axes.yaxis.set_major_formatter(_percent)
        return [Curve("Sureness", _to_svg(figure, "sureness", "How sure answers were, and how many were right"))]


def _group_point(group: np.ndarray) -> tuple[float, float, float, float]:
    # Mean probability, and the share of right answers with its interval.
    return float(group[:, 0].mean()), *_reach(accuracy_record(group[:, 1] > 0))


def draw_growth(growth: Mapping[str, Any]) -> Curve:
    """Draw accuracy by number of photos with its intervals, and the forecast beside it.

    Args:
        growth: points and forecast, from `pronk.analysis.growth.describe_growth`.

    Raises:
        MissingExtra: if matplotlib is not installed.

    Example:
        >>> point = {"photos": 50, "accuracy": {"value": 0.9, "low": 0.8, "high": 0.95}}
        >>> draw_growth({"points": [point], "forecast": point | {"photos": 80}}).title
        'Photos'
    """
    with _style():
        figure, axes = _open_figure(SIZE, (0.1, 0.2, 0.86, 0.76))
        lowest = 1.0
        ahead = [growth["points"][-1], growth["forecast"]]
        for points, colour, dashes, mark in ((ahead, TRAINING, "--", "s"), (growth["points"], VALIDATION, "-", "o")):
            photos = [point["photos"] for point in points]
            values, below, above = np.transpose([_reach(point["accuracy"]) for point in points])
            axes.errorbar(photos, values, (below, above), fmt=mark + dashes, color=colour, markersize=5, capsize=3)
            lowest = min([lowest, *(values - below)])
        _dress(axes)
        axes.set_xlabel("photos to learn from", color=INK)
        axes.set_xlim(left=0)
        axes.set_ylim(max(0.0, math.floor(10 * lowest) / 10), 1.02)
        axes.yaxis.set_major_formatter(_percent)
        return Curve("Photos", _to_svg(figure, "growth", "Accuracy by number of photos, and the forecast"))


def _reach(accuracy: Mapping[str, Any]) -> tuple[float, float, float]:
    # An accuracy, and how far its interval reaches below and above.
    value = accuracy["value"]
    return value, value - accuracy["low"], accuracy["high"] - value


@contextlib.contextmanager
def _style() -> Iterator[None]:
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtra("report", "drawing the curves") from error
    # Text stays text, so that it takes the page's font; the salt keeps the names of marks equal in every run.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "pronk", "font.size": 9.5}):
        yield


def _open_figure(size: tuple[float, float], place: tuple[float, float, float, float]) -> tuple[Any, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    FigureCanvasSVG(figure)
    return figure, figure.add_axes(place)


def _draw_history(history: Sequence[Mapping[str, Any]], column: str, title: str) -> Markup:
    figure, axes = _open_figure(SIZE, (0.1, 0.13, 0.88, 0.76))
    phases = _phases(history)
    ticks: dict[float, str] = {}
    for phase, (start, width) in _places(phases).items():
        rows = phases[phase]
        steps = [start + width * (step + 0.5) / len(rows) for step in range(len(rows))]
        mark = "o" if len(rows) <= MOST_MARKED else ""
        for key, colour, dashes in ((column, TRAINING, "--"), (f"val_{column}", VALIDATION, "-")):
            values = [_number(row.get(key)) for row in rows]
            axes.plot(steps, values, dashes, marker=mark, markersize=3, color=colour, linewidth=1.6)
        ticks |= {steps[step]: str(step + 1) for step in _ticks(len(rows))}
        place: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "ha": "center", "parse_math": False}
        axes.text(start + width / 2, 1.03, PHASE_NAMES.get(phase, phase), color=INK, **place)
        if start:
            axes.axvline(start, color=INK, linewidth=1, linestyle=":")
    _dress(axes)
    axes.set_xlim(0, 1)
    axes.set_xticks(list(ticks), list(ticks.values()))
    if column == "accuracy":
        axes.set_ylim(top=1.0)
        axes.yaxis.set_major_formatter(_percent)
    else:
        axes.set_ylim(bottom=0)
    return _to_svg(figure, column, f"{title} of training and validation over both phases")


def _to_svg(figure: Any, prefix: str, label: str) -> Markup:
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return Markup(_page_svg(text.getvalue(), prefix, label))


def _phases(history: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    phases: dict[str, list[Mapping[str, Any]]] = {}
    for row in history:
        phases.setdefault(str(row["phase"]), []).append(row)
    return phases


def _places(phases: Mapping[str, Sequence[object]]) -> dict[str, tuple[float, float]]:
    # Start and width of each phase on an axis from 0 to 1.
    total = sum(len(rows) for rows in phases.values())
    least = min(LEAST_WIDTH, 1 / len(phases))
    widths = [max(len(rows) / total, least) for rows in phases.values()]
    places, start = {}, 0.0
    for phase, width in zip(phases, widths, strict=True):
        places[phase] = (start, width / sum(widths))
        start += width / sum(widths)
    return places


def _ticks(steps: int) -> list[int]:
    # About five round step numbers at most, as places counted from 0.
    strides = (factor * 10**power for power in range(9) for factor in (1, 2, 5))
    stride = next(stride for stride in strides if 5 * stride >= steps)
    return list(range(stride - 1, steps, stride))


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _percent(value: float, _: int) -> str:
    return f"{100 * value:.0f} %"


def _dress(axes: Any) -> None:
    axes.tick_params(colors=INK, length=0)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)


def _page_svg(text: str, prefix: str, label: str) -> str:
    # Cut the drawing down to what belongs inside a page: one element, own names, the page's font and colours.
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]*)"', text)
    assert box is not None
    text = re.sub(r"<svg[^>]*>", f'<svg viewBox="{box[1]}" role="img" aria-label="{label}">', text, count=1)
    text = re.sub(r' id="(?!m|p)[^"]*"', "", text)
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}-", text).replace("xlink:href", "href")
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    text = re.sub(r"font: (?:[a-z]+ )*([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    for drawn, variable in PAGE_COLOURS.items():
        text = text.replace(drawn, f"var({variable})")
    return re.sub(r"\s*\n\s*", " ", text).strip()
