"""Run, or folder of photos -> the photos that an export is made and judged with."""

import contextlib
import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from pronk.config import read_settings
from pronk.dataset.listing import list_photos
from pronk.errors import DataError, ImageError, RunError, SettingsError
from pronk.model.bundle import Bundle
from pronk.model.run import SETTINGS, read_split
from pronk.photos.decoding import load_pixels
from pronk.pools import run_in_order
from pronk.storage.files import digest_file

SAMPLES = 200  # photos that the ranges of 8-bit activations are taken from

Named = tuple[Path, str]  # a photo and its class


@dataclasses.dataclass(frozen=True)
class Photos:
    """What an export is made and judged with.

    Attributes:
        samples: to take the ranges of activations from, uint8 [size, size, 3] each.
        compared: to compare the answers on, uint8 [size, size, 3] each.
        targets: class indices of those, int [n].
        is_validation: whether those are the run's own validation photos, which the model was not trained with.
    """

    samples: Sequence[np.ndarray]
    compared: Sequence[np.ndarray]
    targets: np.ndarray
    is_validation: bool


def gather_photos(bundle: Bundle, calibration: Path | str | None) -> Photos:
    """Read the photos to take ranges from, classes in turn, and those to compare on.

    Raises:
        DataError: if there are none: those of the run are gone, or were changed.

    Example:
        >>> from pronk.model.bundle import open_bundle
        >>> gather_photos(open_bundle("no such run"), None)
        Traceback (most recent call last):
        pronk.errors.ModelError: no model at no such run
    """
    parts = _parts_of_run(bundle)
    found = _photos_of_run(bundle) if calibration is None else _photos_of_folder(Path(calibration))
    foreign = sorted({label for _, label in found} - set(bundle.classes))
    if foreign:
        raise DataError(
            f"the model does not know the class {', '.join(map(repr, foreign))}",
            hint=f"its classes are {', '.join(bundle.classes)}",
        )
    by_part = {
        part: [photo for photo in found if parts.get(digest_file(photo[0])) == part] for part in ("train", "val")
    }
    train, val = by_part["train"], by_part["val"]
    is_validation = bool(train and val)
    if not is_validation and calibration is not None:
        # Every second photo is compared, so that none is judged by ranges that it has set itself.
        train, val = found[::2], found[1::2]
    samples = _load(bundle, _in_turn(train, bundle.classes)[:SAMPLES])
    compared = _load(bundle, val)
    if not samples or not compared:
        raise DataError(
            "no photos to compare the export with", hint="name a folder of labelled photos with --calibration"
        )
    targets = np.array([bundle.classes.index(label) for _, label in compared])
    return Photos([pixels for pixels, _ in samples], [pixels for pixels, _ in compared], targets, is_validation)


def _parts_of_run(bundle: Bundle) -> dict[str, str]:
    with contextlib.suppress(RunError):
        return {photo.digest: photo.part for photo in read_split(bundle.run_folder)}
    return {}


def _photos_of_run(bundle: Bundle) -> list[Named]:
    try:
        data = Path(read_settings(bundle.run_folder / SETTINGS)["data"])
        photos = [photo for photo in read_split(bundle.run_folder) if photo.part != "test"]
    except (KeyError, RunError, SettingsError) as error:
        raise DataError(
            f"{bundle.folder} lies in no run folder, so its photos are not known",
            hint="name a folder of labelled photos with --calibration",
        ) from error
    root = data if data.is_dir() else data.parent
    return [(root / photo.path, photo.label) for photo in photos if (root / photo.path).is_file()]


def _photos_of_folder(data: Path) -> list[Named]:
    listing = list_photos(data, min_classes=1)
    photos = [(listing.root / entry.path, entry.label) for entry in listing.entries]
    return [(path, label) for path, label in photos if path.is_file()]


def _in_turn(photos: Iterable[Named], classes: Sequence[str]) -> list[Named]:
    by_class: dict[str, list[Named]] = {name: [] for name in classes}
    for photo in photos:
        by_class[photo[1]].append(photo)
    most = max(map(len, by_class.values()))
    return [same[i] for i in range(most) for same in by_class.values() if i < len(same)]


def _load(bundle: Bundle, photos: Sequence[Named]) -> list[tuple[np.ndarray, str]]:
    def load(photo: Named) -> tuple[np.ndarray, str] | None:
        with contextlib.suppress(ImageError):
            return load_pixels(photo[0], size=bundle.size, fit=bundle.fit), photo[1]
        return None

    return [photo for photo in run_in_order(load, photos) if photo is not None]
