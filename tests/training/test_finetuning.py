import numpy as np
import pytest

from helpers.training import lively_backbone
from pronk.backbone.keras_network import build_network, build_suffix
from pronk.config import Settings
from pronk.training.phase_two import FineTuning

SETTINGS = Settings(image_size=32, epochs=5, patience=2, learning_rate=1e-3, fine_tune_from="block_15_add")

PROBABILITIES = np.array([[0.25, 0.75]])


@pytest.fixture(scope="module")
def suffix():
    return build_suffix(build_network(lively_backbone(0.35), classes=2, settings=SETTINGS), "block_15_add")


def batches(count=2, size=4):
    rng = np.random.default_rng(0)
    return [
        (rng.normal(size=(size, 1, 1, 56)).astype(np.float32), np.arange(size) % 2, np.ones(size)) for _ in range(count)
    ]


def test_an_epoch_counts_all_of_its_batches(suffix):
    """Without dropout and learning nothing, loss and accuracy are those of a forward pass over the whole epoch."""
    state = FineTuning(suffix, SETTINGS.replace(learning_rate=1e-9))
    suffix.get_layer("dropout").rate = 0.0
    rng = np.random.default_rng(3)
    X, targets = rng.normal(size=(12, 1, 1, 56)).astype(np.float32), np.arange(12) % 2
    weights = np.where(targets, 3.0, 0.5)
    parts = [slice(0, 5), slice(5, 6), slice(6, 12)]
    state.epoch = 1
    loss, accuracy = state.run_epoch([(X[part], targets[part], weights[part]) for part in parts], int)
    probabilities = np.asarray(suffix.predict_on_batch(X))
    losses = -np.log(probabilities[np.arange(12), targets])
    right = probabilities.argmax(axis=1) == targets
    assert loss == pytest.approx((losses * weights).mean(), rel=1e-4)
    assert accuracy == pytest.approx(np.average(right, weights=weights), rel=1e-5)


def test_patience_and_epochs_end_it(suffix):
    state = FineTuning(suffix, SETTINGS)
    losses = iter([1.0, 0.5, 0.6, 0.5, 0.4])
    ended = []
    while not state.is_done:
        state.epoch += 1
        state.keep_if_best(next(losses), PROBABILITIES)
        ended.append((state.epoch, state.best_epoch))
    # An equal loss is no better one.
    assert ended == [(1, 1), (2, 2), (3, 2), (4, 2)]


def test_no_loss_that_is_not_a_number_is_best(suffix):
    state = FineTuning(suffix, SETTINGS)
    state.epoch = 1
    state.keep_if_best(0.5, PROBABILITIES)
    state.epoch = 2
    state.keep_if_best(float("nan"), 2 * PROBABILITIES)
    assert (state.best_epoch, state.best_probabilities[0, 0]) == (1, 0.25)


def test_a_checkpoint_restores_everything(suffix, tmp_path):
    state = FineTuning(suffix, SETTINGS)
    state.epoch = 1
    state.run_epoch(batches(), int)
    state.keep_if_best(0.7, PROBABILITIES)
    state.epoch = 2
    state.history.append({"epoch": 2, "loss": 0.1})
    state.run_epoch(batches(), int)
    state.save(tmp_path)
    weights, optimizer = suffix.get_weights(), [np.asarray(variable) for variable in state.optimizer.variables]
    assert any(np.abs(array).max() > 0 for array in optimizer[2:]), "the moments of Adam belong to the state"

    other = FineTuning(suffix, SETTINGS)
    other.run_epoch(batches(1), int)
    other.restore(tmp_path)
    np.testing.assert_array_equal(other.best_probabilities, PROBABILITIES)
    assert (other.epoch, other.best_epoch, other.best_loss) == (2, 1, 0.7)
    assert other.history == [{"epoch": 2, "loss": 0.1}]
    for found, expected in zip(suffix.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(found, expected)
    for found, expected in zip(other.optimizer.variables, optimizer, strict=True):
        np.testing.assert_array_equal(np.asarray(found), expected)
    for found, expected in zip(other.best, state.best, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_nothing_to_restore_is_a_start(suffix, tmp_path):
    state = FineTuning(suffix, SETTINGS)
    state.restore(tmp_path)
    assert state.epoch == 0
    assert not state.is_done
