"""Properties, labels and groups -> how far the class can be told without looking at the subject, and warnings.

A classifier that sees nothing but one kind of property (naive Bayes over bins, so that numbers and names are treated
alike) is cross-validated; where it is far above chance, a network can learn the same instead of the subject.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pronk.analysis.dealing import deal_by_class
from pronk.dataset.findings import Finding, find
from pronk.photos.properties import PhotoProperties
from pronk.text import percent

FOLDS, SEED = 5, 0
LEAST_PER_CLASS = 8  # fewer photos apart from copies say nothing about a class
MOST_STUDIED = 20_000  # photos; more only make the interval narrower than anybody can use
MOST_BINS = 32
SMOOTHING = 0.5  # photos added to each bin
ALPHA = 0.001  # probability of an alarm by luck alone, all kinds and classes together
INTERVAL = 1.96
# Share of the way from chance to always right. Of 327 photos of alpacas and other things no kind of property tells more
# than 0.12 of it, planted frames and tints tell all of it. But things that have a colour of their own are honest, so
# colours have to tell more before they are called a shortcut.
LARGE, LARGE_FOR_COLOUR = 0.6, 0.85
MOST_NAMED = 3


@dataclasses.dataclass(frozen=True)
class PropertyKind:
    """One kind of property: its name, its columns, and what to say of it."""

    name: str
    words: str
    columns: Callable[[PhotoProperties], tuple[float | str, ...]]
    remedy: str
    soft: bool = False


@dataclasses.dataclass(frozen=True)
class Shortcut:
    """How far the class can be told from one kind of property.

    Attributes:
        kind: file_size, dimensions, aspect, camera, quality, colour or border.
        words: the same for people.
        value: cross-validated balanced accuracy: the mean over the classes of the share that is right.
        low: lower end of its 95 % interval.
        high: upper end.
        chance: the accuracy of guessing.
        photos: how many were studied, copies counted once.
        told: classes that can be told from all others, each with the balanced accuracy of that.
        warns: the effect is too large to be luck or honest.
        sentence: the same in words.
        remedy: the thing to do about it.
    """

    kind: str
    words: str
    value: float
    low: float
    high: float
    chance: float
    photos: int
    told: tuple[tuple[str, float], ...]
    warns: bool
    sentence: str
    remedy: str


def _upright(properties: PhotoProperties) -> tuple[int, int]:
    size = properties.width, properties.height
    return size[::-1] if properties.orientation >= 5 else size


def _border(properties: PhotoProperties) -> tuple[float | str, ...]:
    red, green, blue = (sum(properties.border[channel::3]) / 4 for channel in range(3))
    lightness = [sum(properties.border[3 * side : 3 * side + 3]) / 3 for side in range(4)]
    return (red - green, blue - green, properties.spread, *lightness)


def _colour(properties: PhotoProperties) -> tuple[float | str, ...]:
    red, green, blue = properties.colour
    return (red + green + blue, red - green, blue - green)


_SAVE = "Save the photos of all classes with the same program and settings."
_SIZE = "Collect photos of every class from the same sources, or scale them all to one size."
_PLACE = "Take photos of every class in the same places and at the same hours."
KINDS = (
    PropertyKind("file_size", "the file size", lambda one: (one.size,), _SAVE),
    PropertyKind("dimensions", "width and height", _upright, _SIZE),
    PropertyKind("aspect", "the shape of the frame", lambda one: (_upright(one)[0] / _upright(one)[1],), _SIZE),
    PropertyKind("camera", "the camera", lambda one: (one.camera,), "Take photos of every class with every camera."),
    PropertyKind("quality", "file format and JPEG quality", lambda one: (one.format, one.quality), _SAVE),
    PropertyKind("colour", "the mean colour", _colour, _PLACE, soft=True),
    PropertyKind("border", "the border", _border, "Look for frames, watermarks and dates. " + _PLACE, soft=True),
)


def measure_shortcuts(
    properties: Sequence[PhotoProperties], labels: Sequence[str], groups: Sequence[int]
) -> tuple[Shortcut, ...]:
    """Measure how far the class can be told from each kind of property alone.

    Groups are equal for photos that are copies of each other or belong together; of each one is studied. There is one
    result per kind, or none at all where there are not two classes with enough photos.
    """
    rows, classes = _choose(labels, groups)
    if len(classes) < 2:
        return ()
    index = {name: number for number, name in enumerate(classes)}
    targets = np.array([index[labels[row]] for row in rows])
    folds = deal_by_class(targets, np.array([groups[row] for row in rows]), k=FOLDS, seed=SEED)
    results = []
    for kind in KINDS:
        columns = zip(*(kind.columns(properties[row]) for row in rows), strict=True)
        evidence = _cross_validate([_bin(column) for column in columns], targets, folds, len(classes))
        results.append(_judge(kind, evidence, targets, classes))
    return tuple(results)


def list_warnings(shortcuts: Sequence[Shortcut]) -> tuple[Finding, ...]:
    """Return a finding for each shortcut that warns."""
    return tuple(find("", "shortcut", shortcut.sentence, shortcut.remedy) for shortcut in shortcuts if shortcut.warns)


def _choose(labels: Sequence[str], groups: Sequence[int]) -> tuple[list[int], list[str]]:
    """Return the rows to study, one per class of each group, and the classes that have enough of them."""
    first: dict[tuple[int, str], int] = {}
    for row, key in enumerate(zip(groups, labels, strict=True)):
        first.setdefault(key, row)
    rows = np.array(list(first.values()), np.int64)
    if len(rows) > MOST_STUDIED:
        rows = np.sort(np.random.default_rng(SEED).choice(rows, MOST_STUDIED, replace=False))
    names, counts = np.unique([labels[row] for row in rows], return_counts=True)
    classes = [str(name) for name, number in zip(names, counts, strict=True) if number >= LEAST_PER_CLASS]
    return [int(row) for row in rows if labels[row] in set(classes)], classes


def _bin(column: Sequence[Any]) -> np.ndarray:
    """Number the values of a column: each its own number if they are names or few, else by equal shares."""
    values, codes = np.unique(column, return_inverse=True)
    most = min(max(int(len(column) ** 0.5), 4), MOST_BINS)
    if values.dtype.kind == "U" or len(values) <= most:
        return codes
    edges = np.unique(np.quantile(column, np.arange(1, most) / most))
    return np.asarray(np.searchsorted(edges, column, side="right"))


def _cross_validate(columns: Sequence[np.ndarray], targets: np.ndarray, folds: np.ndarray, classes: int) -> np.ndarray:
    """Return log-likelihood ratios of each class against all others and against the mean, float64 [2, n, classes].

    Each row is judged by what the other folds tell.
    """
    evidence = np.zeros((2, len(targets), classes))
    for codes in columns:
        bins = int(codes.max()) + 1
        for fold in range(FOLDS):
            judged = folds == fold
            seen = np.bincount(targets[~judged] * bins + codes[~judged], minlength=classes * bins)
            counts = seen.reshape(classes, bins).astype(np.float64)
            own, rest = _log_shares(counts), _log_shares(counts.sum(axis=0) - counts)
            evidence[0][judged] += (own - rest).T[codes[judged]]
            evidence[1][judged] += own.T[codes[judged]]
    return evidence


def _log_shares(counts: np.ndarray) -> np.ndarray:
    shares: np.ndarray = (counts + SMOOTHING) / (counts.sum(axis=1, keepdims=True) + SMOOTHING * counts.shape[1])
    return np.asarray(np.log(shares))


def _judge(kind: PropertyKind, evidence: np.ndarray, targets: np.ndarray, classes: Sequence[str]) -> Shortcut:
    sizes, chance = np.bincount(targets), 1 / len(classes)
    large = LARGE_FOR_COLOUR if kind.soft else LARGE
    needed = math.log(len(KINDS) * len(classes) / ALPHA)
    shares = np.bincount(targets[evidence[1].argmax(axis=1) == targets], minlength=len(classes)) / sizes
    value, error = float(shares.mean()), _standard_error(shares, sizes)
    surprise = len(classes) / (1 / sizes).mean() * _divergence(value, chance)
    of_all = bool(value - chance >= large * (1 - chance) and surprise > needed)
    apart = []
    for number, name in enumerate(classes):
        accuracy, surprise = _tell_apart(evidence[0][:, number] > 0, targets == number)
        if accuracy - 0.5 >= large * 0.5 and surprise > needed:
            apart.append((name, round(accuracy, 4)))
    apart.sort(key=lambda pair: -pair[1])
    return Shortcut(
        kind=kind.name,
        words=kind.words,
        value=round(value, 4),
        low=round(max(value - INTERVAL * error, 0.0), 4),
        high=round(min(value + INTERVAL * error, 1.0), 4),
        chance=round(chance, 4),
        photos=len(targets),
        told=tuple(apart),
        warns=bool(apart) or of_all,
        sentence=_say(kind, value, chance, apart, of_all=of_all),
        remedy=kind.remedy,
    )


def _standard_error(shares: np.ndarray, sizes: np.ndarray) -> float:
    """Return the standard error of the mean of shares; it is not 0 where all or none were hits."""
    cautious = (shares * sizes + 1) / (sizes + 2)
    return float(np.sqrt((cautious * (1 - cautious) / sizes).sum()) / len(sizes))


def _tell_apart(says_so: np.ndarray, is_class: np.ndarray) -> tuple[float, float]:
    """Return the balanced accuracy of telling one class from all others, and how surprising that is.

    The surprise is half the statistic of a likelihood-ratio test of equal shares, in nats: by luck alone it exceeds s
    with a probability of about exp(-s), also in small classes.
    """
    inside, outside = float(says_so[is_class].mean()), float(says_so[~is_class].mean())
    overall = float(says_so.mean())
    surprise = is_class.sum() * _divergence(inside, overall) + (~is_class).sum() * _divergence(outside, overall)
    return (inside + 1 - outside) / 2, float(surprise)


def _divergence(share: float, expected: float) -> float:
    """Return the Kullback-Leibler divergence of two shares in nats."""
    pairs = ((share, expected), (1 - share, 1 - expected))
    return sum(p * math.log(p / q) for p, q in pairs if p > 0)


def _say(kind: PropertyKind, value: float, chance: float, apart: Sequence[tuple[str, float]], *, of_all: bool) -> str:
    if not apart and not of_all:
        return f"{kind.words[:1].upper()}{kind.words[1:]}: {percent(value)} right, where chance is {percent(chance)}."
    if of_all:
        subject, right, luck = "The class can be told", value, chance
    else:
        names = ", ".join(repr(name) for name, _ in apart[:MOST_NAMED])
        names += f" and {len(apart) - MOST_NAMED} more" if len(apart) > MOST_NAMED else ""
        subject, right, luck = f"{names} can be told from the other classes", apart[0][1], 0.5
    statement = (
        f"{subject} by {kind.words} alone: {percent(right)} right in cross-validation, where chance is {percent(luck)}."
    )
    doubt = " A model may learn that instead of what is in the picture."
    if kind.soft:
        doubt = " That can be honest, since some things have their colour; or each class was taken in its own place."
    return statement + doubt
