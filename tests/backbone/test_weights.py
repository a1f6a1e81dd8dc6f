import hashlib
import importlib.resources
import os
import shutil
import time

import h5py
import numpy as np
import pytest

from helpers.training import lively_backbone, write_h5
from pronk.backbone.architecture import BLOCKS as ALL_BLOCKS
from pronk.backbone.architecture import LAYERS, layer_shapes
from pronk.backbone.onnx_graphs import cut_shape
from pronk.backbone.weights import OFFLINE_FILE, imagenet_path, load_backbone, random_backbone
from pronk.config import BLOCKS, SETTINGS
from pronk.errors import ModelError


@pytest.mark.parametrize("alpha", SETTINGS["alpha"].choices)
def test_layers_and_blocks_are_those_of_keras(alpha):
    import keras

    base = keras.applications.MobileNetV2((32, 32, 3), alpha=alpha, include_top=False, weights=None)
    expected = {layer.name: tuple(w.shape for w in layer.weights) for layer in base.layers if layer.weights}
    assert layer_shapes(alpha) == expected
    assert tuple(expected) == LAYERS
    network = random_backbone(alpha=alpha)
    assert {name: tuple(array.shape for array in arrays) for name, arrays in network.weights.items()} == expected
    assert network.alpha == alpha
    residual = [block.output for block in ALL_BLOCKS if block.is_residual]
    assert set(residual) == {layer.name for layer in base.layers if "_add" in layer.name}
    assert [*residual, "block_16_project_BN"] == list(BLOCKS)
    for block in BLOCKS:
        assert cut_shape(network.weights, size=32, cut=block) == base.get_layer(block).output.shape[1:]


@pytest.mark.parametrize("alpha", [0.35, 1.0])
def test_a_file_is_read_as_it_was_written(tmp_path, alpha):
    backbone = lively_backbone(alpha)
    path = write_h5(tmp_path / "net.h5", backbone)
    loaded = load_backbone(str(path))
    assert loaded.name == "net.h5"
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.alpha == alpha
    for name, arrays in backbone.weights.items():
        for stored, array in zip(loaded.weights[name], arrays, strict=True):
            np.testing.assert_array_equal(stored, array)


def test_a_file_that_keras_wrote_is_read(tmp_path):
    """Keras's own h5 of a whole model keeps its layers in a group and its names in another form."""
    import keras

    base = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, include_top=False, weights=None)
    base.save(tmp_path / "whole.h5")
    loaded = load_backbone(str(tmp_path / "whole.h5"))
    for name in ("Conv1", "block_3_depthwise", "block_7_project_BN"):
        for stored, array in zip(loaded.weights[name], base.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(stored, array)


def test_the_shipped_network_is_small_and_keras_loads_it():
    keras = pytest.importorskip("keras", reason="the extra `train` is not installed")
    with importlib.resources.as_file(importlib.resources.files("pronk.backbone") / "offline_weights") as folder:
        path = folder / OFFLINE_FILE
        assert path.stat().st_size <= 2_000_000
        model = keras.applications.MobileNetV2(weights=path, alpha=0.35, include_top=False, input_shape=(96, 96, 3))
    shipped = load_backbone("offline")
    assert (shipped.name, shipped.alpha) == ("offline", 0.35)
    np.testing.assert_array_equal(shipped.weights["Conv1"][0], model.get_layer("Conv1").get_weights()[0])


def test_imagenet_takes_the_file_that_keras_keeps_if_it_has_the_width(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    imagenet_path(0.35).parent.mkdir(parents=True)
    for alpha in (0.35, 1.0):
        write_h5(imagenet_path(alpha), lively_backbone(0.35))
    found = load_backbone("imagenet", alpha=0.35)
    assert (found.name, found.alpha) == ("imagenet", 0.35)
    with pytest.raises(ModelError, match=r"alpha 0\.35"):
        load_backbone("imagenet", alpha=1.0)


def test_imagenet_without_network_names_file_folder_and_other_ways(tmp_path, monkeypatch):
    import keras

    def refuse(*arguments, **options):
        raise OSError("no route to host")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", refuse, raising=False)
    monkeypatch.setattr(keras.config, "keras_home", lambda: str(tmp_path), raising=False)
    started = time.monotonic()
    with pytest.raises(ModelError, match=imagenet_path(1.0).stem) as caught:
        load_backbone("imagenet")
    assert time.monotonic() - started < 60
    assert str(tmp_path / "models") in caught.value.hint
    assert "--weights FILE.h5" in caught.value.hint
    assert "--weights offline" in caught.value.hint
    assert not imagenet_path(1.0).exists()


NAME = "block_1_expand/block_1_expand/kernel:0"


def replace(file, value, name=NAME):
    del file[name]
    file[name] = value


def rename(file, *names):
    file["block_1_expand"].attrs["weight_names"] = list(names)


# What `open_h5` refuses is tested beside the other guards of models.
SPOILT = {
    "external root": lambda file: file.__setitem__("model_weights", h5py.ExternalLink("secret.h5", "/")),
    "wrong shape": lambda file: replace(file, np.zeros((1, 1, 2, 3), np.float32)),
    "scalar": lambda file: replace(file, np.float32(1), "block_1_project/block_1_project/kernel:0"),
    "missing layer": lambda file: file.__delitem__("block_16_project"),
    "no names": rename,
    "names up the tree": lambda file: rename(file, b"../block_2_expand/block_2_expand/kernel:0"),
    "group for an array": lambda file: rename(file, b"block_1_expand"),
    "not a number": lambda file: file[NAME].__setitem__((0, 0, 0, 0), np.nan),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_hostile_file_is_refused(tmp_path, how):
    path = write_h5(tmp_path / "net.h5", lively_backbone(0.35))
    shutil.copy(path, tmp_path / "secret.h5")
    with h5py.File(path, "r+") as file:
        SPOILT[how](file)
    with pytest.raises(ModelError, match=r"net\.h5"):
        load_backbone(str(path))


def test_a_file_that_is_cut_off_or_huge_is_refused(tmp_path):
    path = write_h5(tmp_path / "net.h5", lively_backbone(0.35))
    for size in (path.stat().st_size - 1000, 0, 10**11):
        os.truncate(path, size)
        with pytest.raises(ModelError, match=r"net\.h5"):
            load_backbone(str(path))
