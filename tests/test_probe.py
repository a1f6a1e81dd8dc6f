"""benchmarks/probe.py: what frozen weights know about a folder of photos."""

import numpy as np
import pytest

from helpers.scripts import load_benchmark
from pronk.backbone.weights import random_backbone
from pronk.config import Settings
from pronk.photos.drawing import draw_photos


@pytest.fixture(scope="module")
def probe():
    return load_benchmark("probe")


def make_rows(gap):
    rng = np.random.default_rng(0)
    targets = np.repeat([0, 1], 60)
    return rng.normal(0, 1, (120, 20)) + gap * targets[:, None], targets


def test_classes_far_apart_are_told_apart(probe):
    features, targets = make_rows(3.0)
    assert probe.score(features, targets, [str(number) for number in range(120)]) > 0.98


def test_copies_do_not_help(probe):
    """Each photo four times over, in groups: a line that knew them by heart would be right with the copies."""
    features, targets = (np.repeat(part, 4, axis=0) for part in make_rows(0.0))
    assert probe.score(features, targets, [str(number // 4) for number in range(480)]) < 0.7


def test_statistics_of_a_random_network_are_those_of_the_photos(probe):
    from pronk.backbone.keras_network import batch_norms, build_network

    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3)).astype(np.uint8)
    network = build_network(random_backbone(alpha=0.35), classes=2, settings=Settings(image_size=64, alpha=0.35))
    norms = list(batch_norms(network))
    probe.calibrate(network, norms, pixels)
    convolution = network.get_layer("Conv1")(pixels.astype(np.float32) / 127.5 - 1)
    mean = np.asarray(convolution).mean((0, 1, 2))
    np.testing.assert_allclose(np.asarray(norms[0].moving_mean), mean, atol=1e-3)
    assert not any(norm.trainable for norm in norms)


@pytest.mark.parametrize("arguments", [("no such folder", "offline"), ("DATA", "no such file.h5")])
def test_bad_input_is_refused_in_one_line(probe, monkeypatch, arguments, tmp_path, capsys):
    draw_photos(tmp_path / "DATA", photos_per_class=3, size=(80, 60))
    monkeypatch.setattr("sys.argv", ["probe.py", str(tmp_path / arguments[0]), arguments[1]])
    with pytest.raises(SystemExit, match="2"):
        probe.main()
    assert "no such" in capsys.readouterr().err.splitlines()[-1]
