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
from pronk.config import Settings
from pronk.dataset.loading import Photo
from pronk.errors import RunError, SettingsError
from pronk.storage.files import write_atomically
from pronk.training.features import Features
from pronk.training.phase_one import Fit, Frozen, HistoryRow, history_row, measure_fit
from pronk.training.run_folder import Run

Batch = tuple[list[np.ndarray], np.ndarray, np.ndarray]  # what `Features.inputs` gives, targets, weights

logger = logging.getLogger(__name__)
DIGEST_BYTES = 32
# An epoch that lowers the mean log-loss by less is not worth its time: .001 is a tenth of a percent of likelihood.
LEAST_GAIN = 1e-3
STATE = ("epoch", "best_epoch", "best_loss", "waited", "reference", "history")  # of a checkpoint, beside its arrays


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """What phase 2 made.

    Attributes:
        head: the Dense layer of the best epoch.
        weights: arrays by layer name of the best epoch, for the whole MobileNetV2.
        history: one row per epoch.
        val_probabilities: float64 [n, C] of the validation photos in the best epoch.
        best_epoch: the one with the lowest validation loss, counted from 1.
    """

    head: Head
    weights: Mapping[str, Sequence[np.ndarray]]
    history: tuple[HistoryRow, ...]
    val_probabilities: np.ndarray
    best_epoch: int


def fine_tune(network: Any, frozen: Frozen, features: Features, run: Run) -> FineTuned:
    """Train the blocks after the cut and the head on cached activations, until the validation loss rises.

    The whole Keras model `network` holds the best epoch's weights afterwards. Where the run folder holds checkpoints,
    training goes on from them. Progress is told as ("fine_tune", steps done, steps of all epochs).
    """
    from pronk.backbone.keras_network import build_suffix, get_head, get_weights, set_head

    set_head(network, frozen.head)
    state = FineTuning(build_suffix(network, run.settings.fine_tune_from), run.settings)
    state.restore(run.work)
    while not state.is_done:
        _train_epoch(state, features, run)
        state.save(run.work)
    run.on_progress("fine_tune", state.epoch, state.epoch)
    state.suffix.set_weights(state.best)
    return FineTuned(
        get_head(network), get_weights(network), tuple(state.history), state.best_probabilities, state.best_epoch
    )


class FineTuning:
    """The state of phase 2: a Keras model of the top blocks and head, its optimizer, and the best epoch so far."""

    def __init__(self, suffix: Any, settings: Settings) -> None:
        import keras

        self.suffix = suffix
        self.settings = settings
        self.optimizer = keras.optimizers.Adam(settings.learning_rate)
        accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")  # made here, or the step is traced twice
        suffix.compile(self.optimizer, loss="sparse_categorical_crossentropy", weighted_metrics=[accuracy])
        self.optimizer.build(suffix.trainable_variables)
        self.epoch = 0
        self.best_epoch = 0
        self.best_loss = np.inf
        self.best = suffix.get_weights()
        self.best_probabilities = np.empty((0, 0))
        self.waited = 0
        self.reference = np.inf
        self.history: list[HistoryRow] = []

    @property
    def is_done(self) -> bool:
        """Tell whether all epochs are done, or the validation loss has stopped falling."""
        return self.epoch >= self.settings.epochs or self.waited >= self.settings.patience

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

    def keep_if_best(self, val_loss: float, val_probabilities: np.ndarray) -> None:
        """Remember the weights if the validation loss is the lowest so far; count epochs that hardly lower it."""
        self.waited += 1
        if val_loss < self.reference - LEAST_GAIN:
            self.reference, self.waited = val_loss, 0
        if val_loss < self.best_loss:
            self.best_epoch, self.best_loss = self.epoch, val_loss
            self.best, self.best_probabilities = self.suffix.get_weights(), val_probabilities

    def save(self, folder: Path) -> None:
        """Write a checkpoint."""
        arrays = {f"weight{i}": value for i, value in enumerate(self.suffix.get_weights())}
        arrays |= {f"best{i}": value for i, value in enumerate(self.best)}
        arrays |= {f"optimizer{i}": np.asarray(value) for i, value in enumerate(self.optimizer.variables)}
        arrays["val_probabilities"] = self.best_probabilities
        save_checkpoint(folder, self.epoch, arrays, {name: getattr(self, name) for name in STATE})

    def restore(self, folder: Path) -> None:
        """Go on from the newest whole checkpoint, if there is one."""
        loaded = load_checkpoint(folder)
        if loaded is None:
            return
        arrays, state = loaded
        count = len(self.best)
        self.suffix.set_weights([arrays[f"weight{i}"] for i in range(count)])
        self.best = [arrays[f"best{i}"] for i in range(count)]
        self.best_probabilities = arrays["val_probabilities"]
        for i, variable in enumerate(self.optimizer.variables):
            variable.assign(arrays[f"optimizer{i}"])
        for name in STATE:
            setattr(self, name, state[name])


def _train_epoch(state: FineTuning, features: Features, run: Run) -> None:
    started = time.perf_counter()
    settings = run.settings
    state.epoch += 1
    batches, count = _read_batches(features, settings, state.epoch)
    before, steps = (state.epoch - 1) * count, settings.epochs * count
    train = state.run_epoch(batches, lambda step: run.on_progress("fine_tune", before + step, steps))
    val = features.dataset.part("val")
    judged = _predict(state.suffix, features, val, settings)
    if not np.isfinite(judged).all():
        raise SettingsError(
            f"fine-tuning came to numbers beyond all bounds in epoch {state.epoch}",
            hint=f"try a --learning-rate below {settings.learning_rate:g}, or --frozen-only",
        )
    fits = {"train": train, "val": measure_fit(judged, features.dataset.targets(val))}
    rate = settings.learning_rate
    state.history.append(history_row("fine_tuned", state.epoch, **fits, learning_rate=rate, started=started))
    state.keep_if_best(fits["val"].loss, judged)


def _read_batches(features: Features, settings: Settings, epoch: int) -> tuple[Iterator[Batch], int]:
    """Return the batches of one epoch, read from the cache as they are asked for, and their number.

    All have the same size, so that the training step is traced once, and as few photos as possible come up twice to
    fill the last one.
    """
    dataset = features.dataset
    photos = dataset.part("train")
    targets = dataset.targets(photos)
    weights = class_weights(targets, len(dataset.classes), settings.class_weights)[targets]
    order = np.random.default_rng([settings.seed, epoch]).permutation(len(photos))
    batches = cut_evenly(order, settings.batch_size)

    def read() -> Iterator[Batch]:
        for chosen in batches:
            batch = [photos[i] for i in chosen]
            inputs = features.inputs(batch, view=epoch % settings.views, cut=settings.fine_tune_from)
            yield inputs, targets[chosen], weights[chosen]

    return read(), len(batches)


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
    inputs = (features.inputs(batch, view=0, cut=settings.fine_tune_from) for batch in batches)
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
