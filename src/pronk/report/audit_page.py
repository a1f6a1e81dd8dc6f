"""Labels that look wrong -> one HTML file to decide on them, which saves review.csv; it needs no server.

Names from strangers reach the page twice: made visible and escaped for people, and as ASCII JSON for the script, which
writes them back byte for byte. The script is named by its hash, so no other one runs.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from pronk.analysis.labels import Suspicion
from pronk.photos.encoding import PICTURE_SIDE, THUMBNAIL_SIDE
from pronk.report.gallery import draw_files
from pronk.report.pages import render_page
from pronk.text import quote, visible

MOST_ROWS = 200  # a page of some 6 MB
SURE, LIKELY = 0.8, 0.65


def render_audit(
    suspicions: Sequence[Suspicion],
    *,
    root: Path,
    classes: Sequence[str],
    data: str,
    photos: int,
    accuracy: float,
    most: int = MOST_ROWS,
) -> str:
    """Write the page.

    Suspicions come worst first, their paths relative to `root`; those after `most`, and after 200, are only counted.
    Data is how the reader names the data set on the command line, photos how many were looked at, and accuracy the
    share of them that the network recognised.
    """
    shown = suspicions[: min(most, MOST_ROWS)]
    digests = {suspicion.path: suspicion.digest for suspicion in shown}
    nearby = list({one.path: None for suspicion in shown for one in suspicion.neighbours})
    script = Path(__file__).with_name("templates").joinpath("audit.js").read_text(encoding="utf-8")
    return render_page(
        "audit.html",
        data=data,
        command=quote(data),
        photos=photos,
        accuracy=accuracy,
        rows=shown,
        say_score=_say_score,
        pictures=draw_files(root, digests, side=PICTURE_SIDE, digests=digests),
        thumbnails=draw_files(root, nearby, side=THUMBNAIL_SIDE),
        more=len(suspicions) - len(shown),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        payload=Markup(_write_payload(shown, classes)),
    )


def _say_score(score: float) -> str:
    # No word of "wrong": on photos as people have them, most of what is listed is right and hard.
    if score >= SURE:
        return "nearly all speaks against it"
    return "much speaks against it" if score >= LIKELY else "some doubt"


def _write_payload(suspicions: Sequence[Suspicion], classes: Sequence[str]) -> str:
    """Return what the script needs as JSON that nothing in a name can end or leave."""
    fields = ("path", "digest", "given", "suggested")
    value = {
        "classes": [{"name": name, "shown": visible(name)} for name in classes],
        "rows": [{field: getattr(suspicion, field) for field in fields} for suspicion in suspicions],
    }
    # Bytes of names that are not UTF-8 arrive as lone surrogates, which only JSON's ASCII escapes can hold.
    return json.dumps(value).replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")
