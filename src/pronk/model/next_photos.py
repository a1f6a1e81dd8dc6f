"""Model + unlabelled photos -> those to label next."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pronk.analysis.choosing import choose_photos, measure_worth
from pronk.errors import DataError, RunError
from pronk.model.embedding import Embedded, embed
from pronk.model.predictor import Predictor
from pronk.model.run import read_split
from pronk.progress import Progress, no_progress


def choose_next(
    predictor: Predictor, paths: Sequence[Path], *, count: int = 50, on_progress: Progress = no_progress
) -> list[dict[str, Any]]:
    """Choose the photos whose labels would teach a model most: least sure, strangest, and unlike each other.

    Photos that are in the model's split.csv have labels already, and are left out; so is a second copy.

    Args:
        predictor: the model.
        paths: photos without labels.
        count: how many to choose.
        on_progress: called with ("predict", done, total).

    Returns:
        {path, label, score, second, distance, unknown, why}, the most worthwhile first.

    Raises:
        DataError: if no photo is left.
    """
    seen = _known_digests(predictor)
    found: list[Embedded] = []
    for done, one in enumerate(embed(predictor, paths), start=1):
        on_progress("predict", done, len(paths))
        if one.features is not None and one.digest not in seen:
            seen.add(one.digest)
            found.append(one)
    if not found:
        raise DataError(
            f"none of {len(paths)} photos is new to the model and can be used", hint="see pronk predict for the reasons"
        )
    answers = [one.prediction for one in found if one.prediction]
    distances = [answer.distance for answer in answers if answer.distance is not None]
    worth = measure_worth(
        np.stack([answer.probabilities for answer in answers if answer.probabilities is not None]),
        np.array(distances) if distances else None,
        np.array([answer.unknown for answer in answers]),
    )
    features = np.stack([one.features for one in found if one.features is not None])
    return [_describe(found[place]) for place in choose_photos(worth, features, count)]


def _known_digests(predictor: Predictor) -> set[str]:
    try:
        return {photo.digest for photo in read_split(predictor.bundle.run_folder)}
    except RunError:  # the model travels without its run
        return set()


def _describe(one: Embedded) -> dict[str, Any]:
    assert one.prediction is not None
    first, *others = one.prediction.record(2)["scores"]
    second = others[0] if others else None
    why = f"{first['label']} {first['score']:.0%}" + (f" or {second['label']} {second['score']:.0%}" if second else "")
    return {
        "path": one.path,
        "label": first["label"],
        "score": first["score"],
        "second": second["label"] if second else None,
        "distance": one.prediction.distance,
        "unknown": one.prediction.unknown,
        "why": "unlike all it knows" if one.prediction.unknown else why,
    }
