"""Suspicious labels and photos -> one HTML file to decide on them, which saves review.csv; it needs no server.

Names from strangers reach the page twice: made visible and escaped for people, and as ASCII JSON for the script, which
writes them back byte for byte. The script is named by its hash, so no other one runs.
"""

import base64
import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pronk.analysis.labels import Suspicion
from pronk.errors import ImageError
from pronk.photos.decoding import read_bytes
from pronk.photos.encoding import PICTURE_SIDE, THUMBNAIL_SIDE, draw_thumbnail
from pronk.pools import start_threads
from pronk.report.pages import render_page
from pronk.text import quote, visible

MOST_ROWS = 200  # a page of some 6 MB
SURE, LIKELY = 0.8, 0.65


def render_review(
    suspicions: Sequence[Suspicion],
    *,
    root: Path,
    classes: Sequence[str],
    data: str,
    photos: int,
    accuracy: float | None = None,
    most: int = MOST_ROWS,
) -> str:
    """Write the page.

    Args:
        suspicions: the worst first; those after `most` are only counted.
        root: the folder that their paths are relative to.
        classes: in natural order.
        data: how the reader names the data set on the command line.
        photos: how many were looked at.
        accuracy: of the heads that judged, if known.
        most: rows of the page; never more than 200.

    Returns:
        A whole HTML document that can be encoded as UTF-8, whatever the file names.

    Example:
        >>> page = render_review([], root=Path("."), classes=["cat", "dog"], data="<pets>", photos=9)
        >>> "&lt;pets&gt;" in page
        True
    """
    shown = suspicions[: min(most, MOST_ROWS)]
    pictures, thumbnails = load_pictures(shown, root)
    script = Path(__file__).with_name("templates").joinpath("review.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return render_page(
        "review.html",
        data=data,
        command=quote(data),
        photos=photos,
        accuracy=accuracy,
        rows=[describe(suspicion, pictures, thumbnails) for suspicion in shown],
        more=len(suspicions) - len(shown),
        script=Markup(script),
        script_digest=digest,
        payload=Markup(write_payload(shown, classes)),
    )


def describe(
    suspicion: Suspicion, pictures: dict[str, str | None], thumbnails: dict[str, str | None]
) -> dict[str, Any]:
    """Return what the page shows of one suspicion.

    Example:
        >>> describe(Suspicion("cat/1.jpg", "e3b0", "cat", "dog", 0.9), {}, {})["words"]
        'nearly all speaks against it'
    """
    neighbours = [
        {"path": one.path, "label": one.label, "picture": thumbnails.get(one.path)} for one in suspicion.neighbours
    ]
    return {
        "path": suspicion.path,
        "given": suspicion.given,
        "suggested": suspicion.suggested,
        "score": f"{suspicion.score:.2f}",
        "words": say_score(suspicion.score),
        "picture": pictures.get(suspicion.path),
        "neighbours": neighbours,
    }


def say_score(score: float) -> str:
    """Say what a score means.

    Example:
        >>> [say_score(score) for score in (0.9, 0.7, 0.5)]
        ['nearly all speaks against it', 'much speaks against it', 'some doubt']
    """
    # No word of "wrong": on photos as people have them, most of what is listed is right and hard.
    return (
        "nearly all speaks against it"
        if score >= SURE
        else "much speaks against it"
        if score >= LIKELY
        else "some doubt"
    )


def load_pictures(suspicions: Sequence[Suspicion], root: Path) -> tuple[dict[str, str | None], dict[str, str | None]]:
    """Draw the photos at 224 pixels and their neighbours at 96, as `data:` addresses by path.

    A photo that cannot be read, or is another by now, has None.

    Example:
        >>> load_pictures([Suspicion("gone.jpg", "e3b0", "cat", "dog", 0.9)], Path("."))
        ({'gone.jpg': None}, {})
    """
    digests = {suspicion.path: suspicion.digest for suspicion in suspicions}
    nearby = list({one.path: None for suspicion in suspicions for one in suspicion.neighbours})
    with start_threads() as pool:
        large = pool.map(lambda item: _draw(root / item[0], PICTURE_SIDE, item[1]), digests.items())
        small = pool.map(lambda path: _draw(root / path, THUMBNAIL_SIDE), nearby)
        return dict(zip(digests, large, strict=True)), dict(zip(nearby, small, strict=True))


def write_payload(suspicions: Sequence[Suspicion], classes: Sequence[str]) -> str:
    r"""Return what the script needs as JSON that nothing in a name can end or leave.

    Example:
        >>> print(write_payload([Suspicion("</script>", "e3b0", "cat", "dog", 0.9)], ["cat"]).partition("], ")[2])
        "rows": [{"path": "\u003c/script\u003e", "digest": "e3b0", "given": "cat", "suggested": "dog"}]}
    """
    fields = ("path", "digest", "given", "suggested")
    value = {
        "classes": [{"name": name, "shown": visible(name)} for name in classes],
        "rows": [{field: getattr(suspicion, field) for field in fields} for suspicion in suspicions],
    }
    # Bytes of names that are not UTF-8 arrive as lone surrogates, which only JSON's ASCII escapes can hold.
    text = json.dumps(value)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _draw(path: Path, side: int, digest: str | None = None) -> str | None:
    with contextlib.suppress(ImageError):
        data = read_bytes(path)
        if digest is None or hashlib.sha256(data).hexdigest() == digest:
            return draw_thumbnail(data, side=side)
    return None
