"""Labels that look wrong -> the same, with small pictures."""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

from pronk.analysis.labels import Suspicion
from pronk.config import Settings
from pronk.dataset.loading import Dataset, read_photo
from pronk.errors import ImageError
from pronk.photos.decoding import load_pixels
from pronk.photos.encoding import THUMBNAIL_SIDE, encode_picture
from pronk.report import MOST_SUSPICIONS


def show_suspicions(
    suspicions: Sequence[Suspicion], dataset: Dataset, settings: Settings
) -> tuple[dict[str, Any], ...]:
    """Return suspicions as plain values, the first of them with a small picture."""
    photos = {photo.path: photo for photo in dataset.photos}
    rows = [dataclasses.asdict(suspicion) | {"picture": None} for suspicion in suspicions]
    for row in rows[:MOST_SUSPICIONS]:
        with contextlib.suppress(ImageError):  # it may be gone by now
            data = read_photo(dataset.root, photos[row["path"]])
            pixels = load_pixels(data, size=settings.image_size, fit=settings.fit)
            row["picture"] = encode_picture(pixels, side=THUMBNAIL_SIDE)
    return tuple(rows)
