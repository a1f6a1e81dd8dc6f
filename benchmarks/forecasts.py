"""Curves of half the photos -> how often their forecast holds for all of them.

python benchmarks/forecasts.py PHOTOS --weights WEIGHTS [--seeds 10]
"""

import argparse
import json
from pathlib import Path

import numpy as np
from programs import report

from pronk.analysis.dealing import assign_folds
from pronk.analysis.folds import FeatureTable
from pronk.analysis.growth import forecast, measure_growth
from pronk.config import Settings
from pronk.training.surveys import survey


def halve(table: FeatureTable, seed: int) -> FeatureTable:
    """Return half the photos, classes in proportion and copies kept together."""
    return table.choose(np.flatnonzero(assign_folds(table.targets, table.groups, k=2, seed=1000 + seed) == 0))


def judge_seed(table: FeatureTable, seed: int) -> dict:
    """Forecast all photos from half of them, and measure them."""
    whole = measure_growth(table, seed=seed)
    half = measure_growth(halve(table, seed), seed=seed)
    ahead = forecast(half, float(whole.photos[-1]), seed=seed)
    said, measured = ahead["accuracy"], float(whole.right[-1].mean())
    # What came of it: from as many photos as half of them leave to learn from, read off between the shares of all.
    came = measured - float(np.interp(half.photos[-1], whole.photos, whole.right.mean(axis=1)))
    return {
        "seed": seed,
        "half": round(float(half.right[-1].mean()), 4),
        "said": [round(said[name], 4) for name in ("low", "value", "high")],
        "measured": round(measured, 4),
        "holds": said["low"] <= measured <= said["high"],
        "gain": [round(ahead["gain"][name], 4) for name in ("low", "value", "high")],
        "came": round(came, 4),
        "gain_holds": ahead["gain"]["low"] <= came <= ahead["gain"]["high"],
        "half_width": round((said["high"] - said["low"]) / 2, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--seeds", type=int, default=10)
    args = parser.parse_args()
    _, table = survey(args.photos, settings=Settings(weights=args.weights))
    rows = []
    for seed in range(args.seeds):
        rows.append(judge_seed(table, seed))
        report(json.dumps(rows[-1]))
    holds, width = sum(row["holds"] for row in rows), float(np.mean([row["half_width"] for row in rows]))
    gains = sum(row["gain_holds"] for row in rows)
    print(
        f"accuracy: holds in {holds} of {len(rows)} seeds, mean half-width {100 * width:.2f} points; gain: in {gains}"
    )


if __name__ == "__main__":
    main()
