"""The page in a browser -> its files: as a server gives them, or for a page that predicts without one."""

import html
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pronk.photos.formats import BY_PILLOW, FORMATS

PAGE = Path(__file__).with_name("page")
ALONE = PAGE / "alone"  # what takes the place of the server, and of the questions to it
OF_A_SERVER = re.compile(rb"<!-- of a server -->.*?<!-- end -->\n?", re.DOTALL)
MARKS = re.compile(rb"<!-- (?:of a server|end) -->\n?")
SHARED = ("bars.js", "camera.js", "card.js", "dom.js", "live.js", "model.js", "photos.js", "predict.js", "style.css",
          "table.js", "trouble.js")  # fmt: skip
BROWSERS_READ = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'"
)
SERVICE = "service.js"


def read_page() -> dict[str, bytes]:
    """Return the files of the server's page, by name; index.html is the page itself."""
    files = {path.name: path.read_bytes() for path in PAGE.iterdir() if path.is_file()}
    return files | {"index.html": _list_suffixes(MARKS.sub(b"", files["index.html"]), BY_PILLOW)}


def write_lone_page(facts: Mapping[str, Any], others: Iterable[str], *, version: str) -> dict[str, bytes]:
    """Return the files, by path, of a page that predicts in the visitor's browser.

    Args:
        facts: the record of the model that the page tells of, as `describe_bundle` makes it.
        others: paths of all other files that the page needs to work without a network.
        version: changes with any of the files.
    """
    files = {f"page/{name}": (PAGE / name).read_bytes() for name in SHARED}
    files |= {f"page/{path.name}": path.read_bytes() for path in ALONE.iterdir() if path.name != SERVICE}
    files["index.html"] = _write_index(str(facts["name"]))
    files["page.json"] = json.dumps(facts).encode()
    listed = json.dumps(["./", *sorted([*files, *others])])[1:-1]
    service = (ALONE / SERVICE).read_bytes().replace(b"/* FILES */", listed.encode())
    return files | {SERVICE: service.replace(b"VERSION", version.encode())}


def _write_index(name: str) -> bytes:
    page = _list_suffixes(OF_A_SERVER.sub(b"", (PAGE / "index.html").read_bytes()), BROWSERS_READ)
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    for old, new in (
        ('<meta name="referrer"', f'{policy}\n<meta name="referrer"'),
        ("<title>pronk</title>", f"<title>{html.escape(name)}</title>"),
        ("Photos never leave this machine.", "Photos never leave this device."),
        ("Everything on this page happens on this machine.", "Everything on this page happens in your browser."),
        (' role="tabpanel" id="predict" aria-labelledby="tab-predict"', ' id="predict"'),
    ):
        page = page.replace(old.encode(), new.encode())
    return page


def _list_suffixes(page: bytes, formats: Iterable[str]) -> bytes:
    return page.replace(b"SUFFIXES", ",".join(suffix for name in formats for suffix in FORMATS[name].suffixes).encode())
