"""Predict with a bundle of the tests where nothing but the base of pronk is installed, and print what it takes."""

import importlib.util
import json
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

MOST_MB = 220  # onnxruntime, numpy and pillow take 174 of them
FRAMEWORKS = ("keras", "tensorflow", "torch", "jax")

fixtures = Path(__file__).resolve().parents[1] / "tests" / "fixtures"
with tempfile.TemporaryDirectory() as folder:
    with zipfile.ZipFile(fixtures / "bundle-format-2.zip") as archive:
        archive.extractall(folder)
    (model,) = {path.parent for path in Path(folder).rglob("model.onnx") if path.parent.name == "model"}
    photos = sorted((model / "golden").glob("*.jpg"))
    command = [sys.executable, "-m", "pronk", "predict", str(model), *map(str, photos), "--format", "json"]
    answers = json.loads(subprocess.run(command, check=True, capture_output=True, cwd=folder).stdout)
assert len(answers) == len(photos) > 0, answers
assert all(answer["error"] is None and answer["label"] for answer in answers), answers
there = [name for name in FRAMEWORKS if importlib.util.find_spec(name)]
assert not there, f"not a base install: {there}"
files = (path for path in Path(sysconfig.get_path("purelib")).rglob("*") if path.is_file())
own = (path for path in files if not {"pip", "setuptools", "wheel"} & set(path.parts))
size = sum(path.stat().st_size for path in own) / 1e6
print(f"{len(answers)} photos predicted; the packages take {size:.0f} MB")
sys.exit(0 if size <= MOST_MB else f"more than {MOST_MB} MB")
