"""Head + cached activations -> phase 2: the top blocks fine-tuned with it, epoch by epoch, each kept on disk.

Each epoch is a pure function of the state before it and (seed, epoch), and the state after it is written as one of two
generations, each whole or refused: a run that was stopped anywhere ends with the same weights as an undisturbed one.
"""

import dataclasses
import hashlib
import io
import json
import logging
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pronk.analysis.head import Head, class_weights
from pronk.analysis.metrics import log_loss
from pronk.config import Settings
from pronk.dataset.loading import Photo
from pronk.errors import RunError, SettingsError
from pronk.storage.files import write_atomically
from pronk.training.features import Features
from pronk.training.phase_one import Fit, Frozen, HistoryRow, history_row, measure_fit
from pronk.training.plan import Pace
from pronk.training.run_folder import Run

Batch = tuple[list[np.ndarray], np.ndarray, np.ndarray]  # what `Features.inputs` gives, targets, weights

logger = logging.getLogger(__name__)
DIGEST_BYTES = 32
WARM_UP = 0.1  # share of the steps in which the rate rises from 0; over the others it falls to 0 again
SHARES = (0.25, 0.5, 0.75, 1.0)


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """What phase 2 made.

    Attributes:
        head: the Dense layer.
        weights: arrays by layer name, for the whole MobileNetV2.
        history: one row per epoch.
        val_probabilities: float64 [n, C] of the validation photos.
        share: weight of what phase 2 ended with in the mean of it and the frozen network; 1 is that alone.
    """

    head: Head
    weights: Mapping[str, Sequence[np.ndarray]]
    history: tuple[HistoryRow, ...]
    val_probabilities: np.ndarray
    share: float = 1.0


def fine_tune(network: Any, frozen: Frozen, features: Features, pace: Pace, run: Run) -> FineTuned:
    """Train the blocks after the cut and the head on cached activations, at a rate that falls to 0.

    The whole Keras model `network` holds the resulting weights afterwards: the mean of those at the end and of the
    frozen ones (Wortsman et al. 2022, https://arxiv.org/abs/2109.01903) with the share that has the lowest validation
    loss. Where the run folder holds checkpoints, training goes on from them. Progress is told as ("fine_tune", steps
    done, steps of all epochs).
    """
    from pronk.backbone.keras_network import build_suffix, get_head, get_weights, set_head

    suffix = build_suffix(network, features.extraction.cut)
    set_head(network, frozen.head)
    before = suffix.get_weights()
    state = FineTuning(suffix, pace, run.settings, steps=_count_steps(features, run.settings))
    state.restore(run.work)
    while state.epoch < pace.epochs:
        _train_epoch(state, features, run)
        state.save(run.work)
    run.on_progress("fine_tune", state.epoch, state.epoch)
    share, judged = _mix(suffix, before, features, run.settings)
    return FineTuned(get_head(network), get_weights(network), tuple(state.history), judged, share)


class FineTuning:
    """The state of phase 2: a Keras model of the top blocks and head, and its optimizer.

    The steps of Adafactor (Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235) are in proportion to the size of a
    layer's weights, so that one rate suits layers, and sets of photos, for which no single absolute rate is right.
    """

    def __init__(self, suffix: Any, pace: Pace, settings: Settings, *, steps: int) -> None:
        import keras

        self.suffix = suffix
        self.settings = settings
        self.steps = pace.epochs * steps
        warm_up = max(1, round(WARM_UP * self.steps))
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, max(1, self.steps - warm_up), warmup_target=pace.learning_rate, warmup_steps=warm_up
        )
        self.optimizer = keras.optimizers.Adafactor(rate, relative_step=False)
        accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")  # made here, or the step is traced twice
        suffix.compile(self.optimizer, loss="sparse_categorical_crossentropy", weighted_metrics=[accuracy])
        self.optimizer.build(suffix.trainable_variables)
        self.epoch = 0
        self.history: list[HistoryRow] = []

    def run_epoch(self, batches: Iterable[Batch], on_step: Callable[[int], None]) -> Fit:
        """Train on batches; return loss and accuracy over the whole epoch.

        Both are weighted as they are trained: the loss is the mean over photos of loss times class weight, the accuracy
        the share of the weights that went to photos with the right class. `on_step` is told the number of each step.
        """
        for layer in self.suffix.layers:
            if layer.name == "dropout" and layer.rate:
                # Its random numbers are no part of any checkpoint, so they are set, not carried on.
                layer.seed_generator.state.assign(np.array([self.settings.seed, self.epoch], "uint32"))
        losses, accuracies, sizes, weighted_sizes = [], [], [], []
        for step, (inputs, targets, weights) in enumerate(batches, start=1):
            # Keras forgets the batches before with each call.
            logs = self.suffix.train_on_batch(inputs, targets, sample_weight=weights, return_dict=True)
            losses.append(logs["loss"])
            accuracies.append(logs["accuracy"])
            sizes.append(len(targets))
            weighted_sizes.append(weights.sum())
            on_step(step)
        return Fit(float(np.average(losses, weights=sizes)), float(np.average(accuracies, weights=weighted_sizes)))

    def save(self, folder: Path) -> None:
        """Write a checkpoint."""
        arrays = {f"weight{i}": value for i, value in enumerate(self.suffix.get_weights())}
        arrays |= {f"optimizer{i}": np.asarray(value) for i, value in enumerate(self.optimizer.variables)}
        save_checkpoint(folder, self.epoch, arrays, {"epoch": self.epoch, "history": self.history})

    def restore(self, folder: Path) -> None:
        """Go on from the newest whole checkpoint, if there is one."""
        loaded = load_checkpoint(folder)
        if loaded is None:
            return
        arrays, state = loaded
        self.suffix.set_weights([arrays[f"weight{i}"] for i in range(len(self.suffix.get_weights()))])
        for i, variable in enumerate(self.optimizer.variables):
            variable.assign(arrays[f"optimizer{i}"])
        self.epoch, self.history = state["epoch"], state["history"]


def _train_epoch(state: FineTuning, features: Features, run: Run) -> None:
    started = time.perf_counter()
    settings = run.settings
    state.epoch += 1
    before = (state.epoch - 1) * _count_steps(features, settings)
    batches = _read_batches(features, settings, state.epoch)
    train = state.run_epoch(batches, lambda step: run.on_progress("fine_tune", before + step, state.steps))
    val = features.dataset.part("val")
    judged = _predict(state.suffix, features, val, settings)
    if not np.isfinite(judged).all():
        raise SettingsError(
            f"fine-tuning came to numbers beyond all bounds in epoch {state.epoch}",
            hint="try a smaller --learning-rate, or --frozen-only",
        )
    fits = {"train": train, "val": measure_fit(judged, features.dataset.targets(val))}
    rate = float(state.optimizer.learning_rate)
    state.history.append(history_row("fine_tuned", state.epoch, **fits, learning_rate=rate, started=started))


def _mix(suffix: Any, before: list[np.ndarray], features: Features, settings: Settings) -> tuple[float, np.ndarray]:
    """Set the weights to the best mean of those before and after; return its share and validation probabilities."""
    after, photos = suffix.get_weights(), features.dataset.part("val")
    targets, judged = features.dataset.targets(photos), {}

    def set_share(share: float) -> None:
        suffix.set_weights([old + np.float32(share) * (new - old) for old, new in zip(before, after, strict=True)])

    for share in SHARES if settings.keep == "best" else SHARES[-1:]:
        set_share(share)
        judged[share] = _predict(suffix, features, photos, settings)
    best = min(judged, key=lambda share: log_loss(judged[share], targets))
    set_share(best)
    return best, judged[best]


def _count_steps(features: Features, settings: Settings) -> int:
    return -(-features.dataset.counts["train"] // settings.batch_size)


def _read_batches(features: Features, settings: Settings, epoch: int) -> Iterator[Batch]:
    """Yield the batches of one epoch, read from the cache as they are asked for.

    All have the same size, so that the training step is traced once, and as few photos as possible come up twice to
    fill the last one. Each photo goes through its views epoch by epoch, and each batch holds several.
    """
    dataset = features.dataset
    photos = dataset.part("train")
    targets = dataset.targets(photos)
    weights = class_weights(targets, len(dataset.classes), settings.class_weights)[targets]
    order = np.random.default_rng([settings.seed, epoch]).permutation(len(photos))
    for chosen in cut_evenly(order, settings.batch_size):
        views = (chosen + epoch) % features.views
        yield features.inputs([photos[i] for i in chosen], views.tolist()), targets[chosen], weights[chosen]


def cut_evenly(order: np.ndarray, most: int) -> np.ndarray:
    """Cut an order into batches of equal size, at most `most`; the last one is filled up from the start.

    Example:
        >>> cut_evenly(np.arange(5), 3)
        array([[0, 1, 2],
               [3, 4, 0]])
    """
    steps = -(-len(order) // most)
    return np.resize(order, (steps, -(-len(order) // steps)))


def _predict(suffix: Any, features: Features, photos: Sequence[Photo], settings: Settings) -> np.ndarray:
    """Predict in batches of one size, so that one trace serves all."""
    batches = ([photos[i] for i in chosen] for chosen in cut_evenly(np.arange(len(photos)), settings.batch_size))
    inputs = (features.inputs(batch) for batch in batches)
    outputs = [np.asarray(suffix.predict_on_batch(given), np.float64) for given in inputs]
    return np.concatenate(outputs)[: len(photos)]


def save_checkpoint(folder: Path, epoch: int, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> None:
    """Write the state after an epoch over the older of the two generations.

    The file starts with the sha256 of the rest, so a torn or altered one is noticed. No array may be named `state`,
    which takes JSON values.
    """
    buffer = io.BytesIO()
    packed = np.frombuffer(json.dumps(dict(state)).encode(), np.uint8)
    np.savez(buffer, state=packed, **arrays)  # type: ignore[arg-type]
    body = buffer.getvalue()
    write_atomically(_generation(folder, epoch), hashlib.sha256(body).digest() + body)


def load_checkpoint(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Return the arrays and state of the newest whole generation, or None where there is none at all.

    Raises:
        RunError: if there are checkpoints and all are damaged.
    """
    found = [path for path in (_generation(folder, 0), _generation(folder, 1)) if path.exists()]
    loaded = [(path, _read_checkpoint(path)) for path in found]
    whole = [content for _, content in loaded if content is not None]
    damaged = [path.name for path, content in loaded if content is None]
    if found and not whole:
        raise RunError(
            f"the checkpoints in {folder} are damaged: {', '.join(damaged)}",
            hint="remove the run folder and train again; the features are still in the cache",
        )
    if damaged:
        logger.warning("checkpoint %s is damaged; going on from the one before", damaged[0])
    return max(whole, key=lambda content: content[1]["epoch"], default=None)


def _generation(folder: Path, epoch: int) -> Path:
    return folder / f"checkpoint-{epoch % 2}.npz"


def _read_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    try:
        data = path.read_bytes()
        body = data[DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != data[:DIGEST_BYTES]:
            return None
        with np.load(io.BytesIO(body), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        state = json.loads(arrays.pop("state").tobytes())
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return arrays, state
