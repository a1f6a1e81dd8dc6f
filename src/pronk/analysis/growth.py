"""Features and labels -> accuracy by number of photos, and what more of them would bring.

Heads are fitted on growing shares of the photos and judged on others. Errors fall like a power of the number of photos
(Cortes et al., "Learning Curves: Asymptotic Values and Rate of Convergence", 1994): a fitted power says how it goes on.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pronk.analysis.dealing import assign_folds
from pronk.analysis.folds import FeatureTable, Fold, choose_common_strength, possible_folds, predict_folds
from pronk.analysis.metrics import confusion_matrix, share_record, wilson_interval

SHARES = (0.1, 0.2, 0.4, 0.8, 1.0)
FOLDS = 10  # the largest share then learns from 90 % of the photos
REPEATS = 4
MOST_MORE = 100  # photos per class that are asked about; never more than there are, for no fit sees that far ahead
BOOTSTRAPS = 2000
# Errors fall at most like 1 / photos. With powers up to 2 half the alpaca photos foresee half the gain that comes.
POWERS = np.geomspace(0.1, 1.0, 12)
# The photos were drawn twice over, to learn from and to judge by; a bootstrap of the judged ones sees one of the two.
# With this factor the interval holds the gain from half the alpaca photos to all in 8 of 10 seeds, without it in 7.
BOTH_DRAWS = np.sqrt(2)
MEANT = 0.005  # a gain below half a point is none
CONFUSED = 0.1  # share of all mistakes from which on two classes are named as confused


@dataclasses.dataclass(frozen=True)
class Growth:
    """How right the heads of each share were.

    Attributes:
        table: the photos.
        photos: mean number of photos that each share learned from, float64 [S].
        right: share of repeats in which each photo was recognised, float64 [S, n].
        answers: mean probabilities of the largest share, float64 [n, C].
    """

    table: FeatureTable
    photos: np.ndarray
    right: np.ndarray
    answers: np.ndarray


def measure_growth(
    table: FeatureTable,
    *,
    seed: int,
    folds: int = FOLDS,
    repeats: int = REPEATS,
    strength: float | None = None,
    on_fold: Callable[[int, int], None] = lambda done, total: None,
) -> Growth:
    """Cross-validate heads on growing shares of the photos; a smaller share is always part of a larger one.

    Arguments and errors are those of `cross_validate`, but a strength of None is chosen once, by all photos; `on_fold`
    is called with (heads fitted, heads to fit).
    """
    k = possible_folds(table, folds)
    strength = strength or choose_common_strength(table, seed=seed)
    work, shares = [], []
    for repeat in range(repeats):
        dealt = assign_folds(table.targets, table.groups, k=k, seed=seed + repeat)
        for number in range(k):
            fitted, judged = np.flatnonzero(dealt != number), np.flatnonzero(dealt == number)
            order = _order_by_class(table, fitted, np.random.default_rng([seed, repeat, number]))
            for index, share in enumerate(SHARES):
                work.append(Fold(_take(table, order, share), judged, strength, seed))
                shares.append(index)
    right, photos = np.zeros((len(SHARES), len(table))), np.zeros(len(SHARES))
    answers = np.zeros((len(table), len(table.classes)))
    for done, (fold, index, predicted) in enumerate(zip(work, shares, predict_folds(table, work), strict=True)):
        right[index, fold.judged] += (predicted.argmax(axis=1) == table.targets[fold.judged]) / repeats
        photos[index] += len(fold.fitted) / (k * repeats)
        if index == len(SHARES) - 1:
            answers[fold.judged] += predicted / repeats
        on_fold(done + 1, len(work))
    return Growth(table, photos, right, answers)


def forecast(growth: Growth, photos: float, *, seed: int = 0) -> dict[str, dict[str, float]]:
    """Say how right a head would be that learns from another number of photos: accuracy and gain over those there are.

    The power is fitted again to each of 2,000 bootstrap samples of the photos, copies kept together, and drawn among
    those that fit: the interval holds the chance of which photos there are, and how little is known of the power.

    The seed decides the bootstrap. Both have value, low and high; the interval is that of an accuracy measured on as
    many photos as now.
    """
    n, rng = len(growth.table), np.random.default_rng(seed)
    drawn = _bootstrap_weights(growth.table.groups, rng)
    errors = 1 - growth.right.mean(axis=1)
    doubtful = (errors * n + 1) / (n + 2)
    noise = doubtful * (1 - doubtful) / n
    at = [float(growth.photos[-1]), photos]
    samples = 1 - drawn @ growth.right.T / drawn.sum(axis=1, keepdims=True)
    now, then = fit_powers(growth.photos, errors[None], at, noise=noise)[0]
    sampled = fit_powers(growth.photos, samples, at, noise=noise, chance=rng.random(len(samples)))
    value, gain = float(1 - then), float(now - then)
    # Never narrower than what an accuracy measured on as many photos has: all of them right is not a certainty.
    low, high = wilson_interval(round(value * n), n)
    below, above = np.quantile(1 - sampled[:, 1], [0.025, 0.975])
    least, most = gain + BOTH_DRAWS * (np.quantile(sampled[:, 0] - sampled[:, 1], [0.025, 0.975]) - gain)
    return {
        "accuracy": {"value": value, "low": float(min(low, below, value)), "high": float(max(high, above, value))},
        "gain": {"value": gain, "low": float(np.clip(least, 0.0, gain)), "high": float(max(most, gain))},
    }


def fit_powers(
    photos: np.ndarray,
    errors: np.ndarray,
    at: Sequence[float],
    *,
    noise: np.ndarray,
    chance: np.ndarray | None = None,
) -> np.ndarray:
    """Fit error = floor + scale * photos ** -power by weighted least squares, and read it off elsewhere.

    Floor and scale are never negative, so more photos never harm. Each of the powers in POWERS is as likely as its
    misfit is against the noise of the errors.

    Args:
        photos: float64 [S].
        errors: float64 [B, S], one curve per row.
        at: numbers of photos, A of them, to return errors [B, A] for.
        noise: variance of each error, float64 [S].
        chance: float64 [B] in [0, 1), which draws one power for each row; None averages over all.
    """
    fits = [_fit_power(power, photos, errors, np.asarray(at, np.float64), noise) for power in POWERS]
    found = np.stack([values for values, _ in fits], axis=1)
    misfits = np.stack([misfit for _, misfit in fits], axis=1)
    likely = np.exp(-(misfits - misfits.min(axis=1, keepdims=True)) / 2)
    likely /= likely.sum(axis=1, keepdims=True)
    if chance is None:
        return np.asarray((found * likely[:, :, None]).sum(axis=1).clip(0, 1))
    drawn = (chance[:, None] > likely.cumsum(axis=1)).sum(axis=1).clip(0, len(POWERS) - 1)
    return np.asarray(found[np.arange(len(errors)), drawn].clip(0, 1))


def _fit_power(
    power: float, photos: np.ndarray, errors: np.ndarray, at: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the fit of one power: its errors elsewhere, [B, A], and its misfit, [B]."""
    falling = photos**-power
    design = np.column_stack([np.ones_like(falling), falling]) / np.sqrt(noise)[:, None]
    scaled = errors / np.sqrt(noise)
    best, misfit = np.zeros((len(errors), 2)), np.full(len(errors), np.inf)
    for columns in ([0, 1], [1], [0]):  # where one of the two comes out negative, the other stands alone
        solution = np.zeros((len(errors), 2))
        solution[:, columns] = scaled @ np.linalg.pinv(design[:, columns]).T
        loss = ((scaled - solution @ design.T) ** 2).sum(axis=1)
        better = (solution >= 0).all(axis=1) & (loss < misfit)
        best[better], misfit[better] = solution[better], loss[better]
    return best @ np.vstack([np.ones_like(at), at**-power]), misfit


def describe_growth(growth: Growth, *, seed: int = 0) -> dict[str, Any]:
    """Return the record of `pronk curve`: points, forecast and advice in words.

    Returns:
        points[{share, photos, accuracy{value,low,high,n}}], forecast{photos, more_per_class, accuracy{value,low,high},
        gain{value,low,high}}, confused[{classes[2], mistakes}], advice.
    """
    n, classes = len(growth.table), len(growth.table.classes)
    points: dict[int, dict[str, Any]] = {}  # of few photos several shares are the same number; the last one counts
    for share, photos, right in zip(SHARES, growth.photos, growth.right, strict=True):
        number, accuracy = round(float(photos)), share_record(float(right.mean()), n)
        points[number] = {"share": share, "photos": number, "accuracy": accuracy}
    more = min(MOST_MORE, n // classes)
    more = more if more < 10 else more // 5 * 5
    photos = growth.photos[-1] + more * classes
    ahead = forecast(growth, photos, seed=seed)
    confused = find_confused(growth.answers, growth.table.targets, growth.table.classes)
    return {
        "points": list(points.values()),
        "forecast": {"photos": round(photos), "more_per_class": more, **ahead},
        "confused": confused,
        "advice": advise(ahead["gain"], more, confused),
    }


def advise(gain: dict[str, float], more: int, confused: Sequence[dict[str, Any]]) -> str:
    """Say in a sentence whether more photos would help, and if not, what stands in the way."""
    points = f"+{100 * gain['value']:.1f} points ({100 * gain['low']:.1f} to {100 * gain['high']:.1f})"
    if gain["value"] >= MEANT:
        return f"{more} more photos per class would bring about {points}."
    text = f"More photos will hardly help: {more} more per class would bring about {points}"
    if not confused:
        return text + "."
    pairs = ", ".join(f"{pair['classes'][0]} and {pair['classes'][1]}" for pair in confused)
    return f"{text}; these classes are confused: {pairs}. Look at their labels with `pronk audit`."


def find_confused(answers: np.ndarray, targets: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the pairs of classes that are taken for each other, worst first; answers are probabilities [n, C]."""
    counts = confusion_matrix(targets, answers.argmax(axis=1), len(classes))
    both = np.triu(counts + counts.T, k=1)
    total = int(both.sum())
    pairs = [(int(both[i, j]), i, j) for i, j in np.argwhere(both > CONFUSED * total)]
    pairs.sort(key=lambda pair: (-pair[0], pair[1:]))
    return [{"classes": [classes[i], classes[j]], "mistakes": mistakes} for mistakes, i, j in pairs[:3]]


def _order_by_class(table: FeatureTable, rows: np.ndarray, rng: np.random.Generator) -> list[list[int]]:
    """Return the rows of each class in an order of which every prefix is a fair sample; copies stay side by side."""
    rank = {group: number for number, group in enumerate(rng.permutation(sorted({table.groups[i] for i in rows})))}
    ordered = sorted(rows.tolist(), key=lambda i: (rank[table.groups[i]], i))
    return [[i for i in ordered if table.targets[i] == label] for label in range(len(table.classes))]


def _take(table: FeatureTable, by_class: Sequence[Sequence[int]], share: float) -> np.ndarray:
    return np.array(sorted(i for rows in by_class for i in rows[: max(1, round(share * len(rows)))]), np.int64)


def _bootstrap_weights(groups: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """Return how often each photo is drawn in each sample, float64 [B, n]; a group is drawn whole."""
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), BOOTSTRAPS)
    return drawn[:, index].astype(np.float64)
