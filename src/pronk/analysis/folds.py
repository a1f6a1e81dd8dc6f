"""Features, labels and groups -> repeated stratified grouped k-fold: each photo judged by heads that never saw it."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from pronk.analysis.dealing import assign_folds
from pronk.analysis.head import Lesson, choose_strength, class_weights, predict_left_out
from pronk.errors import DataError
from pronk.pools import start_threads
from pronk.text import plural

FOLDS = 5
REPEATS = 3
MOST_STUDIED = 2000


@dataclasses.dataclass(frozen=True)
class FeatureTable:
    """What a study works on: one row per usable photo.

    Attributes:
        paths: relative to the data folder.
        digests: sha256 of each file's bytes.
        classes: names in class order.
        targets: class indices, int64 [n].
        groups: names; photos with equal ones are copies of each other, or belong together.
        features: pooled features of the frozen network, float32 [n, d].
    """

    paths: tuple[str, ...]
    digests: tuple[str, ...]
    classes: tuple[str, ...]
    targets: np.ndarray
    groups: tuple[str, ...]
    features: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def choose(self, rows: Sequence[int] | np.ndarray) -> "FeatureTable":
        """Return the table of some rows, given as indices."""
        picked = [int(row) for row in rows]
        return FeatureTable(
            tuple(self.paths[i] for i in picked),
            tuple(self.digests[i] for i in picked),
            self.classes,
            self.targets[picked],
            tuple(self.groups[i] for i in picked),
            self.features[picked],
        )


@dataclasses.dataclass(frozen=True)
class Fold:
    """One piece of work: a head is fitted on some rows of a table and answers for others; both are indices.

    A strength of None is chosen inside the fitted rows, by the seed.
    """

    fitted: np.ndarray
    judged: np.ndarray
    strength: float | None
    seed: int


def cross_validate(
    table: FeatureTable,
    *,
    k: int = FOLDS,
    repeats: int = REPEATS,
    seed: int,
    strength: float | None = None,
    on_fold: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """Answer for each photo by heads that saw neither it nor its copies, photos dealt anew in each of R repeats.

    There are fewer folds than k where a class has fewer photos apart from copies. A strength (of the regularisation) of
    None is chosen inside each fold, so that the answers are honest. `on_fold` is called with (folds done, folds to do).

    Returns:
        Probabilities, float64 [R, n, C].

    Raises:
        DataError: if a class has no two photos apart from copies.
    """
    k = possible_folds(table, k)
    work, places = [], []
    for repeat in range(repeats):
        folds = assign_folds(table.targets, table.groups, k=k, seed=seed + repeat)
        for number in range(k):
            judged = np.flatnonzero(folds == number)
            work.append(Fold(np.flatnonzero(folds != number), judged, strength, seed + repeat))
            places.append((repeat, judged))
    answers = np.zeros((repeats, len(table), len(table.classes)))
    for done, ((repeat, judged), predicted) in enumerate(zip(places, predict_folds(table, work), strict=True)):
        answers[repeat, judged] = predicted
        on_fold(done + 1, len(work))
    return answers


def predict_folds(table: FeatureTable, work: Sequence[Fold]) -> Iterator[np.ndarray]:
    """Yield the answers of each fold in order, float64 [m, C] each, worked out on all cores."""
    from threadpoolctl import threadpool_limits

    # Set once around all threads: the limit is the whole process's, and each thread would lift it for the others.
    with threadpool_limits(1), start_threads() as pool:
        yield from pool.map(partial(predict_fold, table), work)


def predict_fold(table: FeatureTable, fold: Fold) -> np.ndarray:
    """Return what a head that learned from one side of a fold says of the other: float64 [m, C].

    Classes are balanced as in training.
    """
    seen, judged = table.choose(fold.fitted), table.features[fold.judged]
    strength = choose_common_strength(seen, seed=fold.seed) if fold.strength is None else fold.strength
    answers = predict_left_out(seen.features, seen.targets, judged, strengths=[strength], **_weigh(seen))
    return np.asarray(answers[0])


def choose_common_strength(table: FeatureTable, *, seed: int) -> float:
    """Choose one regularisation for all folds of a study whose numbers are compared with each other only."""
    return choose_strength(Lesson(table.features, table.targets, table.groups, **_weigh(table)), seed=seed)


def _weigh(table: FeatureTable) -> dict[str, Any]:
    classes = len(table.classes)
    return {"classes": classes, "weights": class_weights(table.targets, classes, "auto")[table.targets]}


def thin_out(table: FeatureTable, *, seed: int, most: int = MOST_STUDIED) -> FeatureTable:
    """Return a fair sample of at most `most` photos: classes in proportion, groups whole."""
    if len(table) <= most:
        return table
    dealt = assign_folds(table.targets, table.groups, k=-(-len(table) // most), seed=seed)
    return table.choose(np.flatnonzero(dealt == 0))


def possible_folds(table: FeatureTable, k: int) -> int:
    """Return k, or what the smallest class allows: as many folds as it has photos apart from copies.

    Raises:
        DataError: if a class has fewer than two.
    """
    different = Counter(label for label, _ in set(zip(table.targets.tolist(), table.groups, strict=True)))
    for index, name in enumerate(table.classes):
        if different[index] < 2:
            raise DataError(
                f"{name!r} has {plural(different[index], 'photo')} apart from copies",
                hint="each class needs at least 2 to learn from one and judge by the other; see `pronk check`",
            )
    return max(2, min(k, *different.values()))
