import dataclasses
import hashlib
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from helpers.training import digest_arrays, lively_backbone, write_photos
from pronk import pools
from pronk.analysis.head import class_weights
from pronk.analysis.metrics import log_loss
from pronk.backbone.keras_network import batch_norms, build_network, build_suffix, set_head, set_weights
from pronk.config import Settings
from pronk.dataset.loading import load_dataset
from pronk.errors import RunError, SettingsError
from pronk.report.plots import draw_learning
from pronk.training import networks, phase_two
from pronk.training.features import Features, extract_features
from pronk.training.phase_one import train_head
from pronk.training.phase_two import (
    PROGRESS,
    SHARES,
    FineTuning,
    fill_batches,
    fine_tune,
    load_checkpoint,
    save_checkpoint,
)
from pronk.training.plan import Pace, Plan
from pronk.training.run_folder import Run

SETTINGS = Settings(
    features="multi",
    image_size=32,
    views=2,
    fine_tune_from="block_15_add",
    batch_size=8,
)
PACE = Pace(views=2, epochs=3, learning_rate=0.02)
PLAN = Plan("multi", 0.01, "block_15_add", "crop", PACE, "", {})


@pytest.fixture(scope="module")
def backbone():
    return lively_backbone(0.35)


@pytest.fixture(scope="module")
def rows(backbone, tmp_path_factory):
    """The cached rows of 20 photos to learn from and 4 to judge by."""
    base = tmp_path_factory.mktemp("features")
    dataset = load_dataset(write_photos(base / "photos", 14))
    with ThreadPoolExecutor(2) as pool:
        return extract_features(dataset, Run(SETTINGS, backbone, base / "run", base / "cache", pool), views=2)


@pytest.fixture(scope="module")
def features(rows):
    return rows.reading(PLAN.features)


@pytest.fixture(scope="module")
def frozen(features):
    return train_head(features, PLAN, SETTINGS)


def tune(backbone, features, frozen, folder, *, pace=PACE, settings=SETTINGS, stop_after=None):
    """Fine-tune in a new network, as a new process would; perhaps stopped in the step after some epochs."""
    network = build_network(backbone, features.blocks, classes=2, settings=settings)

    def watch(stage, done, total):
        assert stage == "fine_tune"
        if stop_after and done > PROGRESS * stop_after:
            raise KeyboardInterrupt

    run = Run(settings, backbone, folder, folder, None, on_progress=watch)
    return network, fine_tune(network, frozen, features, dataclasses.replace(PLAN, pace=pace), run)


@pytest.fixture(scope="module")
def tuned(backbone, features, frozen, tmp_path_factory):
    return tune(backbone, features, frozen, tmp_path_factory.mktemp("work"))


def digest(result):
    weights, head = result.network.weights, result.network.head
    arrays = [array for name in sorted(weights) for array in weights[name]]
    return digest_arrays([*arrays, head.weights, head.bias, result.val_probabilities])


# --- phase 1


@pytest.mark.parametrize(("counts", "balanced"), [([10, 10], False), ([30, 10], False), ([31, 10], True)])
def test_auto_balances_above_three_to_one(counts, balanced):
    targets = np.repeat([0, 1], counts)
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=targets)
    np.testing.assert_allclose(class_weights(targets, 2, "balanced"), expected)
    np.testing.assert_array_equal(class_weights(targets, 2, "none"), np.ones(2))
    np.testing.assert_allclose(class_weights(targets, 2, "auto"), expected if balanced else np.ones(2))


def test_phase_1_has_a_row_for_each_of_the_first_iterations_and_for_every_tenth(frozen, features):
    iterations = [row["epoch"] for row in frozen.history]
    assert iterations == sorted({*range(1, 10), *range(10, iterations[-1], 10), iterations[-1]})
    assert {row["phase"] for row in frozen.history} == {"frozen"}
    last, val = frozen.history[-1], features.dataset.part("val")
    targets = features.dataset.targets(val)
    judged = frozen.head.predict_proba(features.pooled(val))
    np.testing.assert_array_equal(judged, frozen.val_probabilities)
    assert last["val_loss"] == log_loss(judged, targets)
    assert last["val_accuracy"] == (judged.argmax(axis=1) == targets).mean()
    assert last["loss"] < np.log(2) / 2, "half of what knowing nothing costs"


def test_features_that_tell_nothing_leave_a_history_that_can_be_drawn(features, monkeypatch):
    """The solver begins at the optimum, and is done without an iteration."""
    monkeypatch.setattr(
        Features, "pooled", lambda self, photos, views=1: np.zeros((len(photos) * views, 5), np.float32)
    )
    (row,) = train_head(features, PLAN, SETTINGS.replace(class_weights="balanced")).history
    assert row["epoch"] == 1
    assert draw_learning([row])


def change(monkeypatch, method, make):
    """Let a method of features give something else, made of the photos, their views and what it gave."""
    real = getattr(Features, method)

    def changed(self, photos, *views, **named):
        return make(photos, *views, **named, given=real(self, photos, *views, **named))

    monkeypatch.setattr(Features, method, changed)


def test_phase_1_never_sees_validation_photos(features, frozen, monkeypatch):
    def turn(photos, *, given, views=1):
        return given if photos[0].part == "train" else given[::-1]

    change(monkeypatch, "pooled", turn)
    again = train_head(features, PLAN, SETTINGS)
    np.testing.assert_array_equal(again.head.weights, frozen.head.weights)
    assert not np.array_equal(again.val_probabilities, frozen.val_probabilities)


# --- phase 2


def test_the_head_on_keras_says_what_the_solver_says(backbone, features, frozen):
    network = build_network(backbone, features.blocks, classes=2, settings=SETTINGS)
    set_head(network, frozen.head)
    suffix = network.layers[-1](features.pooled(features.dataset.part("val")))
    np.testing.assert_allclose(np.asarray(suffix), frozen.val_probabilities, atol=1e-5)


def test_phase_2_moves_the_top_and_nothing_else(tuned, backbone):
    """No vector of a BatchNormalization either."""
    network, result = tuned
    moved = {
        name
        for name, arrays in result.network.weights.items()
        if digest_arrays(arrays) != digest_arrays(backbone.weights[name])
    }
    assert moved == {"block_16_expand", "block_16_depthwise", "block_16_project", "Conv_1"}
    for layer in batch_norms(network):
        assert digest_arrays(layer.get_weights()) == digest_arrays(backbone.weights[layer.name])


def test_the_rate_rises_and_falls_to_nothing(tuned):
    rates = [row["learning_rate"] for row in tuned[1].history]
    assert max(rates) <= PACE.learning_rate
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < PACE.learning_rate / 10


@pytest.mark.parametrize("keep", ["best", "fine-tuned"])
def test_the_share_with_the_lowest_validation_loss_is_taken(keep, backbone, features, frozen, tmp_path):
    """And the weights are that mean of the frozen and the fine-tuned ones, or the latter where that is asked for."""
    pace = Pace(2, 3, 0.3)
    _, whole = tune(backbone, features, frozen, tmp_path, pace=pace, settings=SETTINGS.replace(keep="fine-tuned"))
    network, result = tune(backbone, features, frozen, tmp_path, pace=pace, settings=SETTINGS.replace(keep=keep))
    val = features.dataset.part("val")
    targets = features.dataset.targets(val)
    assert whole.share == 1
    assert log_loss(result.val_probabilities, targets) <= log_loss(whole.val_probabilities, targets)
    for name, arrays in result.network.weights.items():
        for old, new, found in zip(backbone.weights[name], whole.network.weights[name], arrays, strict=True):
            np.testing.assert_allclose(found, old + result.share * (new - old), atol=1e-6)
    set_weights(network, result.network.weights)
    set_head(network, result.network.head)
    said = build_suffix(network, "block_15_add").predict_on_batch(features.inputs(val))
    np.testing.assert_allclose(said, result.val_probabilities, atol=1e-5, err_msg="by Keras")
    assert result.share == 1 if keep == "fine-tuned" else result.share in SHARES


def test_what_a_network_says_does_not_depend_on_the_number_of_cores(tuned, features, monkeypatch):
    photos, said = features.dataset.part("train"), []
    assert len(photos) > 2 * networks.PHOTOS_AT_ONCE, "for several threads"
    for cores in (1, 3):
        monkeypatch.setattr(pools, "available_cores", lambda cores=cores: cores)
        said.append(tuned[1].network.predict(features, photos))
    assert digest_arrays(said[:1]) == digest_arrays(said[1:])


def test_stopped_after_an_epoch_it_ends_the_same(tuned, backbone, features, frozen, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        tune(backbone, features, frozen, tmp_path, stop_after=2)
    assert load_checkpoint(tmp_path / ".work")[1]["epoch"] == 2
    _, resumed = tune(backbone, features, frozen, tmp_path)
    assert digest(resumed) == digest(tuned[1])
    for found, expected in zip(resumed.history, tuned[1].history, strict=True):
        assert found == expected | {"seconds": found["seconds"]}


def test_weights_that_blow_up_are_named(backbone, features, frozen, tmp_path, monkeypatch):
    def spoil(photos, views=(), *, given):
        return [given[0] * (np.nan if photos[0].part == "train" else 1), *given[1:]]

    change(monkeypatch, "inputs", spoil)
    with pytest.raises(SettingsError, match="epoch 1") as caught:
        tune(backbone, features, frozen, tmp_path)
    assert "--learning-rate" in caught.value.hint


def test_every_photo_is_read_in_every_view(backbone, features, frozen, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(phase_two, "SETTLED", 1.1)

    def note(photos, views=(), *, given):
        asked.extend(zip((photo.path for photo in photos), views, strict=False))
        return given

    change(monkeypatch, "inputs", note)
    tune(backbone, features, frozen, tmp_path, pace=Pace(2, 2, 1e-3))
    train = features.dataset.part("train")
    assert set(asked) == {(photo.path, view) for photo in train for view in range(2)}
    assert len({view for _, view in asked[: SETTINGS.batch_size]}) == 2, "a batch holds several"


@given(count=st.integers(1, 400), size=st.integers(1, 64))
def test_batches_are_equal_and_hold_every_photo(count, size):
    batches = fill_batches(np.arange(count), size)
    assert batches.shape[1] == size
    assert set(batches.ravel()) == set(range(count))
    assert batches.size - count < size


@given(
    chances=st.lists(st.sampled_from([0.2, 0.5, 0.95, 1.0]), min_size=1, max_size=60),
    epoch=st.integers(0, 30),
    most=st.integers(1, 20),
)
def test_photos_that_are_settled_come_up_in_every_third_epoch(suffix, chances, epoch, most):
    answers = np.array([[chance, 1] for chance in chances])
    state = FineTuning(suffix, PACE, SETTINGS.replace(batch_size=most), answers)
    trained = []
    for state.epoch in range(epoch, epoch + 3):
        batches = state.choose_batches()
        assert batches.shape[1] == state.batch <= most
        trained.append(set(batches.ravel().tolist()))
    unsettled = {place for place, chance in enumerate(chances) if chance < 0.9}
    assert all(unsettled <= places for places in trained)
    if unsettled or len(chances) >= 3:
        settled = [place for places in trained for place in places - unsettled]
        assert sorted(settled) == sorted(set(range(len(chances))) - unsettled)


# --- its state


@pytest.fixture(scope="module")
def suffix(backbone):
    return build_suffix(build_network(backbone, classes=2, settings=SETTINGS), "block_15_add")


def test_an_epoch_counts_all_of_its_batches(suffix):
    """Without dropout and learning nothing, loss and accuracy are those of a forward pass over the whole epoch."""
    state = FineTuning(suffix, Pace(2, 1, 1e-9), SETTINGS.replace(batch_size=4), np.zeros((12, 2)))
    suffix.get_layer("dropout").rate = 0.0
    rng = np.random.default_rng(3)
    X, targets = rng.normal(size=(12, 1, 1, 56)).astype(np.float32), np.arange(12) % 2
    weights = np.where(targets, 3.0, 0.5)
    parts = [np.arange(i, 12, 3) for i in range(3)]
    state.run_epoch([(part, X[part], targets[part], weights[part]) for part in parts], 3, int)
    loss, accuracy = state.measure_train(weights)
    probabilities = np.asarray(suffix.predict_on_batch(X))
    losses = -np.log(probabilities[np.arange(12), targets])
    right = probabilities.argmax(axis=1) == targets
    assert loss == pytest.approx((losses * weights).mean(), rel=1e-4)
    assert accuracy == pytest.approx(np.average(right, weights=weights), rel=1e-5)


# --- its checkpoints


def save(folder, epoch):
    save_checkpoint(folder, epoch, {"kernel": np.full(500, epoch, np.float32)}, {"epoch": epoch, "history": [1.5]})


def test_the_newest_of_two_generations_is_taken(tmp_path):
    assert load_checkpoint(tmp_path) is None
    for epoch in range(1, 6):
        save(tmp_path, epoch)
        arrays, state = load_checkpoint(tmp_path)
        assert state == {"epoch": epoch, "history": [1.5]}
        np.testing.assert_array_equal(arrays["kernel"], np.full(500, epoch, np.float32))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-0.npz", "checkpoint-1.npz"]


def test_a_torn_or_altered_generation_falls_back_to_the_one_before(tmp_path, caplog):
    save(tmp_path, 1)
    save(tmp_path, 2)
    path, rng = tmp_path / "checkpoint-0.npz", np.random.default_rng(0)
    whole = path.read_bytes()
    for number in range(200):
        place = rng.integers(len(whole))
        flipped = whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :]
        path.write_bytes(flipped if number % 2 else whole[:place])
        caplog.clear()
        assert load_checkpoint(tmp_path)[1]["epoch"] == 1
        assert [record.getMessage() for record in caplog.records] == [
            "checkpoint checkpoint-0.npz is damaged; going on from the one before"
        ]


def test_both_damaged_is_an_error_with_a_way_out(tmp_path):
    for epoch in (1, 2):
        save(tmp_path, epoch)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"checkpoint-0\.npz, checkpoint-1\.npz") as caught:
        load_checkpoint(tmp_path)
    assert "train again" in caught.value.hint


def test_whole_files_that_are_not_ours_are_refused(tmp_path):
    pickled = io.BytesIO()
    np.savez(pickled, state=np.array([{"a": 1}], dtype=object))
    for body in (b"not a zip file", pickled.getvalue()):
        (tmp_path / "checkpoint-1.npz").write_bytes(hashlib.sha256(body).digest() + body)
        with pytest.raises(RunError, match="damaged"):
            load_checkpoint(tmp_path)
