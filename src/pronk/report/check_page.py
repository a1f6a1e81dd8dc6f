"""A checkup -> one HTML page: what is wrong with the photos, why it matters, what to do, each with pictures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pronk.dataset.checkup import Checkup
from pronk.dataset.findings import Fault, Finding, group_findings
from pronk.photos.encoding import THUMBNAIL_SIDE
from pronk.report.gallery import draw_files
from pronk.report.pages import render_page
from pronk.text import plural

MOST_LISTED = 200  # of each kind
MOST_PICTURED = 12  # of each kind
MOST_PICTURES = 240  # of 3 KB each

KINDS = (
    ("error", "error", "what training leaves out, or what keeps it from starting"),
    ("warning", "warning", "training would use it, and you should look at it first"),
    ("info", "note", "harmless to pronk, good to know"),
)


def render_check(checkup: Checkup, *, title: str, data: str) -> str:
    """Write the page, a whole HTML document that can be encoded as UTF-8, whatever the file names."""
    groups = group_findings(checkup.findings)
    pictures = draw_files(checkup.root, _pick(groups), side=THUMBNAIL_SIDE)
    largest = max(checkup.classes.values(), default=0)
    return render_page(
        "check.html",
        title=title,
        data=data,
        answer=_answer(checkup),
        classes=[(name, number, number / max(largest, 1)) for name, number in checkup.classes.items()],
        groups=[_describe(fault, findings, pictures) for fault, findings in groups],
        movable=any(fault.movable for fault, _ in groups),
        shortcuts=checkup.shortcuts,
    )


def _pick(groups: Sequence[tuple[Fault, Sequence[Finding]]]) -> list[str]:
    """Return the files to show: of each kind the first few, with those that they are compared to."""
    shown = [
        path
        for _, findings in groups
        for finding in findings[:MOST_PICTURED]
        for path in (finding.path, *finding.related[:1])
        if path
    ]
    return list(dict.fromkeys(shown))[:MOST_PICTURES]


def _describe(fault: Fault, findings: Sequence[Finding], pictures: Mapping[str, str]) -> dict[str, Any]:
    pictured = [finding for finding in findings[:MOST_PICTURED] if finding.path in pictures]
    hints = {finding.hint for finding in findings}
    hint = hints.pop() if len(hints) == 1 else ""
    return {
        "fault": fault,
        "number": len(findings),
        "hint": hint[:1].upper() + hint[1:],
        "cards": [
            (finding, [(path, pictures[path]) for path in (*finding.related[:1], finding.path) if path in pictures])
            for finding in pictured
        ],
        "rows": [finding for finding in findings if finding not in pictured][:MOST_LISTED],
        "more": max(0, len(findings) - len(pictured) - MOST_LISTED),
    }


def _answer(checkup: Checkup) -> dict[str, Any]:
    """Say in words whether one may train on these photos; `tone` is good, unsure or bad."""
    usable = sum(checkup.classes.values())
    number = Counter(finding.severity for finding in checkup.findings)
    said = [
        f"{plural(checkup.files, 'file')} looked at, {usable:,} of them usable photos "
        f"in {len(checkup.classes)} {'class' if len(checkup.classes) == 1 else 'classes'}."
    ]
    said += [f"{plural(number[kind], name)}: {text}." for kind, name, text in KINDS if number[kind]]
    if not checkup.findings:
        said.append("Nothing was found that needs you.")
    said.append("Looking at them changed nothing in your folder.")
    tone = "bad" if number["error"] else "unsure" if number["warning"] else "good"
    return {"tone": tone, "found": number["error"] + number["warning"], "sentences": said}
