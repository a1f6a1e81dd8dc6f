"""Features of a folder or a run -> studies of its photos: folds, what more of them would bring, suspicious labels."""

import dataclasses
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pronk.analysis.folds import FOLDS, Table, cross_validate, describe_folds, list_answers, thin_out
from pronk.analysis.growth import FOLDS as CURVE_FOLDS
from pronk.analysis.growth import REPEATS as CURVE_REPEATS
from pronk.analysis.growth import describe_growth, measure_growth
from pronk.analysis.labels import find_suspicious
from pronk.backbone.weights import load_backbone
from pronk.config import Settings
from pronk.dataset.loading import Dataset, Photo, load_unsplit
from pronk.dataset.scan import scan_memo
from pronk.errors import DataError
from pronk.progress import Progress, no_progress
from pronk.report.gallery import show_suspicions
from pronk.storage.cache import DEFAULT_LIMIT, default_cache, parse_size, trim
from pronk.training.features import Features, extract_features
from pronk.training.workers import start_workers

# Of more photos one deal says as much as four deals of fewer, and each head takes seconds.
MOST_REPEATED = 2000
# In a run the study has the time of phase 2: some 50 heads on at most 2,000 photos.
STUDY_REPEATS = 2


@dataclasses.dataclass(frozen=True)
class Survey:
    """All usable photos of a folder with their features.

    Attributes:
        dataset: the photos, not split, and what was found wrong with them.
        table: one row per photo, in the same order.
    """

    dataset: Dataset
    table: Table


def survey(
    data: Path | str,
    *,
    settings: Settings | None = None,
    cache: Path | str | None = None,
    cache_limit: str = DEFAULT_LIMIT,
    on_progress: Progress = no_progress,
) -> Survey:
    """Look at all photos of a folder through the frozen network; features come from the cache where they are there.

    Args:
        data: a folder of class folders, of train/val/test folders of class folders, or a CSV.
        settings: network, image size, fit and grouping; None takes the defaults.
        cache: folder for features; None takes $PRONK_CACHE or the user's cache folder.
        cache_limit: least recently used rows above it are removed at the end.
        on_progress: called with ("check" or "extract", done, total).

    Raises:
        PronkError: see `pronk.errors`.

    Example:
        >>> survey("no such folder")
        Traceback (most recent call last):
        pronk.errors.DataError: no such folder is neither a folder nor a CSV file
    """
    settings = dataclasses.replace(settings or Settings(), data=str(data), views=1)
    place, limit = Path(cache) if cache else default_cache(), parse_size(cache_limit)
    with start_workers() as pool, tempfile.TemporaryDirectory() as work:
        dataset = load_unsplit(
            data, group_by=settings.group_by, pool=pool, memo=scan_memo(place), on_progress=on_progress
        )
        backbone = load_backbone(settings.weights, alpha=settings.alpha)
        features = extract_features(dataset, backbone, settings, place, Path(work), pool, on_progress=on_progress)
    trim(place, limit=limit)
    gone = {finding.path for finding in features.missing}
    dataset = dataclasses.replace(
        dataset,
        photos=tuple(photo for photo in dataset.photos if photo.path not in gone),
        findings=dataset.findings + features.missing,
    )
    return Survey(dataset, make_table(dataset, features, dataset.photos))


def curve(
    data: Path | str,
    *,
    settings: Settings | None = None,
    cache: Path | str | None = None,
    on_progress: Progress = no_progress,
) -> dict[str, Any]:
    """Say how right a head on the frozen network is with some of the photos, with all, and with more than there are.

    Args:
        data: a folder of class folders, of train/val/test folders of class folders, or a CSV.
        settings: network, image size, fit, grouping and seed; None takes the defaults.
        cache: folder for features; None takes $PRONK_CACHE or the user's cache folder.
        on_progress: called with ("check", "extract" or "curve", done, total).

    Returns:
        points[{share, photos, accuracy{value,low,high,n}}], forecast{photos, more_per_class, accuracy{value,low,high},
        gain{value,low,high}}, confused[{classes, mistakes}] and advice in words.

    Raises:
        PronkError: see `pronk.errors`.

    Example:
        >>> curve("no such folder")
        Traceback (most recent call last):
        pronk.errors.DataError: no such folder is neither a folder nor a CSV file
    """
    settings = settings or Settings()
    table = survey(data, settings=settings, cache=cache, on_progress=on_progress).table
    folds, repeats = (CURVE_FOLDS, CURVE_REPEATS) if len(table) <= MOST_REPEATED else (FOLDS, 1)
    growth = measure_growth(
        table, seed=settings.seed, folds=folds, repeats=repeats, on_fold=partial(on_progress, "curve")
    )
    return describe_growth(growth, seed=settings.seed)


@dataclasses.dataclass(frozen=True)
class Studied:
    """What the cached features of a run tell besides the model.

    Attributes:
        curve: the record of `pronk curve`, or None where a class is too small for it.
        suspicions: training and validation photos whose labels look wrong, worst first, as plain values; the first ones
            with their `picture` as a `data:` address.
        folds: the `folds` of metrics.json, or None.
        fold_rows: of folds.csv.
    """

    curve: dict[str, Any] | None
    suspicions: tuple[dict[str, Any], ...]
    folds: dict[str, Any] | None
    fold_rows: tuple[dict[str, Any], ...]


def study(dataset: Dataset, features: Features, settings: Settings) -> Studied:
    """Study the photos of a run, in a worker process beside phase 2: it costs no time that is not waited for anyway.

    Curve and labels come from the training and validation photos: what is looked at and mended by what a model says of
    it is no honest test any more. Folds use all photos, since their number is about all of them.
    """
    seen = [photo for photo in dataset.photos if photo.part != "test"]
    try:
        table = thin_out(make_table(dataset, features, seen), seed=settings.seed)
        growth = measure_growth(table, seed=settings.seed, folds=FOLDS, repeats=STUDY_REPEATS)
    except DataError:  # a class has too few photos, which is said elsewhere
        return Studied(None, (), None, ())
    suspicions = show_suspicions(find_suspicious(table, growth.answers[None]), dataset, settings)
    if settings.folds is None:
        return Studied(describe_growth(growth, seed=settings.seed), suspicions, None, ())
    everything = make_table(dataset, features, dataset.photos)
    answers = cross_validate(everything, k=settings.folds, seed=settings.seed)
    return Studied(
        describe_growth(growth, seed=settings.seed),
        suspicions,
        describe_folds(everything, answers, k=settings.folds),
        tuple(list_answers(everything, answers)),
    )


def make_table(dataset: Dataset, features: Features, photos: Sequence[Photo]) -> Table:
    """Return view 0 of photos of a data set as a table."""
    return Table(
        tuple(photo.path for photo in photos),
        tuple(photo.digest for photo in photos),
        dataset.classes,
        dataset.targets(photos),
        tuple(photo.group for photo in photos),
        features.pooled(photos),
    )
