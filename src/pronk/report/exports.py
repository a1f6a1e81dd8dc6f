"""Records of parity.json -> the table of exports in a report that was written before them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pronk.report.pages import render_page
from pronk.storage.files import write_atomically

START, END = "<!-- exports -->", "<!-- /exports -->"
LEAST_SHOWN = 0.0001


def note_exports(report: Path, parity: Iterable[Mapping[str, Any]]) -> None:
    """Put the table into a report; one that is missing, or has no place for it, is left alone.

    Args:
        report: report.html of a run.
        parity: the records of parity.json.

    Example:
        >>> note_exports(Path("no such report.html"), [])
    """
    try:
        page = report.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        return
    changed = insert_exports(page, parity)
    if changed != page:
        write_atomically(report, changed.encode())


def insert_exports(page: str, parity: Iterable[Mapping[str, Any]]) -> str:
    """Return the page with a table of the exports in the place that is marked for it, instead of what stood there.

    Args:
        page: a report; one without such a place stays as it is.
        parity: the records of parity.json; one that lacks a number is left out, and where none is left the page
            stays as it is.

    Example:
        >>> insert_exports("a page without the marks", [])
        'a page without the marks'
    """
    head, start, rest = page.partition(START)
    _, end, tail = rest.partition(END)
    rows = [row for record in parity if (row := _row(record))]
    if not end or not rows or START in rest:
        return page
    return f"{head}{start}\n{render_page('exports.html', rows=rows)}\n{end}{tail}"


def _row(record: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        exported, reference = (
            {name: float(record["accuracy"][which][name]) for name in ("value", "low", "high", "n")}
            for which in ("exported", "reference")
        )
        return {
            "format": str(record["format"]),
            "accepted": bool(record.get("accepted", True)),
            "agreement": float(record["agreement"]),
            "mean": _difference(float(record["mean_difference"])),
            "largest": _difference(float(record["max_difference"])),
            "exported": exported,
            "reference": reference,
            "n": round(exported["n"]),
            "p50": f"{float(record['latency_ms']['p50']):.1f}",
            "p95": f"{float(record['latency_ms']['p95']):.1f}",
            "size": f"{float(record['bytes']) / 1e6:.1f}",
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def _difference(value: float) -> str:
    return f"{value:.4f}" if value >= LEAST_SHOWN else f"under {LEAST_SHOWN:.4f}"
