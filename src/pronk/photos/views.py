"""Photo -> its k-th augmented view, a pure function of (photo, k, seed, changes)."""

import hashlib
import math
from collections.abc import Iterable

import numpy as np
from PIL import Image

from pronk.config import USUAL, Changes
from pronk.photos.decoding import RESAMPLE, fit_pixels

GREY = (127, 127, 127)
MAX_ROTATION = 12.0  # degrees
MIN_SCALE = 0.7  # side of the smallest crop, as a share of the full square's
MAX_STRETCH = 0.1
MAX_JITTER = 0.25  # brightness, contrast and colour

VIEWS_VERSION = 2  # raise it when a view is drawn in another way, so that features kept of old ones are not used again


def view_generator(digest: str, number: int, seed: int) -> np.random.Generator:
    """Return the random numbers of one view of one photo, named by its digest (sha256 of its bytes)."""
    key = hashlib.sha256(f"view:{digest}:{number}:{seed}".encode()).digest()
    return np.random.default_rng(int.from_bytes(key[:16], "little"))


def draw_views(
    image: Image.Image, changes: Changes = USUAL, *, size: int, fit: str, numbers: Iterable[int], digest: str, seed: int
) -> np.ndarray:
    """Draw some views of an upright RGB picture.

    View 0 is the picture exactly as it is served. The others are changed as `changes` say: cropped at 70 to 100 % of
    the side, turned by up to 12 degrees, stretched a little, mirrored in every other view, changed in brightness and
    contrast, or in colour, turned upside down in two of four views, and by some number of quarters. What one change
    draws does not depend on which others are made.

    Returns:
        Pixels of dtype uint8 and shape (number of views, size, size, 3).
    """
    numbers = list(numbers)
    base = _reduce(image, size, fit) if any(numbers) else image
    views = []
    for number in numbers:
        if not number:
            views.append(fit_pixels(image, size=size, fit=fit))
            continue
        rng = view_generator(digest, number, seed)
        affine = _draw_affine(base.size, size, fit, rng, changes)
        moved = base.transform((size, size), Image.Transform.AFFINE, affine, RESAMPLE, fillcolor=GREY)
        views.append(_turn_over(np.asarray(_recolour(moved, rng, changes)), number, rng, changes))
    return np.stack(views)


def _reduce(image: Image.Image, size: int, fit: str) -> Image.Image:
    # By a whole factor, which costs a third of any other scaling; what is left is less than two to one, so that
    # bilinear sampling hardly aliases.
    side = max(image.size) if fit == "pad" else min(image.size)
    factor = side // size
    return image.reduce(factor) if factor > 1 else image


def _draw_affine(
    source: tuple[int, int], size: int, fit: str, rng: np.random.Generator, changes: Changes
) -> tuple[float, ...]:
    """Return Pillow's six coefficients, which map an output pixel to a place in the source."""
    width, height = source
    side = max(source) if fit == "pad" else min(source)
    half_x, half_y = (width / 2, height / 2) if fit == "squash" else (side / 2, side / 2)
    drawn = rng.uniform((MIN_SCALE, -MAX_STRETCH, -MAX_ROTATION, -1, -1), (1, MAX_STRETCH, MAX_ROTATION, 1, 1))
    scale = drawn[0] if "crop" in changes else 1.0
    stretch = math.exp(drawn[1]) if "stretch" in changes else 1.0
    angle = math.radians(drawn[2]) if "turn" in changes else 0.0
    half_x, half_y = half_x * scale * stretch, half_y * scale / stretch
    shift_x, shift_y = drawn[3:] if "crop" in changes else (0.0, 0.0)
    centre_x = width / 2 + shift_x * max(0.0, width / 2 - half_x)
    centre_y = height / 2 + shift_y * max(0.0, height / 2 - half_y)
    a, b = math.cos(angle) * 2 * half_x / size, -math.sin(angle) * 2 * half_x / size
    d, e = math.sin(angle) * 2 * half_y / size, math.cos(angle) * 2 * half_y / size
    return (a, b, centre_x - (a + b) * size / 2, d, e, centre_y - (d + e) * size / 2)


def _recolour(image: Image.Image, rng: np.random.Generator, changes: Changes) -> Image.Image:
    """Change brightness, contrast around the mean, and colour around grey, in one matrix."""
    brightness, contrast, colour = rng.uniform(1 - MAX_JITTER, 1 + MAX_JITTER, 3)
    if "brightness" not in changes:
        brightness = contrast = 1.0
    colour = colour if "colour" in changes else 1.0
    others = contrast * (1 - colour) / 3
    own = contrast * colour + others
    shift = (brightness - contrast) * float(np.asarray(image).mean())
    rows = ((own, others, others, shift), (others, own, others, shift), (others, others, own, shift))
    return image.convert("RGB", tuple(value for row in rows for value in row))


def _turn_over(pixels: np.ndarray, number: int, rng: np.random.Generator, changes: Changes) -> np.ndarray:
    """Mirror and turn by right angles; of four views in a row each pair of mirrorings has one, and view 1 has both."""
    quarters = int(rng.integers(4))
    if "mirror" in changes and number % 2:
        pixels = pixels[:, ::-1]
    if "upside-down" in changes and (number + 1) % 4 >= 2:
        pixels = pixels[::-1]
    return np.rot90(pixels, quarters) if "quarter-turns" in changes else pixels
