"""Head + cached activations -> phase 2: the top blocks fine-tuned with it, epoch by epoch, each kept on disk.

Each epoch is a pure function of the state before it and (seed, epoch), and the state after it is written as one of two
generations, each whole or refused: a run that was stopped anywhere ends with the same weights as an undisturbed one.
"""

import dataclasses
import hashlib
import io
import json
import logging
import math
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pronk.analysis.head import class_weights
from pronk.analysis.metrics import log_loss
from pronk.config import Settings
from pronk.errors import RunError, SettingsError
from pronk.storage.files import write_atomically
from pronk.training.features import Features
from pronk.training.networks import Network
from pronk.training.phase_one import Fit, Frozen, HistoryRow, history_row, measure_fit
from pronk.training.plan import Pace, Plan
from pronk.training.run_folder import Run

# Places among the training photos, what `Features.inputs` gives, class indices, weights.
Batch = tuple[np.ndarray, list[np.ndarray], np.ndarray, np.ndarray]

logger = logging.getLogger(__name__)
DIGEST_BYTES = 32
PROGRESS = 100  # steps of an epoch as they are told, since not all have as many
WARM_UP = 0.1  # share of phase 2 in which the rate rises from 0; over the rest it falls to 0 again
SETTLED = 0.9  # probability of its class from which on a photo comes up in every SELDOM-th epoch only
SELDOM = 3
SHARES = (0.25, 0.5, 0.75, 1.0)


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """What phase 2 made.

    Attributes:
        network: the weights.
        history: one row per epoch.
        val_probabilities: float64 [n, C] of the validation photos.
        share: weight of what phase 2 ended with in the mean of it and the frozen network; 1 is that alone.
    """

    network: Network
    history: tuple[HistoryRow, ...]
    val_probabilities: np.ndarray
    share: float


def fine_tune(network: Any, frozen: Frozen, features: Features, plan: Plan, run: Run) -> FineTuned:
    """Train the blocks after the cut and the head on cached activations, at a rate that falls to 0.

    What comes out is the mean of the weights at the end, which the whole Keras model `network` holds, and of the frozen
    ones (Wortsman et al. 2022, https://arxiv.org/abs/2109.01903) with the share that has the lowest validation loss.
    Where the run folder holds checkpoints, training goes on from them. Progress is told as ("fine_tune", done, total),
    in hundredths of epochs.
    """
    from pronk.backbone.keras_network import build_suffix, get_head, get_weights, set_head

    def read() -> Network:
        return Network(get_head(network), get_weights(network))

    suffix = build_suffix(network, features.extraction.cut)
    set_head(network, frozen.head)
    photos = features.dataset.part("train")
    answers = np.array([plan.answers.get(photo.digest, (0, 0)) for photo in photos], np.float32)
    state = FineTuning(suffix, plan.pace, run.settings, answers)
    state.restore(run.work)
    while state.epoch < plan.pace.epochs:
        _train_epoch(state, read, features, run)
        state.save(run.work)
    share, mean, judged = _mix(state, read(), Network(frozen.head, run.backbone.weights), features)
    return FineTuned(mean, tuple(state.history), judged, share)


class FineTuning:
    """The state of phase 2: a Keras model of the top blocks and head, its optimizer, and what it said of the photos.

    The steps of Adafactor (Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235) are in proportion to the size of a
    layer's weights, so that one rate suits layers, and sets of photos, for which no single absolute rate is right.

    Photos whose class it is sure of come up less often: about two thirds of the steps lead to the same loss.

    Args:
        suffix: the model.
        pace: how far it goes.
        settings: those of the run.
        answers: of each training photo, the probability that its class got last, and 1 where no other got more:
            float32 [n, 2]. At the start, those of the frozen network.

    Attributes:
        judged: validation probabilities after the last epoch, float64 [n, C]; None where it was not of this process.
    """

    def __init__(self, suffix: Any, pace: Pace, settings: Settings, answers: np.ndarray) -> None:
        import keras

        from pronk.backbone.keras_network import LastAnswers

        self.suffix = suffix
        self.pace = pace
        self.settings = settings
        self.answers = answers
        batches = -(-len(answers) // settings.batch_size)
        self.batch = -(-len(answers) // batches)  # of one size, so that the step is traced once
        self.optimizer = keras.optimizers.Adafactor(pace.learning_rate, relative_step=False)
        suffix.compile(self.optimizer, loss="sparse_categorical_crossentropy", metrics=[LastAnswers(self.batch)])
        self.optimizer.build(suffix.trainable_variables)
        self.epoch = 0
        self.history: list[HistoryRow] = []
        self.judged: np.ndarray | None = None

    def choose_batches(self) -> np.ndarray:
        """Return the places of the photos of each batch of the next epoch, in its order: int [steps, batch]."""
        order = np.random.default_rng([self.settings.seed, self.epoch]).permutation(len(self.answers))
        is_due = (self.answers[order, 0] < SETTLED) | ((order + self.epoch) % SELDOM == 0)
        due = order[is_due] if is_due.any() else order
        return fill_batches(due, self.batch)

    def weigh(self, places: np.ndarray) -> np.ndarray:
        """Return the weights that make up for how seldom photos come up: float32 [n]."""
        return np.where(self.answers[places, 0] < SETTLED, np.float32(1), np.float32(SELDOM))

    def run_epoch(self, batches: Iterable[Batch], steps: int, on_step: Callable[[int], None]) -> None:
        """Train on so many batches; `on_step` is told the number of each step."""
        for layer in self.suffix.layers:
            if layer.name == "dropout" and layer.rate:
                # Its random numbers are no part of any checkpoint, so they are set, not carried on.
                layer.seed_generator.state.assign(np.array([self.settings.seed, self.epoch], "uint32"))
        for step, (places, inputs, targets, weights) in enumerate(batches):
            gone = (self.epoch + (step + 0.5) / steps) / self.pace.epochs
            self.optimizer.learning_rate = self.pace.learning_rate * share_of_rate(gone)
            weights = weights * self.weigh(places)
            logs = self.suffix.train_on_batch(inputs, targets, sample_weight=weights, return_dict=True)
            self.answers[places] = logs["answers"]
            on_step(step + 1)
        self.epoch += 1

    def measure_train(self, weights: np.ndarray) -> Fit:
        """Return loss and accuracy over all training photos, each as it came up last.

        Both are weighted as they are trained: the loss is the mean over photos of loss times class weight, the accuracy
        the share of the weights that went to photos with the right class.
        """
        chances, right = self.answers.astype(np.float64).T
        losses = -np.log(chances.clip(1e-7))
        return Fit(float((losses * weights).mean()), float(np.average(right, weights=weights)))

    def save(self, folder: Path) -> None:
        """Write a checkpoint."""
        arrays = {f"weight{i}": value for i, value in enumerate(self.suffix.get_weights())}
        arrays |= {f"optimizer{i}": np.asarray(value) for i, value in enumerate(self.optimizer.variables)}
        arrays["answers"] = self.answers
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
        self.answers[:] = arrays["answers"]
        self.epoch, self.history = state["epoch"], state["history"]


def _train_epoch(state: FineTuning, read: Callable[[], Network], features: Features, run: Run) -> None:
    """Train for an epoch and write its row of the history; `read` returns the network as it is then."""
    started = time.perf_counter()
    settings, dataset, total = run.settings, features.dataset, state.pace.epochs * PROGRESS
    targets, val = dataset.targets(dataset.part("train")), dataset.part("val")
    weights = class_weights(targets, len(dataset.classes), settings.class_weights)[targets]
    chosen, before = state.choose_batches(), state.epoch * PROGRESS
    batches = _read_batches(features, chosen, targets, weights, epoch=state.epoch)
    state.run_epoch(
        batches, len(chosen), lambda step: run.on_progress("fine_tune", before + PROGRESS * step // len(chosen), total)
    )
    judged = state.judged = read().predict(features, val)
    if not np.isfinite(judged).all():
        raise SettingsError(
            f"fine-tuning came to numbers beyond all bounds in epoch {state.epoch}",
            hint="try a smaller --learning-rate, or --frozen-only",
        )
    fits = {"train": state.measure_train(weights), "val": measure_fit(judged, dataset.targets(val))}
    rate = float(state.optimizer.learning_rate)
    state.history.append(history_row("fine_tuned", state.epoch, **fits, learning_rate=rate, started=started))


def _mix(state: FineTuning, trained: Network, frozen: Network, features: Features) -> tuple[float, Network, np.ndarray]:
    """Return the best share of what was trained in the mean with the frozen network, that mean and what it says.

    That is probabilities of the validation photos, float64 [n, C].
    """
    photos = features.dataset.part("val")
    means: dict[float, tuple[Network, np.ndarray]] = {}
    for share in SHARES if state.settings.keep == "best" else SHARES[-1:]:
        network = trained if share == 1 else frozen.mix(trained, share)
        known = state.judged if share == 1 else None  # by the last epoch, unless the run was stopped after it
        means[share] = network, network.predict(features, photos) if known is None else known
    targets = features.dataset.targets(photos)
    best = min(means, key=lambda share: log_loss(means[share][1], targets))
    return best, *means[best]


def share_of_rate(gone: float) -> float:
    """Return the share of the largest rate after a share of phase 2: it rises from 0, then falls like a cosine.

    Example:
        >>> [round(share_of_rate(gone), 2) for gone in (0.0, 0.05, 0.1, 0.55, 1.0)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    return min(gone / WARM_UP, (1 + math.cos(math.pi * (gone - WARM_UP) / (1 - WARM_UP))) / 2)


def _read_batches(
    features: Features, batches: np.ndarray, targets: np.ndarray, weights: np.ndarray, *, epoch: int
) -> Iterator[Batch]:
    """Yield batches of places of training photos, read from the cache as they are asked for.

    Each photo goes through its views epoch by epoch, also where it comes up seldom, and each batch holds several.
    """
    photos = features.dataset.part("train")
    for chosen in batches:
        views = (chosen + epoch + epoch // SELDOM) % features.views
        inputs = features.inputs([photos[i] for i in chosen], views.tolist())
        yield chosen, inputs, targets[chosen], weights[chosen]


def fill_batches(order: np.ndarray, size: int) -> np.ndarray:
    """Cut an order into batches of equal size; the last one is filled up from the start.

    Example:
        >>> fill_batches(np.arange(5), 3)
        array([[0, 1, 2],
               [3, 4, 0]])
    """
    return np.resize(order, (-(-len(order) // size), size))


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
