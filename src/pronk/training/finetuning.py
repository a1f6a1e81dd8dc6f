"""Keras model of the top blocks -> trained epoch by epoch, each a pure function of the state before it."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pronk.config import Settings
from pronk.training.checkpoints import load_checkpoint, save_checkpoint

# An epoch that lowers the mean log-loss by less is not worth its time: .001 is a tenth of a percent of likelihood.
LEAST_GAIN = 1e-3

HistoryRow = dict[str, Any]
Batch = tuple[np.ndarray, np.ndarray, np.ndarray]  # activations, targets, sample weights


class FineTuning:
    """The state of phase 2: a Keras model of the top blocks and head, its optimizer, and the best epoch so far.

    Each epoch is a pure function of the state before it and (seed, epoch), so a run that was stopped after any epoch
    ends with the same weights as an undisturbed one.
    """

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
        self.waited = 0
        self.reference = np.inf
        self.history: list[HistoryRow] = []

    @property
    def is_done(self) -> bool:
        """Tell whether all epochs are done, or the validation loss has stopped falling."""
        return self.epoch >= self.settings.epochs or self.waited >= self.settings.patience

    def run_epoch(self, batches: Iterable[Batch], on_step: Callable[[int], None]) -> tuple[float, float]:
        """Train on batches, telling the number of each step done; return loss and accuracy over the whole epoch.

        Both are weighted as they are trained: the loss is the mean over photos of loss times class weight, the accuracy
        the share of the weights that went to photos with the right class.
        """
        for layer in self.suffix.layers:
            if layer.name == "dropout" and layer.rate:
                # Its random numbers are no part of any checkpoint, so they are set, not carried on.
                layer.seed_generator.state.assign(np.array([self.settings.seed, self.epoch], "uint32"))
        losses, accuracies, sizes, weighted_sizes = [], [], [], []
        for step, (activations, targets, weights) in enumerate(batches, start=1):
            # Keras forgets the batches before with each call.
            logs = self.suffix.train_on_batch(activations, targets, sample_weight=weights, return_dict=True)
            losses.append(logs["loss"])
            accuracies.append(logs["accuracy"])
            sizes.append(len(targets))
            weighted_sizes.append(weights.sum())
            on_step(step)
        return float(np.average(losses, weights=sizes)), float(np.average(accuracies, weights=weighted_sizes))

    def keep_if_best(self, val_loss: float) -> bool:
        """Remember the weights if the validation loss is the lowest so far; count epochs that hardly lower it."""
        self.waited += 1
        if val_loss < self.reference - LEAST_GAIN:
            self.reference, self.waited = val_loss, 0
        if not val_loss < self.best_loss:
            return False
        self.best_epoch, self.best_loss, self.best = self.epoch, val_loss, self.suffix.get_weights()
        return True

    def save(self, folder: Path, val_probabilities: np.ndarray) -> None:
        """Write a checkpoint."""
        arrays = {f"weight{i}": value for i, value in enumerate(self.suffix.get_weights())}
        arrays |= {f"best{i}": value for i, value in enumerate(self.best)}
        arrays |= {f"optimizer{i}": np.asarray(value) for i, value in enumerate(self.optimizer.variables)}
        arrays["val_probabilities"] = val_probabilities
        state = {
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_loss": self.best_loss,
            "waited": self.waited,
            "reference": self.reference,
            "history": self.history,
        }
        save_checkpoint(folder, self.epoch, arrays, state)

    def restore(self, folder: Path) -> np.ndarray | None:
        """Go on from the newest whole checkpoint; return the best epoch's validation probabilities, if there is one."""
        loaded = load_checkpoint(folder)
        if loaded is None:
            return None
        arrays, state = loaded
        count = len(self.best)
        self.suffix.set_weights([arrays[f"weight{i}"] for i in range(count)])
        self.best = [arrays[f"best{i}"] for i in range(count)]
        for i, variable in enumerate(self.optimizer.variables):
            variable.assign(arrays[f"optimizer{i}"])
        self.epoch, self.best_epoch = state["epoch"], state["best_epoch"]
        self.best_loss, self.history = state["best_loss"], state["history"]
        self.waited, self.reference = state["waited"], state["reference"]
        return arrays["val_probabilities"]
