import io
import json
import os
import re
import shutil
import signal
import sys
import zipfile

import psutil
import pytest
from starlette.testclient import TestClient

from helpers.asgi import HERE
from helpers.commands import wait_for
from helpers.metrics import make_metrics
from helpers.pictures import draw_picture, encode
from pronk.model.predictor import Predictor
from pronk.server.app import Limits, make_app
from pronk.server.http_errors import HttpError
from pronk.server.runs import Accuracy, list_runs, next_run, read_summary
from pronk.server.service import Service
from pronk.server.training_jobs import Failure, StageProgress, TrainingJob, open_trainings

ACCURACY = {"value": 0.9, "low": 0.7, "high": 0.97, "n": 20}
METRICS = make_metrics(
    ("cats", "dogs"),
    counts={"train": 14, "val": 4, "test": 4},
    frozen={"val": {"accuracy": ACCURACY, "loss": 0.5}},
    fine_tuned=None,
    comparison={"gained": 0, "lost": 0, "p": 1.0, "kept": "frozen", "why": "fine-tuning was left out"},
    test={"accuracy": ACCURACY},
).to_json()
SAY = "import json, sys, time\ndef say(*words): print(*words, file=sys.stderr, flush=True)\n"
STEP = SAY + "def step(stage, done, total): say(json.dumps({'stage': stage, 'done': done, 'total': total}))\n"


posix_only = pytest.mark.skipif(os.name == "nt", reason="processes end and group otherwise there")


@pytest.fixture
def hearing():
    """Children hear Ctrl-C even where the tests themselves were started in the background of a shell."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


def make_job(tmp_path, code, **options):
    return TrainingJob([sys.executable, "-c", STEP + code], tmp_path / "7", **options)


def ended(job, seconds=30):
    job.wait(seconds)
    assert not job.is_running
    return job.status()


# --- a training in a process of its own


def test_progress_is_what_it_says_last(tmp_path):
    code = f"""
from pathlib import Path
step("check", 0, 30); step("check", 30, 30); step("extract", 3, 0); step("check", 29, 30)
run = Path({str(tmp_path / "7")!r}); run.mkdir(); (run / "metrics.json").write_text({json.dumps(METRICS)!r})
say("left out: 1 truncated"); say("error: of no account")
"""
    training = ended(make_job(tmp_path, code))
    assert (training.run, training.state, training.error) == ("7", "done", None)
    assert training.stages == (
        StageProgress("check", "checking photos", 29, 30),
        StageProgress("extract", "extracting features", 3, 0),
    )
    assert training.summary == read_summary(tmp_path / "7")
    assert training.summary.accuracy == Accuracy(**ACCURACY)
    assert (training.summary.frozen.loss, training.summary.fine_tuned, training.summary.kept) == (0.5, None, "frozen")
    assert 0 < training.seconds < 30


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("sys.exit(3)", "exit code 3"),
        ("sys.exit(0)", "exit code 0"),
        pytest.param("import os; os.kill(os.getpid(), 9)", "signal 9", marks=posix_only),
    ],
)
def test_an_end_without_a_word_is_a_failure(tmp_path, code, says):
    training = ended(make_job(tmp_path, f"from pathlib import Path; Path({str(tmp_path / '7')!r}).mkdir(); {code}"))
    assert training.state == "failed"
    assert says in training.error.message
    assert training.error.hint
    assert not (tmp_path / "7").exists(), "what is left of it is removed"


def test_garbage_is_passed_over_and_the_last_error_counts(tmp_path):
    code = r"""
out = sys.stderr.buffer
out.write(b"\xff\xfe{\n" + b"{" * 5000 + b"\n" + b"x" * 300_000 + b"\n{}\n[]\nnull\n\0\n")
for bad in ('{"stage": [], "done": 1, "total": 1}', '{"stage": "check", "done": -1, "total": 1}',
            '{"stage": "check", "done": 1.5, "total": 1}', '{"stage": "check", "done": true, "total": 1}',
            '{"stage": "check", "done": 1e999, "total": 1}', '{"stage": "<b>", "done": 1, "total": 1}',
            '{"stage": "check", "done": 99999999999999999999, "total": 1}', '{"stage": "check"}'):
    say(bad)
out.flush()
step("head", 1, 2)
say("error: an early one"); say("hint: of which nothing came")
say("error: caf\u00e9")
out.write(b"hint: \xff")
out.flush()
sys.exit(1)
"""
    training = ended(make_job(tmp_path, code))
    assert (training.state, training.summary) == ("failed", None)
    assert training.stages == (StageProgress("head", "phase 1: fitting the head", 1, 2),)
    assert training.error == Failure("café", "\ufffd")


def test_stopping_ends_it_and_what_it_started(tmp_path, hearing):
    code = f"""
import subprocess
from pathlib import Path
Path({str(tmp_path / "7")!r}).mkdir()
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
Path({str(tmp_path / "worker")!r}).write_text(str(worker.pid))
step("check", 1, 2)
time.sleep(60)
"""
    job = make_job(tmp_path, code)
    wait_for(lambda: job.status().stages)
    assert job.status().state == "running"
    assert job.stop().state == "running"
    job.stop()
    training = ended(job, 8)
    assert (training.state, training.error, training.summary) == ("stopped", None, None)
    assert not (tmp_path / "7").exists()
    wait_for(lambda: not is_alive(int((tmp_path / "worker").read_text())))
    assert job.stop() == training


@posix_only
def test_what_does_not_stop_is_killed(tmp_path):
    code = """
import signal, subprocess
signal.signal(signal.SIGINT, signal.SIG_IGN)
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])  # it holds the pipe open
step("check", worker.pid, 2)
time.sleep(60)
"""
    job = make_job(tmp_path, code, patience=0.3)
    wait_for(lambda: job.status().stages)
    job.close()
    assert job.status().state == "stopped"
    wait_for(lambda: not is_alive(job.status().stages[0].done))


@posix_only
def test_it_stands_back(tmp_path):
    nice = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    code = f"""
import os
while os.getpriority(0, 0) != {nice}: time.sleep(0.01)
step("check", 0, os.getpgrp()); sys.exit(1)
"""
    (stage,) = ended(make_job(tmp_path, code)).stages
    assert stage.total != os.getpgrp()


def test_a_run_that_was_there_before_is_left_alone(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "metrics.json").write_text(json.dumps(METRICS))
    training = ended(make_job(tmp_path, "say('error: it exists already'); sys.exit(1)"))
    assert (training.state, training.error.message) == ("failed", "it exists already")
    assert (tmp_path / "7" / "metrics.json").exists()


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# --- requests


class Server:
    """The whole app, asked without a network in between."""

    def __init__(self, trainings):
        self.trainings = trainings
        self.service = Service(threads=1)
        app = make_app(self.service, access=HERE, limits=Limits(body_bytes=10**6), trainings=trainings)
        self.client = TestClient(app, base_url="http://127.0.0.1:8000")
        self.described = app.app.openapi()
        teach = [path for path in self.described["paths"] if path.startswith("/v1/teach")]
        self.described["paths"] = {path: self.described["paths"][path] for path in teach}

    def ask(self, method, path, status=200, **options):
        answer = self.client.request(method, f"/v1/teach{path}", **options)
        assert answer.status_code == status, answer.text
        described = [
            operations[method.lower()]["responses"]
            for path, operations in self.described["paths"].items()
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), answer.request.url.path)
        ]
        assert all(str(status) in responses for responses in described), "the description says so"
        if status >= 400:
            assert set(answer.json()) == {"error", "code", "hint"}
            assert all(answer.json().values()), answer.text
        return answer

    def state(self):
        return self.ask("GET", "").json()


@pytest.fixture
def server(tmp_path):
    with open_trainings(tmp_path / "work", weights="offline") as trainings:
        yield Server(trainings)


@pytest.fixture
def scripted(monkeypatch):
    """Let a few lines of Python train."""

    def use(code):
        def command(photos, run, *, cache, weights, split=None):
            former = str(split) if split else None
            return [sys.executable, "-c", f"{STEP}run, weights, former = {str(run)!r}, {weights!r}, {former!r}\n{code}"]

        monkeypatch.setattr("pronk.server.training_jobs.train_command", command)

    return use


def picture(label="circle", seed=0):
    return encode(draw_picture(label, seed, (48, 36)), "PNG")


def add_classes(server, counts):
    for name, number in counts.items():
        server.ask("POST", "/classes", 201, json={"name": name})
        form = [("photo", (f"{seed}.png", picture(name, seed))) for seed in range(number)]
        if form:
            server.ask("POST", f"/classes/{name}/photos", files=form)


def finish_run(server, name, bundle=None, **changes):
    run = server.trainings.workspace.runs / name
    run.mkdir()
    if bundle:
        shutil.copytree(bundle, run / "model")
        (run / "report.html").write_text("<!doctype html><p>good</p>")
        (run / "settings.toml").write_text('data = "/home/me"')
    (run / "metrics.json").write_text(json.dumps(METRICS | changes))
    return run


def test_without_a_work_folder_every_request_is_refused():
    server = Server(None)
    assert len(server.described["paths"]) == 13
    for described, operations in server.described["paths"].items():
        path = described.removeprefix("/v1/teach").format(name="cats", photo_id="0123456789abcdef.jpg", run=1)
        for method in operations:
            is_named = path in ("/classes", "/classes/cats") or path.endswith("/label")
            body = {"json": {"name": "cats"}} if is_named and method != "delete" else {}
            answer = server.ask(method.upper(), path, 403, **body).json()
            assert answer["code"] == "not_allowed"
            assert "pronk serve MODEL --work DIR" in answer["hint"]


def test_classes_from_the_first_to_the_last(server):
    assert server.state() == {"classes": [], "weights": "offline", "training": None, "runs": []}
    assert server.ask("POST", "/classes", 201, json={"name": "cats 2"}).json() == {"name": "cats 2", "photos": []}
    server.ask("POST", "/classes", 201, json={"name": "ラマ"})
    server.ask("POST", "/classes", 201, json={"name": "cats 10"})
    assert [one["name"] for one in server.state()["classes"]] == ["cats 2", "cats 10", "ラマ"]
    assert server.ask("POST", "/classes", 409, json={"name": "CATS 2"}).json()["code"] == "conflict"
    assert server.ask("POST", "/classes", 422, json={"name": "a/b"}).json()["code"] == "usage"
    assert server.ask("PATCH", "/classes/%E3%83%A9%E3%83%9E", json={"name": "llamas"}).json()["name"] == "llamas"
    assert server.ask("PATCH", "/classes/llamas", 409, json={"name": "Cats 10"}).json()["code"] == "conflict"
    assert server.ask("PATCH", "/classes/alpacas", 404, json={"name": "x"}).json()["code"] == "not_found"
    server.ask("DELETE", "/classes/cats%2010", 204)
    server.ask("DELETE", "/classes/cats%2010", 404)
    server.ask("DELETE", "/classes/%2E%2E", 404)
    assert [one["name"] for one in server.state()["classes"]] == ["cats 2", "llamas"]


def test_photos_are_added_shown_and_deleted(server):
    server.ask("POST", "/classes", 201, json={"name": "cats"})
    first = server.ask("POST", "/classes/cats/photos", content=picture()).json()
    assert first["refused"] == []
    assert (server.trainings.workspace.photos / "cats" / first["added"][0]).read_bytes() == picture()
    form = [
        ("a", ("again.png", picture())),
        ("b", ("other.png", picture(seed=1))),
        ("c", ("broken.png", picture(seed=2)[:200])),
        ("c", ("\u202enote.txt", b"hello")),
    ]
    answer = server.ask("POST", "/classes/cats/photos", files=form).json()
    assert len(answer["added"]) == 2
    assert answer["added"][0] == first["added"][0], "a photo that is there already counts"
    assert [(one["name"], one["code"]) for one in answer["refused"]] == [
        ("broken.png", "truncated"),
        ("\u202enote.txt", "not_an_image"),
    ]
    assert all(one["message"] and one["hint"] for one in answer["refused"])
    assert server.state()["classes"] == [{"name": "cats", "photos": answer["added"]}]
    path = f"/classes/cats/photos/{first['added'][0]}"
    shown = server.ask("GET", path)
    assert shown.headers["content-type"] == "image/jpeg"
    assert "immutable" in shown.headers["cache-control"]
    assert shown.content.startswith(b"\xff\xd8")
    server.ask("DELETE", path, 204)
    server.ask("GET", path, 404)
    server.ask("DELETE", path, 404)
    assert len(server.state()["classes"][0]["photos"]) == 1


def test_a_later_training_keeps_the_parts_of_the_one_before(server, scripted):
    """So that both are judged by the same photos; what is gone from the classes keeps nothing."""
    scripted(f"""
from pathlib import Path
Path(run).mkdir(); Path(run, "metrics.json").write_text({json.dumps(METRICS)!r})
Path(run, "former").write_text(str(former))
""")
    add_classes(server, {"cats": 5, "dogs": 5})
    runs = server.trainings.workspace.runs

    def train(number):
        server.ask("POST", "/train", 202)
        wait_for(lambda: server.state()["training"]["state"] == "done")
        return (runs / str(number) / "former").read_text()

    assert train(1) == "None"
    photo = server.state()["classes"][0]["photos"][0]
    (runs / "1" / "split.csv").write_text(f"path,label,part,digest,group\ncats/{photo},cats,test,,\n")
    server.ask("PATCH", "/classes/cats", json={"name": "tigers"})
    assert train(2) == str(runs / "1"), "a photo is known by its content, whatever its class is called"
    server.ask("DELETE", f"/classes/tigers/photos/{photo}", 204)
    server.ask("POST", "/classes/tigers/photos", content=picture("cats", 77))
    assert train(3) == "None"


def test_photos_without_a_label_are_chosen_and_get_one(server, served_model):
    """Those that the model is least sure of come first; what was decided is gone from the list and in its class."""
    server.ask("GET", "/unlabelled", 503)
    add_classes(server, {"cold": 0, "warm": 0})
    finish_run(server, "1", served_model)
    server.ask("POST", "/runs/1/use")
    assert server.ask("GET", "/unlabelled").json() == {"waiting": 0, "chosen": []}
    form = [("photo", (f"{seed}.png", picture("circle", seed))) for seed in range(8)]
    added = server.ask("POST", "/unlabelled", files=[*form, ("photo", ("broken.png", b"x"))]).json()
    assert len(set(added["added"])) == 8
    assert [one["code"] for one in added["refused"]] == ["not_an_image"]
    told = server.ask("GET", "/unlabelled?count=3").json()
    assert told["waiting"] == 8
    assert [one["id"] in added["added"] for one in told["chosen"]] == [True] * 3
    assert {one["label"] for one in told["chosen"]} <= {"cold", "warm"}
    first, second, third = (one["id"] for one in told["chosen"])
    assert server.ask("GET", f"/unlabelled/{first}").headers["content-type"] == "image/jpeg"
    server.ask("POST", f"/unlabelled/{first}/label", 204, json={"name": "cold"})
    server.ask("POST", f"/unlabelled/{first}/label", 404, json={"name": "cold"})
    server.ask("POST", f"/unlabelled/{second}/label", 404, json={"name": "no such class"})
    server.ask("DELETE", f"/unlabelled/{second}", 204)
    server.ask("GET", f"/unlabelled/{second}", 404)
    classes = {one["name"]: one["photos"] for one in server.state()["classes"]}
    assert classes == {"cold": [first], "warm": []}
    assert server.ask("GET", "/unlabelled?count=1").json()["waiting"] == 6
    server.ask("DELETE", "/unlabelled", 204)
    server.ask("GET", f"/unlabelled/{third}", 404)
    assert not list((server.trainings.workspace.folder / "unlabelled").iterdir())


def test_no_more_photos_wait_than_can_be_looked_at(server, monkeypatch):
    monkeypatch.setattr("pronk.server.teach_routes.MOST_UNLABELLED", 2)
    server.ask("POST", "/unlabelled", files=[("photo", (f"{seed}.png", picture(seed=seed))) for seed in range(3)])
    answer = server.ask("POST", "/unlabelled", 422, content=picture(seed=9)).json()
    assert "wait for a label already" in answer["error"]


def test_requests_that_cannot_be(server):
    server.ask("POST", "/classes", 201, json={"name": "cats"})
    server.ask("POST", "/classes/dogs/photos", 404, content=picture())
    server.ask("POST", "/classes/cats/photos", 413, content=bytes(10**6 + 1))
    assert server.ask("POST", "/classes/cats/photos", content=b"").json()["refused"][0]["code"] == "zero_byte"
    server.ask("POST", "/stop", 409)
    assert "no class" not in server.ask("POST", "/train", 422).json()["error"]
    for run in ("1", "99"):
        server.ask("GET", f"/runs/{run}/report", 404)
        server.ask("GET", f"/runs/{run}/download", 404)
        server.ask("POST", f"/runs/{run}/use", 404)
    for method, path, body in (
        ("POST", "/classes", {"name": 1}), ("POST", "/classes", {}), ("POST", "/classes", {"name": "a", "b": 1}),
        ("POST", "/train", {"weights": "/etc/passwd"}), ("POST", "/train", []),
        ("PATCH", "/classes/%2E%2E", {"name": "birds"}), ("GET", "/classes/cats/photos/0123456789abcdef.jpg%0A", None),
        ("GET", "/runs/../report", None), ("GET", "/runs/01/report", None), ("POST", "/runs/x/use", None),
        ("GET", "/classes/cats/photos/x.jpg", None), ("DELETE", "/classes/cats/photos/..%5Cx", None),
        ("DELETE", f"/classes/{'x' * 101}", None),
    ):  # fmt: skip
        answer = server.client.request(method, f"/v1/teach{path}", json=body)
        assert answer.status_code in (404, 422), (path, answer.text)


def test_a_training_that_is_watched_to_its_end(server, scripted):
    scripted(f"""
from pathlib import Path
step("check", 1, 10)
while not Path(run).with_name("go").exists(): time.sleep(0.01)
Path(run).mkdir(); Path(run, "metrics.json").write_text({json.dumps(METRICS)!r}); assert weights == "imagenet"
""")
    add_classes(server, {"cats": 5, "dogs": 4})
    assert server.ask("POST", "/train", 422).json()["error"] == "too few photos: 'dogs' has 4"
    server.ask("POST", "/classes/dogs/photos", content=picture("dogs", 9))
    started = server.ask("POST", "/train", 202, json={"weights": "imagenet"}).json()
    assert (started["run"], started["state"]) == ("1", "running")
    assert set(started) == {"run", "state", "stages", "seconds", "error", "summary"}
    assert server.ask("POST", "/train", 409).json()["error"] == "training 1 is under way"
    server.ask("PATCH", "/classes/cats", 409, json={"name": "tigers"})
    server.ask("DELETE", "/classes/cats", 409)
    wait_for(lambda: server.state()["training"]["stages"])
    (stage,) = server.state()["training"]["stages"]
    assert stage == {"stage": "check", "name": "checking photos", "done": 1, "total": 10}
    (server.trainings.workspace.runs / "go").touch()
    wait_for(lambda: server.state()["training"]["state"] != "running")
    state = server.state()
    assert state["training"]["state"] == "done"
    assert state["training"]["summary"]["accuracy"] == ACCURACY
    assert state["training"]["summary"]["frozen"] == ACCURACY | {"loss": 0.5}
    assert state["runs"] == [
        {"name": "1", "accuracy": ACCURACY, "classes": ["cats", "dogs"], "photos": 22, "in_use": False}
    ]
    assert server.ask("POST", "/stop", 202).json()["state"] == "done"
    assert server.ask("POST", "/train", 202).json()["run"] == "2"


def test_the_server_takes_its_training_along(tmp_path, scripted, hearing):
    scripted("step('check', 0, 1); time.sleep(60)")
    with open_trainings(tmp_path) as trainings:
        assert trainings.weights == "imagenet"
        server = Server(trainings)
        add_classes(server, {"cats": 5, "dogs": 5})
        server.ask("POST", "/train", 202)
        wait_for(lambda: server.state()["training"]["stages"])
        server.ask("POST", "/stop", 202)
        wait_for(lambda: server.state()["training"]["state"] == "stopped", seconds=8)
        server.ask("PATCH", "/classes/cats", json={"name": "tigers"})
        server.ask("POST", "/train", 202)
        wait_for(lambda: server.state()["training"]["stages"])
    assert trainings.status().state == "stopped"
    with pytest.raises(HttpError, match="about to stop"):
        trainings.start()
    assert not (tmp_path / ".lock").exists()


def test_a_training_that_cannot_start(server, monkeypatch):
    monkeypatch.setattr("pronk.server.training_jobs.train_command", lambda *_, **__: ["no-such-program"])
    add_classes(server, {"cats": 5, "dogs": 5})
    assert "cannot start a training" in server.ask("POST", "/train", 409).json()["error"]
    assert server.state()["training"] is None


def test_a_run_is_shown_taken_along_and_used(server, whole_bundle, tmp_path):
    run = finish_run(server, "3", whole_bundle)
    report = server.ask("GET", "/runs/3/report")
    assert report.text == "<!doctype html><p>good</p>"
    assert report.headers["content-type"].startswith("text/html")
    policy = report.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "style-src 'unsafe-inline'", "img-src data:", "sandbox"} <= set(policy)
    packed = server.ask("GET", "/runs/3/download")
    assert packed.headers["content-disposition"] == 'attachment; filename="pronk-run-3.zip"'
    assert int(packed.headers["content-length"]) == len(packed.content)
    with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        archive.extractall(tmp_path / "taken")
    assert sorted(names) == sorted(f"run-3/{p.relative_to(run).as_posix()}" for p in run.rglob("*") if p.is_file())
    assert Predictor.load(tmp_path / "taken" / "run-3").classes
    assert server.state()["runs"][0]["in_use"] is False
    assert server.ask("POST", "/runs/3/use").json()["name"] == "3"
    assert server.service.folder == run
    assert server.state()["runs"][0]["in_use"] is True
    (run / "model" / "model.onnx").write_bytes(b"broken")
    assert "the former model goes on answering" in server.ask("POST", "/runs/3/use", 409).json()["hint"]


def test_runs_that_are_not_whole_are_not_listed(server, tmp_path):
    for name, metrics in {
        "1": "{", "2": "[]", "4": json.dumps(METRICS | {"counts": None}), "5": "[" * 100_000,
        "6": json.dumps(METRICS | {"test": {"accuracy": ACCURACY | {"value": float("nan")}}}),
    }.items():  # fmt: skip
        run = server.trainings.workspace.runs / name
        run.mkdir()
        (run / "metrics.json").write_text(metrics)
        server.ask("GET", f"/runs/{name}/report", 404)
    (server.trainings.workspace.runs / "7").mkdir()
    (server.trainings.workspace.runs / "notes").mkdir()
    assert server.state()["runs"] == []
    finish_run(server, "10", test=None)
    assert next_run(tmp_path / "work" / "runs").name == "11"
    frozen = {"val": {"accuracy": ACCURACY, "loss": float("inf")}}
    assert read_summary(finish_run(server, "9", frozen=frozen, fine_tuned=frozen)).frozen.loss is None
    if os.name != "nt":
        (server.trainings.workspace.runs / "11").symlink_to(server.trainings.workspace.runs / "10")
    assert [(run["name"], run["accuracy"]) for run in server.state()["runs"]] == [("9", ACCURACY), ("10", None)]
    server.ask("GET", "/runs/9/report", 404)
    assert list_runs(tmp_path / "work" / "runs")[0].photos == 22
