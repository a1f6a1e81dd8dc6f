"""Labels and groups -> the fold of each photo: none of these ways divides a group.

There are three, since their results are kept: a study spreads classes as evenly as it can, the choice of a strength
deals groups whatever their classes, and the hunt for shortcuts deals the groups of each class in turn.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np


def assign_folds(targets: np.ndarray, groups: Sequence[str], *, k: int, seed: int) -> np.ndarray:
    """Deal photos into folds, each class spread evenly, no group divided: fold numbers, int64 [n].

    Larger groups go first, each to the fold that holds the fewest photos of its class, so that folds come out equal
    even where groups are not; ties and the order of equal groups are the seed's.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    rng, joint = np.random.default_rng(seed), list(members.values())
    order = sorted((joint[i] for i in rng.permutation(len(joint))), key=len, reverse=True)
    folds = np.zeros(len(targets), np.int64)
    held: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(k))
    sizes = np.zeros(k)
    for joined in order:
        label = Counter(targets[joined].tolist()).most_common(1)[0][0]
        fold = int(np.lexsort((rng.random(k), sizes, held[label]))[0])
        folds[joined] = fold
        held[label][fold] += len(joined)
        sizes[fold] += len(joined)
    return folds


def deal_groups(groups: Sequence[str], *, k: int, rng: np.random.Generator) -> np.ndarray:
    """Deal groups, shuffled, into folds in turn, whatever their classes: fold numbers, int64 [n]."""
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    folds = np.empty(len(names), np.int64)
    folds[rng.permutation(len(names))] = np.arange(len(names)) % k
    return folds[group]


def deal_by_class(targets: np.ndarray, groups: np.ndarray, *, k: int, seed: int) -> np.ndarray:
    """Deal the groups of each class, shuffled, into folds in turn: fold numbers, int64 [n]."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    order = np.lexsort((np.random.default_rng(seed).random(len(first)), targets[first]))
    folds = np.empty(len(first), np.int64)
    folds[order] = np.arange(len(first)) % k
    return folds[group]
