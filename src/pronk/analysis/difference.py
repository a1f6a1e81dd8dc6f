"""Two models' right and wrong answers to the same photos -> the difference of their accuracies, with an interval."""

import math
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from pronk.analysis.metrics import accuracy_record


class DifferenceRecord(TypedDict):
    """How much larger the second share is than the first, and the 95 % interval of that.

    Example:
        >>> DifferenceRecord(value=0.02, low=-0.06, high=0.11)["value"]
        0.02
    """

    value: float
    low: float
    high: float


def paired_difference(correct_before: Any, correct_after: Any) -> DifferenceRecord:
    """Give the difference of two shares of right answers to the same photos, after minus before.

    The interval is method 10 of R. G. Newcombe, "Improved confidence intervals for the difference between binomial
    proportions based on paired data" (Statistics in Medicine 17, 1998). The Wilson interval of either share reaches
    some way `down` and `up` from it; they join like two sides of a triangle whose angle is the correlation phi of
    the answers:

        low = difference - sqrt(down_after^2 - 2 phi down_after up_before + up_before^2)
        high = difference + sqrt(up_after^2 - 2 phi up_after down_before + down_before^2)

    Of n photos let e be right in both, f in the first only, g in the second only and h in neither. Then phi is
    Q / sqrt((e + f)(g + h)(e + g)(f + h)) with Q = eh - fg, drawn n/2 towards 0 where it is positive; and phi is 0
    where a model is always right or always wrong.

    Args:
        correct_before: bool [n], the first model's answers; at least one.
        correct_after: bool [n], the second model's answers to the same photos in the same order.

    Example:
        >>> difference = paired_difference([True] * 17 + [False] * 3, [True] * 20)
        >>> {name: round(value, 3) for name, value in difference.items()}
        {'value': 0.15, 'low': -0.038, 'high': 0.36}
    """
    before, after = np.asarray(correct_before, dtype=bool), np.asarray(correct_after, dtype=bool)
    if before.shape != after.shape:
        raise ValueError(f"both must answer the same photos. Got shapes {before.shape} and {after.shape}")
    first, second = accuracy_record(before), accuracy_record(after)
    phi = _correlation(before, after)
    down = _third_side(second["value"] - second["low"], first["high"] - first["value"], phi)
    up = _third_side(second["high"] - second["value"], first["value"] - first["low"], phi)
    # From counts: the difference of two quotients could be a rounding instead of 0.
    value = (int(np.count_nonzero(after)) - int(np.count_nonzero(before))) / before.size
    return {"value": value, "low": value - down, "high": value + up}


def _correlation(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> float:
    n, right, also = before.size, int(np.count_nonzero(before)), int(np.count_nonzero(after))
    margins = right * (n - right) * also * (n - also)
    if margins == 0:
        return 0.0
    excess: float = n * int(np.count_nonzero(before & after)) - right * also  # eh - fg, from the margins
    if excess > 0:
        excess = max(excess - n / 2, 0.0)
    return excess / math.sqrt(margins)


def _third_side(one: float, other: float, phi: float) -> float:
    # Of two equal sides and no angle the square is 0, or by rounding a little less.
    return math.sqrt(max(one**2 - 2 * phi * one * other + other**2, 0.0))
