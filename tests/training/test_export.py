"""Exports: made from a finished run, opened by their own runtime, compared, kept or set aside."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.commands import ok, run_inside
from helpers.sharing import make_once
from helpers.training import change_record, draw_tiny, write_photos
from pronk.analysis.calibration import Unknown
from pronk.analysis.novelty import fit_novelty
from pronk.errors import DataError, ModelError, RunError
from pronk.model.bundle import open_bundle, open_runtime
from pronk.model.evaluation import evaluate
from pronk.model.predictor import Predictor
from pronk.photos.decoding import load_pixels
from pronk.training.conversions import CONVERSIONS, convert
from pronk.training.export import SAMPLES, export_model, gather_photos, note_parity, read_parity

EIGHT_BITS = {"onnx-int8": (0.98, 0.2), "web-int8": (0.98, 0.2), "litert-int8": (0.95, 0.4)}
MODULES = {"onnx-int8": "onnxruntime", "litert": "ai_edge_litert", "litert-int8": "ai_edge_litert"}
# Runs a file as a program where pronk cannot be imported, whether or not it is installed.
WITHOUT_PRONK = "import runpy, sys; sys.modules['pronk'] = None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])"


@pytest.fixture
def run(tmp_path, tiny_run, monkeypatch):
    """A finished run to export from, whose model is taken as it is, since conversions are tried by the `exports`."""
    monkeypatch.setattr(
        "pronk.training.export.convert", lambda bundle, *_, **__: {"model.onnx": bundle.model_path.read_bytes()}
    )
    return Path(shutil.copytree(tiny_run.folder, tmp_path / "run"))


@pytest.fixture(scope="session")
def exports(tmp_path_factory, tiny_run):
    """A function from a format to a run and what came of exporting it."""

    def export(to):
        if to in MODULES:
            pytest.importorskip(MODULES[to], reason=f"{MODULES[to]} is not installed")

        def make(base):
            run = Path(shutil.copytree(tiny_run.folder, base / "run"))
            return run, export_model(run, to, min_agreement=0.0)

        return make_once(tmp_path_factory, f"export-{to}", make)

    return export


OTHERS = {"web-int8", "micro"}  # whose parts have tests of their own


@pytest.mark.parametrize(
    "to",
    [
        to if to == "onnx-int8" else pytest.param(to, marks=pytest.mark.slow if to in OTHERS else pytest.mark.more)
        for to in CONVERSIONS
    ],
)
def test_an_export_is_a_model_of_its_own_that_agrees(exports, tiny_photos, tmp_path, to):
    run, exported = exports(to)
    assert exported.gate is None
    assert exported.folder == run / "exports" / to
    bundle, original = open_bundle(exported.folder), open_bundle(run)
    assert bundle.runtime == to
    assert (bundle.classes, bundle.size, bundle.fit) == (original.classes, original.size, original.fit)
    if bundle.format.engine is None:
        assert exported.parity["max_difference"] < 1e-4
        for golden, expected in bundle.golden().items():
            np.testing.assert_allclose(expected, original.golden()[golden], atol=1e-4)
        with pytest.raises(ModelError, match="pronk writes and does not open"):
            Predictor.load(exported.folder)
        check_example(exported.folder, Predictor.load(run), tmp_path)
        return
    predictor = Predictor.load(exported.folder)
    assert all(check["ok"] for check in predictor.verify())
    if to == "micro":  # test_phones_and_boards looks at the rest
        return
    pixels = np.stack([load_pixels(tiny_photos / "cold" / f"{i}.png", size=32) for i in range(8)])
    wanted = open_runtime(original).run(pixels, heat=True).heat
    found = np.concatenate([open_runtime(bundle).run(one[None], heat=True).heat for one in pixels])
    # LiteRT's eight bits take part in the heat itself; ONNX's stop before the head.
    alike, near = EIGHT_BITS.get(to, (0.9999, 1e-3))
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > alike
    assert np.ptp(found) == pytest.approx(np.ptp(wanted), rel=near)
    photos = sorted(tiny_photos.rglob("*.png"))
    served, expected = (
        np.stack([prediction.probabilities for prediction in model.predict(photos)])
        for model in (predictor, Predictor.load(run))
    )
    if to == "litert":
        assert np.abs(served - expected).max() < 1e-4
        assert (served.argmax(axis=1) == expected.argmax(axis=1)).all()
    if to in (
        "onnx-int8",
        "web-int8",
    ):  # LiteRT's eight bits spoil a random network; test_real_exports holds both to their bars
        assert (served.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.7
    if bundle.format.program:
        check_example(exported.folder, predictor, tmp_path)


def check_example(export, predictor, folder, *, size=(90, 60)):
    """Let the example program of an export predict a photo without pronk, as the model does that is given."""
    photo = folder / "warm.png"
    draw_tiny(np.random.default_rng(7), "warm", size=size).save(photo)
    command = [sys.executable, "-c", WITHOUT_PRONK, export / "predict_example.py", photo]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    prediction = predictor.predict_one(photo)
    assert done.stdout == f"{photo}: {prediction.top} {prediction.score:.1%}\n"
    assert len((export / "predict_example.py").read_text().splitlines()) <= 26


@pytest.mark.parametrize("fit", ["pad", "squash"])
def test_every_fit_is_written_into_the_example(run, tmp_path, fit):
    change_record(run / "model", image={"size": 32, "fit": fit, "resample": "bilinear"})
    folder = export_model(run, "onnx-int8", min_agreement=0.0).folder
    check_example(folder, Predictor.load(folder), tmp_path, size=(91, 40))


def test_what_lies_beside_the_model_and_what_is_said_of_it(exports, tiny_photos):
    run, exported = exports("onnx-int8")
    folder, parity = exported.folder, exported.parity
    assert (folder / "labels.txt").read_text() == "cold\nwarm\n"
    recipe = json.loads((folder / "decode.json").read_text())
    assert (recipe["model"], recipe["input"]["shape"]) == ("model.onnx", ["N", 32, 32, 3])
    assert set(recipe["outputs"]) == {"probabilities", "features", "heat"}
    assert {"labels.txt", "decode.json", "predict_example.py"} <= set(open_bundle(folder).files)
    assert parity in json.loads((run / "exports" / "parity.json").read_text())
    assert set(parity) >= {"format", "agreement", "max_difference", "mean_difference", "accuracy", "latency_ms"}
    assert parity["latency_ms"]["p50"] <= parity["latency_ms"]["p95"]
    assert parity["bytes"] == (folder / "model.onnx").stat().st_size
    assert parity["accuracy"]["reference"]["n"] == 4
    known = [finding for finding in evaluate(folder, tiny_photos).findings if finding.code == "leak"]
    assert len(known) == 24, "it warns of photos that the model knows"


def test_an_export_is_neither_exported_again_nor_replaced_by_another(exports):
    run, exported = exports("onnx-int8")
    with pytest.raises(ModelError, match="cannot export onnx-int8") as caught:
        export_model(exported.folder, "litert")
    assert "name a run" in caught.value.hint
    with pytest.raises(RunError, match="not an export to keras"):
        export_model(run, "keras", out=exported.folder)
    assert open_bundle(exported.folder).runtime == "onnx-int8"


def test_records_of_other_formats_stay(tmp_path):
    path = tmp_path / "parity.json"
    for record in ({"format": "keras", "bytes": 1}, {"format": "litert", "bytes": 2}, {"format": "keras", "bytes": 3}):
        note_parity(path, record)
    assert [(record["format"], record["bytes"]) for record in read_parity(path)] == [("litert", 2), ("keras", 3)]
    path.write_text("{")
    assert read_parity(path) == []


def convert_wrongly(bundle, to, samples, **_):
    """Yield a model that always answers the other class."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(bundle.model_path)
    for array in model.graph.initializer:
        if array.name.startswith("head/"):
            array.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(array), array.name))
    return {"model.onnx": model.SerializeToString()}


def test_one_that_answers_otherwise_is_set_aside(run, monkeypatch):
    good = export_model(run, "onnx-int8")
    with monkeypatch.context() as patch:
        patch.setattr("pronk.training.export.convert", convert_wrongly)
        exported = export_model(run, "onnx-int8")
    assert exported.parity["agreement"] == 0
    assert exported.gate is not None
    assert "below 97.0%" in str(exported.gate)
    assert exported.folder == run / "exports" / "onnx-int8.rejected"
    assert open_bundle(exported.folder).runtime == "onnx-int8", "it can still be looked at"
    assert not good.folder.exists(), "the former one is not mistaken for what was just made"
    assert export_model(run, "onnx-int8").gate is None
    assert sorted(path.name for path in (run / "exports").iterdir()) == ["onnx-int8", "parity.json"]


def test_the_command_says_so(run):
    done = run_inside("export", run, "--to", "onnx-int8", "--min-agreement", "0")
    assert ok(done).strip() == str(run / "exports" / "onnx-int8")
    assert b"get the same class" in done.stderr
    assert "onnx-int8" in ok(run_inside("bench", run))


def test_no_half_written_export_is_left_and_that_of_a_killed_one_goes(run, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    left = run / "exports" / ".onnx-int8.tmp"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"written")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        patch.setattr("pronk.training.export.measure_speed", fail)
        export_model(run, "onnx-int8")
    assert list((run / "exports").iterdir()) == []


# --- photos to compare with


def test_the_runs_own_photos_are_taken_wherever_they_are(run, tmp_path, tiny_photos):
    moved = Path(shutil.copytree(tiny_photos, tmp_path / "elsewhere"))
    here, there = (gather_photos(open_bundle(run), given) for given in (None, moved))
    for photos in (here, there):
        assert photos.is_validation
        assert (len(photos.samples), len(photos.compared)) == (20, 4)
        assert sorted(photos.targets) == [0, 0, 1, 1]
        # The tiny photos are blue in one class and red in the other; the classes come in turn.
        assert [photo[..., 0].mean() > photo[..., 2].mean() for photo in photos.samples[:4]] == [False, True] * 2
    assert {photo.tobytes() for photo in there.compared} == {photo.tobytes() for photo in here.compared}


def test_changed_photos_are_not_compared_with(run, tmp_path):
    photos = write_photos(tmp_path / "photos", 14)
    settings = run / "settings.toml"
    lines = [line for line in settings.read_text().splitlines() if not line.startswith("data")]
    settings.write_text("\n".join([f"data = {json.dumps(str(photos))}", *lines]))
    for path in photos.rglob("*.png"):
        draw_tiny(np.random.default_rng(99), path.parent.name).save(path)
    with pytest.raises(DataError, match="no photos to compare"):
        gather_photos(open_bundle(run), None)


def test_a_copied_model_asks_for_photos(run, tmp_path, tiny_photos):
    alone = shutil.copytree(run / "model", tmp_path / "elsewhere" / "model")
    with pytest.raises(DataError, match="its photos are not known") as caught:
        export_model(alone, "onnx-int8")
    assert "--calibration" in caught.value.hint
    exported = export_model(alone, "onnx-int8", calibration=tiny_photos, out=tmp_path / "out", min_agreement=0.0)
    assert exported.parity["accuracy"]["exported"]["n"] == 14, "every second photo"
    assert open_bundle(tmp_path / "out").sets.n == 4, "promises rest on validation photos alone"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "out", "run"], "nothing beside it"
    assert (tmp_path / "out" / "parity.json").is_file()


@pytest.mark.parametrize("name", ["", "model", "exports", "report.html", "photos"])
def test_nothing_but_a_former_export_is_replaced(run, name):
    (run / "photos").mkdir()
    (run / "photos" / "mine.jpg").write_bytes(b"mine")
    (run / "exports").mkdir()
    before = sorted(run.rglob("*"))
    with pytest.raises(RunError, match="exists and is not an export to litert"):
        export_model(run, "litert", out=run / name)
    assert sorted(run.rglob("*")) == before


def test_foreign_classes_are_named(tmp_path, whole_bundle):
    photos = write_photos(tmp_path / "photos", 2, classes=("cold", "llama"))
    with pytest.raises(DataError, match="'llama'"):
        gather_photos(open_bundle(whole_bundle), photos)


def test_a_large_class_does_not_crowd_out_a_small_one(tmp_path, whole_bundle, monkeypatch):
    write_photos(tmp_path / "photos", 30, classes=("cold",))
    write_photos(tmp_path / "photos", 4, classes=("warm",))
    monkeypatch.setattr("pronk.training.export.SAMPLES", 4)
    photos = gather_photos(open_bundle(whole_bundle), tmp_path / "photos")
    assert SAMPLES > 4
    assert [photo[..., 0].mean() > photo[..., 2].mean() for photo in photos.samples] == [False, True] * 2


# --- what cannot be exported


def test_a_model_without_a_keras_file_says_so(whole_bundle):
    with pytest.raises(ModelError, match=r"no model\.keras"):
        convert(open_bundle(whole_bundle), "keras", np.zeros((1, 32, 32, 3), np.uint8))


def test_the_threshold_is_set_again_with_the_exports_own_numbers(run, monkeypatch):
    monkeypatch.setattr("pronk.training.export.conformal_threshold", lambda scores, coverage: float(max(scores)) + 1)
    bundle = open_bundle(run)
    width = open_runtime(bundle).shapes["features"][0]
    novelty = fit_novelty(np.random.default_rng(0).random((20, width), np.float32), np.arange(20) % 2)
    unknown = Unknown(novelty, 0.25, 0.95, 49)
    change_record(bundle.folder, unknown=unknown.to_record())
    exported = open_bundle(export_model(run, "onnx-int8", min_agreement=0.0).folder)
    assert exported.unknown.threshold != 0.25
    assert (exported.unknown.coverage, exported.unknown.n) == (0.95, 4)


def test_inside_the_model_folder_the_run_is_found_too(run, monkeypatch):
    for inside in (run / "model", run):
        monkeypatch.chdir(inside)
        exported = export_model(".", "onnx-int8", min_agreement=0.0)
        assert exported.folder.resolve() == (run / "exports" / "onnx-int8").resolve()
