"""Photos -> what models that had not seen them say of each: whole runs, each without some of the photos.

So no photo has to be set aside for the test: the model that is kept learns from them too, and the interval of the
accuracy is that of all photos.
"""

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

from pronk.analysis.dealing import assign_folds
from pronk.dataset.listing import Listing
from pronk.dataset.loading import Dataset, write_split
from pronk.errors import SettingsError
from pronk.model.run import FOLD_ROWS
from pronk.progress import Progress
from pronk.storage.files import write_json
from pronk.training.run_folder import Run

FOLDS = 5
Row = dict[str, Any]  # of predictions.csv


def refuse_given_parts(listing: Listing) -> None:
    """Refuse photos that come in parts, which a cross-fit would mix.

    Raises:
        SettingsError: naming the way out.
    """
    if any(entry.part for entry in listing.entries):
        raise SettingsError(
            "--judge cross deals all photos anew, but these come in parts for training and test",
            hint="leave --judge out, or name a folder with one sub-folder per class",
        )


def cross_fit(dataset: Dataset, run: Run, train: Callable[[Run], list[Row]]) -> list[Row]:
    """Train FOLDS models that each leave out some photos; return what each says of those, as rows of predictions.csv.

    `train` makes a run and returns its rows. It makes every choice anew, so that nothing of the photos that are left
    out is known. What a fold came to is kept in the work folder: a run that was stopped goes on with the next.
    """
    groups = [photo.group for photo in dataset.photos]
    folds = assign_folds(dataset.targets(dataset.photos), groups, k=FOLDS, seed=run.settings.seed)
    rows: list[Row] = []
    for number in range(FOLDS):
        folder = run.work / f"without-{number + 1}"
        done = folder / FOLD_ROWS
        if not done.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            left_out = [photo for photo, fold in zip(dataset.photos, folds, strict=True) if fold == number]
            test = tuple(dataclasses.replace(photo, part="test") for photo in left_out)
            write_split(folder / "left-out.csv", dataclasses.replace(dataset, photos=test))
            changes = {"judge": "held-out", "split": str(folder / "left-out.csv"), "fail_under": None}
            told = functools.partial(_tell, run.on_progress, number)
            settings = run.settings.replace(**changes)
            part = dataclasses.replace(run, settings=settings, folder=folder, on_progress=told)
            write_json(done, [row for row in train(part) if row["part"] == "test"])
        rows += json.loads(done.read_bytes())
        run.on_progress("judge", 100 * (number + 1), 100 * FOLDS)
    return rows


def _tell(on_progress: Progress, number: int, stage: str, done: int, total: int) -> None:
    """Tell of phase 2, which takes most of the time of a run."""
    if stage == "fine_tune":
        on_progress("judge", 100 * number + 99 * done // max(1, total), 100 * FOLDS)
