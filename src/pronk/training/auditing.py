"""Folder of photos -> those whose label looks wrong: surveyed, cross-validated, weighed."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

from pronk.analysis.folds import FOLDS, cross_validate, describe_folds
from pronk.analysis.labels import STRENGTH, Suspicion, find_suspicious
from pronk.config import Settings
from pronk.dataset.findings import Finding
from pronk.progress import Progress, no_progress
from pronk.training.surveys import Survey, survey


@dataclasses.dataclass(frozen=True)
class Audit:
    """Photos whose label looks wrong; `audit` makes it.

    Attributes:
        root: the folder that paths are relative to.
        classes: in natural order.
        photos: how many were looked at.
        accuracy: of the heads that judged, each photo by those that had not seen it: mean, low, high, n. The lower it
            is, the less a suspicion means.
        suspicions: the worst first; see `pronk.analysis.labels.find_suspicious` for what the score says.
        findings: what was left out or is worth a look, as `pronk check` says it.
    """

    root: Path
    classes: tuple[str, ...]
    photos: int
    accuracy: dict[str, Any]
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
        data: a folder of class folders, of train/val/test folders of class folders, or a CSV `path,label[,part]`.
        settings: weights, alpha, image_size, fit, group_by and seed count; None takes the defaults.
        cache: folder for features; None takes $PRONK_CACHE or the user's cache folder.
        on_progress: called with ("check", "extract" or "audit", done, total).

    Raises:
        PronkError: see `pronk.errors`.

    Example:
        >>> audit("no such folder")
        Traceback (most recent call last):
        pronk.errors.DataError: no such folder is neither a folder nor a CSV file
    """
    settings = settings or Settings()
    return audit_survey(
        survey(data, settings=settings, cache=cache, on_progress=on_progress), settings.seed, on_progress=on_progress
    )


def audit_survey(surveyed: Survey, seed: int, *, on_progress: Progress = no_progress) -> Audit:
    """Look for wrong labels in photos whose features are known.

    Args:
        surveyed: from `pronk.training.surveys.survey`.
        seed: of the folds.
        on_progress: called with ("audit", folds done, folds to do).
    """
    table, dataset = surveyed.table, surveyed.dataset
    answers = cross_validate(table, seed=seed, strength=STRENGTH, on_fold=partial(on_progress, "audit"))
    return Audit(
        dataset.root,
        table.classes,
        len(table),
        describe_folds(table, answers, k=FOLDS),
        find_suspicious(table, answers),
        dataset.findings,
    )
