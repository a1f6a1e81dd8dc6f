"""Benchmarks: what they count and write is right, and one command runs them all on a few photos."""

import doctest
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from helpers.scripts import BENCHMARKS, load_benchmark
from pronk.backbone.onnx_graphs import write_prefix
from pronk.backbone.weights import random_backbone
from pronk.cli.demo import SETTINGS as DEMO
from pronk.config import Settings
from pronk.training import recipe

NAMES = (
    "bench", "bodies", "clients", "compare", "floor", "marked", "processes", "programs", "serving", "sets", "stages",
    "throughput",
)  # fmt: skip
MACHINE = {"processor": "Z80", "cores": 1, "python": "3.11", "versions": {"numpy": "2.0"}}


@pytest.fixture(scope="module")
def programs():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)  # processes that they start import them too
        yield {name: load_benchmark(name) for name in NAMES}


def make_record(seconds, accuracy):
    score = {"value": accuracy, "low": 0.5, "high": 1.0, "n": 40}
    metrics = {"counts": {"train": 200, "val": 40, "test": 40}}
    times = {"wall_seconds": seconds, "cpu_seconds": 2 * seconds, "peak_memory_mb": 700.4}
    return {**times, "val": score, "test": score, "metrics": metrics, "result": {}}


@pytest.fixture
def comparison(programs):
    runs = {
        "tutorial": [make_record(60.0, 0.9), make_record(80.0, 0.8), make_record(70.0, 0.95)],
        "cold": [make_record(10.0, 0.9), make_record(12.0, 0.95), make_record(14.0, 1.0)],
        "warm": [make_record(7.0, 0.9), make_record(7.0, 0.95), make_record(7.0, 1.0)],
    }
    about = {"data": "drawn", "photos": 280, "image_size": 224, "weights": "w.h5", "train_options": ()}
    fields = {"times_faster": "wall_seconds", "times_less_cpu": "cpu_seconds"}
    ratios = {name: programs["compare"].compare_speed(runs, field) for name, field in fields.items()}
    return {**about, **ratios, **runs, "machine": MACHINE}


def test_the_examples_in_the_programs_hold(programs):
    assert [name for name in NAMES if doctest.testmod(programs[name]).failed] == []


@pytest.mark.parametrize(
    ("alpha", "size", "millions"),
    # Sandler et al. 2018: 300 million multiply-adds at 224 px, 1.28 of them in the layer that is not there.
    [(1.0, 224, 299.5), (0.35, 224, 58.0), (1.0, 96, 55.0)],
)
def test_multiply_adds_of_mobilenet_are_those_of_the_paper(programs, alpha, size, millions):
    prefix = write_prefix(random_backbone(alpha=alpha).weights, size=size, cut="block_15_add")
    assert programs["throughput"].count_multiply_adds(prefix) / 1e6 == pytest.approx(millions, rel=0.01)


def test_a_failing_process_ends_the_measurement(programs, tmp_path):
    with pytest.raises(RuntimeError, match="failed"):
        programs["throughput"].run_side_by_side(programs["throughput"].run_prefix, tmp_path / "none.onnx", 0.01)


def test_what_the_stop_watch_watches_is_there(programs):
    marked, stages, original = programs["marked"], programs["stages"], recipe.write_kept
    moments = {}
    with marked.watch_training(moments):
        assert recipe.write_kept is not original
    assert recipe.write_kept is original
    watched = {*marked.WATCHED, *marked.WATCHED_BESIDE, "first_step"}
    assert {mark for _, mark, _ in stages.STEPS} | set(stages.BESIDE.values()) <= watched


def test_the_page_and_the_readme_hold_the_comparison(programs, comparison, tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    (tmp_path / "README.md").write_text("before\n<!-- benchmark -->\nold\n<!-- /benchmark -->\nafter\n")
    content = {"machine": MACHINE, "comparisons": {"drawn": comparison}, "stages": {}, "throughput": None}
    programs["bench"].publish(content, docs)
    assert "70.0 (60.0 to 80.0)" in (docs / "benchmarks.md").read_text(encoding="utf-8")
    published = json.loads((docs / "benchmarks.json").read_text(encoding="utf-8"))
    assert set(published["comparisons"]["drawn"]["cold"][0]) == set(make_record(1, 1)) - {"metrics", "result"}
    readme = (tmp_path / "README.md").read_text()
    assert readme.startswith("before\n<!-- benchmark -->\n| photos |")
    assert readme.endswith("<!-- /benchmark -->\nafter\n")
    assert "| 280, drawn | 70 s, 90.0 % right | 12 s (5.8 times faster), 95.0 % right |" in readme


def test_the_demo_is_measured_with_the_demos_settings():
    """The benchmark passes their weights and image size; the rest follows from these."""
    assert Settings(weights=DEMO.weights, image_size=DEMO.image_size) == DEMO


def test_sets_are_compared_by_means_over_seeds(programs, tmp_path):
    def record(flow, seed, accuracy, loss, seconds):
        score = {"value": accuracy, "low": 0.0, "high": 1.0, "n": 10}
        base = {"set": "leaves", "seed": seed, "flow": flow, "accuracy": score, "log_loss": loss}
        return base | {"wall_seconds": seconds, "peak_memory_mb": 700.0}

    own = {"ece": 0.1, "surest": [[0.9, 1], [0.7, 0]] * 10, "chosen": {"kept": "frozen", "why": "so"}}
    records = [record("pronk", 1, 0.9, 0.2, 10.0) | own, record("pronk", 2, 0.7, 0.4, 20.0) | own]
    records += [record("full", 1, 0.6, 0.6, 100.0), record("full", 2, 0.6, 0.6, 200.0)]
    records += [record("tutorial", 1, 0.5, 0.9, 30.0)]  # compared with the first split alone
    (tmp_path / "README.md").write_text("before\n<!-- accuracy -->\n<!-- /accuracy -->\nafter\n")
    (tmp_path / "docs").mkdir()
    programs["sets"].publish(records, tmp_path / "docs")
    page = (tmp_path / "docs" / "accuracy.md").read_text()
    assert "| leaves | full fine-tuning | 2 | 0.600 [0.31, 0.83; n 10] | 0.600 |  | 150 | 700 |  |" in page
    assert "| leaves | pronk | 2 | 0.800 [0.49, 0.94; n 10] | 0.300 | 0.100 | 15 | 700 | frozen |" in page
    assert "on 0.600: 0.50 of the errors, 0.50 of the log-loss, 0.10 of the seconds" in page
    assert "1 splits, pronk is right on 0.900 of the photos, tutorial flow on 0.500" in page
    assert "all sets together, is 0.400" in page
    assert "| leaves | 50.0 % in 30 s | 60.0 % in 100 s | 90.0 % in 10 s |" in (tmp_path / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="watches processes through /proc")
def test_one_command_measures_and_writes_the_page(tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    command = [sys.executable, BENCHMARKS / "bench.py", "--repeats", "1", "--seconds", "0.1"]
    command += ["--drawn", "24", "--image-size", "32", "--skip", "demo", "--skip", "photos"]
    environment = {name: value for name, value in os.environ.items() if name not in ("PRONK_PHOTOS", "PRONK_WEIGHTS")}
    done = subprocess.run(
        [*command, "--out", tmp_path / "out", "--docs", docs],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in docs.iterdir()) == ["benchmarks.json", "benchmarks.md", "benchmarks.svg"]
    content = json.loads((docs / "benchmarks.json").read_text(encoding="utf-8"))
    (runs,) = content["stages"].values()
    for run in (runs["cold"][0], runs["warm"][0]):
        assert sum(run["steps"].values()) == pytest.approx(run["wall_seconds"], abs=0.1)
        assert min(run["steps"].values()) >= 0
    assert runs["cold"][0]["features"] > 24  # training photos have two views
    assert runs["warm"][0]["features"] == 0
    ElementTree.parse(docs / "benchmarks.svg")
    page = (docs / "benchmarks.md").read_text(encoding="utf-8")
    assert "| compute the missing features |" in page
    assert "| decode each photo |" in page
    assert "the goal of 65%" in page
    assert str(tmp_path) not in page + json.dumps(content)
