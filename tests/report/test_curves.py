"""Histories -> inline SVG: steady, self-contained, tolerant of gaps."""

import re
import sys

import numpy as np
import pytest

from pronk.analysis.metrics import wilson_interval
from pronk.errors import MissingExtra
from pronk.report.curves import _group_point, draw_calibration, draw_curves


def row(phase, step, **changed):
    values = {
        "loss": 1 / step,
        "accuracy": 1 - 0.4 / step,
        "val_loss": 1.2 / step,
        "val_accuracy": 1 - 0.5 / step,
    }
    return {"phase": phase, "epoch": step, **values, "learning_rate": 1e-5, "seconds": 0.1, **changed}


def history(frozen=40, tuned=5):
    return [row("frozen", n + 1) for n in range(frozen)] + [row("fine_tuned", n + 1) for n in range(tuned)]


def test_loss_and_accuracy_of_both_phases():
    loss, accuracy = draw_curves(history())
    assert (loss.title, accuracy.title) == ("Loss", "Accuracy")
    for curve in (loss, accuracy):
        assert curve.svg.startswith("<svg viewBox=")
        assert curve.svg.endswith("</svg>")
        assert ">frozen</text>" in curve.svg
        assert ">fine-tuned</text>" in curve.svg
        assert curve.svg.count("var(--accent)") >= 2


def test_nothing_to_draw_needs_no_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert draw_curves([]) == []
    with pytest.raises(MissingExtra) as caught:
        draw_curves(history())
    assert caught.value.hint == 'pip install "pronk[report]"'


def test_the_drawing_is_steady_and_belongs_to_the_page():
    first, second = draw_curves(history()), draw_curves(history())
    assert first == second
    for curve in first:
        assert "http" not in curve.svg
        assert "<style" not in curve.svg
        assert "<metadata" not in curve.svg
        assert "#0101" not in curve.svg
        assert "DejaVu" not in curve.svg


def test_names_inside_the_two_drawings_differ_and_resolve():
    loss, accuracy = (curve.svg for curve in draw_curves(history()))
    names = [set(re.findall(r' id="([^"]*)"', svg)) for svg in (loss, accuracy)]
    assert not names[0] & names[1]
    for svg, own in zip((loss, accuracy), names, strict=True):
        used = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', svg)
        assert used
        assert {name for pair in used for name in pair if name} <= own


def test_rows_of_a_csv_file_draw_the_same():
    texts = [{key: str(value) for key, value in line.items()} for line in history()]
    assert draw_curves(texts) == draw_curves(history())


@pytest.mark.parametrize("frozen", [0, 1, 3, 500])
@pytest.mark.parametrize("tuned", [0, 1, 20])
def test_any_number_of_steps(frozen, tuned):
    assert len(draw_curves(history(frozen, tuned))) == (2 if frozen + tuned else 0)


def test_gaps_stay_gaps():
    lines = [
        row("frozen", 1, val_loss="", val_accuracy=None),
        row("frozen", 2, loss="nan", accuracy=float("inf")),
        {"phase": "fine_tuned"},
        row("fine_tuned", 2, val_loss="1e400"),
    ]
    for curve in draw_curves(lines):
        assert "nan" not in curve.svg
        assert "inf" not in curve.svg.replace("infinity", "")


# --- how sure, how right


def answers(scores, correct):
    return [
        {"part": "test", "label": "a", "predicted": "a" if right else "b", "score": score}
        for score, right in zip(scores, correct, strict=True)
    ]


def test_too_few_answers_have_no_calibration():
    assert draw_calibration(answers([0.9] * 15, [True] * 15)) == []
    assert draw_calibration([row | {"part": "val"} for row in answers([0.9] * 50, [True] * 50)]) == []


def test_calibration_is_one_drawing_whatever_the_order():
    scores = [0.5 + i / 200 for i in range(100)]
    rows = answers(scores, [i % 4 > 0 for i in range(100)])
    (curve,) = draw_calibration(rows)
    assert curve.svg.count("<svg") == 1
    assert "how sure the answers" in curve.svg
    assert draw_calibration(rows[::-1]) == [curve]


def test_points_lie_where_the_answers_do():
    rows = answers([0.6] * 20 + [0.9] * 20, [True] * 10 + [False] * 10 + [True] * 20)
    pairs = np.array(sorted((row["score"], row["label"] == row["predicted"]) for row in rows))
    sure, right, below, above = _group_point(pairs[:20])
    assert (sure, right) == (pytest.approx(0.6), 0.5)
    assert (right - below, right + above) == pytest.approx(wilson_interval(10, 20))
