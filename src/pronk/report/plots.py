"""A history, predictions or a growth record -> plots as inline SVG in the colours of the page.

In the learning curves both phases share one axis. Their steps differ in kind (iterations of the head, epochs of
fine-tuning) and in number, so each phase gets about a third of the width at least, and its own tick marks.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from pronk.analysis.metrics import accuracy_record
from pronk.report.pages import Row, render_page
from pronk.report.words import PHASES

LEAST_WIDTH = 1 / 3
MOST_MARKED = 30
MOST_GROUPS = 10
LEAST_PER_GROUP = 8

# The frame of each plot, in the units of its view box of 332 x 180.
LEFT, RIGHT, TOP, BOTTOM = 42.0, 324.0, 16.0, 156.0


@dataclasses.dataclass(frozen=True)
class Line:
    """A line through points, each marked, where one is known with its interval.

    Attributes:
        style: "first" or "second", as report.css draws it.
        points: (x, y) or (x, y, low, high); what is not a finite number leaves a gap.
        mark: "dot", "square" or nothing.
    """

    style: str
    points: Sequence[tuple[float, ...]]
    mark: str = "dot"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axis:
    """What one direction of a plot shows.

    Attributes:
        low, high: its ends.
        ticks: label by value.
        title: stands below a horizontal axis.
    """

    low: float
    high: float
    ticks: Mapping[float, str]
    title: str = ""


def draw_learning(history: Sequence[Row]) -> dict[str, Markup]:
    """Draw loss and accuracy, training and validation, over both phases.

    Args:
        history: rows of history.csv in order, numbers or their texts; what is empty leaves a gap.

    Returns:
        A plot each for loss and accuracy by its heading, none for an empty history. Equal rows give equal text.
    """
    return {title: _draw_quantity(history, title) for title in ("Loss", "Accuracy")} if history else {}


def draw_calibration(predictions: Sequence[Row]) -> Markup | None:
    """Draw how sure answers were, and how many of them were right: a reliability diagram.

    The answers are sorted by their probability and cut into groups of equal size, ten at most (DeGroot and Fienberg
    1983). The groups stand side by side, since those of a sure model would all share one place on an axis of
    probabilities.

    Args:
        predictions: rows of predictions.csv; those of test photos are used.

    Returns:
        The plot, or None where there are too few answers to make two groups.
    """
    tested = [row for row in predictions if row["part"] == "test"]
    number = min(MOST_GROUPS, len(tested) // LEAST_PER_GROUP)
    if number < 2:
        return None
    answers = np.array(sorted((float(row["score"]), row["label"] == row["predicted"]) for row in tested))
    groups = np.array_split(answers, number)
    sure = [float(group[:, 0].mean()) for group in groups]
    right = [_with_interval(place, accuracy_record(group[:, 1] > 0)) for place, group in enumerate(groups)]
    # Ten percent signs would overlap: the axis has one in its title.
    ticks: dict[float, str] = {place: f"{100 * value:.3g}" for place, value in enumerate(sure)}
    return _draw(
        "How sure answers were, and how many were right",
        [Line("second", list(enumerate(sure))), *(Line("first", [point]) for point in right)],
        x=Axis(low=-0.5, high=number - 0.5, ticks=ticks, title="how sure the answers of each group were, in %"),
        y=_share_axis(min(*sure, *(point[2] for point in right))),
    )


def draw_growth(growth: Mapping[str, Any]) -> Markup:
    """Draw accuracy by number of photos and its forecast with their intervals, from what `describe_growth` returns."""
    measured, forecast = growth["points"], growth["forecast"]
    lines = [
        Line(style, [_with_interval(point["photos"], point["accuracy"]) for point in points], mark)
        for style, points, mark in (("second", [measured[-1], forecast], "square"), ("first", measured, "dot"))
    ]
    most = 1.04 * max(point[0] for line in lines for point in line.points)
    ticks = {value: f"{value:,.0f}" for value in _round_steps(0, most)}
    return _draw(
        "Accuracy by number of photos, and the forecast",
        lines,
        x=Axis(low=0, high=most, ticks=ticks, title="photos to learn from"),
        y=_share_axis(min(point[2] for line in lines for point in line.points)),
    )


def _draw(
    label: str, lines: Sequence[Line], *, x: Axis, y: Axis, names: Mapping[float, str] | None = None, split: float = 0
) -> Markup:
    """Fill the template: `names` stand above places on the x axis, and a dotted line at `split`."""
    bottom = BOTTOM - 16 if x.title else BOTTOM

    def across(value: float) -> str:
        return f"{LEFT + (RIGHT - LEFT) * (value - x.low) / (x.high - x.low):.1f}"

    def down(value: float) -> str:
        return f"{bottom + (TOP - bottom) * (value - y.low) / (y.high - y.low):.1f}"

    page = render_page(
        "plot.svg",
        label=label,
        lines=[(line, _trace(line.points, across, down)) for line in lines],
        known=_known,
        x=x,
        y=y,
        names=names or {},
        split=split,
        across=across,
        down=down,
        frame=(LEFT, RIGHT, TOP, bottom),
    )
    return Markup(page)


def _trace(points: Iterable[tuple[float, ...]], across: Any, down: Any) -> str:
    path, pen = "", "M"
    for point in points:
        path, pen = (f"{path}{pen}{across(point[0])} {down(point[1])}", "L") if _known(point) else (path, "M")
    return path


def _known(point: tuple[float, ...]) -> bool:
    return all(map(math.isfinite, point))


def _draw_quantity(history: Sequence[Row], title: str) -> Markup:
    column = title.lower()
    phases: dict[str, list[Row]] = {}
    for row in history:
        phases.setdefault(str(row["phase"]), []).append(row)
    lines, split = [], 0.0
    ticks: dict[float, str] = {}
    names: dict[float, str] = {}
    lengths = {phase: int(rows[-1]["epoch"]) for phase, rows in phases.items()}  # not each iteration has a row
    for phase, (start, width) in _places(lengths).items():
        rows, length = phases[phase], lengths[phase]
        steps = [start + width * (int(row["epoch"]) - 0.5) / length for row in rows]
        for key, style in ((column, "second"), (f"val_{column}", "first")):
            points = [(step, _number(row.get(key))) for step, row in zip(steps, rows, strict=True)]
            lines.append(Line(style, points, "dot" if len(rows) <= MOST_MARKED else ""))
        rounds = [step for step in _round_steps(1, length) if step % 1 == 0]
        ticks |= {start + width * (step - 0.5) / length: f"{step:.0f}" for step in rounds}
        names[start + width / 2] = PHASES.get(phase, phase)
        split = start
    values = [point[1] for line in lines for point in line.points if _known(point)]
    if column == "accuracy":
        lowest = min(values, default=0.0)
        y = _axis(lowest - max(0.05 * (1 - lowest), 0.005), 1.0, percent=True)
    else:
        y = _axis(0, 1.05 * max(values, default=0.0) or 1.0)
    label = f"{title} of training and validation over both phases"
    return _draw(label, lines, x=Axis(low=0, high=1, ticks=ticks), y=y, names=names, split=split)


def _places(lengths: Mapping[str, int]) -> dict[str, tuple[float, float]]:
    # Start and width of each phase on an axis from 0 to 1.
    total = sum(lengths.values())
    least = min(LEAST_WIDTH, 1 / len(lengths))
    widths = [max(length / total, least) for length in lengths.values()]
    places, start = {}, 0.0
    for phase, width in zip(lengths, widths, strict=True):
        places[phase] = (start, width / sum(widths))
        start += width / sum(widths)
    return places


def _with_interval(place: float, accuracy: Mapping[str, Any]) -> tuple[float, ...]:
    return place, accuracy["value"], accuracy["low"], accuracy["high"]


def _share_axis(lowest: float) -> Axis:
    return _axis(max(0.0, math.floor(10 * lowest) / 10), 1.02, percent=True)


def _axis(low: float, high: float, *, percent: bool = False) -> Axis:
    steps = _round_steps(low, high)
    return Axis(low=low, high=high, ticks={step: f"{100 * step:.4g} %" if percent else f"{step:.3g}" for step in steps})


def _round_steps(low: float, high: float) -> list[float]:
    # Seven values at most between the ends, a round distance apart.
    least = max((high - low) / 6, 1e-9)
    power = math.floor(math.log10(least))
    step = next(factor * 10.0**power for factor in (1, 2, 5, 10) if factor * 10.0**power >= least)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
