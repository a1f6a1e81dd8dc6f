import datetime
import hashlib
import json

import numpy as np
import pytest

from helpers.commands import read_csv
from helpers.training import draw_tiny, lively_backbone, tiny_settings, write_photos
from pronk.analysis.metrics import METRICS
from pronk.dataset.loading import load_dataset
from pronk.model.bundle import open_bundle
from pronk.model.evaluation import score_rows
from pronk.model.predictor import Predictor
from pronk.model.run import Metrics
from pronk.training.features import Features, plan_extraction
from pronk.training.results import judge
from pronk.training.run_folder import Run


def test_the_run_folder_is_that_of_the_contract(tiny_run):
    found = {path.relative_to(tiny_run.folder).as_posix() for path in tiny_run.folder.rglob("*") if path.is_file()}
    golden = {f"model/golden/{i}.jpg" for i in range(1, 9)} | {"model/golden/expected.json"}
    assert found == golden | {
        "model/model.onnx", "model/model.keras", "model/model.json", "model/README.md",
        "split.csv", "settings.toml", "history.csv", "metrics.json", "predictions.csv", "report.html",
    }  # fmt: skip


def check_accuracy(record):
    assert list(record) == ["value", "low", "high", "n"]
    assert 0 <= record["low"] <= record["value"] <= record["high"] <= 1
    assert record["n"] > 0


def test_metrics_have_all_fields_and_only_those(tiny_run, tiny_weights):
    metrics = json.loads((tiny_run.folder / "metrics.json").read_text())
    assert metrics == tiny_run.metrics.to_json()
    assert Metrics.from_json(metrics).to_json() == metrics
    assert list(metrics) == [
        "format", "classes", "counts", "seed", "weights", "chosen", "frozen", "fine_tuned", "comparison",
        "calibration", "unknown", "rest_class", "test", "cross", "curve", "seconds", "peak_memory_mb",
    ]  # fmt: skip
    assert metrics == metrics | {
        "format": 1,
        "classes": ["cold", "warm"],
        "counts": {"train": 20, "val": 4, "test": 4},
        "seed": 42,
        "cross": None,
        "unknown": None,  # four validation photos can promise nothing
        "weights": {"name": "tiny.h5", "sha256": hashlib.sha256(tiny_weights.read_bytes()).hexdigest()},
    }
    for phase in ("frozen", "fine_tuned"):
        assert list(metrics[phase]) == ["val"]
        assert list(metrics[phase]["val"]) == ["accuracy", "loss"]
        check_accuracy(metrics[phase]["val"]["accuracy"])
        assert metrics[phase]["val"]["loss"] >= 0
    assert list(metrics["comparison"]) == ["gained", "lost", "p", "kept", "why", "share"]
    assert metrics["comparison"]["kept"] in ("frozen", "fine_tuned")
    names = (metric.name for metric in METRICS)
    assert list(metrics["test"]) == ["accuracy", *names, "per_class", "confusion", "coverage"]
    assert list(metrics["calibration"]) == ["temperature", "ece"]
    assert 0.5 <= metrics["calibration"]["temperature"] <= 5
    assert metrics["calibration"]["ece"]["test"]["after"] == pytest.approx(metrics["test"]["ece"])
    check_accuracy(metrics["test"]["accuracy"])
    assert list(metrics["test"]["per_class"]) == metrics["classes"]
    for record in metrics["test"]["per_class"].values():
        assert list(record) == ["precision", "recall", "f1", "support"]
    assert list(metrics["seconds"]) == [
        "check", "decode", "extract", "head", "fine_tune", "export", "evaluate", "total",
    ]  # fmt: skip
    assert all(0 <= value <= metrics["seconds"]["total"] for value in metrics["seconds"].values())
    assert 50 < metrics["peak_memory_mb"] < 4000


def test_the_test_numbers_are_those_of_the_predictions(tiny_run):
    rows = read_csv(tiny_run.folder / "predictions.csv")
    assert list(rows[0]) == ["path", "part", "label", "predicted", "score", "p_cold", "p_warm", "distance", "unknown"]
    assert [row["part"] for row in rows] == ["val"] * 4 + ["test"] * 4
    tested = [row for row in rows if row["part"] == "test"]
    numbers = [row | {key: float(row[key]) for key in ("p_cold", "p_warm")} | {"distance": None} for row in tested]
    assert score_rows(numbers, ["cold", "warm"]) == tiny_run.metrics.test
    for row in rows:
        assert float(row["score"]) == max(float(row["p_cold"]), float(row["p_warm"]))
        assert row["score"] == row[f"p_{row['predicted']}"]


def test_what_is_measured_is_what_is_served(tiny_run, tiny_photos):
    rows = read_csv(tiny_run.folder / "predictions.csv")
    served = Predictor.load(tiny_run.folder).predict([tiny_photos / row["path"] for row in rows])
    assert [str(prediction.score) for prediction in served] == [row["score"] for row in rows]


def test_the_split_names_every_photo(tiny_run, tiny_photos):
    rows = read_csv(tiny_run.folder / "split.csv")
    assert list(rows[0]) == ["path", "label", "part", "digest", "group"]
    assert len(rows) == 28
    for row in rows:
        assert row["digest"] == hashlib.sha256((tiny_photos / row["path"]).read_bytes()).hexdigest()
    predicted = {(row["path"], row["part"]) for row in read_csv(tiny_run.folder / "predictions.csv")}
    assert predicted == {(row["path"], row["part"]) for row in rows if row["part"] != "train"}


def test_the_history_has_rows_of_iterations_and_of_each_epoch(tiny_run):
    rows = read_csv(tiny_run.folder / "history.csv")
    assert list(rows[0]) == [
        "phase", "epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds",
    ]  # fmt: skip
    by_phase = {name: [row for row in rows if row["phase"] == name] for name in ("frozen", "fine_tuned")}
    for phase, phase_rows in by_phase.items():
        assert [int(row["epoch"]) for row in phase_rows][:9] == list(range(1, len(phase_rows[:9]) + 1))
        assert all(float(row[name]) >= 0 for row in phase_rows for name in list(row)[2:])
        judged, last = getattr(tiny_run.metrics, phase)["val"]["loss"], float(phase_rows[-1]["val_loss"])
        # Phase 2 is judged by its best mean with the frozen network.
        assert judged == pytest.approx(last) or (phase == "fine_tuned" and judged < last)
    assert len(by_phase["fine_tuned"]) == 2


def test_card_and_report_tell_the_same(tiny_run):
    card = (tiny_run.folder / "model" / "README.md").read_text()
    accuracy = tiny_run.metrics.test["accuracy"]
    assert f"Accuracy on {accuracy['n']} test photos" in card
    report = (tiny_run.folder / "report.html").read_text()
    assert "<html" in report
    assert "http://" not in report.replace("http://www.w3.org", "")
    assert "<script" not in report
    for shown in ("What it is sure of", "One photo, nine ways", "data:image/jpeg;base64,"):
        assert shown in report


def test_photos_that_change_before_the_end_are_left_out_once(whole_bundle, tmp_path):
    dataset = load_dataset(write_photos(tmp_path / "photos", 14))
    gone, replaced, cut = (photo.path for photo in dataset.part("test")[:3])
    (dataset.root / gone).unlink()
    draw_tiny(np.random.default_rng(5), "cold").save(dataset.root / replaced)
    (dataset.root / cut).write_bytes((dataset.root / cut).read_bytes()[:100])
    run = Run(tiny_settings("w"), lively_backbone(0.35), tmp_path / "run", tmp_path / "cache", None)
    features = Features(dataset, plan_extraction(dataset.root, run), 0, 0.0, views=1)
    found = judge(open_bundle(whole_bundle), features, run)
    assert sorted((finding.path, finding.code) for finding in found.lost) == sorted(
        [(gone, "vanished"), (replaced, "changed"), (cut, "changed")]
    )
    judged = [photo.path for photo in (*dataset.part("val"), *dataset.part("test"))]
    assert [row["path"] for row in found.rows] == [path for path in judged if path not in (gone, replaced, cut)]


def test_no_file_holds_the_time_of_day(tiny_run):
    today = datetime.date.today().isoformat()
    for name in ("metrics.json", "settings.toml", "report.html", "split.csv", "model/model.json"):
        assert today not in (tiny_run.folder / name).read_text(), name
