"""A decoded picture and the size of its file -> properties that need no network: camera, sharpness, colours."""

import bisect
import dataclasses
import itertools
import math
import sys
from collections.abc import Sequence

import numpy as np
from PIL import Image

from pronk.photos.decoding import MAKE_TAG, MODEL_TAG, ORIENTATION_TAG, Decoded
from pronk.text import visible

PROPERTIES_VERSION = 3  # raise it when a property is measured in another way, or another is added
MOST_CAMERA = 60  # characters; what a file claims to be its camera may be anything
# The luminance table of the JPEG standard (ITU-T T.81, table K.1), whose sum is all that is needed of it. Encoders
# scale it by their quality, in the way of the Independent JPEG Group's library.
STANDARD_SUM = 3688
SMALL = 64  # pixels on the short side, at least, that colours are taken from; the outermost ones are the border
RARE = 0.005  # share of the pixels at either end that may be dust, noise or a date in the corner
SHARPEST = 0.005  # share of the pixels that tell how sharp a picture is: of most photos only one thing is in focus
NOISE = 6  # grey levels; added to the steepest slope, so that the noise of a flat picture is not a sharp edge
ROWS = 24  # that sharpness is measured in, spread over the picture


@dataclasses.dataclass(frozen=True, slots=True)
class PhotoProperties:
    """What is known of a photo besides its content. Small: mostly small whole numbers, which Python shares.

    Attributes:
        size: bytes of the file.
        format: a name in `pronk.photos.formats.FORMATS`.
        width: in pixels, as stored.
        height: in pixels, as stored.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
        animated: there are more frames than the one that is used.
        camera: make and model of the EXIF block, made visible; may be empty.
        quality: JPEG quality, 1 to 100, estimated from its quantisation tables; 0 for other formats.
        sharpness: how abrupt the sharpest edges are; 0.4 and less is blurred, 1 very sharp.
        contrast: grey levels from dark to light, 0 to 255, without the rarest at both ends.
        colour: mean red, green and blue.
        border: mean red, green and blue of the top, bottom, left and right edge.
        spread: standard deviation of grey along the border.
        levels: the values that became black and white, where these are not the ends of what such a file can hold.
        profile_fault: why its colour profile could not be used.
    """

    size: int
    format: str
    width: int
    height: int
    orientation: int
    animated: bool
    camera: str
    quality: int
    sharpness: float
    contrast: int
    colour: tuple[int, ...]
    border: tuple[int, ...]
    spread: int
    levels: tuple[float, ...] = ()
    profile_fault: str = ""


def shrink(image: Image.Image) -> Image.Image:
    """Return a picture smaller by a whole factor, each of whose pixels is the mean of those it stands for."""
    return image.reduce(max(1, min(image.size) // SMALL))


def describe_picture(decoded: Decoded, small: Image.Image, size: int) -> PhotoProperties:
    """Collect the properties of one picture, which may be smaller than stored, and what `shrink` made of it."""
    orientation = decoded.exif.get(ORIENTATION_TAG)
    dark, light = _find_levels(small.convert("L").histogram())
    border, spread = _describe_border(np.asarray(small))
    return PhotoProperties(
        size=size,
        format=decoded.format,
        width=decoded.size[0],
        height=decoded.size[1],
        orientation=orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1,
        animated=decoded.animated,
        camera=name_camera(decoded.exif.get(MAKE_TAG), decoded.exif.get(MODEL_TAG)),
        quality=estimate_quality(decoded.tables) if decoded.format == "JPEG" else 0,
        sharpness=_measure_sharpness(np.asarray(decoded.image.convert("L"))),
        contrast=light - dark,
        colour=tuple(small.resize((1, 1), Image.Resampling.BOX).tobytes()),
        border=border,
        spread=spread,
        levels=(levels.low, levels.high) if (levels := decoded.levels) and not levels.usual else (),
        profile_fault=decoded.profile_fault,
    )


def estimate_quality(tables: Sequence[Sequence[int]]) -> int:
    """Estimate the quality a JPEG was saved with, 1 to 100; 0 if it has no quantisation table.

    Below 25 it comes out some points too high, since the entries of a table end at 255. They are 64 numbers each,
    luminance first.
    """
    if not tables or not tables[0]:
        return 0
    scale = 100 * sum(tables[0]) / STANDARD_SUM
    quality = (200 - scale) / 2 if scale <= 100 else 5000 / scale
    return min(max(round(quality), 1), 100)


def name_camera(make: object, model: object) -> str:
    """Name a camera by what its EXIF block says."""
    texts = [text.split("\0")[0].strip() if isinstance(text, str) else "" for text in (make, model)]
    brand = texts[0].split()[0].casefold() if texts[0] else ""
    named = texts[1] if brand and texts[1].casefold().startswith(brand) else " ".join(filter(None, texts))
    return sys.intern(visible(named[:MOST_CAMERA]))


def _find_levels(histogram: Sequence[int]) -> tuple[int, int]:
    """Return the darkest and the lightest grey level that are not rare."""
    below = list(itertools.accumulate(histogram))
    return bisect.bisect_right(below, RARE * below[-1]), bisect.bisect_left(below, (1 - RARE) * below[-1])


def _measure_sharpness(grey: np.ndarray) -> float:
    """Compare how fast the slope of the sharpest edges changes with how steep they are.

    Of a step blurred by a Gaussian of deviation s pixels, the largest second difference is about 0.6 / s times the
    largest slope over one pixel, whatever its height.
    """
    if min(grey.shape) < 3:
        return 1.0
    rows = np.arange(1, len(grey) - 1, max(1, len(grey) // ROWS))
    middle, above, below = (grey[rows + shift].astype(np.int16) for shift in (0, -1, 1))
    left, right = middle[:, :-2], middle[:, 2:]
    middle, above, below = middle[:, 1:-1], above[:, 1:-1], below[:, 1:-1]
    twice = middle + middle
    bend = np.maximum(np.abs(twice - left - right), np.abs(twice - above - below)).ravel()
    slope = np.maximum(np.abs(right - left), np.abs(below - above)).ravel()
    at = int((1 - SHARPEST) * (len(bend) - 1))
    return round(float(np.partition(bend, at)[at] / (np.partition(slope, at)[at] + NOISE)), 3)


def _describe_border(pixels: np.ndarray) -> tuple[tuple[int, ...], int]:
    """Return the mean colours of the four edges, and how much the grey along them varies."""
    height, width, _ = pixels.shape
    edges = np.concatenate((pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])).astype(np.int64)
    totals = np.add.reduceat(edges, (0, width, 2 * width, 2 * width + height)).tolist()
    lengths = (width, width, height, height)
    means = tuple(round(value / length) for total, length in zip(totals, lengths, strict=True) for value in total)
    grey = edges.sum(axis=1)
    variance = int(grey @ grey) / len(grey) - (int(grey.sum()) / len(grey)) ** 2
    return means, int(math.sqrt(max(variance, 0.0)) / 3)
