"""Other people's clients and tools against a server in a process of its own."""

import subprocess
import sys

import numpy as np
import pytest

from helpers.pictures import LABELS, draw_picture, encode
from helpers.servers import start_server
from pronk.model.predictor import Predictor
from pronk.photos.decoding import load_pixels

TOKEN = "a token, not a secret"
PHOTOS = [encode(draw_picture(label, 4)) for label in LABELS]


@pytest.fixture(scope="module")
def server(served_model):
    with start_server(served_model, "--token", TOKEN) as running:
        yield running


@pytest.fixture(scope="module")
def predictor(served_model):
    return Predictor.load(served_model)


# --- Hugging Face


@pytest.fixture(scope="module")
def hugging_face(server):
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    return hub.InferenceClient(model=f"{server.address}v1/predict", token=TOKEN)


@pytest.mark.parametrize("top", [None, 1, 2, 9])
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


# --- Triton and KServe


@pytest.fixture(scope="module")
def triton(server):
    module = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    with module.InferenceServerClient(server.address.removeprefix("http://").rstrip("/")) as client:
        yield module, client


def allowed():
    return {"Authorization": f"Bearer {TOKEN}"}  # a new one each time: the client adds to it


def test_tritons_client_finds_the_model(triton, served_model):
    _, client = triton
    name = served_model.parent.name
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(name, headers=allowed())
    assert client.is_model_ready(name, "1", headers=allowed())
    assert not client.is_model_ready("another", headers=allowed())
    assert not client.is_model_ready(name), "it showed no token"
    assert client.get_server_metadata(headers=allowed())["name"] == "pronk"
    assert client.get_model_metadata(name, headers=allowed())["inputs"][0]["datatype"] == "UINT8"


@pytest.mark.parametrize("as_bytes", [True, False])
def test_tritons_client_gets_the_same_numbers(triton, predictor, served_model, as_bytes):
    module, client = triton
    pixels = np.stack([load_pixels(photo, size=32) for photo in PHOTOS])
    given = module.InferInput("image", pixels.shape, "UINT8")
    given.set_data_from_numpy(pixels, binary_data=as_bytes)
    asked = [module.InferRequestedOutput(name, binary_data=as_bytes) for name in ("probabilities", "features")]
    for outputs in (asked, asked[:1], None):
        result = client.infer(served_model.parent.name, [given], outputs=outputs, headers=allowed(), request_id="7")
        assert result.get_response()["id"] == "7"
        wanted = [predictor.predict_one(photo).probabilities for photo in PHOTOS]
        np.testing.assert_array_equal(result.as_numpy("probabilities"), np.stack(wanted))
        assert (result.as_numpy("features") is None) is (outputs == asked[:1])


def test_tritons_client_tells_what_is_wrong(triton, served_model):
    module, client = triton
    given = module.InferInput("image", (1, 8, 8, 3), "UINT8")
    given.set_data_from_numpy(np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(module.InferenceServerException, match=r"the shape must be \[1 to 256, 32, 32, 3\]"):
        client.infer(served_model.parent.name, [given], headers=allowed())


def test_no_client_stopped_the_server(server):
    assert server.is_alive
    assert "Traceback" not in server.words()


# --- the description

# All checks are on. What a schema cannot say is added to the answers that are right for some of them: which bytes are
# a photo, how large the model's square is, which names of classes are taken, and what is too much.
RULES = """
[[operations]]
include-path = "/v1/predict"
checks.positive_data_acceptance.expected-statuses = ["2xx", 415, 422]
checks.negative_data_rejection.expected-statuses = [400, 413, 422]

[[operations]]
include-path = "/v2/models/{name}/infer"
parameters = { "path.name" = "MODEL" }
checks.positive_data_acceptance.expected-statuses = ["2xx", 400]

[[operations]]
include-path-regex = "^/v1/teach"
checks.positive_data_acceptance.expected-statuses = ["2xx", 403, 404, 409, 422]

[[operations]]
include-path = "/v1/teach/classes/{name}/photos"
checks.positive_data_acceptance.expected-statuses = ["2xx", 403, 404]
# Each photo of a request gets its own answer, also one that has no bytes.
checks.negative_data_rejection.expected-statuses = [200, 400, 403, 404, 413, 422]
"""


@pytest.mark.more
@pytest.mark.parametrize("options", [[], ["--token", TOKEN], ["--work"]], ids=["plain", "token", "work"])
def test_every_route_does_what_the_description_says(served_model, tmp_path, options):
    pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    (tmp_path / "rules.toml").write_text(RULES.replace("MODEL", served_model.parent.name))
    shown = ["--header", f"Authorization: Bearer {TOKEN}"] if "--token" in options else []
    more = [tmp_path / "work", "--weights", "offline"] if "--work" in options else []
    with start_server(served_model, *options, *more) as server:
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", "rules.toml", "run", "--no-color"]
        asking = [f"{server.address}openapi.json", *shown, "--max-examples", "30", "--generation-deterministic"]
        done = subprocess.run(
            [*command, *asking], capture_output=True, text=True, cwd=tmp_path, timeout=500, check=False
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert server.is_alive
        assert "Traceback" not in server.words()
        assert server.ask("POST", "/v1/predict", PHOTOS[0], allowed()).status == 200
