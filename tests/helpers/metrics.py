"""Numbers of a run that never was, and of studies of its photos."""

from collections.abc import Sequence
from typing import Any

from pronk.analysis.metrics import METRICS, AccuracyRecord, accuracy_record
from pronk.model.run import JudgedRecord, Metrics, PhaseRecord


def make_accuracy(right: int, n: int) -> AccuracyRecord:
    return accuracy_record([True] * right + [False] * (n - right))


def make_phase(right: int, n: int, loss: float) -> PhaseRecord:
    return {"val": {"accuracy": make_accuracy(right, n), "loss": loss}}


def make_test(classes: Sequence[str]) -> JudgedRecord:
    return {
        "accuracy": make_accuracy(47, 49),
        **dict.fromkeys((metric.name for metric in METRICS), 0.5),
        **{"macro_f1": 0.9591, "log_loss": 0.123456, "ece": 0.03},
        "per_class": {name: {"precision": 0.95, "recall": 1.0, "f1": 0.97, "support": 24} for name in classes},
        "confusion": [[24, 0], [2, 23]],
        "coverage": make_accuracy(46, 49),
    }


def make_metrics(classes: Sequence[str] = ("alpaca", "not_alpaca"), **changes: Any) -> Metrics:
    numbers: dict[str, Any] = {
        "classes": classes,
        "counts": {"train": 229, "val": 49, "test": 49},
        "seed": 42,
        "weights": {"name": "imagenet", "sha256": "ab" * 32},
        "frozen": make_phase(45, 49, 0.142),
        "fine_tuned": make_phase(47, 49, 0.121),
        "chosen": {"features": "multi", "why": "features of several blocks: a lower loss"},
        "comparison": {"gained": 3, "lost": 1, "p": 0.625, "kept": "fine_tuned", "why": "Lower loss."},
        "calibration": {
            "temperature": 1.83,
            "ece": {"val": {"before": 0.05, "after": 0.02}, "test": {"before": 0.06, "after": 0.03}},
        },
        "unknown": {"coverage": 0.95, "n": 49, "threshold": 0.6},
        "test": make_test(classes),
        "seconds": {"check": 1.0, "decode": 9.0, "fine_tune": 75.5, "total": 90.0},
        "peak_memory_mb": 1234.5,
    }
    return Metrics(**numbers | changes)


SHARES = ((0.1, 30, 0.90), (0.4, 118, 0.94), (1.0, 294, 0.968))
CURVE = {
    "points": [
        {
            "share": share,
            "photos": photos,
            "accuracy": {"value": value, "low": value - 0.03, "high": value + 0.02, "n": 327},
        }
        for share, photos, value in SHARES
    ],
    "forecast": {
        "photos": 494,
        "more_per_class": 100,
        "accuracy": {"value": 0.975, "low": 0.95, "high": 0.985},
        "gain": {"value": 0.007, "low": 0.002, "high": 0.012},
    },
    "confused": [{"classes": ["alpaca", "not_alpaca"], "mistakes": 10}],
    "advice": "100 more photos per class would bring about +0.7 points (0.2 to 1.2).",
}


def suspicion(path, given="alpaca", suggested="not_alpaca", picture=None):
    return {"path": path, "digest": "00", "given": given, "suggested": suggested, "score": 0.9, "picture": picture}


def make_parity(name: str = "litert", **changes: Any) -> dict[str, Any]:
    """A record of parity.json."""
    return {
        "format": name,
        "agreement": 0.98,
        "max_difference": 0.25,
        "mean_difference": 0.0123,
        "accuracy": {"reference": make_accuracy(47, 49), "exported": make_accuracy(48, 49)},
        "latency_ms": {"p50": 10.231, "p95": 10.86},
        "bytes": 2_597_345,
        "accepted": True,
    } | changes
