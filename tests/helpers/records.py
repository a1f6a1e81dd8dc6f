"""Records of studies, as a run has them, for tests of pages."""

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


def fold_row(path, label="alpaca", right=0.3333):
    return {"path": path, "label": label, "right": right}
