"""Requests that several tests of the server send."""

import json
import shutil

from helpers.pictures import draw_picture, encode
from pronk.storage.files import digest_file

PHOTO = encode(draw_picture("circle", 7))


def form(*files, field="photo"):
    """Files for httpx: (name, data) each."""
    return [(field, file) for file in files]


def swap(folder, other):
    """Put another model in a folder's place."""
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


def break_promise(folder):
    """Golden answers that the model does not give; the record's checksum is right."""
    answers = {f"{number}.jpg": [1.0, 0.0] for number in range(1, 9)}
    (folder / "golden" / "expected.json").write_text(json.dumps(answers))
    stored = json.loads((folder / "model.json").read_text())
    stored["files"]["golden/expected.json"] = digest_file(folder / "golden" / "expected.json")
    (folder / "model.json").write_text(json.dumps(stored))


PATHS = [
    ("GET", "/", 200), ("GET", "/docs", 200), ("GET", "/openapi.json", 200), ("GET", "/healthz", 200),
    ("GET", "/readyz", 200), ("GET", "/metrics", 200), ("GET", "/v1/server", 200), ("GET", "/v1/model", 200),
    ("GET", "/page/style.css", 200), ("GET", "/page/nothing.js", 404), ("GET", "/nothing", 404),
    ("GET", "/page/..%2fapp.py", 404), ("GET", "/page/%2e%2e/app.py", 404), ("GET", "/page//etc/passwd", 404),
    ("PUT", "/v1/predict", 405), ("DELETE", "/", 405), ("OPTIONS", "/v1/predict", 405), ("GET", "/v1/predict", 405),
    ("POST", "/v1/predict", 422), ("POST", "/v1/predict?top=0", 422), ("GET", "/v2/models/nothing", 404),
    ("GET", "/nothing%0d%0aset-cookie:%20a=b", 404), ("GET", "/healthz/", 404),
]  # fmt: skip
