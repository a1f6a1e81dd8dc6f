"""A bundle written by any former version opens, proves itself and answers; see tests/fixtures/make_bundle.py."""

import zipfile

import numpy as np
import pytest

from helpers import FIXTURES
from pronk.model.bundle import FORMAT, read_record
from pronk.model.predictor import Predictor

ARCHIVES = sorted(FIXTURES.glob("bundle-format-*.zip"))
DISTANCES = {1: 0.0406105, 2: 0.0580746}  # of the first golden photo, by format
HEAT_OF_INT8 = {1: 1e-2, 2: 3e-2}  # how far it may be from the logits: four blocks are rounded by themselves
EXPORTS = {"exports/onnx-int8": None, "exports/litert": "ai_edge_litert"}


@pytest.fixture(params=ARCHIVES, ids=[archive.stem for archive in ARCHIVES])
def old_run(request, tmp_path):
    """A run folder that holds what travels: the model and its exports."""
    with zipfile.ZipFile(request.param) as archive:
        archive.extractall(tmp_path / "run")
    return tmp_path / "run"


def test_there_is_one_of_each_format():
    assert [archive.stem for archive in ARCHIVES] == [f"bundle-format-{number}" for number in range(1, FORMAT + 1)]


def check_heat(predictor, *, tolerance):
    """Between photos the log-odds of the classes differ as the means of their heat do: the bias falls out."""
    photos = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    answers = [predictor.runtime.run(photo[None], heat=True) for photo in photos]
    odds = [np.log(one.probabilities[0, 0] / one.probabilities[0, 1]) for one in answers]
    heat = [one.heat.mean(axis=(0, 1, 2)) @ [1, -1] / predictor.bundle.temperature for one in answers]
    assert abs(odds[1] - odds[0]) > 0.1
    assert heat[1] - heat[0] == pytest.approx(odds[1] - odds[0], abs=tolerance)


def test_it_opens_and_answers_as_it_did(old_run):
    predictor = Predictor.load(old_run)
    checks = predictor.verify()
    assert len(checks) == 8
    assert all(check["ok"] for check in checks)
    assert predictor.classes == ("cold", "warm")
    bundle = predictor.bundle
    check_heat(predictor, tolerance=1e-4)
    assert (bundle.unknown.coverage, bundle.unknown.n) == (0.95, bundle.sets.n)
    prediction = predictor.predict_one(old_run / "model" / "golden" / "1.jpg")
    record = prediction.record(coverage=0.9)
    written = read_record(bundle.folder)["format"]
    assert record["distance"] == pytest.approx(DISTANCES[written], abs=1e-5)
    assert set(record["set"]) <= {"cold", "warm"}


@pytest.mark.parametrize("export", EXPORTS)
def test_so_do_its_exports(old_run, export):
    if EXPORTS[export]:
        pytest.importorskip(EXPORTS[export], reason="LiteRT is not installed")
    predictor = Predictor.load(old_run / export)
    written = read_record(predictor.bundle.folder)["format"]
    check_heat(predictor, tolerance=HEAT_OF_INT8[written] if "int8" in export else 1e-4)
    checks = predictor.verify()
    assert len(checks) == 8
    assert all(check["ok"] for check in checks)
