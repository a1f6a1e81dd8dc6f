"""What phone libraries and microcontrollers take: .tflite files by rules of theirs."""

import importlib.util
import io
import json
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from helpers.commands import ok, run_inside
from helpers.sharing import make_once
from helpers.training import tiny_settings
from pronk.errors import ModelError
from pronk.model.bundle import open_bundle, open_runtime
from pronk.model.predictor import Predictor
from pronk.photos.decoding import load_pixels
from pronk.training import micro
from pronk.training.export import export_model
from pronk.training.litert import run_tflite
from pronk.training.micro import measure_needs, read_quantisation, say_size, write_program
from pronk.training.recipe import train

pytestmark = pytest.mark.more
pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")  # an extra, which `make test` installs
MEDIAPIPE = """
import json, sys
import mediapipe
import numpy as np
from mediapipe.tasks import python as tasks
from mediapipe.tasks.python import vision
asked = vision.ImageClassifierOptions(base_options=tasks.BaseOptions(model_asset_path=sys.argv[1]))
with vision.ImageClassifier.create_from_options(asked) as classifier:
    for photo in np.load(sys.argv[2]):
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=photo)
        (told,) = classifier.classify(image).classifications
        print(json.dumps({one.category_name: one.score for one in told.categories}))
"""
# As much of the interpreter as the example names, so that a compiler can read it.
STUBS = {
    "tensorflow/lite/micro/micro_interpreter.h": """
        #pragma once
        #include <cstddef>
        #include <cstdint>
        enum TfLiteStatus { kTfLiteOk };
        struct TfLiteTensor { union { int8_t* int8; } data; };
        namespace tflite {
        struct Model;
        struct MicroOpResolver {};
        struct MicroInterpreter {
          MicroInterpreter(const Model*, const MicroOpResolver&, uint8_t*, size_t);
          TfLiteStatus AllocateTensors(), Invoke();
          TfLiteTensor *input(size_t), *output(size_t);
        };
        }""",
    "tensorflow/lite/micro/micro_mutable_op_resolver.h": """
        #pragma once
        #include "tensorflow/lite/micro/micro_interpreter.h"
        namespace tflite {
        template <unsigned n> struct MicroMutableOpResolver : MicroOpResolver {
          TfLiteStatus AddAdd(), AddConv2D(), AddDepthwiseConv2D(), AddFullyConnected(), AddMean(), AddReshape(),
              AddSoftmax(), AddPad(), AddQuantize(), AddConcatenation();
        };
        }""",
    "tensorflow/lite/schema/schema_generated.h": """
        #pragma once
        namespace tflite { struct Model; const Model* GetModel(const void*); }""",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_photos, tiny_weights):
    def make(base):
        settings = tiny_settings(tiny_weights, frozen_only=True, features="multi")
        return train(tiny_photos, out=base / "run", settings=settings, cache=base / "cache").folder

    return make_once(tmp_path_factory, "phones-run", make)


@pytest.fixture(scope="module")
def phone(run, tmp_path_factory):
    return make_once(tmp_path_factory, "phone", lambda base: export_model(run, "litert", out=base / "litert").folder)


@pytest.fixture(scope="module")
def board(run, tmp_path_factory):

    def make(base):
        # A random network has answers near one half, which rounding turns over.
        done = run_inside("export", run, "--to", "micro", "--out", base / "micro", "--min-agreement", "0")
        assert ok(done)
        assert b"KB of flash" in done.stderr
        return base / "micro"

    return make_once(tmp_path_factory, "board", make)


@pytest.fixture(scope="module")
def squares(tiny_photos):
    return [load_pixels(path, size=32) for path in sorted(tiny_photos.rglob("*.png"))[::4]]


# --- phones


def test_the_file_for_phones_has_one_output_and_the_labels(phone, squares):
    data = (phone / "model.tflite").read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.read("labels.txt").decode().splitlines() == ["cold", "warm"]
    assert b"TFLITE_METADATA" in data
    assert b"M001" in data
    expected = np.concatenate([open_runtime(open_bundle(phone)).run(one[None]).probabilities for one in squares])
    np.testing.assert_allclose(run_tflite(data, squares), expected, atol=1e-5)


def test_pronk_opens_the_other_file_which_has_all(phone, run, squares):
    assert open_bundle(phone).opened_path.name == "model-with-features.tflite"
    for one in squares[:2]:
        told, wanted = (open_runtime(open_bundle(model)).run(one[None], heat=True) for model in (phone, run))
        for name in ("probabilities", "features", "heat"):
            np.testing.assert_allclose(getattr(told, name), getattr(wanted, name), atol=1e-3, err_msg=name)


@pytest.mark.skipif(importlib.util.find_spec("mediapipe") is None, reason="MediaPipe is not installed")
def test_mediapipe_names_the_classes(phone, squares, tmp_path):
    np.save(tmp_path / "photos.npy", np.stack(squares))
    command = [sys.executable, "-c", MEDIAPIPE, str(phone / "model.tflite"), str(tmp_path / "photos.npy")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    runtime = open_runtime(open_bundle(phone))
    for line, one in zip(told, squares, strict=True):
        (cold, warm), scores = runtime.run(one[None]).probabilities[0], json.loads(line)
        assert abs(scores["cold"] - cold) < 1e-3
        assert abs(scores["warm"] - warm) < 1e-3


# --- microcontrollers


def test_a_board_gets_integers_alone(board, squares):
    bundle = open_bundle(board)
    needs = measure_needs((board / "model.tflite").read_bytes())
    assert set(needs.operators) <= set(micro.OPERATORS.values())
    assert needs.flash_bytes == (board / "model.tflite").stat().st_size
    assert 32 * 32 * 3 < needs.arena_bytes < 10**6
    outputs = open_runtime(bundle).run(squares[0][None])
    assert outputs.features.shape == (1, 0)
    assert outputs.probabilities.sum() == pytest.approx(1, abs=0.02)
    assert bundle.unknown is None, "it has no features to measure a distance by"
    assert all(check["ok"] for check in Predictor.load(board).verify())
    with pytest.raises(ModelError, match="no heat maps"):
        open_runtime(bundle).run(squares[0][None], heat=True)


def test_the_numbers_beside_it_say_how_pixels_go_in(board, run, squares):
    facts = json.loads((board / "micro.json").read_text())
    assert facts["input"]["scale"] == pytest.approx(1 / 127.5, rel=0.01)
    assert facts["input"]["zero_point"] in (-1, 0), "so that a pixel less 128 is its number"
    assert facts["output"] == {"scale": 1 / 256, "zero_point": -128}
    assert (facts["input"], facts["output"]) == read_quantisation((board / "model.tflite").read_bytes())
    wanted = np.concatenate([open_runtime(open_bundle(run)).run(one[None]).probabilities for one in squares])
    told = np.concatenate([open_runtime(open_bundle(board)).run(one[None]).probabilities for one in squares])
    assert np.abs(told - wanted).mean() < 0.1


def test_the_array_is_the_model(board):
    text = (board / "model_data.cc").read_text()
    numbers = text.partition("{")[2].partition("}")[0].replace(",", " ").split()
    assert bytes(int(number, 16) for number in numbers) == (board / "model.tflite").read_bytes()
    assert f"model_data_size = {len(numbers)};" in text


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_a_compiler_takes_the_example(board, tmp_path):
    for name, text in STUBS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for source in ("main.cc", "model_data.cc"):
        command = ["g++", "-std=c++17", "-fsyntax-only", "-Wall", "-Werror", "-I", str(tmp_path), str(board / source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert len((board / "main.cc").read_text().splitlines()) <= 40


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_labels_of_any_script_compile(board, tmp_path):
    names = ("ñandú", "日本", "\U0001f999", 'a"b\\c', "%d\n")
    source = write_program((board / "model.tflite").read_bytes(), names, size=32)["main.cc"].decode()
    line = next(line for line in source.splitlines() if "kLabels" in line)
    (tmp_path / "labels.cc").write_text(f"constexpr int kClasses = 5;\n{line}\nint main() {{ return !kLabels[4]; }}\n")
    command = ["g++", "-std=c++17", "-fsyntax-only", "-Wall", "-Werror", str(tmp_path / "labels.cc")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(importlib.util.find_spec("tflite_micro") is None, reason="tflite-micro is not installed")
def test_the_interpreter_takes_about_what_is_estimated(board, monkeypatch):
    data = (board / "model.tflite").read_bytes()
    measured = measure_needs(data)
    monkeypatch.setattr(micro, "find_spec", lambda name: None)
    assert measured.is_measured
    assert measure_needs(data).arena_bytes == pytest.approx(measured.arena_bytes, rel=0.1)


def test_floats_are_refused(phone):
    with pytest.raises(ModelError, match=r"no integers|operators"):
        write_program((phone / "model.tflite").read_bytes(), ("cold", "warm"), size=32)


@pytest.mark.parametrize(
    ("flash", "arena", "is_large"), [(10**5, 10**5, False), (10**7, 10**5, True), (10**5, 10**7, True)]
)
def test_a_model_that_is_too_large_for_most_boards_is_told_so(flash, arena, is_large):
    told = say_size({"flash_bytes": flash, "arena_bytes": arena, "arena_is": "an estimate"})
    assert ("--alpha 0.35 --image-size 96" in told) == is_large
