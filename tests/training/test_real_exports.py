"""A model of real photos, by every road (R17): the float ones answer alike, eight bits cost next to nothing."""

import importlib.util
import json

import numpy as np
import pytest

from helpers.commands import read_csv
from helpers.sharing import make_once
from helpers.training import run_pronk
from pronk.config import Settings
from pronk.model.agreement import count_bytes
from pronk.model.bundle import open_bundle
from pronk.model.predictor import Predictor
from pronk.model.run import read_metrics
from pronk.training.export import export_model
from pronk.training.recipe import train

pytestmark = pytest.mark.more

PHOTOS = 300
MOST_DIFFERENCE = 1e-3  # of float numbers
LEAST_AGREEMENT, MOST_LOST, MOST_BYTES = 0.97, 0.01, 3.2e6


@pytest.fixture(scope="module")
def run(tmp_path_factory, real_photos, real_weights):
    """A run on the real photos."""
    weights = real_weights / "mobilenet_v2_1.0_224_no_top.h5"
    if not weights.is_file():
        pytest.skip(f"{weights} is not there")
    settings = Settings(weights=str(weights), image_size=160, rest_class="none")
    return make_once(
        tmp_path_factory,
        "real-run",
        lambda base: train(real_photos, out=base / "run", settings=settings, cache=base / "cache").folder,
    )


@pytest.fixture(scope="module")
def labels(run, real_photos):
    """The truth by path, of all photos that were split."""
    return {str(real_photos / row["path"]): row["label"] for row in read_csv(run / "split.csv")}


def predict(model, labels):
    return np.stack([prediction.probabilities for prediction in Predictor.load(model).predict(labels)])


@pytest.fixture(scope="module")
def reference(run, labels, tmp_path_factory):
    """What the run's own model says of all photos: float32 [n, 2]."""
    return make_once(tmp_path_factory, "real-onnx", lambda base: predict(run, labels))


@pytest.mark.parametrize("to", ["litert", "onnx-int8", pytest.param("litert-int8", marks=pytest.mark.slow)])
def test_every_road_gives_the_same_answers(run, reference, labels, tmp_path, to, monkeypatch):
    """What Keras says of 300 real photos is tried beside its network."""
    if to.startswith("litert"):
        pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    monkeypatch.setattr("pronk.training.export.SAMPLES", 100)  # half of them will do: LiteRT is slow at it
    bundle = open_bundle(export_model(run, to, out=tmp_path / to).folder)
    answers = predict(bundle.folder, labels)
    assert len(answers) >= PHOTOS
    agreement = (reference.argmax(axis=1) == answers.argmax(axis=1)).mean()
    if to == "litert":
        assert agreement == 1
        assert np.abs(reference - answers).max() <= MOST_DIFFERENCE
        return
    targets = np.array([bundle.classes.index(label) for label in labels.values()])
    right = [(probabilities.argmax(axis=1) == targets).mean() for probabilities in (reference, answers)]
    assert agreement >= LEAST_AGREEMENT
    assert right[0] - right[1] <= MOST_LOST
    assert count_bytes(bundle.model_path) <= MOST_BYTES


@pytest.mark.parametrize("engine", ["stream", "local", pytest.param("ray", marks=pytest.mark.slow)])
def test_the_command_line_gives_the_same_answers(run, reference, labels, tmp_path, engine):
    if engine == "ray" and not importlib.util.find_spec("ray"):
        pytest.skip("Ray is not installed")
    options = ["--format", "jsonl", "--quiet"]
    if engine != "stream":
        options += ["--out", tmp_path / "answers.jsonl", "--engine", engine]
    done = run_pronk("predict", run, "-", *options, stdin="\n".join(labels).encode())
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode() if engine == "stream" else (tmp_path / "answers.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["path"] for row in rows] == list(labels)
    given = [{score["label"]: score["score"] for score in row["scores"]} for row in rows]
    served = np.array([[row[name] for name in open_bundle(run).classes] for row in given], np.float32)
    np.testing.assert_array_equal(served, reference)


def test_a_run_says_what_its_answers_are_worth(run):
    metrics = read_metrics(run)
    assert 0.5 <= metrics.calibration["temperature"] <= 5
    assert metrics.unknown["coverage"] == 0.95
    assert metrics.test["coverage"]["n"] == metrics.counts["test"]
    assert metrics.test["coverage"]["high"] >= 0.95, "the promise lies within the interval of what came out"
