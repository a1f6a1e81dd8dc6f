"""The Open Inference Protocol: both forms of a request say the same, and broken ones are refused with a reason."""

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.asgi import refused
from helpers.pictures import LABELS, draw_picture, encode
from pronk.model.predictor import Predictor
from pronk.photos.decoding import load_pixels
from pronk.server.errors import HttpError
from pronk.server.v2 import LENGTH_HEADER, MOST_PHOTOS, parse_question

SIZE = 32
PIXELS = np.stack([load_pixels(encode(draw_picture(label, 4)), size=SIZE) for label in LABELS])


@pytest.fixture(scope="module")
def url(inside):
    return f"/v2/models/{inside.get('/v1/model').json()['name']}"


@pytest.fixture(scope="module")
def wanted(served_model):
    """What the model says in Python, one photo at a time."""
    runs = [Predictor.load(served_model).runtime.run(photo[None]) for photo in PIXELS]
    return {name: np.concatenate([getattr(run, name) for run in runs]) for name in ("probabilities", "features")}


def tensor(pixels, **more):
    return {"name": "image", "datatype": "UINT8", "shape": list(pixels.shape)} | more


def binary(pixels, **more):
    """A body with its pixels behind the JSON, and the header that says where they begin."""
    described = tensor(pixels, parameters={"binary_data_size": pixels.nbytes})
    head = json.dumps({"inputs": [described]} | more).encode()
    return {"content": head + pixels.tobytes(), "headers": {LENGTH_HEADER: str(len(head))}}


def read_answer(answer):
    """The arrays of an answer by name, as numbers or behind the JSON."""
    assert answer.status_code == 200, answer.text
    length = int(answer.headers.get(LENGTH_HEADER, len(answer.content)))
    record, rest, arrays = json.loads(answer.content[:length]), answer.content[length:], {}
    for output in record["outputs"]:
        assert output["datatype"] == "FP32"
        if "data" in output:
            values = np.array(output["data"], np.float32)
        else:
            size = output["parameters"]["binary_data_size"]
            values, rest = np.frombuffer(rest[:size], "<f4"), rest[size:]
        arrays[output["name"]] = values.reshape(output["shape"])
    assert rest == b""
    return record, arrays


# --- about the server and the model


def test_the_server_and_the_model_describe_themselves(inside, url):
    assert inside.get("/v2").json() == {"name": "pronk", "version": "1.2.3", "extensions": ["binary_tensor_data"]}
    assert inside.get("/v2/health/live").json() == {"live": True}
    assert inside.get("/v2/health/ready").json() == {"ready": True}
    record = inside.get(url).json()
    assert record["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, SIZE, SIZE, 3]}]
    assert record["outputs"] == [
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
        {"name": "features", "datatype": "FP32", "shape": [-1, 1280]},
    ]
    assert record["versions"] == ["1"]
    assert inside.get(f"{url}/versions/1").json() == record
    for path in (f"{url}/ready", f"{url}/versions/1/ready"):
        assert inside.get(path).json() == {"name": record["name"], "ready": True}


def test_other_models_and_versions_are_not_there(inside, url):
    for path in ("/v2/models/other", f"{url}/versions/2", f"{url}/versions/x"):
        for method, more in (("GET", ""), ("GET", "/ready"), ("POST", "/infer")):
            answer = inside.ask(method, path + more, content=b"{}" if more == "/infer" else None)
            assert url.rpartition("/")[2] in refused(answer, 404, "not_found")["hint"]


# --- answers


def test_both_forms_are_answered_as_in_python(inside, url, wanted):
    for path in (f"{url}/infer", f"{url}/versions/1/infer"):
        for options in (
            {"json": {"inputs": [tensor(PIXELS, data=PIXELS.tolist())]}},
            {"json": {"inputs": [tensor(PIXELS, data=PIXELS.ravel().tolist())]}},
            {"json": {"inputs": [tensor(PIXELS, data=PIXELS.reshape(3, -1).tolist())]}},
            binary(PIXELS),
            binary(PIXELS, parameters={"binary_data_output": True}),
            binary(PIXELS, outputs=[]),
        ):
            record, arrays = read_answer(inside.post(path, **options))
            assert list(arrays) == ["probabilities", "features"]
            for name, values in arrays.items():
                np.testing.assert_array_equal(values, wanted[name])
            assert (record["model_name"], record["model_version"]) == (url.rpartition("/")[2], "1")
            assert "id" not in record


def test_a_photo_does_not_depend_on_its_neighbours(inside, url):
    _, together = read_answer(inside.post(f"{url}/infer", **binary(PIXELS)))
    for number, photo in enumerate(PIXELS):
        _, alone = read_answer(inside.post(f"{url}/infer", **binary(photo[None])))
        np.testing.assert_array_equal(alone["probabilities"][0], together["probabilities"][number])


def test_the_same_as_for_the_photo_itself(inside, url):
    photo = encode(draw_picture("circle", 4))
    _, arrays = read_answer(inside.post(f"{url}/infer", **binary(load_pixels(photo, size=SIZE)[None])))
    scores = {score["label"]: score["score"] for score in inside.post("/v1/predict", content=photo).json()}
    assert [scores["cold"], scores["warm"]] == arrays["probabilities"][0].tolist()


def test_outputs_are_chosen(inside, url, wanted):
    outputs = [{"name": "probabilities", "parameters": {"binary_data": True}}]
    answer = inside.post(f"{url}/infer", **binary(PIXELS, outputs=outputs))
    assert answer.headers["content-type"] == "application/octet-stream"
    record, arrays = read_answer(answer)
    assert record["outputs"] == [
        {"name": "probabilities", "datatype": "FP32", "shape": [3, 2], "parameters": {"binary_data_size": 24}}
    ]
    np.testing.assert_array_equal(arrays["probabilities"], wanted["probabilities"])
    mixed = [{"name": "features", "parameters": {"binary_data": True}}, {"name": "probabilities"}]
    _, arrays = read_answer(inside.post(f"{url}/infer", **binary(PIXELS, outputs=mixed)))
    for name in ("features", "probabilities"):
        np.testing.assert_array_equal(arrays[name], wanted[name])
    plain = [{"name": "features", "parameters": {"binary_data": False}}]
    answer = inside.post(f"{url}/infer", **binary(PIXELS, outputs=plain, parameters={"binary_data_output": True}))
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("name", ["7", "\u202e<img onerror=x>\n", "\ud800", "x" * 5000])
def test_the_id_comes_back(inside, url, name):
    record, _ = read_answer(inside.post(f"{url}/infer", **binary(PIXELS[:1], id=name)))
    assert record["id"] == name


# --- broken requests

ONE = PIXELS[:1]
GOOD = {"inputs": [tensor(ONE, data=ONE.ravel().tolist())]}


def changed(**change):
    return {"inputs": [GOOD["inputs"][0] | change]}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "inputs"),
        ({"inputs": []}, "the one input"),
        ({"inputs": GOOD["inputs"] * 2}, "the one input"),
        ({"inputs": "image"}, ""),
        (changed(name="photo"), "the one input is image"),
        (changed(datatype="FP32"), "UINT8"),
        (changed(shape=[1, SIZE, SIZE]), "the shape must be"),
        (changed(shape=[0, SIZE, SIZE, 3]), "the shape must be"),
        (changed(shape=[-1, SIZE, SIZE, 3]), "the shape must be"),
        (changed(shape=[MOST_PHOTOS + 1, SIZE, SIZE, 3]), "the shape must be"),
        (changed(shape=[1, SIZE + 1, SIZE, 3]), "the shape must be"),
        (changed(shape=[1.0, SIZE, SIZE, 3]), "the shape must be"),
        (changed(shape=["1", SIZE, SIZE, 3]), "the shape must be"),
        (changed(shape=[10**30, SIZE, SIZE, 3]), "the shape must be"),
        (changed(shape=None), ""),
        (changed(shape=[2, SIZE, SIZE, 3]), "make the shape"),
        (changed(data=[]), "make the shape"),
        (changed(data=ONE.ravel().tolist()[1:]), "make the shape"),
        (changed(data=[256] * ONE.size), "from 0 to 255"),
        (changed(data=[-1] * ONE.size), "from 0 to 255"),
        (changed(data=[0.5] * ONE.size), "from 0 to 255"),
        (changed(data=[1e300] * ONE.size), "from 0 to 255"),
        (changed(data=[10**30] * ONE.size), "from 0 to 255"),
        (changed(data=["1"] * ONE.size), "from 0 to 255"),
        (changed(data=[None] * ONE.size), "from 0 to 255"),
        (changed(data=[[[[[1]]]]]), "from 0 to 255"),
        (changed(data="x" * ONE.size), "a list"),
        (changed(data=ONE.size), "a list"),
        (changed(data=None), "a list"),
        (changed(data={"0": 1}), "a list"),
        (changed(data=[[1, 2], 3]), "a list"),
        (GOOD | {"outputs": [{"name": "feature_map"}]}, "no output 'feature_map'"),
        (GOOD | {"outputs": [{}]}, "name"),
        (GOOD | {"outputs": ["probabilities"]}, ""),
        (GOOD | {"outputs": 3}, "the outputs must be a list"),
        (GOOD | {"outputs": {}}, "the outputs must be a list"),
        (GOOD | {"outputs": None}, "the outputs must be a list"),
        (GOOD | {"outputs": [{"name": "features", "parameters": {"binary_data": "no"}}]}, "true or false"),
        (GOOD | {"parameters": {"binary_data_output": 1}}, "true or false"),
        (GOOD | {"id": 7}, "the id must be a text"),
        (GOOD | {"outputs": [{"name": ["probabilities"]}]}, ""),
        (GOOD | {"parameters": False}, ""),
        ([], ""),
        (None, ""),
        ("inputs", ""),
    ],
)
def test_what_is_wrong_is_named(inside, url, values, says):
    body = refused(inside.post(f"{url}/infer", json=values), 400, "usage")
    assert body["error"].startswith("no inference request: ")
    assert says in body["error"]
    assert "UINT8" in body["hint"]


@pytest.mark.parametrize("length", ["0", "-1", "99999999", "x", "", "1.5", "1" * 5000, "5"])
def test_impossible_lengths_of_the_json(inside, url, length):
    options = binary(ONE) | {"headers": {LENGTH_HEADER: length}}
    refused(inside.post(f"{url}/infer", **options), 400, "usage")


def test_pixels_that_are_not_there(inside, url):
    options = binary(ONE)
    for content in (options["content"][:-1], options["content"] + b"1", options["content"][: -ONE.nbytes]):
        body = refused(inside.post(f"{url}/infer", content=content, headers=options["headers"]), 400, "usage")
        assert "bytes follow" in body["error"]
    refused(inside.post(f"{url}/infer", json={"inputs": [tensor(ONE)]}), 400, "usage")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"inputs": ' + b"9" * 5000 + b"}"])
def test_what_is_no_json(inside, url, body):
    refused(inside.post(f"{url}/infer", content=body), 400, "usage")


def test_values_cost_no_more_than_their_text(inside, url):
    """One long text among many short ones made NumPy reserve its length for each."""
    started = time.monotonic()
    data = ["x" * 1_000_000, *["x"] * 100_000]
    refused(inside.post(f"{url}/infer", json=changed(data=data)), 400, "usage")
    assert time.monotonic() - started < 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-300, 300) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
SMALL = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 3]}


def question(body, length=None):
    try:
        return parse_question(body, length, size=1)
    except HttpError as error:
        status = error.status
    assert status == 400
    return None


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(["name", "datatype", "shape", "data", "parameters", "", "outputs", "id", "inputs"]), JSON)
def test_any_value_is_read_or_refused(key, value):
    if key in ("outputs", "id", "inputs"):
        values = {"inputs": [SMALL], key: value}
    else:
        values = {"inputs": [SMALL | {key: value} if key else value]}
    found = question(json.dumps(values).encode())
    if found is not None:
        assert found.pixels.shape == (1, 1, 1, 3)
        assert found.pixels.dtype == np.uint8
        assert set(found.outputs) <= {"probabilities", "features"}
        assert found.outputs
        assert all(type(is_binary) is bool for is_binary in found.outputs.values())


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.none() | st.integers(-5, 300).map(str) | st.text(max_size=5))
def test_any_bytes_are_read_or_refused(body, length):
    assert question(body, length) is None


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5), st.data())
def test_what_was_asked_comes_out(count, data):
    pixels = np.frombuffer(data.draw(st.binary(min_size=3 * count, max_size=3 * count)), np.uint8)
    pixels = pixels.reshape(count, 1, 1, 3)
    options = binary(pixels)
    for body, length in (
        (options["content"], options["headers"][LENGTH_HEADER]),
        (json.dumps({"inputs": [tensor(pixels, data=pixels.tolist())]}).encode(), None),
        (json.dumps({"inputs": [tensor(pixels, data=pixels.ravel().tolist())]}).encode(), None),
    ):
        np.testing.assert_array_equal(question(body, length).pixels, pixels)
