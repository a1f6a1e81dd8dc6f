"""Histories, predictions and growth records -> inline SVG: steady, self-contained, tolerant of gaps."""

import re
from xml.etree import ElementTree

import pytest

from helpers.metrics import CURVE
from pronk.analysis.metrics import wilson_interval
from pronk.report.plots import draw_calibration, draw_growth, draw_learning


def row(phase, step, **changed):
    values = {"loss": 1 / step, "accuracy": 1 - 0.4 / step, "val_loss": 1.2 / step, "val_accuracy": 1 - 0.5 / step}
    return {"phase": phase, "epoch": step, **values, "learning_rate": 1e-5, "seconds": 0.1, **changed}


def history(frozen=40, tuned=5):
    return [row("frozen", n + 1) for n in range(frozen)] + [row("fine_tuned", n + 1) for n in range(tuned)]


def answers(scores, correct, part="test"):
    return [
        {"part": part, "label": "a", "predicted": "a" if right else "b", "score": score}
        for score, right in zip(scores, correct, strict=True)
    ]


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter("text")]


def marks(svg, style, shape="circle"):
    """The heights of a line's marks, in the drawing's units: 0 at the top."""
    lines = [group for group in ElementTree.fromstring(svg).iter("g") if group.get("class") == style]
    return [float(mark.get("cy" if shape == "circle" else "y")) for line in lines for mark in line.iter(shape)]


def test_loss_and_accuracy_of_both_phases():
    plots = draw_learning(history())
    assert list(plots) == ["Loss", "Accuracy"]
    for heading, svg in plots.items():
        assert svg.startswith('<svg viewBox="0 0 332 180" role="img" aria-label=')
        assert f'aria-label="{heading} of training and validation over both phases"' in svg
        assert {"frozen", "fine-tuned", "10", "1"} <= set(texts(svg))
        assert 'class="split"' in svg
    assert "100 %" in texts(plots["Accuracy"])
    falling = marks(plots["Loss"], "first")
    assert len(falling) == 5, "of 40 steps none is marked"
    assert falling == sorted(falling)


def test_plots_belong_to_the_page_and_are_steady():
    def draw():
        sure = draw_calibration(answers([0.9] * 99, [True] * 99))
        return [*draw_learning(history()).values(), draw_growth(CURVE), sure]

    assert draw() == draw()
    for svg in draw():
        assert not re.search(r"http|style|id=|#|url", svg), "the page's own colours and fonts, and no names to clash"


@pytest.mark.parametrize("frozen", [0, 1, 3, 500])
@pytest.mark.parametrize("tuned", [0, 1, 20])
def test_any_number_of_steps(frozen, tuned):
    assert len(draw_learning(history(frozen, tuned))) == (2 if frozen + tuned else 0)


def test_gaps_stay_gaps():
    lines = [
        row("frozen", 1, val_loss="", val_accuracy=None),
        row("frozen", 2, loss="nan", accuracy=float("inf")),
        {"phase": "fine_tuned", "epoch": 1},
        row("fine_tuned", 2, val_loss="1e400"),
    ]
    for svg in draw_learning(lines).values():
        assert not re.search(r"\bnan|\binf", svg)
    assert len(marks(draw_learning(lines)["Loss"], "first")) == 1
    assert draw_learning([{"phase": "frozen", "epoch": 1}])


def test_all_right_is_a_line_at_the_top():
    svg = draw_learning([row("frozen", 1, accuracy=1, val_accuracy=1, loss=0, val_loss=0)])
    assert marks(svg["Accuracy"], "first") == [16.0]
    assert marks(svg["Loss"], "first") == [156.0]


def test_too_few_answers_have_no_calibration():
    assert draw_calibration(answers([0.9] * 15, [True] * 15)) is None
    assert draw_calibration(answers([0.9] * 50, [True] * 50, part="val")) is None


def test_calibration_is_one_drawing_whatever_the_order():
    rows = answers([0.5 + i / 200 for i in range(100)], [i % 4 > 0 for i in range(100)])
    svg = draw_calibration(rows)
    assert "how sure the answers of each group were, in %" in texts(svg)
    assert draw_calibration(rows[::-1]) == svg
    assert len(marks(svg, "first")) == len(marks(svg, "second")) == 10


def test_points_lie_where_the_answers_do():
    svg = draw_calibration(answers([0.6] * 8 + [0.9] * 8, [True] * 4 + [False] * 4 + [True] * 8))
    lowest = int(wilson_interval(4, 8)[0] * 10) / 10

    def height(share):
        return pytest.approx(16 + 124 * (1.02 - share) / (1.02 - lowest), abs=0.06)

    assert marks(svg, "second") == [height(0.6), height(0.9)]
    assert marks(svg, "first") == [height(0.5), height(1.0)]


def test_growth_shows_what_was_measured_and_what_is_foreseen():
    svg = draw_growth(CURVE)
    assert "photos to learn from" in texts(svg)
    assert len(marks(svg, "first")) == len(CURVE["points"])
    assert marks(svg, "first") == sorted(marks(svg, "first"), reverse=True), "more photos, more right"
    assert len(marks(svg, "second", "rect")) == 2
