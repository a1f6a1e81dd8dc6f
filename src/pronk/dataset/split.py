"""Labels, groups and given parts -> train, val or test for each photo, without leaks."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, zip_longest
from typing import TypeVar

Item = TypeVar("Item")

# A photo's group goes to the part that is last in this order: what is measured stays untouched.
RANK: Mapping[str | None, int] = {None: -1, "train": 0, "val": 1, "test": 2}


def assign_parts(
    labels: Sequence[str],
    groups: Sequence[int],
    digests: Sequence[str],
    given: Sequence[str | None],
    *,
    shares: Mapping[str, float],
    seed: int,
) -> list[str | None]:
    """Split photos into parts, stratified by label, without dividing a group.

    Groups are taken in an order that depends only on the seed and the photos' content, so neither file names nor the
    order of a directory matter. Given parts win: where a group has photos in several of them, the photos in the
    lesser part (train before val before test) are left out, for they would leak.

    Each photo has a label, the number of its group, the sha256 of its bytes, and the part it must keep or None. Shares
    are those of each class's photos for `val` and `test`, between 0 and 1; the seed decides the order.

    Returns:
        For each photo its part, or None where it has to be left out.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    parts = keep_given(groups, given)
    unassigned = (joined for joined in members.values() if all(given[index] is None for index in joined))
    by_label: dict[str, list[list[int]]] = defaultdict(list)
    for joined in unassigned:
        by_label[_main_label(joined, labels)].append(joined)
    for label, free in sorted(by_label.items()):
        free.sort(key=lambda group: _order(seed, min(digests[index] for index in group)))
        total = sum(map(len, free)) + sum(a == label and p is not None for a, p in zip(labels, parts, strict=True))
        taken = Counter(part for a, part in zip(labels, parts, strict=True) if a == label)
        wanted = {part: max(round(shares[part] * total), 1) - taken[part] for part in ("val", "test") if shares[part]}
        _fill(free, wanted, parts, has_train=taken["train"] > 0)
    return parts


def keep_given(groups: Sequence[int], given: Sequence[str | None]) -> list[str | None]:
    """Give each photo of a group its strictest part; those that were given for a lesser one get none."""
    strictest: dict[int, str | None] = defaultdict(lambda: None)
    for group, part in zip(groups, given, strict=True):
        strictest[group] = max(strictest[group], part, key=RANK.__getitem__)
    return [
        strictest[group] if part in (None, strictest[group]) else None
        for group, part in zip(groups, given, strict=True)
    ]


def _fill(free: list[list[int]], wanted: dict[str, int], parts: list[str | None], *, has_train: bool) -> None:
    """Give the groups of one class to val and test until these have what they want, the rest to train."""
    remaining = list(free)
    for part, room in wanted.items():
        # The first part needs one group left for train, the others likewise.
        while room > 0 and len(remaining) > (0 if has_train else 1):
            fitting = next((group for group in remaining if len(group) <= room), None)
            if fitting is None and room < wanted[part]:
                break
            # Where no group is small enough, a part that would stay empty takes the smallest.
            chosen = fitting or min(remaining, key=len)
            room -= len(chosen)
            remaining.remove(chosen)
            for index in chosen:
                parts[index] = part
    for group in remaining:
        for index in group:
            parts[index] = "train"


def _main_label(group: list[int], labels: Sequence[str]) -> str:
    counted = Counter(labels[index] for index in group)
    return max(sorted(counted), key=counted.__getitem__)


def _order(seed: int, digest: str) -> str:
    return hashlib.sha256(f"{seed}:{digest}".encode()).hexdigest()


def take_in_turn(classes: Iterable[Sequence[Item]]) -> list[Item]:
    """Return what is in several classes with the classes in turn, so that a large one does not crowd out a small one.

    Example:
        >>> take_in_turn([["a1", "a2", "a3"], ["b1"]])
        ['a1', 'b1', 'a2', 'a3']
    """
    return [item for item in chain.from_iterable(zip_longest(*classes)) if item is not None]
