"""Tables of features, drawn."""

import numpy as np

from pronk.analysis.folds import FeatureTable


def make_table(count, classes=2, *, features=12, distance=3.0, copies=(), seed=0):
    """Clouds of features, of photos in all or, in a row, of each class; `copies` are pairs of rows (copy, original)."""
    rng = np.random.default_rng(seed)
    targets = np.arange(count) % classes if isinstance(count, int) else np.repeat(np.arange(len(count)), count)
    count, classes = len(targets), targets.max() + 1
    X = rng.normal(0, 1, (count, features)) + distance * np.eye(classes, features)[targets]
    groups = [f"g{i}" for i in range(count)]
    for copy, original in copies:
        groups[copy], X[copy], targets[copy] = groups[original], X[original], targets[original]
    names = tuple(f"{i}.jpg" for i in range(count))
    digests = tuple(f"{i:064x}" for i in range(count))
    return FeatureTable(names, digests, tuple("abcdefgh"[:classes]), targets, tuple(groups), X.astype(np.float32))
