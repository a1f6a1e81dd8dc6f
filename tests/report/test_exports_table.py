"""Records of parity.json -> the table in report.html: numbers, steadiness, and pages that are none of its business."""

import html
import re

import pytest

from helpers.metrics import make_metrics
from pronk.analysis.metrics import accuracy_record
from pronk.report.run_page import EXPORTS_END as END
from pronk.report.run_page import EXPORTS_START as START
from pronk.report.run_page import ReportContent, insert_exports, note_exports, render_report

HOSTILE = ("<img src=x onerror=alert(1)>", f"{END}<script>", START, "photo\u202egpj.exe")


def record(name="litert", **changed):
    return {
        "format": name,
        "agreement": 0.98,
        "max_difference": 0.25,
        "mean_difference": 0.0123,
        "accuracy": {
            "reference": accuracy_record([True] * 47 + [False] * 2),
            "exported": accuracy_record([True] * 48 + [False]),
        },
        "latency_ms": {"p50": 10.231, "p95": 10.86},
        "bytes": 2_597_345,
        "accepted": True,
    } | changed


@pytest.fixture(scope="module")
def page():
    return render_report(ReportContent(title=f"{START} {END}", metrics=make_metrics()))


def words(page):
    shown = page[page.index(START) : page.index(END)]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", shown)).split())


def test_the_table_tells_what_was_compared(page):
    assert "Nothing was exported so far" in words(page)
    text = words(insert_exports(page, [record(), record("onnx-int8", accepted=False)]))
    expected = "98.0 % of 49 photos 0.0123 at most 0.2500 98.0 % 89.3 % to 99.6 % as trained 95.9 % 10.2 ms "
    assert f"litert kept {expected}95 % within 10.9 ms 2.6 MB onnx-int8 rejected {expected}" in text
    assert "Nothing was exported" not in text
    tiny = words(insert_exports(page, [record(max_difference=2e-6, mean_difference=1e-7)]))
    assert "under 0.0001 98.0 %" in tiny


def test_it_can_be_done_again(page):
    once = insert_exports(page, [record()])
    assert insert_exports(once, [record()]) == once
    twice = insert_exports(once, [record(), record("keras")])
    assert insert_exports(page, [record(), record("keras")]) == twice
    assert twice.count('aria-label="Exports"') == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_only_text(page, name):
    changed = insert_exports(page, [record(name)])
    assert (changed.count(START), changed.count(END)) == (1, 1)
    assert "<img" not in changed
    assert "<script" not in changed
    assert "\u202e" not in changed


@pytest.mark.parametrize("foreign", ["", "<p>mine</p>", START, END + START, f"{START}{START}{END}"])
def test_foreign_pages_are_left_alone(foreign):
    assert insert_exports(foreign, [record()]) == foreign


@pytest.mark.parametrize(
    "damaged", [{}, {"format": "litert"}, record(accuracy=None), record(bytes="many"), record(latency_ms={"p50": 1})]
)
def test_damaged_records_are_left_out(page, damaged):
    assert insert_exports(page, [damaged]) == page
    assert insert_exports(page, [damaged, record()]) == insert_exports(page, [record()])


def test_the_file_is_changed_only_where_it_is_a_report(page, tmp_path):
    report = tmp_path / "report.html"
    note_exports(report, [record()])
    assert not report.exists()
    for foreign in (b"\xff\xfe", b"mine\r\n"):
        report.write_bytes(foreign)
        note_exports(report, [record()])
        assert report.read_bytes() == foreign
    report.write_bytes(page.encode())
    note_exports(report, [record()])
    assert report.read_bytes().decode() == insert_exports(page, [record()])
    before = report.stat()
    note_exports(report, [record()])
    assert report.stat().st_ino == before.st_ino, "it is not written again for nothing"
    assert list(tmp_path.iterdir()) == [report]
