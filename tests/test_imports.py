import os
import pkgutil
import subprocess
import sys
import zipfile

import pytest

import pronk
from helpers import FIXTURES, TESTS
from helpers.interpreters import FRAMEWORKS, TRAINING_ONLY, after_commands, modules_after
from helpers.training import write_photos

HTTP = {"fastapi", "starlette", "uvicorn", "httptools", "pydantic", "prometheus_client", "python_multipart"}


def test_importing_pronk_imports_nothing_else_and_settings_need_nothing_else():
    found = modules_after("import pronk; pronk.Settings(views=2)")
    assert not found & (TRAINING_ONLY | {"numpy", "PIL", "onnxruntime", "click", "rich", "jinja2", "matplotlib"})


def test_help_imports_little():
    found = after_commands(["--help"], ["export", "--help"], ["train", "--help"], ["serve", "--help"])
    assert not found & (TRAINING_ONLY | HTTP | {"numpy", "PIL", "onnxruntime", "matplotlib"})


def test_the_command_offers_what_can_be_converted():
    from pronk.cli.export import EXPORTS
    from pronk.training.conversions import CONVERSIONS

    assert tuple(CONVERSIONS) == EXPORTS


@pytest.mark.parametrize("export", ["onnx-int8", "litert"])
def test_using_an_export_reaches_no_framework(export, tmp_path):
    if export == "litert":
        pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    with zipfile.ZipFile(FIXTURES / "bundle-format-1.zip") as archive:
        archive.extractall(tmp_path)
    photo = tmp_path / "model" / "golden" / "1.jpg"
    found = after_commands(["predict", tmp_path / "exports" / export, photo])
    assert not found & (TRAINING_ONLY | {"matplotlib"})


def test_using_a_model_reaches_no_framework(whole_bundle, tmp_path):
    photos, review = write_photos(tmp_path / "photos", 3), tmp_path / "review.csv"
    review.write_text("path,digest,given,action,label\n")
    found = after_commands(
        ["check", photos],
        ["cache"],
        ["verify", whole_bundle],
        ["predict", whole_bundle, photos],
        ["evaluate", whole_bundle, photos, "--json"],
        ["explain", whole_bundle, photos, "--out", tmp_path / "maps"],
        ["audit", photos, "--apply", review, "--out", tmp_path / "list.csv"],
    )
    assert not found & (TRAINING_ONLY | HTTP | {"matplotlib"})


def test_serving_a_model_reaches_no_framework(served_model):
    """Also after predictions of every kind, and after every page was looked at."""
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    code = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from pathlib import Path
import pronk.server.process, pronk.server.protocol
from helpers.asgi import serve_inside
with serve_inside(Path(sys.argv[1])) as server:
    photo = (Path(sys.argv[1]) / "golden" / "1.jpg").read_bytes()
    for path in ("/", "/docs", "/openapi.json", "/v1/model", "/metrics", "/v1/teach"):
        server.get(path)
    for path in ("/v1/predict", "/v1/predict?explain=true", "/v1/model/reload"):
        assert server.post(path, content=photo).status_code == 200
"""
    found = modules_after(code, served_model)
    assert found >= HTTP
    assert not found & (TRAINING_ONLY | {"matplotlib"})


def test_the_command_to_train_imports_no_framework_to_say_no(tmp_path):
    code = "import sys, pronk\ntry: pronk.train('gone', out='run')\nexcept pronk.PronkError: pass"
    assert not modules_after(code) & FRAMEWORKS


def test_all_names_what_can_be_imported():
    assert pronk.__all__ == sorted(pronk.__all__)
    assert dir(pronk) == pronk.__all__
    for name in pronk.__all__:
        assert getattr(pronk, name).__module__.startswith("pronk.")
        assert getattr(pronk, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing"):
        _ = pronk.nothing
    assert not {module.name for module in pkgutil.iter_modules(pronk.__path__)} & set(pronk.__all__)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("raise ModuleNotFoundError('no h5py', name='h5py')",
         'MissingExtra: pronk.train needs packages that are not installed | pip install "pronk[train]"'),
        ("raise ModuleNotFoundError('no h5py.defs', name='h5py.defs')", "ModuleNotFoundError: no h5py.defs | "),
        ("raise ImportError('libhdf5.so is too old')", "ImportError: libhdf5.so is too old | "),
    ],
)  # fmt: skip
def test_only_what_is_not_there_is_called_missing(tmp_path, broken, says):
    (tmp_path / "h5py.py").write_text(broken)
    code = """
import pronk
try: pronk.train
except ImportError as error: print(f"{type(error).__name__}: {error} | ")
except pronk.PronkError as error: print(f"{type(error).__name__}: {error} | {error.hint}")
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout == says + "\n"


def test_importing_changes_nothing():
    """No environment variable, no logger of others, no search path: also where everything that serves is imported."""
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    code = """
import logging, os, sys
import python_multipart
before = dict(os.environ), sys.path[:], logging.getLogger("python_multipart").level
import pronk.server.process, pronk.model.bundle, pronk.cli
assert before == (dict(os.environ), sys.path[:], logging.getLogger("python_multipart").level)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_imports_nothing_from_the_current_folder(whole_bundle, tmp_path):
    for name in ("queue", "random", "signal", "socket", "tensorflow", "PIL", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('from the current folder')")
    done = subprocess.run(
        [sys.executable, "-m", "pronk", "verify", whole_bundle], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
