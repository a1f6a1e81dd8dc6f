"""A model of real photos, by every road (R17): the float ones answer alike, eight bits cost next to nothing."""

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from helpers.sharing import make_once
from helpers.training import run_pronk
from pronk.config import Settings
from pronk.model.agreement import count_bytes
from pronk.model.bundle import open_bundle
from pronk.model.formats.table import FORMATS
from pronk.model.predictor import Predictor
from pronk.training.export import export_model
from pronk.training.recipe import train

pytestmark = pytest.mark.more

PHOTOS = 300
FLOAT_DIFFERENCE = {"keras": 1e-4, "savedmodel": 1e-4, "litert": 1e-3}
LEAST_AGREEMENT, MOST_LOST, MOST_BYTES = 0.97, 0.01, 3.2e6


@pytest.fixture(scope="module")
def run(tmp_path_factory, real_photos, real_weights):
    """A run on the real photos."""
    weights = real_weights / "mobilenet_v2_1.0_224_no_top.h5"
    if not weights.is_file():
        pytest.skip(f"{weights} is not there")
    settings = Settings(weights=str(weights))
    return make_once(
        tmp_path_factory,
        "real-run",
        lambda base: train(real_photos, out=base / "run", settings=settings, cache=base / "cache").folder,
    )


@pytest.fixture(scope="module")
def labels(run, real_photos):
    """The truth by path, of all photos that were split."""
    with (run / "split.csv").open() as file:
        return {str(real_photos / row["path"]): row["label"] for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def answers(run, labels, tmp_path_factory):
    """A function from a format to the probabilities of all photos; `onnx` is the run's own model."""

    def answer(to):
        def predict(base):
            folder = run if to == "onnx" else export_model(run, to, out=base / to).folder
            return np.stack([prediction.probabilities for prediction in Predictor.load(folder).predict(labels)]), folder

        return make_once(tmp_path_factory, f"real-{to}", predict)

    return answer


def accuracy(probabilities, labels, classes):
    right = [classes[i] == label for i, label in zip(probabilities.argmax(axis=1), labels.values(), strict=True)]
    return np.mean(right)


@pytest.mark.parametrize("to", FLOAT_DIFFERENCE)
def test_every_float_road_gives_the_same_answers(run, answers, tmp_path, to):
    if to == "litert":
        pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    if FORMATS[to].engine is None:  # compared once, while its framework is there
        parity = export_model(run, to, out=tmp_path / to).parity
        assert parity["agreement"] == 1
        assert parity["max_difference"] <= FLOAT_DIFFERENCE[to]
        return
    reference, exported = answers("onnx")[0], answers(to)[0]
    assert len(reference) >= PHOTOS
    np.testing.assert_array_equal(reference.argmax(axis=1), exported.argmax(axis=1))
    assert np.abs(reference - exported).max() <= FLOAT_DIFFERENCE[to]


@pytest.mark.parametrize("to", ["onnx-int8", "litert-int8"])
def test_eight_bits_cost_next_to_nothing(run, answers, labels, to):
    if to == "litert-int8":
        pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    (reference, _), (exported, folder) = answers("onnx"), answers(to)
    assert (reference.argmax(axis=1) == exported.argmax(axis=1)).mean() >= LEAST_AGREEMENT
    classes = open_bundle(run).classes
    assert accuracy(reference, labels, classes) - accuracy(exported, labels, classes) <= MOST_LOST
    assert count_bytes(open_bundle(folder).model_path) <= MOST_BYTES


@pytest.mark.parametrize("engine", ["stream", "local", pytest.param("ray", marks=pytest.mark.slow)])
def test_the_command_line_gives_the_same_answers(run, answers, labels, tmp_path, engine):
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
    classes = open_bundle(run).classes
    given = [{score["label"]: score["score"] for score in row["scores"]} for row in rows]
    served = np.array([[row[name] for name in classes] for row in given], np.float32)
    np.testing.assert_array_equal(served, answers("onnx")[0])


def test_a_run_tells_what_its_answers_are_worth(run):
    metrics = json.loads((Path(run) / "metrics.json").read_text())
    assert 0.5 <= metrics["calibration"]["temperature"] <= 5
    assert metrics["unknown"]["coverage"] == 0.95
    assert metrics["test"]["coverage"]["n"] == metrics["counts"]["test"]
    assert metrics["test"]["coverage"]["high"] >= 0.95, "the promise lies within the interval of what came out"
