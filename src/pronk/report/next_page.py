"""Photos worth labelling -> a contact sheet: one HTML file to look through."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pronk.photos.encoding import PICTURE_SIDE
from pronk.report.gallery import draw_files
from pronk.report.pages import render_page


def render_next(chosen: Sequence[Mapping[str, Any]], *, photos: int) -> str:
    """Write the page of photos, records of `choose_next`, out of so many that were looked at."""
    pictures = draw_files(Path(), [one["path"] for one in chosen], side=PICTURE_SIDE)
    return render_page("next.html", rows=chosen, pictures=pictures, photos=photos)
