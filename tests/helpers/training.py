"""Small networks, photos and runs that the tests of the training half share."""

import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from helpers.sharing import make_once
from pronk.analysis.head import Head
from pronk.backbone.architecture import Backbone
from pronk.backbone.onnx_graphs import write_model
from pronk.backbone.weights import random_backbone
from pronk.config import Settings
from pronk.model.bundle import golden_photo, write_bundle
from pronk.model.formats.runtimes import OnnxRuntime
from pronk.photos.decoding import load_pixels
from pronk.storage.files import digest_file
from pronk.training.recipe import TrainResult, train

CLASSES = ("cold", "warm")
PARTS_OF_BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def lively_backbone(alpha: float, *, seed: int = 0) -> Backbone:
    """A random network that tells photos apart, with BatchNormalization statistics that are not the identity."""
    plain = random_backbone(alpha=alpha, seed=seed)
    rng = np.random.default_rng(seed)
    weights: dict[str, list[np.ndarray]] = {}
    for layer, arrays in plain.weights.items():
        if len(arrays) == 4:
            n = len(arrays[0])
            drawn = rng.uniform(0.7, 1.3, n), rng.normal(0.1, 0.2, n), rng.normal(0, 0.2, n), rng.uniform(0.7, 1.3, n)
            weights[layer] = [array.astype(np.float32) for array in drawn]
        else:
            shape = arrays[0].shape
            fan_in = shape[0] * shape[1] * (1 if layer.endswith("depthwise") else shape[2])
            weights[layer] = [rng.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32)]
    return Backbone("random", plain.sha256, weights)


def write_h5(path: Path, backbone: Backbone) -> Path:
    """Write a network in the layout of keras.applications."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in backbone.weights]
        for layer, arrays in backbone.weights.items():
            depthwise = layer.endswith("depthwise")
            parts = PARTS_OF_BATCH_NORM if len(arrays) == 4 else ("depthwise_kernel" if depthwise else "kernel",)
            names = [f"{layer}/{part}:0" for part in parts]
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, array in zip(names, arrays, strict=True):
                group[name] = array
    return path


def build_prefix(network: Any, cut: str) -> Any:
    """The frozen part of a Keras network: image -> [activations at the cut, pooled features]."""
    import keras

    return keras.Model(network.input, [network.get_layer(cut).output, network.get_layer("dropout").input])


def draw_tiny(rng: np.random.Generator, label: str, *, size: tuple[int, int] = (56, 44)) -> Image.Image:
    """A blurred pattern of its own in the colours of its class."""
    small = rng.integers(0, 120, (6, 6, 3)).astype(np.uint8)
    small[..., 0 if label == "warm" else 2] += 120
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def write_photos(folder: Path, per_class: int, *, classes: Sequence[str] = CLASSES, seed: int = 0) -> Path:
    """Write class folders of tiny photos that a random network can tell apart."""
    rng = np.random.default_rng(seed)
    for label in classes:
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            draw_tiny(rng, label).save(folder / label / f"{number}.png")
    return folder


def tiny_settings(weights: Path | str, **changes: Any) -> Settings:
    """Settings of a run that takes seconds."""
    values = {"image_size": 32, "views": 2, "epochs": 2, "learning_rate": 0.01, "fine_tune_from": "block_15_add"}
    return Settings(weights=str(weights), **(values | {"batch_size": 8} | changes))


def run_pronk(
    *arguments: Path | str, stdin: bytes = b"", env: dict[str, str] | None = None, timeout: float = 240
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "pronk", *map(os.fspath, arguments)]
    return subprocess.run(
        command, input=stdin, capture_output=True, env=os.environ | (env or {}), timeout=timeout, check=False
    )


def hear_interrupts() -> None:
    """Let a program hear Ctrl-C (as `preexec_fn`): what a shell started in the background, and its children, do not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An h5 file of a small random network."""
    return make_once(tmp_path_factory, "weights", lambda base: write_h5(base / "tiny.h5", lively_backbone(0.35)))


@pytest.fixture(scope="session")
def tiny_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two class folders of 14 tiny photos each; tests do not change them."""
    return make_once(tmp_path_factory, "photos", lambda base: write_photos(base / "tiny", 14))


def real_pixels(folder: Path, count: int, *, size: int) -> np.ndarray:
    """Read real photos as the network sees them: uint8 [count, size, size, 3], classes in turn."""
    by_class = [sorted(inner.iterdir()) for inner in sorted(folder.iterdir()) if inner.is_dir()]
    in_turn = [paths[i] for i in range(max(map(len, by_class))) for paths in by_class if i < len(paths)]
    return np.stack([load_pixels(path, size=size) for path in in_turn[:count]])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two class folders of 6 tiny photos each, to predict and to change."""
    return write_photos(tmp_path / "photos", 6)


@pytest.fixture
def workers_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let threads do what worker processes do, which saves starting these."""

    for module in ("recipe", "surveys"):
        monkeypatch.setattr(f"pronk.training.{module}.start_workers", lambda: ThreadPoolExecutor(2))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_photos: Path, tiny_weights: Path) -> TrainResult:
    """A finished run in a folder that tests do not change; its cache lies beside it."""
    settings = tiny_settings(tiny_weights)
    return make_once(
        tmp_path_factory,
        "run",
        lambda base: train(tiny_photos, out=base / "run", settings=settings, cache=base / "cache"),
    )


@pytest.fixture(scope="session")
def whole_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder made without a framework; tests copy it before they change it."""
    return make_once(tmp_path_factory, "bundle", lambda base: write_whole_bundle(base / "model"))


def write_whole_bundle(folder: Path) -> Path:
    """Write a model folder with a lively network of two classes, 32 pixels."""
    backbone, rng = lively_backbone(0.35), np.random.default_rng(0)
    head = Head(rng.normal(0, 0.02, (1280, 2)).astype(np.float32), np.zeros(2, np.float32))
    model = write_model(backbone.weights, head, size=32)
    photos = {f"{i + 1}.jpg": golden_photo(draw_tiny(rng, CLASSES[i % 2])) for i in range(8)}
    pixels = np.stack([load_pixels(data, size=32) for data in photos.values()])
    expected = OnnxRuntime(model).run(pixels).probabilities
    answers = {name: list(map(float, row)) for name, row in zip(photos, expected, strict=True)}
    contents = {f"golden/{name}": data for name, data in photos.items()}
    contents |= {"model.onnx": model, "golden/expected.json": json.dumps(answers).encode()}
    write_bundle(folder, contents, classes=CLASSES, size=32, fit="crop", weights={"name": "random", "sha256": ""})
    return folder


@pytest.fixture
def bundle_copy(whole_bundle: Path, tmp_path: Path) -> Path:
    """A model folder to change."""
    return Path(shutil.copytree(whole_bundle, tmp_path / "model"))


def change_record(folder: Path, **changes: Any) -> None:
    """Change what a model's own record says."""
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_answers(folder: Path, text: str) -> None:
    """Change what the golden photos should give, and its checksum, as someone who knows the format would."""
    path = folder / "golden" / "expected.json"
    path.write_text(text)
    files = json.loads((folder / "model.json").read_text())["files"]
    change_record(folder, files=files | {"golden/expected.json": digest_file(path)})


def digest_arrays(arrays: Iterable[np.ndarray]) -> str:
    """The sha256 over dtypes, shapes and bytes, in the order given."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def read_run(folder: Path) -> dict[str, Any]:
    """Everything of a finished run that has to be the same when it is repeated: no seconds, no memory."""
    metrics = json.loads((folder / "metrics.json").read_text())
    history = [line.rsplit(",", 1)[0] for line in (folder / "history.csv").read_text().splitlines()]
    report = (folder / "report.html").read_text().replace(str(folder), "RUN")
    report = re.sub(r'aria-label="Seconds per stage".*?MiB\.', "", report, flags=re.DOTALL)
    with zipfile.ZipFile(folder / "model" / "model.keras") as archive:
        weights = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
        arrays: list[np.ndarray] = []
        weights.visititems(lambda name, item: arrays.append(item[()]) if isinstance(item, h5py.Dataset) else None)
    return {
        "metrics": {name: value for name, value in metrics.items() if name not in ("seconds", "peak_memory_mb")},
        "history": history,
        "model.onnx": digest_file(folder / "model" / "model.onnx"),
        "model.keras": digest_arrays(arrays),
        "report": report,
        **{name: (folder / name).read_text() for name in ("split.csv", "predictions.csv")},
    }


def read_replayed(folder: Path, original: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `read_run` tells of a run and of the one whose settings it replays, with one reason for both.

    What the first run chose by its photos, the second was told.
    """
    again, undisturbed = read_run(folder), read_run(original)
    told, why = (run["metrics"]["chosen"].pop("why") for run in (again, undisturbed))
    assert told.endswith("asked for with --features multi")
    assert why.startswith("features of several blocks: cross-validated")
    return again | {"report": again["report"].replace(told, why)}, undisturbed
