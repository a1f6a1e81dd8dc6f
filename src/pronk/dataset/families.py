"""Names of files -> photos that were made from one, as turned and cropped copies are, and how to keep them together.

Copies that were turned or cropped look too different to be told by their pixels, but programs that make them name them
after the photo they come from. Where a model learns from one and is judged by another, it is judged by what it knows.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from pronk.dataset.findings import Finding, find
from pronk.dataset.listing import Entry
from pronk.text import plural, quote

_WORDS = (
    "aug|augm|augmented|rot|rotate|rotated|flip|flipped|hflip|vflip|mirror|mirrored|crop|cropped|zoom|zoomed|shear|"
    "sheared|shift|shifted|noise|noisy|blur|blurred|bright|brightness|contrast|jitter|warp|warped|scaled|transformed"
)
# Each finds what was added to a name; the photo itself may be there without it.
MARKS = (
    r"\.rf\.[0-9a-f]+",  # of annotation services
    rf"[_. -]+(?:{_WORDS})(?![a-z])[^/]*",
    r"[_.-]+(?=[0-9]*[a-f])(?=[a-f]*[0-9])[0-9a-f]{8,}",
)
FEWEST_FAMILIES = 3  # fewer may have their name by chance


def find_families(entries: Sequence[Entry], *, is_grouped: bool) -> Iterator[Finding]:
    """Suggest the `--group-by` that keeps copies together, unless photos are grouped already."""
    for mark in () if is_grouped else MARKS:
        if not any(re.search(mark, entry.path) for entry in entries):
            continue
        pattern = rf"((?:[^/]+/)?[^/]+?)(?:{mark})?\.\w+$"
        families = _find_families(entries, pattern, mark)
        if len(families) >= FEWEST_FAMILIES:
            number = sum(map(len, families))
            first, second = sorted(families[0])[:2]
            message = (
                f"{plural(number, 'photo')} seem to be made from {len(families):,}, by their names, such as {first} and"
                f" {second}"
            )
            yield find("", "made_copies", message, f"keep them together with --group-by {quote(pattern)}")
            return


def _find_families(entries: Sequence[Entry], pattern: str, mark: str) -> list[list[str]]:
    """Return the paths that share a stem, where one of them has the mark; most of a class is no family."""
    stems: dict[tuple[str, str], list[str]] = defaultdict(list)
    sizes: dict[str, int] = defaultdict(int)
    for entry in entries:
        sizes[entry.label] += 1
        if match := re.search(pattern, entry.path):
            stems[entry.label, match.group(1)].append(entry.path)
    marked = re.compile(rf"{mark}\.\w+$")
    return [
        paths
        for (label, _), paths in stems.items()
        if 1 < len(paths) <= sizes[label] / 2 and any(marked.search(path) for path in paths)
    ]
