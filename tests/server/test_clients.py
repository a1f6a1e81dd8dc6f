"""Other people's clients and tools against a server in a process of its own."""

import subprocess
import sys

import pytest

from helpers.pictures import LABELS, draw_picture, encode
from helpers.servers import start_server

TOKEN = "a token, not a secret"
PHOTOS = [encode(draw_picture(label, 4)) for label in LABELS]


@pytest.fixture(scope="module")
def server(served_model, tmp_path_factory):
    work = tmp_path_factory.mktemp("clients") / "work"
    with start_server(served_model, "--token", TOKEN, "--work", work, "--weights", "offline") as running:
        yield running


@pytest.fixture(scope="module")
def hugging_face(server):
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    return hub.InferenceClient(model=f"{server.address}v1/predict", token=TOKEN)


@pytest.mark.parametrize("top", [None, 1, 9])
def test_hugging_faces_client_reads_the_answer(hugging_face, predictor, top, tmp_path):
    options = {} if top is None else {"top_k": top}
    (tmp_path / "photo.jpg").write_bytes(PHOTOS[0])
    for photo in (PHOTOS[0], tmp_path / "photo.jpg", str(tmp_path / "photo.jpg")):
        elements = hugging_face.image_classification(photo, **options)
        wanted = predictor.predict_one(PHOTOS[0]).record(top)["scores"]
        assert [{"label": element.label, "score": element.score} for element in elements] == wanted


def test_hugging_faces_client_tells_what_is_wrong(hugging_face):
    with pytest.raises(Exception, match="422") as caught:
        hugging_face.image_classification(PHOTOS[0][:500])
    assert caught.value.response.json()["code"] == "truncated"


# All checks are on. What a schema cannot say is added to the answers that are right for some of them: which bytes are
# a photo, which names of classes are taken, and what is too much.
RULES = """
[[operations]]
include-path = "/v1/predict"
checks.positive_data_acceptance.expected-statuses = ["2xx", 415, 422]
checks.negative_data_rejection.expected-statuses = [400, 413, 422]

[[operations]]
include-path-regex = "^/v1/teach"
checks.positive_data_acceptance.expected-statuses = ["2xx", 403, 404, 409, 422]

[[operations]]
include-path-regex = "^/v1/teach/(classes/.*/photos|unlabelled)$"
checks.positive_data_acceptance.expected-statuses = ["2xx", 403, 404]
# Each photo of a request gets its own answer, also one that has no bytes.
checks.negative_data_rejection.expected-statuses = [200, 400, 403, 404, 413, 422]
"""


@pytest.mark.more
def test_every_route_does_what_the_description_says(server, tmp_path):
    pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    (tmp_path / "rules.toml").write_text(RULES)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", "rules.toml", "run", "--no-color"]
    shown = ["--header", f"Authorization: Bearer {TOKEN}"]
    asking = [f"{server.address}openapi.json", *shown, "--max-examples", "3", "--generation-deterministic"]
    done = subprocess.run([*command, *asking], capture_output=True, text=True, cwd=tmp_path, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert server.is_alive
    assert "Traceback" not in server.words()
    assert server.ask("POST", "/v1/predict", PHOTOS[0], {"Authorization": f"Bearer {TOKEN}"}).status == 200
