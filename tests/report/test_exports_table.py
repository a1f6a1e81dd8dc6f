"""Records of parity.json -> the table in report.html: numbers, steadiness, and pages that are none of its business."""

import html
import re

import pytest

from helpers.metrics import make_metrics, make_parity
from pronk.report.run_page import EXPORTS_END as END
from pronk.report.run_page import EXPORTS_START as START
from pronk.report.run_page import ReportContent, insert_exports, note_exports, render_report

HOSTILE = ("<img src=x onerror=alert(1)>", f"{END}<script>", START, "photo\u202egpj.exe")


@pytest.fixture(scope="module")
def page():
    return render_report(ReportContent(title=f"{START} {END}", metrics=make_metrics()))


def words(page):
    shown = page[page.index(START) : page.index(END)]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", shown)).split())


def test_the_table_tells_what_was_compared(page):
    assert "Nothing was exported so far" in words(page)
    text = words(insert_exports(page, [make_parity(), make_parity("onnx-int8", accepted=False)]))
    expected = "98.0 % of 49 photos 0.0123 at most 0.2500 98.0 % 89.3 % to 99.6 % as trained 95.9 % 10.2 ms "
    assert f"litert kept {expected}95 % within 10.9 ms 2.6 MB onnx-int8 rejected {expected}" in text
    assert "Nothing was exported" not in text
    tiny = words(insert_exports(page, [make_parity(max_difference=2e-6, mean_difference=1e-7)]))
    assert "under 0.0001 98.0 %" in tiny


def test_it_can_be_done_again(page):
    once = insert_exports(page, [make_parity()])
    assert insert_exports(once, [make_parity()]) == once
    twice = insert_exports(once, [make_parity(), make_parity("keras")])
    assert insert_exports(page, [make_parity(), make_parity("keras")]) == twice
    assert twice.count('aria-label="Exports"') == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_only_text(page, name):
    changed = insert_exports(page, [make_parity(name)])
    assert (changed.count(START), changed.count(END)) == (1, 1)
    assert "<img" not in changed
    assert "<script" not in changed
    assert "\u202e" not in changed


@pytest.mark.parametrize("foreign", ["", "<p>mine</p>", START, END + START, f"{START}{START}{END}"])
def test_foreign_pages_are_left_alone(foreign):
    assert insert_exports(foreign, [make_parity()]) == foreign


WRONG = ({"accuracy": None}, {"bytes": "many"}, {"latency_ms": {"p50": 1}})


@pytest.mark.parametrize("damaged", [{}, {"format": "litert"}, *(make_parity(**wrong) for wrong in WRONG)])
def test_damaged_records_are_left_out(page, damaged):
    assert insert_exports(page, [damaged]) == page
    assert insert_exports(page, [damaged, make_parity()]) == insert_exports(page, [make_parity()])


def test_the_file_is_changed_only_where_it_is_a_report(page, tmp_path):
    report = tmp_path / "report.html"
    note_exports(report, [make_parity()])
    assert not report.exists()
    for foreign in (b"\xff\xfe", b"mine\r\n"):
        report.write_bytes(foreign)
        note_exports(report, [make_parity()])
        assert report.read_bytes() == foreign
    report.write_bytes(page.encode())
    note_exports(report, [make_parity()])
    assert report.read_bytes().decode() == insert_exports(page, [make_parity()])
    before = report.stat()
    note_exports(report, [make_parity()])
    assert report.stat().st_ino == before.st_ino, "it is not written again for nothing"
    assert list(tmp_path.iterdir()) == [report]
