import numpy as np
import pytest

from helpers.training import digest_arrays, lively_backbone
from pronk.analysis.head import Head
from pronk.backbone.architecture import HEAD_BLOCKS, LAYERS, split_blocks
from pronk.backbone.keras_network import (
    LastAnswers,
    build_network,
    build_suffix,
    get_head,
    get_weights,
    save_network,
    set_head,
    set_weights,
)
from pronk.config import BLOCKS, Settings

SETTINGS = Settings(image_size=32, dropout=0.2)


@pytest.fixture(scope="module")
def backbone():
    return lively_backbone(0.35)


@pytest.fixture(scope="module")
def network(backbone):
    """A network that tests do not change."""
    return build_network(backbone, HEAD_BLOCKS, classes=3, settings=SETTINGS)


def pixels(count, seed=0, size=32):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def test_it_is_an_ordinary_functional_model(network, tmp_path):
    import keras

    assert isinstance(network, keras.Model)
    assert network.input.dtype == "uint8"
    assert network.input.shape == (None, 32, 32, 3)
    assert network.output.shape == (None, 3)
    assert [network.layers[0].name, network.layers[1].name] == ["image", "scale"]
    assert [layer.name for layer in network.layers[-3:]] == ["pool", "dropout", "head"]
    (tmp_path / "model.keras").write_bytes(save_network(network))
    loaded = keras.models.load_model(tmp_path / "model.keras")
    photos = pixels(2)
    np.testing.assert_array_equal(np.asarray(loaded(photos)), np.asarray(network(photos)))


def test_the_answers_to_a_batch_are_told():
    metric = LastAnswers(3)
    for shift in (0, 1):
        probabilities = np.roll([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25], [0.3, 0.3, 0.4]], shift, axis=0)
        metric.reset_state()
        metric.update_state(np.array([0, 2, 2]), probabilities)
        told = np.asarray(metric.result())
        np.testing.assert_allclose(told[:, 0], probabilities[[0, 1, 2], [0, 2, 2]], rtol=1e-6)
        assert told[:, 1].tolist() == ([1, 0, 1] if shift == 0 else [0, 0, 0])


def test_weights_go_in_and_come_out(backbone):
    network, other = build_network(backbone, classes=3, settings=SETTINGS), lively_backbone(0.35, seed=9)
    set_weights(network, other.weights)
    stored = get_weights(network)
    assert tuple(stored) == LAYERS
    assert all(digest_arrays(stored[name]) == digest_arrays(other.weights[name]) for name in stored)
    head = Head(np.full((1280, 3), 0.5, np.float32), np.arange(3, dtype=np.float32))
    set_head(network, head)
    np.testing.assert_array_equal(get_head(network).bias, head.bias)


def test_cut_equals_whole_bit_for_bit(network):
    import keras

    photos = pixels(3)
    whole = np.asarray(network(photos))
    pools = [network.get_layer(f"{name}_pool").output for name in HEAD_BLOCKS]
    prefix = keras.Model(network.input, [*(network.get_layer(block).output for block in BLOCKS), *pools])
    *cuts, p6, p13, p16, _ = map(np.asarray, prefix(photos))
    for block, cut in zip(BLOCKS, cuts, strict=True):
        fixed = (p6, p13, p16)[: len(split_blocks(HEAD_BLOCKS, block)[0])]
        joined = np.asarray(build_suffix(network, block)([cut, np.hstack(fixed)] if fixed else [cut]))
        assert joined.dtype == np.float32
        np.testing.assert_array_equal(joined, whole, err_msg=block)
