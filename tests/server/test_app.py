"""Requests -> answers: every form of a body, every refusal, and names that want to do harm."""

import asyncio
import base64
import io
import json
import logging
import os
import re
import shutil
import threading
from urllib.parse import urljoin

import numpy as np
import pytest
from PIL import Image

from helpers.asgi import PHOTO, form, refused, serve_inside
from helpers.bad_files import HOSTILE_NAMES, STORED, exif, make_samples
from helpers.metrics import make_metrics
from helpers.pictures import LABELS, draw_picture, encode
from helpers.training import change_answers, change_record
from pronk.errors import ImageError, MissingExtra, ModelError, Reason, RunError, SettingsError, StorageError
from pronk.model.bundle import open_runtime, write_bundle
from pronk.model.heat_maps import class_activation_map, draw_overlay
from pronk.photos.decoding import decode, fit_pixels
from pronk.photos.formats import BY_PILLOW, FORMATS
from pronk.report.page_files import read_page
from pronk.server import service
from pronk.server.app import Limits
from pronk.server.gateway import POLICY
from pronk.server.http_errors import HttpError, to_http

SAMPLES = make_samples()
GOOD = [sample for sample in SAMPLES if sample.verdict in (Reason.OK, Reason.OK_WITH_WARNING)]
BAD = [sample for sample in SAMPLES if sample not in GOOD]
BODY_STATUS = {Reason.TOO_LARGE: 413, Reason.TOO_MANY_PIXELS: 413, Reason.UNSUPPORTED_FORMAT: 415,
               Reason.NOT_AN_IMAGE: 415}  # fmt: skip
RECORD = ["path", "label", "score", "scores", "unknown", "distance", "error", "milliseconds", "heatmap"]


def as_json(data, **parameters):
    values = {"inputs": base64.b64encode(data).decode()}
    return values | ({"parameters": parameters} if parameters else {})


# --- one photo


@pytest.mark.parametrize("sample", GOOD, ids=lambda sample: sample.name)
def test_a_photo_is_answered_as_in_python(inside, predictor, sample):
    wanted = predictor.predict_one(sample.data)
    answer = inside.post("/v1/predict", content=sample.data, headers={"content-type": "image/jpeg"})
    assert answer.status_code == 200
    assert answer.json() == wanted.record()["scores"], "bit for bit"
    assert answer.headers["pronk-unknown"] == str(wanted.unknown).lower()
    assert answer.headers["pronk-distance"] == f"{wanted.distance:.6g}"


KINDS = ["", "image/png", "application/octet-stream", "application/x-www-form-urlencoded",
         "multipart/mixed; boundary=x", "nonsense", "; ;", "text/plain; charset=utf-8"]  # fmt: skip


def test_all_forms_of_a_body_say_the_same(inside):
    wanted = inside.post("/v1/predict", content=PHOTO)
    for options in (
        {"files": form(("a.jpg", PHOTO))},
        {"files": form(("a.jpg", PHOTO), field="anything at all")},
        {"files": form(("a.jpg", PHOTO)), "data": {"comment": "not a photo"}},
        {"json": as_json(PHOTO)},
        {"json": as_json(PHOTO, function_to_apply="softmax", top_k=None)},
        {"json": as_json(PHOTO) | {"parameters": None}},
        *({"content": PHOTO, "headers": {"content-type": kind}} for kind in KINDS),
    ):
        answer = inside.post("/v1/predict", **options)
        assert answer.json() == wanted.json()
        for header in ("pronk-unknown", "pronk-distance", "content-type"):
            assert answer.headers[header] == wanted.headers[header]


def test_top_names_the_most_likely(inside):
    everything = inside.post("/v1/predict", content=PHOTO).json()
    assert [score["score"] for score in everything] == sorted((s["score"] for s in everything), reverse=True)
    assert inside.post("/v1/predict?top=1", content=PHOTO).json() == everything[:1]
    assert inside.post("/v1/predict?top=10000", content=PHOTO).json() == everything
    for query in ("top=0", "top=10001", "top=many", "top=1.5", "explain=maybe", "top="):
        body = refused(inside.post(f"/v1/predict?{query}", content=PHOTO), 422, "usage")
        assert body["error"].startswith(query.split("=")[0])
    assert inside.post("/v1/predict", json=as_json(PHOTO, top_k=1)).json() == everything[:1]
    assert inside.post("/v1/predict?top=2", json=as_json(PHOTO, top_k=1.0)).json() == everything[:1]
    (record, _) = inside.post("/v1/predict?top=1", files=form(("a", PHOTO), ("b", PHOTO))).json()
    assert record["scores"] == everything[:1]
    assert record["score"] == everything[0]["score"]


# --- several photos


def test_several_photos_are_answered_in_order(inside, predictor, served_model):
    photos = {
        "known.jpg": (served_model / "golden" / "1.jpg").read_bytes(),
        "strange.png": encode(Image.linear_gradient("L").convert("RGB"), "PNG"),
        "empty.png": b"",
    }
    records = inside.post("/v1/predict", files=form(*photos.items())).json()
    assert [list(record) for record in records] == [RECORD] * 3
    assert [record["unknown"] for record in records] == [False, True, False]
    for (name, data), record in zip(photos.items(), records, strict=True):
        prediction = predictor.predict_one(data)
        wanted = prediction.record() | {"path": name}
        if prediction.error:
            wanted["error"] |= {"hint": prediction.error.hint}
        assert {key: record[key] for key in wanted} == wanted
        assert record["heatmap"] is None
        assert record["milliseconds"] > 0
    assert records[2]["error"]["code"] == "zero_byte"


def test_more_photos_than_allowed(inside):
    many = [(f"{number}.jpg", b"x") for number in range(33)]
    assert len(inside.post("/v1/predict", files=form(*many[:32])).json()) == 32
    assert "32" in refused(inside.post("/v1/predict", files=form(*many)), 413, "too_large")["error"]
    fields = {str(number): "x" for number in range(65)}
    refused(inside.post("/v1/predict", files=form(("a", b"x")), data=fields), 413, "too_large")


# --- photos that cannot be used


@pytest.mark.parametrize("sample", BAD, ids=lambda sample: sample.name)
def test_what_is_wrong_with_a_photo_is_said_as_elsewhere(inside, sample):
    with pytest.raises(ImageError) as caught:
        decode(sample.data, min_side=32)
    status = BODY_STATUS.get(sample.verdict, 422)
    body = refused(inside.post("/v1/predict", content=sample.data), status, sample.verdict)
    assert body["error"] == str(caught.value)
    assert body["hint"] == caught.value.hint != ""
    answer = inside.post("/v1/predict?explain=true", files=form(("photo", sample.data)))
    assert answer.status_code == 200
    (record,) = answer.json()
    assert record["error"] == {"code": body["code"], "message": body["error"], "hint": body["hint"]}
    assert record["heatmap"] is None


def test_every_error_has_its_status():
    for error, status in (
        (SettingsError("x"), 422), (RunError("x"), 409), (ModelError("x"), 409), (StorageError("x"), 507),
        (MissingExtra("train", "x"), 501), (HttpError(418, "x", code="tea"), 418),
    ):  # fmt: skip
        assert to_http(error).status == status


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "holds no photo"),
        (b"null", "holds no photo"),
        (b"{}", "inputs"),
        (b'{"inputs": "not base64!"}', "holds no photo"),
        ('{"inputs": "é"}'.encode(), "holds no photo"),
        (b'{"inputs": "AAAA", "parameters": 3}', "holds no photo"),
        (b'{"inputs": "AAAA", "parameters": {"top_k": 0}}', "top_k"),
        (b'{"inputs": "AAAA", "parameters": {"top_k": "\\ud800"}}', "top_k"),
        (b"[" * 100_000, "holds no photo"),
        (b"\xff\xfe{", "holds no photo"),
    ],
)
def test_json_without_a_photo(inside, body, says):
    answer = inside.post("/v1/predict", content=body, headers={"content-type": "application/json"})
    refusal = refused(answer, 400, "usage")
    assert says in refusal["error"]
    assert "base64" in refusal["hint"]
    assert len(refusal["error"]) < 300


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"nonsense", 400),
        (b"--b", 400),
        (b'--b\r\nContent-Disposition: form-data; name="a"; filename="x"\r\n\r\n' + PHOTO, 400),
        (b"--b--\r\n", 422),
        (b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nno file\r\n--b--\r\n', 422),
        (b"--b\r\n" + b"a: b\r\n" * 100, 400),
    ],
)
def test_forms_without_a_photo(inside, body, status, caplog):
    answer = inside.post("/v1/predict", content=body, headers={"content-type": "multipart/form-data; boundary=b"})
    assert "-F" in refused(answer, status, "usage")["hint"]
    for kind in ("multipart/form-data", f"multipart/form-data; boundary={'b' * 999}"):
        refused(inside.post("/v1/predict", content=body, headers={"content-type": kind}), 400, "usage")
    assert not caplog.records, "strangers' broken requests are no news"


# --- heat maps


@pytest.fixture(scope="module", params=["crop", "pad", "squash"])
def fitting(request, served_model, tmp_path_factory):
    """A server, its model, and the way in which it makes photos square."""
    data = (served_model / "model.onnx").read_bytes()
    folder = tmp_path_factory.mktemp(request.param) / "model"
    weights = {"name": "random", "sha256": ""}
    made = {"classes": ("cold", "warm"), "size": 32, "fit": request.param, "weights": weights}
    model = open_runtime(write_bundle(folder, {"model.onnx": data}, **made))
    with serve_inside(folder) as server:
        yield server, model, request.param


# By hand, of an upright photo twice as wide as high: left, top, width and height of the square that the network sees.
WIDE = {"crop": [0.25, 0, 0.5, 1], "pad": [0, -0.5, 1, 2], "squash": [0, 0, 1, 1]}
HIGH = {"crop": [0, 0.25, 1, 0.5], "pad": [-0.5, 0, 2, 1], "squash": [0, 0, 1, 1]}


def explained(server, data, query="?explain=true"):
    (record,) = server.post(f"/v1/predict{query}", content=data).json()
    head, _, text = record["heatmap"]["image"].partition(",")
    assert head == "data:image/png;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(text, validate=True)))
    assert picture.format == "PNG"
    return record, picture.convert("RGBA")


def test_heat_maps_are_those_of_the_command(fitting):
    server, model, fit = fitting
    data = encode(draw_picture("square", 5, (96, 48)), "PNG")
    record, picture = explained(server, data)
    photo = decode(data, min_side=32).image
    outputs = model.run(fit_pixels(photo, size=32, fit=fit)[None], heat=True)
    index = int(outputs.probabilities[0].argmax())
    heat = class_activation_map(outputs.heat[0], index)
    assert record["heatmap"]["label"] == ("cold", "warm")[index] == record["scores"][0]["label"]
    assert picture.size == (32, 32)
    assert 0 < np.asarray(picture)[..., 3].max() <= 158
    below = draw_picture("triangle", 5, (32, 32))
    laid = Image.composite(picture.convert("RGB"), below, picture.getchannel("A"))
    np.testing.assert_array_equal(np.asarray(laid), np.asarray(draw_overlay(below, heat)))
    assert [key for key in record if record[key] is None] == ["distance", "error"], "this model knows no others"


@pytest.mark.parametrize("size", [(96, 48), (48, 96), (2000, 1000)])
def test_the_box_is_where_the_network_looked(fitting, size):
    server, _, fit = fitting
    record, _ = explained(server, encode(draw_picture("square", 5, size)))
    # A large photo is shrunk while it is decoded; half a pixel of what is left may be missing.
    wanted = pytest.approx((WIDE if size[0] > size[1] else HIGH)[fit], abs=0.5 / 64 if max(size) > 96 else 0)
    assert record["heatmap"]["box"] == wanted


@pytest.mark.parametrize("orientation", STORED)
def test_the_box_belongs_to_the_upright_photo(fitting, orientation):
    server, _, fit = fitting
    pixels = np.asarray(draw_picture("square", 5, (96, 48)))
    upright, plain = explained(server, encode(Image.fromarray(pixels), "PNG"))
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](pixels)))
    record, turned = explained(server, encode(stored, "PNG", exif=exif(orientation)))
    assert record["heatmap"]["box"] == WIDE[fit]
    assert record["scores"] == upright["scores"]
    np.testing.assert_array_equal(np.asarray(turned), np.asarray(plain))


def test_an_export_without_maps_says_so(served_model):
    with serve_inside(served_model.parent / "exports" / "onnx-int8") as server:
        model = server.get("/v1/model").json()
        assert model["runtime"] == "onnx-int8"
        (record,) = server.post("/v1/predict?explain=true", content=PHOTO).json()
        assert (record["heatmap"] is not None) is model["heatmaps"]


# --- the model


def test_the_model_says_what_it_is(served_model, inside):
    record = inside.get("/v1/model").json()
    stored = json.loads((served_model / "model.json").read_text())
    assert record["name"] == served_model.parent.name
    assert record["classes"] == stored["classes"]
    assert record["image"] == {"size": 32, "fit": stored["image"]["fit"]}
    assert record["runtime"] == "onnx"
    assert record["accuracy"] is record["photos"] is None, "it travels without its run"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", record["trained"])
    assert record["unknown"] is record["calibrated"] is record["heatmaps"] is True
    assert record["rest_class"] is None


def test_a_run_tells_how_good_it_is(served_model, tmp_path):
    shutil.copytree(served_model, tmp_path / "run" / "model")
    accuracy = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 50}
    metrics = make_metrics(("cold", "warm"), test={"accuracy": accuracy}).to_json()
    with serve_inside(tmp_path / "run") as server:
        for written, wanted in (
            (json.dumps(metrics), accuracy),
            (json.dumps(metrics | {"classes": ["another", "model"]}), None),
            ("[]", None),
            ("{", None),
        ):
            (tmp_path / "run" / "metrics.json").write_text(written)
            record = server.post("/v1/model/reload").json()
            assert record["accuracy"] == wanted
            assert record["photos"] == (wanted and metrics["counts"])


def test_without_a_model():
    asked = (("GET", "/v1/model"), ("GET", "/readyz"), ("POST", "/v1/model/reload"), ("POST", "/v1/predict"))
    with serve_inside() as empty:
        assert empty.get("/healthz").json() == {"ok": True}
        assert empty.get("/v1/server").json()["model"] is False
        for method, path in asked:
            assert refused(empty.ask(method, path, content=PHOTO), 503, "not_ready")["hint"]


WRONG_ANSWERS = json.dumps({f"{number}.jpg": [1.0, 0.0] for number in range(1, 9)})


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (shutil.rmtree, "no model at"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"broken"), "model.onnx"),
        (lambda folder: change_answers(folder, WRONG_ANSWERS), "fails its self-test"),
        (lambda folder: (folder / "model.json").write_text("{"), "damaged"),
    ],
    ids=["gone", "file", "promise", "record"],
)
def test_a_broken_model_is_refused_and_the_former_stays(served_model, tmp_path, damage, says):
    folder = tmp_path / "run" / "model"
    shutil.copytree(served_model, folder)
    with serve_inside(folder) as server:
        before = server.post("/v1/predict", content=PHOTO).json()
        damage(folder)
        body = refused(server.post("/v1/model/reload"), 409, "conflict")
        assert says in body["error"]
        assert "the former model goes on answering" in body["hint"]
        assert server.post("/v1/predict", content=PHOTO).json() == before
        assert server.get("/readyz").status_code == 200


# --- faults, numbers and pages


def test_a_fault_of_ours_says_nothing_to_strangers(served_model, monkeypatch, caplog):
    with serve_inside(served_model, limits=Limits(waiting=1)) as server:
        monkeypatch.setattr("pronk.server.service._answer", lambda *_: 1 / 0)
        with caplog.at_level(logging.ERROR):
            answer = server.post("/v1/predict", content=PHOTO, raising=False)
        body = refused(answer, 500, "internal")
        assert "ZeroDivision" not in answer.text
        assert "terminal" in body["hint"]
        assert "ZeroDivisionError" in caplog.text, "the terminal shows where"
        assert answer.headers["content-security-policy"] == POLICY
        monkeypatch.undo()
        assert server.post("/v1/predict", content=PHOTO).status_code == 200


def test_refusals_name_the_ways_that_are_allowed(inside):
    for path, methods in (
        ("/v1/predict", "POST"), ("/", "GET"), ("/v1/teach/classes/a", "PATCH, DELETE"),
        ("/v1/teach/classes/a/photos/0", "GET, DELETE"),
    ):  # fmt: skip
        assert inside.ask("PUT", path).headers["allow"] == methods


def test_metrics_count_by_route(served_model):
    with serve_inside(served_model) as server:
        server.post("/v1/predict", content=PHOTO)
        server.post("/v1/predict", content=b"")
        server.post("/v1/predict", files=form(("a", PHOTO), ("b", b"")))
        for number in range(50):
            server.get(f"/strangers/{number}")
            server.get(f"/page/{number}")
        answer = server.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert set(lines) >= {
        'pronk_requests_total{route="/v1/predict",status="200"} 2.0',
        'pronk_requests_total{route="/v1/predict",status="422"} 1.0',
        'pronk_requests_total{route="other",status="404"} 50.0',
        'pronk_requests_total{route="/page/{name}",status="404"} 50.0',
        'pronk_request_seconds_count{route="/v1/predict"} 3.0',
        "pronk_requests_in_progress 1.0",
        "pronk_ready 1.0",
    }
    counted = {line for line in lines if line.startswith("pronk_photos_total")}
    assert 'pronk_photos_total{outcome="error"} 2.0' in counted
    assert sum(float(line.split()[-1]) for line in counted) == 4
    assert len(lines) < 200
    assert "strangers" not in answer.text


OUTSIDE = re.compile(r"""(?:src|href|action|url|from|import)\s*[=(]?\s*['"]?(?:https?:)?//\w""")
INLINE = re.compile(r"<style|<script(?![^>]* src=)|\sstyle=|\son[a-z]+=|javascript:")


def test_the_pages_need_nothing_from_outside(inside):
    text = inside.get("/").text + inside.get("/docs").text
    linked = {urljoin("/", link) for link in re.findall(r'(?:src|href)="([^"#:]+)"', text)}
    assert {"/page/main.js", "/page/style.css", "/docs"} <= linked
    assert (
        text.count(f'accept="image/*,{",".join(suffix for name in BY_PILLOW for suffix in FORMATS[name].suffixes)}"')
        == 3
    ), "every format that is read can be chosen"
    for path in linked | {f"/page/{name}" for name in read_page()}:
        answer = inside.get(path)
        assert answer.status_code == 200, path
        assert not OUTSIDE.search(answer.text), path
        if "html" in answer.headers["content-type"]:
            assert not INLINE.search(answer.text), path


def test_the_docs_show_every_route(inside):
    described, page = inside.get("/openapi.json").json(), inside.get("/docs").text
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            assert f"<code>{method.upper()} {path}</code>" in page
            assert operation.get("description") or operation.get("summary")


# --- names


def test_hostile_names_come_back_as_they_were(inside):
    """Clients that write names into a form as they are, quotes and backslashes with a backslash before them."""
    names = [name for name in HOSTILE_NAMES if not set(name) & set("\r\n")]
    more = ("<img src=x onerror=alert(1)>.jpg", "\u202egpj.exe", "='\"&<>;%22%0a.jpg", "\x1b[31mred\x07.jpg")
    for name in (*names, *more):
        escaped = os.fsencode(name).replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        part = b'--b\r\nContent-Disposition: form-data; name="a"; filename="' + escaped + b'"\r\n\r\n' + PHOTO + b"\r\n"
        kind = {"content-type": "multipart/form-data; boundary=b"}
        answer = inside.post("/v1/predict?explain=true", content=part + b"--b--\r\n", headers=kind)
        (record,) = answer.json()
        assert record["path"] == name.encode("utf-8", "backslashreplace").decode()
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"


# --- together


def test_many_at_once_get_their_own_answers(inside, predictor):
    photos = [encode(draw_picture(LABELS[number % 3], number)) for number in range(24)]
    wanted = [predictor.predict_one(photo).record()["scores"] for photo in photos]
    assert len({json.dumps(scores) for scores in wanted}) == 24

    async def ask():
        return await asyncio.gather(*(inside.send("POST", "/v1/predict", content=photo) for photo in photos))

    assert [answer.json() for answer in asyncio.run(ask())] == wanted


def test_requests_under_way_keep_their_model(served_model, tmp_path, monkeypatch):
    """Also for the photos of a form that come after the change."""
    folder = tmp_path / "run" / "model"
    shutil.copytree(served_model, folder)
    begun, go_on, answer, replies = threading.Event(), threading.Event(), service._answer, []

    def wait(*arguments):
        begun.set()
        assert go_on.wait(20)
        return answer(*arguments)

    monkeypatch.setattr(service, "_answer", wait)
    with serve_inside(folder) as server:
        files = form(("a", PHOTO), ("b", PHOTO))
        asking = threading.Thread(target=lambda: replies.append(server.post("/v1/predict", files=files)))
        asking.start()
        assert begun.wait(20)
        change_record(folder, classes=["cats", "dogs"])
        record = server.post("/v1/model/reload").json()
        assert record == server.get("/v1/model").json()
        assert record["classes"] == ["cats", "dogs"]
        go_on.set()
        asking.join(20)
        assert {score["label"] for score in server.post("/v1/predict", content=PHOTO).json()} == {"cats", "dogs"}
    assert [record["label"] in ("cold", "warm", "unknown") for record in replies[0].json()] == [True, True]
    assert {score["label"] for record in replies[0].json() for score in record["scores"]} == {"cold", "warm"}
