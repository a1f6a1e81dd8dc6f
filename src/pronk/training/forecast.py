"""Photos + settings -> what `pronk train` would do with them, how long that takes here, and how much it keeps."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from pronk.backbone.weights import load_backbone
from pronk.config import Settings
from pronk.pools import count_workers
from pronk.progress import Progress, no_progress
from pronk.storage.cache import open_cache
from pronk.training.features import TRIED, find_missing, plan_extraction
from pronk.training.plan import SHORT, Pace, fit_long, least_views
from pronk.training.recipe import prepare, split_photos
from pronk.training.rows import time_view
from pronk.training.run_folder import Run
from pronk.training.workers import start_workers

# Against a view with its features, decoded and drawn: a further view, which is run as far as the cut, and a photo of an
# epoch of phase 2, which takes 30 ms of one core where a view takes 13 (224 pixels, width 1.0, from block 5 on).
FURTHER_VIEW, PHASE_TWO = 0.5, 2.3
START = 8.0  # seconds of one core: importing the framework, tracing, judging, the report


def forecast(
    data: Path | str,
    *,
    settings: Settings | None = None,
    cache: Path | str | None = None,
    on_progress: Progress = no_progress,
) -> dict[str, Any]:
    """Check and split photos, time a few of them, and say what training would take; no run folder is made.

    What was seen in the photos stays in the cache, where the training finds it.

    Returns:
        {classes, counts{train,val,test}, findings, rows{all,missing}, bytes, seconds{extract,fine_tune,total}}, of
        which bytes, fine_tune and total are [low, high]: which it is depends on how right the frozen network is.

    Raises:
        PronkError: what `train` would raise before any work.
    """
    listing, settings = prepare(data, settings or Settings())
    place, backbone = open_cache(cache), load_backbone(settings.weights, alpha=settings.alpha)
    with tempfile.TemporaryDirectory() as folder, start_workers() as pool:
        run = Run(settings, backbone, Path(folder), place, pool, on_progress=on_progress)
        dataset = split_photos(listing, run)
        extraction = plan_extraction(dataset.root, run)
        counts, views = dataset.counts, least_views(settings)
        missing = sum(len(one.numbers) for one in find_missing(dataset.photos, extraction, views, 0))
        step = max(1, len(dataset.photos) // TRIED)
        view = pool.submit(time_view, extraction, dataset.photos[::step][:TRIED]).result() / count_workers(pool)
    total = counts["train"] * views + counts["val"] + counts["test"]
    phase_two = _ask_phase_two(counts["train"], views, settings)
    extract, size = round(missing * view, 1), extraction.store.row_bytes
    tuned = sorted(round(view * (FURTHER_VIEW * further + PHASE_TWO * passes), 1) for further, passes in phase_two)
    kept = sorted(total * size() + further * size(features=False) for further, _ in phase_two)
    return {
        "classes": list(dataset.classes),
        "counts": counts,
        "findings": len(dataset.findings),
        "rows": {"all": total, "missing": missing},
        "bytes": kept,
        "seconds": {
            "extract": extract,
            "fine_tune": tuned,
            "total": [round(START + extract + one, 1) for one in tuned],
        },
    }


def _ask_phase_two(photos: int, views: int, settings: Settings) -> list[tuple[int, int]]:
    """Return the further views, and the passes over photos, of a short and a long phase 2."""
    if settings.frozen_only:
        return [(0, 0)] * 2
    paces = [_ask(pace, settings) for pace in (SHORT, fit_long(photos, settings))]
    return [(photos * max(0, pace.views - views), photos * pace.epochs) for pace in paces]


def _ask(pace: Pace, settings: Settings) -> Pace:
    asked = {name: getattr(settings, name) for name in dataclasses.asdict(pace)}
    return dataclasses.replace(pace, **{name: value for name, value in asked.items() if value != "auto"})
