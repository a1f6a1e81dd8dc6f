"""Features, labels and out-of-fold probabilities -> photos whose label looks wrong, the surest first.

Two witnesses are heard: heads that never saw the photo, each class measured by its own mean confidence (after
Northcutt, Jiang and Chuang, "Confident Learning", 2021), and the photo's nearest neighbours.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from pronk.analysis.folds import FeatureTable

# Measured on the 327 alpaca photos (alpha 1.0) with 5 % and 10 % of the labels flipped, eight seeds each: of those, .96
# and .96 are among the first 1.5 times their number (worst seed .88 and .88); by the heads alone .95 and .94, by the
# neighbours alone .94 and .96. The original rule of confident learning, which cuts off below a class's mean confidence,
# lists only .80 and .78 of them (worst seed .50). 5 to 20 neighbours, standardised features, and a plain probability
# instead of its ratio to the class's mean, are all within .02. With the `offline` weights, which have never seen a
# photo: .37 and .43.
NEIGHBOURS = 10
# Wrong labels pull at a weakly regularised head: its average precision is .95 and .92 at 1.0, .93 and .89 at 0.3, which
# cross-validation chooses inside the folds, in four times the seconds.
STRENGTH = 1.0
# From here on the witnesses together speak more for another label than for the given one. Of the flipped .98 and .96
# are above, one row in two is right at 5 % and two in three at 10 %; 12 of the 327 photos as they are.
LIMIT = 0.5
MOST_SHOWN = 5  # neighbours that a suspicion names
BLOCK_VALUES = 2**23  # similarities held at a time: 32 MB


@dataclasses.dataclass(frozen=True)
class Neighbour:
    """A photo that looks alike, and the label it has: it may be wrong as well."""

    path: str
    label: str


@dataclasses.dataclass(frozen=True)
class Suspicion:
    """A photo whose label looks wrong.

    Attributes:
        path: relative to the data folder.
        digest: sha256 of the file's bytes.
        given: its label.
        suggested: the label that speaks for itself most.
        score: from 0 to 1, see `find_suspicious`.
        neighbours: the nearest photos that are not copies of it, the nearest first.
    """

    path: str
    digest: str
    given: str
    suggested: str
    score: float
    neighbours: tuple[Neighbour, ...] = ()


def find_suspicious(table: FeatureTable, answers: np.ndarray, *, limit: float = LIMIT) -> tuple[Suspicion, ...]:
    """Rank the photos whose label looks wrong.

    The score is the mean of two shares. The heads': q of the strongest other class, over q of that and of the given
    class, where q is a class's mean probability divided by what photos of that class reach on average. The neighbours':
    how many of the 10 nearest have another label, or of fewer where the class has no 10 other photos.

    Args:
        table: the photos.
        answers: out-of-fold probabilities, from `pronk.analysis.folds.cross_validate`, float64 [R, n, C].
        limit: a lower score is not a suspicion; the worst come first.
    """
    shares, suggested = weigh_answers(answers.mean(axis=0), table.targets)
    neighbours = find_neighbours(table.features, table.groups, k=NEIGHBOURS)
    scores = (shares + weigh_neighbours(neighbours, table.targets, table.groups)) / 2
    ranked = [int(i) for i in np.argsort(-scores, kind="stable") if scores[i] >= limit]
    labels = [table.classes[target] for target in table.targets]
    return tuple(
        Suspicion(
            table.paths[i],
            table.digests[i],
            labels[i],
            table.classes[suggested[i]],
            float(scores[i]),
            tuple(Neighbour(table.paths[j], labels[j]) for j in neighbours[i, :MOST_SHOWN]),
        )
        for i in ranked
    )


def suspicion_records(suspicions: Sequence[Suspicion]) -> list[dict[str, Any]]:
    """Return the records of `pronk audit --json`: path, given, suggested, score, neighbours[{path, label}]."""
    rows = [dataclasses.asdict(suspicion) for suspicion in suspicions]
    return [{name: value for name, value in row.items() if name != "digest"} for row in rows]


def weigh_answers(probabilities: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Say how much the heads speak against each given label, and for which other one.

    Of probabilities [n, C] and given class indices [n]: shares from 0 to 1, float64 [n], and class indices, int64 [n].
    """
    rows = np.arange(len(targets))
    given = probabilities[rows, targets]
    sizes = np.maximum(np.bincount(targets, minlength=probabilities.shape[1]), 1)
    # A class that is hard to tell has low probabilities also where the label is right.
    usual = np.bincount(targets, given, minlength=probabilities.shape[1]) / sizes
    relative = probabilities / np.maximum(usual, 1e-6)
    mine = relative[rows, targets]
    relative[rows, targets] = -1.0
    other = relative.argmax(axis=1)
    theirs = relative[rows, other]
    return theirs / np.maximum(theirs + mine, 1e-12), other


def find_neighbours(features: np.ndarray, groups: Sequence[str], *, k: int) -> np.ndarray:
    """Find the photos nearest by cosine: never one of the same group, and of another group only the nearest.

    Copies are not independent witnesses, neither of the photo nor of each other.

    Returns:
        Row indices, int64 [n, k], the nearest first; k is lower where there are fewer other groups.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    directions = features / np.maximum(lengths, 1e-12)
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    members = np.split(order, starts[1:])
    k = min(k, len(starts) - 1)
    found = np.zeros((len(features), k), np.int64)
    step = max(1, BLOCK_VALUES // max(1, len(features)))
    for start in range(0, len(features), step):
        rows = np.arange(start, min(start + step, len(features)))
        similarity = directions[rows] @ directions.T
        nearest = np.maximum.reduceat(similarity[:, order], starts, axis=1)
        nearest[np.arange(len(rows)), group[rows]] = -np.inf
        chosen = np.argpartition(-nearest, k - 1, axis=1)[:, :k] if k else np.zeros((len(rows), 0), np.int64)
        ranks = np.argsort(-np.take_along_axis(nearest, chosen, axis=1), axis=1, kind="stable")
        for i, number in enumerate(np.take_along_axis(chosen, ranks, axis=1)):
            found[start + i] = [members[g][similarity[i, members[g]].argmax()] for g in number]
    return found


def weigh_neighbours(neighbours: np.ndarray, targets: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Return the share of neighbours with another label, float64 [n]; 0 where nobody can be asked.

    Of a class with few photos only as many neighbours are asked as it could have itself.
    """
    different = {(target, group) for target, group in zip(targets.tolist(), groups, strict=True)}
    sizes = np.bincount([target for target, _ in different], minlength=1)
    asked = np.clip(sizes[targets] - 1, 1, None)[:, None] > np.arange(neighbours.shape[1])
    disagree = targets[neighbours] != targets[:, None]
    return np.asarray((disagree & asked).sum(axis=1) / np.maximum(asked.sum(axis=1), 1))
