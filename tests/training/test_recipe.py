import dataclasses
import errno
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pronk
from helpers.commands import read_csv
from helpers.metrics import make_metrics
from helpers.training import draw_tiny, read_replayed, read_run, run_pronk, tiny_settings, write_photos
from pronk.backbone.architecture import Backbone
from pronk.config import read_settings
from pronk.errors import DataError, ModelError, RunError, SettingsError, StorageError
from pronk.model.predictor import Predictor
from pronk.storage.cache import trim
from pronk.training.kept_model import choose
from pronk.training.networks import Network
from pronk.training.phase_one import Frozen
from pronk.training.phase_two import FineTuned
from pronk.training.recipe import finish, train
from pronk.training.run_folder import Run


@pytest.fixture
def photos(tmp_path, tiny_photos):
    return Path(shutil.copytree(tiny_photos, tmp_path / "tiny"))


@pytest.fixture
def tiny(tiny_weights):
    return functools.partial(tiny_settings, tiny_weights)


@pytest.fixture
def go(tmp_path, photos, tiny_weights, tiny_run, workers_inside):
    """Train in this process on photos of this test's own, whose rows are in the cache already."""

    def run(out="run", *, data=photos, settings=None, **options):
        settings = settings or tiny_settings(tiny_weights)
        options = {"cache": tiny_run.folder.parent / "cache"} | options
        return train(data, out=tmp_path / out, settings=settings, **options)

    return run


# --- what is kept


def chosen(frozen, tuned, keep="best", share=1.0):
    """Choose between phases with validation probabilities of the first class, which is the true one."""
    first, second = (np.array([[p, 1 - p] for p in values]) for values in (frozen, tuned))
    one, two = Frozen("frozen head", (), first), FineTuned(Network("tuned head", {"tuned": []}), (), second, share)
    run = Run(tiny_settings("w", keep=keep), Backbone("stub", "", {"plain": []}), Path(), Path(), None)
    return choose(one, two, np.zeros(len(first), int), run)


def test_the_lower_validation_loss_wins_and_not_the_accuracy():
    # More right answers, but a sure mistake.
    kept = chosen([0.6, 0.6, 0.6, 0.4], [0.6, 0.6, 0.6001, 0.001])
    assert (kept.comparison["kept"], kept.network) == ("frozen", Network("frozen head", {"plain": []}))
    assert chosen([0.7, 0.7], [0.7, 0.7]).comparison["kept"] == "frozen", "where both are equal"
    kept = chosen([0.51, 0.51, 0.51], [0.9, 0.9, 0.49])
    assert (kept.comparison["kept"], kept.network) == ("fine_tuned", Network("tuned head", {"tuned": []}))
    assert chosen([0.5], [0.9], share=0.25).comparison["kept"] == "mixed"
    assert (kept.comparison["gained"], kept.comparison["lost"], kept.comparison["p"]) == (0, 1, 1.0)


@pytest.mark.parametrize(("keep", "kept"), [("frozen", "frozen"), ("fine-tuned", "fine_tuned")])
def test_keep_overrides_and_says_so(keep, kept):
    for losses in (([0.9], [0.6]), ([0.6], [0.9])):
        comparison = chosen(*losses, keep=keep).comparison
        assert comparison["kept"] == kept
        assert comparison["why"].startswith(f"asked for with --keep {keep}; validation log-loss")


@pytest.mark.parametrize(
    ("limit", "low", "ends"), [(None, 0.1, True), (0.5, 0.5, True), (0.5, 0.49, False), (0.5, None, False)]
)
def test_the_gate_looks_at_the_lower_end(tmp_path, limit, low, ends):
    test = None if low is None else {"accuracy": {"low": low}}
    result = finish(tmp_path, make_metrics(test=test), tiny_settings("w", fail_under=limit))
    assert (result.gate is None) == ends
    if not ends:
        assert "the run is whole" in result.gate.hint


# --- whole runs


@pytest.fixture
def copied(tiny_run, tmp_path):
    """A finished run to change."""
    return Path(shutil.copytree(tiny_run.folder, tmp_path / "run"))


def test_an_existing_run_is_an_error_and_resume_prints_it(go, copied, tiny_run, tiny_photos, tiny):
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="exists already"):
        go(data=tiny_photos)
    assert go(data=tiny_photos, resume=True).metrics == tiny_run.metrics
    with pytest.raises(RunError, match="other settings: frozen_only"):
        go(data=tiny_photos, settings=tiny(frozen_only=True), resume=True)
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


def test_a_mistake_leaves_no_run_behind_and_the_same_name_can_be_used(go, photos, tiny, tmp_path, monkeypatch):
    """The run then has only the frozen phase and no test."""
    monkeypatch.setenv("PRONK_CACHE", str(tmp_path / "usual"))
    before, said = sorted((path, path.stat().st_mtime_ns) for path in photos.rglob("*")), []
    with pytest.raises(ModelError):
        go(settings=tiny_settings("gone.h5"))
    with pytest.raises(DataError):
        go(data=write_photos(tmp_path / "lonely", 1))
    with pytest.raises(SettingsError):
        go(cache_limit="much")
    with pytest.raises(SettingsError, match="no class is named 'alpaca'"):
        go(settings=tiny(rest_class="alpaca"))
    assert not (tmp_path / "run").exists()
    settings = tiny(frozen_only=True, test=0.0)
    result = go(settings=settings, cache=tmp_path / "named", on_progress=lambda *step: said.append(step))
    assert result.metrics.fine_tuned is None
    assert result.metrics.comparison == {
        "gained": 0, "lost": 0, "p": 1.0, "kept": "frozen", "why": "fine-tuning was left out", "share": 1.0,
    }  # fmt: skip
    assert {row["phase"] for row in read_csv(result.folder / "history.csv")} == {"frozen"}
    assert list(dict.fromkeys(stage for stage, _, _ in said)) == [
        "check", "compare", "extract", "head", "export", "evaluate",
    ]  # fmt: skip
    assert all(done <= total for _, done, total in said)
    assert (result.metrics.test, result.metrics.counts["test"]) == (None, 0)
    assert "No photos were set aside as a test" in (result.folder / "report.html").read_text()
    assert sorted((path, path.stat().st_mtime_ns) for path in photos.rglob("*")) == before, "photos are only read"
    assert sorted(path.name for path in (tmp_path / "named").iterdir()) == ["prefix", "rows", "scans", "verified"]
    assert not (tmp_path / "usual").exists()


def stop_at(wanted, at=1):
    def watch(stage, done, total):
        if stage == wanted and done >= at:
            raise KeyboardInterrupt

    return watch


def test_settings_replay_the_run_though_it_is_stopped_twice(go, photos, tiny_run):
    stored = read_settings(tiny_run.folder / "settings.toml")
    replay = functools.partial(go, settings=pronk.Settings(**stored), resume=True)
    first, last = photos / "cold" / "0.png", photos / "cold" / "1.png"
    with pytest.raises(KeyboardInterrupt):
        replay(on_progress=stop_at("fine_tune", 5))
    kept = first.read_bytes()
    first.write_bytes(last.read_bytes())
    with pytest.raises(RunError, match="not those that") as caught:
        replay()
    assert "start a new run" in caught.value.hint
    first.write_bytes(kept)
    with pytest.raises(KeyboardInterrupt):
        replay(on_progress=stop_at("evaluate", 3))
    result = replay()
    again, undisturbed = read_replayed(result.folder, tiny_run.folder)
    assert stored["features"] == undisturbed["metrics"]["chosen"]["features"] == "multi"
    assert again == undisturbed
    assert not (result.folder / ".work").exists()
    assert not (result.folder / ".lock").exists()


def test_photos_that_change_during_the_run_are_named_once(go, photos, tiny, tmp_path):
    """A class that appears meanwhile has no part in the run."""
    changed = []

    def watch(stage, done, total):
        if stage == "check" and not changed:
            write_photos(photos, 5, classes=("new",))
        if stage == "check" and done == total and not changed:
            (photos / "cold" / "1.png").unlink()
            draw_tiny(np.random.default_rng(8), "warm").save(photos / "warm" / "2.png")
            changed.append(1)

    # A seed of its own, so that views of these photos have to be drawn.
    limits = {"cache": tmp_path / "c", "cache_limit": "20KB"}
    result = go(settings=tiny(frozen_only=True, seed=5, rest_class="warm"), on_progress=watch, **limits)
    found = sorted((f.path, f.code) for f in result.findings if f.severity == "error")
    assert found == [("cold/1.png", "vanished"), ("warm/2.png", "changed")]
    assert result.metrics.classes == ["cold", "warm"]
    assert len(read_csv(result.folder / "split.csv")) == 26
    assert "cold/1.png" in (result.folder / "report.html").read_text()
    held = sum(path.stat().st_size for path in limits["cache"].rglob("*") if path.is_file())
    assert held > 20_000, "a run's own features stay"
    trim(limits["cache"], limit=20_000)
    assert sum(path.stat().st_size for path in limits["cache"].rglob("*") if path.is_file()) <= 20_000

    # It is a run with a class of all the rest, too: then no photo is unknown.
    bundle = Predictor.load(result.folder).bundle
    assert (bundle.rest_class, bundle.unknown, result.metrics.rest_class) == ("warm", None, "warm")
    assert "A photo of anything else belongs to “warm”" in (result.folder / "report.html").read_text()


def test_a_class_that_vanishes_meanwhile_is_an_error(go, photos, tmp_path, tiny):
    def watch(stage, done, total):
        if stage == "check" and done == total:
            shutil.rmtree(photos / "cold", ignore_errors=True)

    with pytest.raises(DataError, match="'cold'"):
        go(settings=tiny(seed=6), on_progress=watch, cache=tmp_path / "c")


def test_neither_run_nor_cache_lie_inside_the_photos(go, photos):
    with pytest.raises(RunError, match="among the photos"):
        go("tiny/run")
    with pytest.raises(RunError, match="among the photos"):
        go(cache=photos / "cache")
    listed = photos.parent / "listed.csv"
    listed.write_text(
        "path,label\n"
        + "".join(f"{photos.name}/{p.parent.name}/{p.name},{p.parent.name}\n" for p in photos.glob("*/*"))
    )
    with pytest.raises(RunError, match="among the photos"):
        go("tiny/warm/run", data=listed)
    assert sorted(path.name for path in photos.iterdir()) == ["cold", "warm"]


# --- disks that are full or read-only


def failing(number, code):
    """Let the n-th write of the run folder fail, as the system would say it.

    The pixels to be judged are left alone: where they cannot be kept, the photos are decoded once more.
    """
    count = 0
    replace = Path.replace

    def refuse(self, target):
        nonlocal count
        if "run" in Path(target).parts and "squares" not in Path(target).parts:
            count += 1
            if count == number:
                raise OSError(code, os.strerror(code))
        return replace(self, target)

    return refuse


CODES = [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS]


@pytest.mark.parametrize("step", [pytest.param(9, marks=pytest.mark.more), pytest.param(1, marks=pytest.mark.slow)])
def test_a_write_that_fails_is_reported_and_the_same_command_finishes(go, tiny_run, tmp_path, monkeypatch, step):
    """Writes of a run in turn: settings, split, checkpoints, model, golden photos, tables, report, metrics."""
    run, failures = tmp_path / "run", 0
    for number in range(1, 61, step):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", failing(number, CODES[number % 4]))
            try:
                go(resume=True)
                break
            except StorageError as error:
                failure = error
        failures += 1
        assert str(run) in str(failure)
        assert os.strerror(CODES[number % 4]) in str(failure)
        assert failure.hint
        assert not list(run.rglob("*.tmp"))
        assert not (run / "metrics.json").exists()
        for name in ("split.csv", "history.csv", "predictions.csv", "model/model.onnx"):
            assert not (run / name).exists() or (run / name).read_bytes()
        if failures % 5 == 0:  # from scratch now and then, so that early writes fail again
            shutil.rmtree(run, ignore_errors=True)
    assert failures >= 15 / step
    result = go(resume=True)
    assert read_run(result.folder) == read_run(tiny_run.folder)
    files = [sorted(path.relative_to(folder) for path in folder.rglob("*")) for folder in (run, tiny_run.folder)]
    assert files[0] == files[1]


def test_a_cache_that_cannot_be_written_is_reported(go, tmp_path, tiny):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"):
        go(settings=tiny(), cache=tmp_path / "file")


# --- the same again


@pytest.mark.more
def test_same_seed_same_run_whatever_hashes_and_folders_do(tmp_path, tiny_run, tiny_photos, tiny_weights):
    """A whole process with other hashes and another order of folders, and a cache of its own."""
    code = (
        "import os, random, sys; import pronk; from pathlib import Path\n"
        "scandir, rng = os.scandir, random.Random(1)\n"
        "class Shuffled:\n"
        "    def __init__(self, path='.'):\n"
        "        with scandir(path) as entries: self.found = list(entries)\n"
        "        rng.shuffle(self.found)\n"
        "    __iter__ = __enter__ = lambda self: self\n"
        "    __exit__ = lambda self, *error: None\n"
        "    def close(self): pass\n"
        "    def __next__(self):\n"
        "        if not self.found: raise StopIteration\n"
        "        return self.found.pop()\n"
        "os.scandir = Shuffled\n"
        "settings = pronk.Settings(**eval(sys.argv[2]))\n"
        "pronk.train(sys.argv[1], out=sys.argv[3], settings=settings, cache='cache')\n"
    )
    values = {name: value for name, value in dataclasses.asdict(tiny_settings(tiny_weights)).items() if name != "data"}
    command = [sys.executable, "-c", code, str(tiny_photos), repr(values), str(tmp_path / "run")]
    subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONHASHSEED": "1"}, check=True, capture_output=True)
    assert read_run(tmp_path / "run") == read_run(tiny_run.folder)


@pytest.mark.more
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_other_backends_train_too(go, tmp_path, tiny_run, backend, tiny):
    """Without dropout, whose random numbers are the backend's own, they come to the same."""
    pytest.importorskip(backend)
    reference = go("reference", settings=tiny(dropout=0.0))
    done = run_pronk(
        "train", "--config", reference.folder / "settings.toml", "--out", tmp_path / "run",
        "--cache", tiny_run.folder.parent / "cache",
        env={"KERAS_BACKEND": backend},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["frozen"] == reference.metrics.frozen, "phase 1 does not depend on the backend"
    loss = reference.metrics.fine_tuned["val"]["loss"]
    assert metrics["fine_tuned"]["val"]["loss"] == pytest.approx(loss, rel=1e-2)
    assert all(check["ok"] for check in Predictor.load(tmp_path / "run").verify())


@pytest.mark.slow
def test_five_thousand_photos_stay_below_two_gibibytes(tmp_path, tiny_weights, record_property):
    rng = np.random.default_rng(0)
    for label in ("cold", "warm"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(2500):
            draw_tiny(rng, label, size=(320, 240)).save(tmp_path / "photos" / label / f"{number}.jpg")
    settings = ("--weights", tiny_weights, "--epochs", "2", "--cache", tmp_path / "cache", "--json")
    done = run_pronk("train", tmp_path / "photos", "--out", tmp_path / "run", *settings, timeout=7200)
    assert done.returncode == 0, done.stderr.decode()
    record_property("MiB", json.loads(done.stdout)["peak_memory_mb"])
    assert json.loads(done.stdout)["peak_memory_mb"] <= 2048
