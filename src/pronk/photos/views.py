"""Photo -> its k-th augmented view, a pure function of (photo, k, seed)."""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image

from pronk.photos.decoding import RESAMPLE, fit_pixels

GREY = (127, 127, 127)
MAX_ROTATION = 12.0  # degrees
MIN_SCALE = 0.7  # side of the smallest crop, as a share of the full square's
MAX_STRETCH = 0.1
MAX_JITTER = 0.25  # brightness, contrast and colour


@dataclasses.dataclass(frozen=True)
class Square:
    """What a view is drawn into: the side in pixels, and how a picture is fitted, as in `fit_pixels`."""

    size: int
    fit: str


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """One step from a picture to its view.

    Attributes:
        name: the name under which its version is noted.
        version: raise it when the step draws something else, so that features kept of old views are not used again.
        apply: the step; the first one gets the picture at its own aspect, the others what the one before made of it.
    """

    name: str
    version: int
    apply: Callable[[Image.Image, Square, np.random.Generator], Image.Image]


def view_generator(digest: str, number: int, seed: int) -> np.random.Generator:
    """Return the random numbers of one view of one photo, named by its digest (sha256 of its bytes)."""
    key = hashlib.sha256(f"view:{digest}:{number}:{seed}".encode()).digest()
    return np.random.default_rng(int.from_bytes(key[:16], "little"))


def draw_views(
    image: Image.Image, *, size: int, fit: str, numbers: Iterable[int], digest: str, seed: int
) -> np.ndarray:
    """Draw some views of an upright RGB picture.

    View 0 is the picture exactly as it is served. The others are cropped at 70 to 100 % of the side, turned by up to
    12 degrees, stretched a little, mirrored half of the time, and changed in brightness, contrast and colour.

    Returns:
        Pixels of dtype uint8 and shape (number of views, size, size, 3).
    """
    numbers = list(numbers)
    base = _reduce(image, size, fit) if any(numbers) else image
    views = [
        _draw(base, Square(size, fit), view_generator(digest, number, seed))
        if number
        else fit_pixels(image, size=size, fit=fit)
        for number in numbers
    ]
    return np.stack(views)


def _reduce(image: Image.Image, size: int, fit: str) -> Image.Image:
    # By a whole factor, which costs a third of any other scaling; what is left is less than two to one, so that
    # bilinear sampling hardly aliases.
    side = max(image.size) if fit == "pad" else min(image.size)
    factor = side // size
    return image.reduce(factor) if factor > 1 else image


def _move(image: Image.Image, square: Square, rng: np.random.Generator) -> Image.Image:
    """Crop, turn, stretch and mirror a picture into the square."""
    size = (square.size, square.size)
    coefficients = _affine(image.size, square.size, square.fit, rng)
    return image.transform(size, Image.Transform.AFFINE, coefficients, RESAMPLE, fillcolor=GREY)


def _affine(source: tuple[int, int], size: int, fit: str, rng: np.random.Generator) -> tuple[float, ...]:
    """Return Pillow's six coefficients, which map an output pixel to a place in the source."""
    width, height = source
    side = max(source) if fit == "pad" else min(source)
    half_x, half_y = (width / 2, height / 2) if fit == "squash" else (side / 2, side / 2)
    scale = rng.uniform(MIN_SCALE, 1.0)
    stretch = math.exp(rng.uniform(-MAX_STRETCH, MAX_STRETCH))
    angle = math.radians(rng.uniform(-MAX_ROTATION, MAX_ROTATION))
    flip = 1 if rng.random() < 0.5 else -1
    half_x, half_y = half_x * scale * stretch, half_y * scale / stretch
    centre_x = width / 2 + rng.uniform(-1, 1) * max(0.0, width / 2 - half_x)
    centre_y = height / 2 + rng.uniform(-1, 1) * max(0.0, height / 2 - half_y)
    a, b = math.cos(angle) * flip * 2 * half_x / size, -math.sin(angle) * 2 * half_x / size
    d, e = math.sin(angle) * flip * 2 * half_y / size, math.cos(angle) * 2 * half_y / size
    return (a, b, centre_x - (a + b) * size / 2, d, e, centre_y - (d + e) * size / 2)


def _recolour(image: Image.Image, square: Square, rng: np.random.Generator) -> Image.Image:
    """Change brightness, contrast around the mean, and colour around grey, in one matrix."""
    brightness, contrast, colour = rng.uniform(1 - MAX_JITTER, 1 + MAX_JITTER, 3)
    others = contrast * (1 - colour) / 3
    own = contrast * colour + others
    shift = (brightness - contrast) * float(np.asarray(image).mean())
    rows = ((own, others, others, shift), (others, own, others, shift), (others, others, own, shift))
    return image.convert("RGB", tuple(value for row in rows for value in row))


# In the order in which they are applied; each draws its random numbers after those of the one before.
AUGMENTATIONS = (Augmentation("move", 1, _move), Augmentation("recolour", 1, _recolour))
VIEWS_VERSION = "+".join(f"{step.name}{step.version}" for step in AUGMENTATIONS)


def _draw(image: Image.Image, square: Square, rng: np.random.Generator) -> np.ndarray:
    for step in AUGMENTATIONS:
        image = step.apply(image, square, rng)
    return np.asarray(image)
