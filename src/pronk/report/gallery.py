"""Photos -> the pictures of a page: thumbnails, heat maps over the most telling answers, augmented views.

All are small JPEG files inside `data:` addresses, so that a page stays one file.
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pronk.analysis.labels import Suspicion
from pronk.config import Settings
from pronk.dataset.loading import Dataset, read_photo
from pronk.dataset.split import take_in_turn
from pronk.errors import ImageError
from pronk.model.heat_maps import class_activation_map, draw_overlay
from pronk.model.predictor import Predictor
from pronk.photos.decoding import load_image, load_pixels, read_bytes
from pronk.photos.encoding import PICTURE_SIDE, THUMBNAIL_SIDE, encode_picture
from pronk.pools import start_threads
from pronk.report.pages import Row
from pronk.storage.remote import join

MOST_THUMBNAILS = 240  # of 3 KB each
MOST_PER_CELL = 24
MOST_MISTAKES = 8
MOST_RIGHT = 6
MOST_SUSPICIONS = 12


@dataclasses.dataclass(frozen=True)
class Explained:
    """One answer with its pictures, as `data:` addresses.

    Attributes:
        row: path, part, label, predicted and score, as in predictions.csv.
        photo: the pixels that the network saw.
        answer: the same under the heat map of the answer.
        truth: under the heat map of the true class, where that is another one.
    """

    row: Row
    photo: str
    answer: str
    truth: str | None = None


@dataclasses.dataclass(frozen=True)
class Gallery:
    """The pictures of a report.

    Attributes:
        thumbnails: small pictures of test photos by path.
        mistakes: the surest wrong answers, test photos first.
        right: the surest right answers to test photos, classes in turn.
        views: one photo augmented, view 0 first; empty where there was no augmentation.
    """

    thumbnails: Mapping[str, str] = dataclasses.field(default_factory=dict)
    mistakes: Sequence[Explained] = ()
    right: Sequence[Explained] = ()
    views: Sequence[str] = ()


def make_gallery(
    predictor: Predictor, rows: Sequence[Row], load: Callable[[Row], np.ndarray], *, views: Sequence[np.ndarray] = ()
) -> Gallery:
    """Draw the pictures of a report.

    Args:
        predictor: the judged model.
        rows: those of predictions.csv.
        load: reads a row's photo as the network sees it, uint8 [size, size, 3], or raises ImageError; photos that
            are gone by now have no picture.
        views: one photo as the network saw it in training, uint8 [size, size, 3] each.
    """

    def show(row: Row) -> tuple[str, str] | None:
        try:
            return str(row["path"]), encode_picture(load(row), side=THUMBNAIL_SIDE)
        except ImageError:
            return None

    def explain(row: Row) -> Explained | None:
        try:
            return _explain(predictor, row, load(row))
        except ImageError:
            return None

    with start_threads() as pool:
        thumbnails = pool.map(show, pick_thumbnails(rows))
        mistakes = pool.map(explain, sort_mistakes(rows)[:MOST_MISTAKES])
        right = pool.map(explain, pick_right(rows, predictor.classes))
        return Gallery(
            dict(filter(None, thumbnails)),
            tuple(filter(None, mistakes)),
            tuple(filter(None, right)),
            tuple(encode_picture(view, side=PICTURE_SIDE) for view in views),
        )


def _explain(predictor: Predictor, row: Row, pixels: np.ndarray) -> Explained:
    maps = predictor.runtime.run(pixels[None], heat=True).heat[0]
    photo = Image.fromarray(pixels)

    def heat(label: str) -> str:
        activation = class_activation_map(maps, predictor.classes.index(label))
        return encode_picture(np.asarray(draw_overlay(photo, activation)), side=PICTURE_SIDE)

    truth = None if row["label"] == row["predicted"] else heat(row["label"])
    return Explained(row, encode_picture(pixels, side=PICTURE_SIDE), heat(row["predicted"]), truth)


def sort_mistakes(rows: Iterable[Row]) -> list[Row]:
    """Return the wrong answers: those to test photos first, in each part the surest first."""
    wrong = [row for row in rows if row["label"] != row["predicted"]]
    return sorted(wrong, key=lambda row: (row["part"] != "test", row["part"], -float(row["score"]), row["path"]))


def pick_right(rows: Iterable[Row], classes: Sequence[str]) -> list[Row]:
    """Pick the surest right answers to test photos, classes in turn."""
    right = [row for row in rows if row["part"] == "test" and row["label"] == row["predicted"]]
    right.sort(key=lambda row: (-float(row["score"]), row["path"]))
    return take_in_turn([[row for row in right if row["label"] == name] for name in classes])[:MOST_RIGHT]


def pick_thumbnails(rows: Iterable[Row]) -> list[Row]:
    """Pick the test photos behind each cell of the confusion matrix: wrong answers, then unknown, then unsure ones."""
    cells: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=_first_to_look_at):
        if row["part"] == "test":
            cells.setdefault((row["label"], row["predicted"]), []).append(row)
    shown = [row for cell in cells.values() for row in cell[:MOST_PER_CELL]]
    return shown[:MOST_THUMBNAILS]


def _first_to_look_at(row: Row) -> tuple[bool, bool, float, str]:
    return row["label"] == row["predicted"], not row.get("unknown"), float(row["score"]), str(row["path"])


def draw_files(
    root: Path, paths: Iterable[str], *, side: int, digests: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return pictures of files by path, relative to the root, as `data:` addresses, of at most `side` pixels.

    One that cannot be decoded, or by now has another sha256 than in `digests`, has no picture.
    """

    def draw(path: str) -> tuple[str, str] | None:
        try:
            data = read_bytes(join(root, path))
            if digests and hashlib.sha256(data).hexdigest() != digests[path]:
                return None
            return path, encode_picture(np.asarray(load_image(data, min_side=side // 2)), side=side)
        except ImageError:
            return None

    with start_threads() as pool:
        return dict(filter(None, pool.map(draw, paths)))


def show_suspicions(
    suspicions: Sequence[Suspicion], dataset: Dataset, settings: Settings
) -> tuple[dict[str, Any], ...]:
    """Return labels that look wrong as plain values, the first of them with a small `picture`."""
    photos = {photo.path: photo for photo in dataset.photos}
    rows = [dataclasses.asdict(suspicion) | {"picture": None} for suspicion in suspicions]
    for row in rows[:MOST_SUSPICIONS]:
        with contextlib.suppress(ImageError):  # it may be gone by now
            data = read_photo(dataset.root, photos[row["path"]])
            pixels = load_pixels(data, size=settings.image_size, fit=settings.fit)
            row["picture"] = encode_picture(pixels, side=THUMBNAIL_SIDE)
    return tuple(rows)
