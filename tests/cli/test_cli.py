import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from helpers.commands import HOSTILE, fails, ok, run_inside
from helpers.training import change_answers, hear_interrupts, run_pronk, tiny_settings
from pronk.analysis.metrics import METRICS
from pronk.cli import cli, console
from pronk.cli.settings import make_settings
from pronk.config import Settings, to_toml
from pronk.training.usage import tree_memory_mb

# --- everywhere

COMMANDS = (
    "demo", "check", "audit", "curve", "train", "evaluate", "predict", "undo", "explain", "serve", "export", "bench",
    "compare", "verify", "cache",
)  # fmt: skip


def test_the_version_and_the_commands():
    assert ok(run_pronk("--version")).startswith("pronk, version ")
    text = ok(run_inside("--help"))
    for command in COMMANDS:
        assert f"\n  {command} " in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    text = CliRunner().invoke(cli, [command, "--help"]).output
    assert "Example:" in text
    assert "--quiet" in text
    assert "--debug" in text
    for line in text.splitlines():
        assert len(line) <= 80


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("train", "out config split val test group-by weights alpha image-size fit views fine-tune-from epochs keep "
         "learning-rate frozen-only class-weights fail-under seed resume cache cache-limit golden json progress"),
        ("predict", "top format out unknown sets sort-into move copy strict engine address"),
    ],
)  # fmt: skip
def test_every_option_of_the_contract_is_there(command, options):
    known = {name for option in cli.commands[command].params for name in option.opts}
    assert {f"--{name}" for name in options.split()} <= known


@pytest.mark.parametrize(
    "arguments",
    [["nothing"], ["train"], ["train", "photos", "--views", "many"], ["predict"], ["predict", "model"], ["verify"],
     ["train", "photos", "--fit", "stretch"], ["--nothing"], ["predict", "m", "p", "--top", "0"],
     ["explain", "m", "p"], ["explain", "m", "--out", "maps"]],
)  # fmt: skip
def test_wrong_usage_is_2(arguments):
    done = run_inside(*arguments)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""


def test_debug_shows_where_it_went_wrong(tmp_path):
    done = run_inside("--debug", "verify", tmp_path)
    assert done.returncode == 1
    assert b"Traceback" in done.stderr
    assert b"error: no model at" in done.stderr
    assert b"Traceback" in run_inside("verify", tmp_path, "--debug").stderr


def test_the_command_line_is_what_it_is_given(monkeypatch, tmp_path):
    """Not what the interpreter was started with."""
    monkeypatch.setattr(sys, "argv", ["pytest", "--debug", "--quiet", "train"])
    assert "no model at" in fails(run_inside("verify", tmp_path))
    quiet = []
    monkeypatch.setattr(
        "pronk.storage.cache.default_cache", lambda: quiet.append(console.has_flag("quiet")) or tmp_path
    )
    for words in (["cache"], ["--quiet", "cache"], ["cache", "--quiet"]):
        ok(run_inside(*words))
    assert quiet == [False, True, True]
    monkeypatch.setattr("pronk.storage.cache.default_cache", interrupt)
    done = run_inside("cache")
    assert (done.returncode, done.stderr.strip()) == (130, b"stopped")


def interrupt():
    raise KeyboardInterrupt


def test_a_fault_of_ours_is_no_wall_of_text(tmp_path, monkeypatch):
    def broken(model):
        raise RuntimeError("broken")

    monkeypatch.setattr("pronk.model.bundle.open_bundle", broken)
    text = fails(run_inside("verify", tmp_path))
    assert "unexpected RuntimeError: broken" in text
    assert "--debug" in text


def test_output_that_nobody_reads_is_no_error(whole_bundle, photos):
    command = [sys.executable, "-m", "pronk", "predict", str(whole_bundle), *[str(photos)] * 30, "--format", "jsonl"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        stderr = process.stderr.read()
    assert b"Traceback" not in stderr
    assert b"error" not in stderr


# --- predict


def predicted(bundle, *arguments, **options):
    return json.loads(ok(run_inside("predict", bundle, *arguments, "--format", "json", **options)))


def test_predict_prints_records_and_a_table(whole_bundle, photos):
    records = predicted(whole_bundle, photos)
    assert [record["path"] for record in records] == sorted(map(str, photos.rglob("*.png")))
    assert [len(predicted(whole_bundle, photos, "--top", top)[0]["scores"]) for top in ("1", "9")] == [1, 2]
    table = ok(run_inside("predict", whole_bundle, photos / "cold" / "0.png"))
    assert table.startswith(str(photos / "cold" / "0.png"))
    assert "%" in table


def test_predict_takes_standard_input_also_names_that_are_not_utf8(whole_bundle, photos):
    names = [os.fsencode(photos) + b"/caf\xe9.png", os.fsencode(photos / "warm" / "3.png")]
    shutil.copy(photos / "cold" / "0.png", os.fsdecode(names[0]))
    records = predicted(whole_bundle, "-", stdin=b"\n".join(names) + b"\n")
    assert [(os.fsencode(record["path"]), record["error"]) for record in records] == [(name, None) for name in names]
    assert "no photo at '-'" in fails(run_inside("predict", whole_bundle, "-"))


def test_predict_goes_on_past_bad_files(whole_bundle, photos):
    (photos / "cold" / "0.png").write_bytes(b"")
    records = predicted(whole_bundle, photos)
    assert [record["error"] and record["error"]["code"] for record in records] == ["zero_byte", *[None] * 11]
    done = run_inside("predict", whole_bundle, photos, "--strict", "--format", "jsonl")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 12
    done = run_inside("predict", whole_bundle, photos / "cold" / "0.png", "--format", "json")
    assert done.returncode == 1
    assert json.loads(done.stdout)[0]["label"] is None
    assert b"none of 1 photos can be used" in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("command", [("check",), ("check", "--json"), ("predict", "MODEL"), ("explain", "MODEL")])
def test_output_in_a_narrow_encoding_loses_no_row(whole_bundle, photos, tmp_path, encoding, command):
    for name in ("名前.png", "e\u0301.png", os.fsdecode(b"\xff.png")):
        shutil.copy(photos / "cold" / "0.png", photos / "cold" / name)
    words = [whole_bundle if word == "MODEL" else word for word in command]
    places = [photos] if command[0] != "explain" else [photos / "cold" / "名前.png", "--out", tmp_path / "maps"]
    done = run_pronk(*words, *places, env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"})
    assert b"unexpected" not in done.stderr
    assert b"Traceback" not in done.stderr
    if command[0] != "check":
        assert done.returncode == 0


def test_hostile_names_are_no_fault_and_nothing_is_sent_anywhere(whole_bundle, photos, tmp_path):
    for name in HOSTILE:
        shutil.copy(photos / "cold" / "0.png", photos / os.fsdecode(name))
    (tmp_path / "home").mkdir()
    env = os.environ | {"LC_ALL": "C.UTF-8", "HOME": str(tmp_path / "home")}
    assert b"Traceback" not in run_pronk("predict", whole_bundle, photos, env=env).stderr
    # ONNX Runtime keeps an identifier of the device there, unless its telemetry is switched off.
    assert not list((tmp_path / "home").rglob("*onnxruntime*"))


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux tells memory by process tree")
def test_one_photo_takes_little_memory(whole_bundle, tmp_path, record_property):
    from PIL import Image

    Image.effect_noise((4000, 3000), 60).convert("RGB").save(tmp_path / "large.jpg", quality=85)
    command = [sys.executable, "-m", "pronk", "predict", str(whole_bundle), str(tmp_path / "large.jpg")]
    peak = 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, tree_memory_mb(process.pid))
            time.sleep(0.005)
    assert process.returncode == 0
    record_property("MiB", peak)
    assert 10 < peak <= 300


# --- explain


def test_explain_names_its_pictures(whole_bundle, photos, tmp_path):
    out = tmp_path / "maps"
    done = run_inside("explain", whole_bundle, photos / "warm" / "2.png", photos / "cold" / "0.png", "--out", out)
    assert ok(done).splitlines() == [str(out / "2.png"), str(out / "0.png")]
    assert "2 of 2" in done.stderr.decode()
    arguments = ("explain", whole_bundle, f"{photos}/cold/*.png", "--out", out, "--label")
    records = json.loads(ok(run_inside(*arguments, "warm", "--json")))
    assert [record["label"] for record in records] == ["warm"] * 6
    assert records[0]["image"] == str(out / "0-2.png"), "nothing is overwritten"
    text = fails(run_inside(*arguments, "hot"), code=2)
    assert "error: the model has no class 'hot'" in text
    assert "hint: its classes are cold, warm" in text


def test_explain_goes_on_past_bad_files(whole_bundle, photos, tmp_path):
    bad, out = photos / "cold" / "0.png", tmp_path / "maps"
    bad.write_bytes(b"")
    listed = f"{bad}\n{photos / 'cold' / '1.png'}\n".encode()
    done = run_inside("explain", whole_bundle, "-", "--out", out, stdin=listed)
    assert ok(done) == f"{out / '1.png'}\n"
    assert f"{bad}  error zero_byte: " in done.stderr.decode()
    done = run_inside("explain", whole_bundle, bad, "--out", out, "--json", "--quiet")
    assert f"{bad}  error zero_byte: " in fails(done)
    assert "none of 1 photos can be used" in done.stderr.decode()
    assert [record["error"]["code"] for record in json.loads(done.stdout)] == ["zero_byte"]
    assert len(list(out.iterdir())) == 2


def test_explain_writes_nothing_among_the_photos(whole_bundle, photos):
    for out in (photos, photos / "maps", photos / "cold" / "maps"):
        text = fails(run_inside("explain", whole_bundle, photos, "--out", out), code=2)
        assert "--out must lie outside of the folder of photos" in text
        assert not list(photos.rglob("maps"))


# --- evaluate, verify, check, cache


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-"])
def test_closed_streams_are_no_fault(whole_bundle, closed):
    command = f"{shlex.quote(sys.executable)} -m pronk verify {shlex.quote(str(whole_bundle))} {closed}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr


def test_evaluate_tells_the_numbers(whole_bundle, photos, tmp_path):
    text = ok(run_inside("evaluate", whole_bundle, photos, "--report", tmp_path / "report.html"))
    assert "% of 12 photos right (95 % interval" in text
    assert len(text.splitlines()) == 1
    record = json.loads(ok(run_inside("evaluate", whole_bundle, photos, "--json")))
    assert list(record) == ["accuracy", *(metric.name for metric in METRICS), "per_class", "confusion", "coverage"]
    assert "<html" in (tmp_path / "report.html").read_text()


def test_verify_compares(whole_bundle, bundle_copy):
    assert ok(run_inside("verify", whole_bundle)).startswith("ok: 10 files whole, 8 golden photos")
    record = json.loads(ok(run_inside("verify", whole_bundle, "--json")))
    assert list(record) == ["ok", "max_difference", "checks"]
    assert record["ok"] is True
    assert len(record["checks"]) == 8
    expected = bundle_copy / "golden" / "expected.json"
    altered = json.dumps(json.loads(expected.read_text()) | {"5.jpg": [1.0, 0.0]})
    expected.write_text(altered)
    assert "golden/expected.json was altered" in fails(run_inside("verify", bundle_copy))
    change_answers(bundle_copy, altered)
    done = run_inside("verify", bundle_copy, "--json")
    assert "golden/5.jpg" in fails(done)
    assert json.loads(done.stdout)["ok"] is False


def test_check_has_exit_codes_for_machines(photos):
    text = ok(run_inside("check", photos))
    assert "cold: 6 usable photos" in text
    (photos / "cold" / "0.png").write_bytes(b"")
    done = run_inside("check", photos, "--json")
    assert done.returncode == 1
    record = json.loads(done.stdout)
    assert (record["files"], record["classes"]) == (12, {"cold": 5, "warm": 6})
    fails(run_inside("check", photos / "gone"))


def test_cache_tells_its_size_and_clears(tmp_path):
    (tmp_path / "rows" / "a").mkdir(parents=True)
    (tmp_path / "rows" / "a" / "b.row").write_bytes(bytes(1_500_000))
    (tmp_path / "mine.txt").touch()
    assert ok(run_inside("cache", env={"PRONK_CACHE": str(tmp_path)})) == f"{tmp_path}: 1 file, 1.5 MB\n"
    assert ok(run_inside("cache", "--clear", "--cache", tmp_path)) == f"{tmp_path}: 0 files, 0.0 MB\n"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


# --- train


def test_what_was_typed_wins_over_a_file_and_a_file_over_defaults(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text(to_toml(Settings(weights="offline", seed=3)))
    assert make_settings(file, {}) == Settings(weights="offline", seed=3)
    assert make_settings(file, {"seed": 5, "views": None}) == Settings(weights="offline", seed=5)
    assert make_settings(None, {"weights": "offline", "views": 1}) == Settings(weights="offline").replace(views=1)
    assert make_settings(None, {"weights": "imagenet"}) == Settings()


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (["--image-size", "100"], "--image-size must be a multiple of 32. Got 100", 2),
        (["--weights", "gone.h5"], "no weights at", 1),
        (["--cache-limit", "lots"], "--cache-limit must be a size", 2),
        (["--config", "gone.toml"], "cannot read gone.toml", 2),
        (["--split", "gone.csv"], "gone.csv", 1),
        (["--fail-under", "nan"], "--fail-under must be", 2),
    ],
)
def test_mistakes_are_named_before_anything_is_made(photos, tmp_path, arguments, says, code):
    done = run_inside("train", photos, "--out", tmp_path / "run", "--weights", "offline", *arguments)
    assert says in fails(done, code=code)
    assert not (tmp_path / "run").exists()


def train_arguments(run, photos, weights, *more):
    settings = tiny_settings(weights)
    arguments = (
        "train", photos, "--out", run, "--weights", weights, "--image-size", settings.image_size, "--views", 2,
        "--epochs", 2, "--learning-rate", 0.001, "--fine-tune-from", settings.fine_tune_from, "--golden", "drawn",
        *more,
    )  # fmt: skip
    return list(map(str, arguments))


def test_train_from_the_shell(tiny_photos, tiny_weights, tmp_path):
    run = tmp_path / "run"
    arguments = train_arguments(run, tiny_photos, tiny_weights, "--fail-under", "0.99", "--progress", "json")
    done = run_inside(*arguments)
    assert done.returncode == 1, "the gate is closed"
    assert done.stdout.decode() == f"{run}\n"
    text = done.stderr.decode()
    words = ("below --fail-under 0.99", "kept model, test", "95 % interval", "Fine-tuning")
    assert all(said in text for said in (*words, *(metric.note for metric in METRICS)))
    assert f"pronk predict {run}" in " ".join(text.split())
    assert "oneDNN" not in text
    steps = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert all(list(step) == ["stage", "done", "total"] for step in steps)
    last = {step["stage"]: step for step in steps}
    assert list(last) == ["check", "compare", "extract", "head", "fine_tune", "export", "evaluate"]
    assert all(step["done"] == step["total"] > 0 for step in last.values())
    again = run_inside(*arguments, "--resume", "--json")
    assert again.returncode == 1
    assert json.loads(again.stdout) == json.loads((run / "metrics.json").read_text())
    assert fails(run_inside(*arguments)).startswith(f"error: {run} exists already"), "messages are those of ever"
    assert "other settings: seed" in fails(run_inside(*arguments, "--resume", "--seed", "7"))
    assert ok(run_inside("predict", run, tiny_photos / "warm" / "0.png"))


def test_progress_for_programs_is_a_few_lines_a_second(monkeypatch):
    now, out = [100.0], io.StringIO()
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.show_progress(Console(file=out, quiet=True), form="json") as on_progress:
        for done in range(1001):
            now[0] += 0.001
            on_progress("check", done, 1000)
            on_progress("extract", done, 0)
        on_progress("check", 1000, 1000)
    steps = [json.loads(line) for line in out.getvalue().splitlines()]
    checked = [step["done"] for step in steps if step["stage"] == "check"]
    assert checked[0] == 0
    assert checked[-1] == 1000
    assert checked.count(1000) == 1
    assert 4 <= len(checked) <= 7
    assert 4 <= len(steps) - len(checked) <= 6


@pytest.mark.parametrize("stage", ["check", pytest.param("fine_tune", marks=pytest.mark.more)])
def test_ctrl_c_says_how_to_go_on(tiny_photos, tiny_weights, tmp_path, stage):
    options = ("--cache", tmp_path / "cache", "--epochs", 1000)  # no machine is done before it is stopped
    arguments = train_arguments(tmp_path / "run", tiny_photos, tiny_weights, *options, "--progress", "json")
    command = [sys.executable, "-m", "pronk", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, start_new_session=True, preexec_fn=hear_interrupts) as process:
        while (line := process.stderr.readline()) and f'"stage": "{stage}"'.encode() not in line:
            pass
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr.decode()
    assert stdout == b""
    assert "stopped; the same command with --resume goes on" in stderr.decode()
    assert b"Traceback" not in stderr
    assert not (tmp_path / "run" / ".lock").exists()


def test_an_error_that_ctrl_c_became_inside_an_import_is_still_an_interrupt():
    """Extension modules report an interrupt as an ImportError; a process of its own, since `main` ends it."""
    script = """
import os, signal
from pronk import cli
def broken(*arguments, **options):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise ImportError("initialization failed") from None
cli.cli.main = broken
signal.signal(signal.SIGINT, signal.default_int_handler)
cli.main(["train", "photos"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 130, done.stderr
    assert done.stderr == "stopped; the same command with --resume goes on\n"
