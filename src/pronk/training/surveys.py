"""Features of a folder or a run -> studies of its photos: suspicious labels, what more photos would bring."""

import dataclasses
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pronk.analysis.folds import FOLDS, FeatureTable, cross_validate, thin_out
from pronk.analysis.growth import FOLDS as CURVE_FOLDS
from pronk.analysis.growth import REPEATS as CURVE_REPEATS
from pronk.analysis.growth import describe_growth, measure_growth
from pronk.analysis.labels import STRENGTH, Suspicion, find_suspicious
from pronk.analysis.metrics import AccuracyRecord, share_record
from pronk.backbone.weights import load_backbone
from pronk.config import Settings
from pronk.dataset.findings import Finding
from pronk.dataset.loading import Dataset, Photo, load_unsplit
from pronk.dataset.scan import scan_memo
from pronk.errors import DataError
from pronk.progress import Progress, no_progress
from pronk.report.gallery import show_suspicions
from pronk.storage.cache import DEFAULT_LIMIT, open_cache, parse_size, trim
from pronk.training.features import Features, extract_features
from pronk.training.plan import choose_reading
from pronk.training.run_folder import Run
from pronk.training.workers import start_workers

# Of more photos one deal says as much as four deals of fewer, and each head takes seconds.
MOST_REPEATED = 2000
# In a run the study has the time of phase 2: some 50 heads on at most 2,000 photos.
STUDY_REPEATS = 2


def survey(
    data: Path | str,
    *,
    settings: Settings | None = None,
    cache: Path | str | None = None,
    on_progress: Progress = no_progress,
) -> tuple[Dataset, FeatureTable]:
    """Look at all photos of a folder through the frozen network; features come from the cache where they are there.

    Arguments are those of `audit`; progress is told as ("check" or "extract", done, total).

    Returns:
        The usable photos, not split, with what was found wrong; and a table of one row per photo, in the same order.
    """
    settings = dataclasses.replace(settings or Settings(), data=str(data))
    place = open_cache(cache)
    with start_workers() as pool, tempfile.TemporaryDirectory() as folder:
        dataset = load_unsplit(
            data, group_by=settings.group_by, pool=pool, memo=scan_memo(place), on_progress=on_progress
        )
        backbone = load_backbone(settings.weights, alpha=settings.alpha)
        run = Run(settings, backbone, Path(folder), place, pool, on_progress=on_progress)
        features = extract_features(dataset, run, views=1)
    trim(place, limit=parse_size(DEFAULT_LIMIT))
    photos = features.dataset.photos
    reading, _ = choose_reading(features, photos, settings)
    return features.dataset, make_table(features.reading(reading.features), photos)


def curve(
    data: Path | str,
    *,
    settings: Settings | None = None,
    cache: Path | str | None = None,
    on_progress: Progress = no_progress,
) -> dict[str, Any]:
    """Say how right a head on the frozen network is with some of the photos, with all, and with more than there are.

    Arguments are those of `audit`; progress is told as ("check", "extract" or "curve", done, total).

    Returns:
        points[{share, photos, accuracy{value,low,high,n}}], forecast{photos, more_per_class, accuracy{value,low,high},
        gain{value,low,high}}, confused[{classes, mistakes}] and advice in words.

    Raises:
        PronkError: see `pronk.errors`.
    """
    settings = settings or Settings()
    _, table = survey(data, settings=settings, cache=cache, on_progress=on_progress)
    folds, repeats = (CURVE_FOLDS, CURVE_REPEATS) if len(table) <= MOST_REPEATED else (FOLDS, 1)
    growth = measure_growth(
        table, seed=settings.seed, folds=folds, repeats=repeats, on_fold=partial(on_progress, "curve")
    )
    return describe_growth(growth, seed=settings.seed)


@dataclasses.dataclass(frozen=True)
class Audit:
    """Photos whose label looks wrong; `audit` makes it.

    Attributes:
        root: the folder that paths are relative to.
        classes: in natural order.
        photos: how many were looked at.
        accuracy: how right the judging heads were, each about photos that it had not seen: value, low, high, n. The
            lower it is, the less a suspicion means.
        suspicions: the worst first; see `pronk.analysis.labels.find_suspicious` for what the score says.
        findings: photos left out, and whatever else is worth a look, as `pronk check` says it.
    """

    root: Path
    classes: tuple[str, ...]
    photos: int
    accuracy: AccuracyRecord
    suspicions: tuple[Suspicion, ...]
    findings: tuple[Finding, ...] = ()


def audit(
    data: Path | str,
    *,
    settings: Settings | None = None,
    cache: Path | str | None = None,
    on_progress: Progress = no_progress,
) -> Audit:
    """Look for photos whose label looks wrong; nothing in the folder is changed.

    Each photo is judged by heads that saw neither it nor its copies (5-fold cross-validation, dealt anew three times),
    and by its nearest neighbours.

    Args:
        data: a folder of class folders, of train/val/test folders of class folders, a zip or tar of such, or a CSV
            `path,label[,part]`.
        settings: weights, alpha, image_size, fit, group_by and seed count; None takes the defaults.
        cache: folder for features; None takes $PRONK_CACHE or the user's cache folder.
        on_progress: called with ("check", "extract" or "audit", done, total).

    Raises:
        PronkError: see `pronk.errors`.
    """
    settings = settings or Settings()
    dataset, table = survey(data, settings=settings, cache=cache, on_progress=on_progress)
    judged = cross_validate(table, seed=settings.seed, strength=STRENGTH, on_fold=partial(on_progress, "audit"))
    return Audit(
        dataset.root,
        table.classes,
        len(table),
        # Repeats judge the same photos, so they do not count as more.
        share_record(float((judged.argmax(axis=2) == table.targets).mean()), len(table)),
        find_suspicious(table, judged),
        dataset.findings,
    )


@dataclasses.dataclass(frozen=True)
class Studies:
    """What the cached features of a run tell besides the model.

    Attributes:
        curve: the record of `pronk curve`, or None where a class is too small for it.
        suspicions: training and validation photos whose labels look wrong, worst first, as plain values; the first ones
            with their `picture` as a `data:` address.
    """

    curve: dict[str, Any] | None
    suspicions: tuple[dict[str, Any], ...]


def study(features: Features, strength: float, settings: Settings) -> Studies:
    """Study the photos of a run, in a worker process beside phase 2: it costs no time that is not waited for anyway.

    They come from the training and validation photos: what is looked at and mended by what a model says of it is no
    honest test any more.
    """
    dataset = features.dataset
    seen = [photo for photo in dataset.photos if photo.part != "test"]
    try:
        table = thin_out(make_table(features, seen), seed=settings.seed)
        growth = measure_growth(table, seed=settings.seed, folds=FOLDS, repeats=STUDY_REPEATS, strength=strength)
    except DataError:  # a class has too few photos, which is said elsewhere
        return Studies(None, ())
    suspicions = show_suspicions(find_suspicious(table, growth.answers[None]), dataset, settings)
    return Studies(describe_growth(growth, seed=settings.seed), suspicions)


def make_table(features: Features, photos: Sequence[Photo]) -> FeatureTable:
    """Return view 0 of photos of a data set as a table."""
    dataset = features.dataset
    return FeatureTable(
        tuple(photo.path for photo in photos),
        tuple(photo.digest for photo in photos),
        dataset.classes,
        dataset.targets(photos),
        tuple(photo.group for photo in photos),
        features.pooled(photos),
    )
