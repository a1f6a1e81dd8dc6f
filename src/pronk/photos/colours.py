"""A picture as its file stores it -> 8-bit RGB: grey of more bits, transparency, colour profiles."""

import dataclasses
import functools
import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

BAND_PIXELS = 2**20  # pictures are converted in bands of rows: a whole one of 50 megapixels would take 200 MB per copy
MOST_PROFILE = 4 * 2**20  # bytes; those of printers have two
DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
FULL = 65535.0
# Bits of cameras of microscopes, of X-ray and of heat, as files of 16 bits hold them. A dark photo of true 16 bits is
# rarer: of 3,469 of ten sets none has its brightest pixel below a sixteenth of the range, where 12 bits end, and 27
# have it below a quarter, where 14 bits end: these would become brighter, by up to four times.
DEPTHS = (10, 12, 14, 16)
DARKEST = 2**9  # a picture of 16 bits that never reaches this is black: of 10 bits it would not reach half


@dataclasses.dataclass(frozen=True)
class Levels:
    """The values that become black and white.

    Attributes:
        low: black.
        high: white.
        usual: whether they are the ends of what such a file can hold.
    """

    low: float
    high: float
    usual: bool = True


def find_levels(image: Image.Image, *, bits: int = 0, range_: tuple[float, float] | None = None) -> Levels | None:
    """Find the values that stand for black and white in a grey picture with more than 8 bits; None for all others.

    They are those that the file names: `range_`, or the `bits` that are said to have a meaning. Else white is the
    largest value of as few bits as hold all values, of 10, 12, 14 or 16; but where all values are multiples of 256 or
    257, 8 bits were widened to 16. Numbers with a fraction end at 1 or 255, or at such a value; if they
    go below 0, or stay far above it, as kelvins do, they are spread from the lowest to the highest.
    """
    if image.mode not in DEEP_MODES:
        return None
    if range_ and range_[0] < range_[1]:
        return Levels(*range_, usual=image.mode.startswith("I;16") and range_ == (0, FULL))
    lowest, highest, common = _measure(image)
    if image.mode == "F":
        if lowest < -0.05 * highest or (lowest > highest / 2 and highest > 255):
            return Levels(lowest, max(highest, lowest + 1e-9), usual=False)
        if highest <= 255:
            return Levels(0, 1 if highest <= 1 else 255)
    if image.mode == "I" and highest <= 255:
        return Levels(0, 255)
    if bits and highest < 2**bits:
        return Levels(0, 2**bits - 1, usual=bits == 16)
    if highest > FULL:
        return Levels(0, 2 ** math.ceil(math.log2(highest + 1)) - 1, usual=False)
    white = find_white(highest, common if image.mode != "F" else 1)
    return Levels(0, white, usual=white == FULL)


def find_white(highest: float, common: int) -> float:
    """Return what is white among values of at most 16 bits, by the largest one and their greatest common divisor.

    Example:
        >>> find_white(3907, 1), find_white(3900, 257), find_white(20, 1)
        (4095.0, 65535.0, 65535.0)
    """
    if common % 257 == 0 or common % 256 == 0 or highest < DARKEST:
        return FULL
    return float(2 ** next(depth for depth in DEPTHS if highest < 2**depth) - 1)


def find_levels_1(image: Image.Image) -> Levels | None:
    """Find black and white as version 1 of decoding did, by which models were trained: 16 bits are always full."""
    if image.mode not in DEEP_MODES:
        return None
    if image.mode.startswith("I;16"):
        return Levels(0, FULL)
    _, highest, _ = _measure(image)
    steps = (1.0, 255.0) if image.mode == "F" else (255.0, FULL, 2.0**32 - 1)
    return Levels(0, next((step for step in steps if highest <= step), steps[-1]))


def _measure(image: Image.Image) -> tuple[float, float, int]:
    """Return the lowest and highest value, and, of whole numbers, their greatest common divisor."""
    lowest, highest, common = math.inf, -math.inf, 0
    for _, band in cut_bands(image, 1):
        values = np.asarray(band)
        finite = values[np.isfinite(values)] if image.mode == "F" else values
        if finite.size:
            lowest, highest = min(lowest, float(finite.min())), max(highest, float(finite.max()))
        if image.mode != "F":
            common = int(np.gcd(common, np.gcd.reduce(values, axis=None)))
    return (lowest, highest, common) if lowest <= highest else (0.0, 0.0, 0)


def to_rgb(image: Image.Image, factor: int, levels: Levels | None, convert: "Conversion | None" = None) -> Image.Image:
    """Convert to RGB, smaller by a whole factor; what is transparent lies on white.

    A conversion of another mode than RGB takes part; one of RGB is left to the caller.
    """
    if factor == 1 and image.mode == "RGB" and "transparency" not in image.info:
        return image
    return _reduce(image, factor, levels, convert)


def _reduce(image: Image.Image, factor: int, levels: Levels | None, convert: "Conversion | None") -> Image.Image:
    rgb = Image.new("RGB", (math.ceil(image.width / factor), math.ceil(image.height / factor)))
    for top, band in cut_bands(image, factor):
        rgb.paste(_band_to_rgb(band, levels, convert).reduce(factor), (0, top // factor))
    return rgb


def cut_bands(image: Image.Image, factor: int) -> Iterator[tuple[int, Image.Image]]:
    """Yield the first row and the picture of bands whose rows are a multiple of `factor`."""
    rows = factor * math.ceil(BAND_PIXELS / (image.width * factor))
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _band_to_rgb(band: Image.Image, levels: Levels | None, convert: "Conversion | None") -> Image.Image:
    if levels is not None:
        # Pillow's own conversion clips 16 bits at 255, which turns most photos white.
        values = np.nan_to_num(np.asarray(band, np.float32), posinf=levels.high, neginf=levels.low)
        grey = (values - levels.low) * (255 / (levels.high - levels.low))
        clear = band.info.get("transparency")
        grey = np.where(values == clear, 255, grey) if isinstance(clear, int) else grey
        return Image.fromarray(np.clip(grey + 0.5, 0, 255).astype(np.uint8)).convert("RGB")
    if band.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in band.info:
        picture = band.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return convert(band) if convert and convert.mode == band.mode != "RGB" else band.convert("RGB")


class Conversion:
    """Colours of a profile -> sRGB, for pictures of one mode."""

    def __init__(self, mode: str, transform: Any) -> None:
        self.mode = mode
        self.transform = transform

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the picture in sRGB."""
        from PIL import ImageCms

        return ImageCms.applyTransform(image, self.transform) or image


def find_conversion(profile: bytes | None, mode: str) -> Conversion | None:
    """Return what turns the colours of a profile into sRGB; None where they are sRGB, or no profile is given.

    Raises:
        ValueError: if the profile is damaged, too large, or not one for such a picture.
    """
    if not profile:
        return None
    if len(profile) > MOST_PROFILE:
        raise ValueError(f"it has {len(profile):,} bytes")
    return _open_conversion(profile, {"L": "L", "CMYK": "CMYK", "LAB": "LAB"}.get(mode, "RGB"))


@functools.lru_cache(maxsize=16)
def _open_conversion(profile: bytes, mode: str) -> Conversion | None:
    from PIL import ImageCms  # only where a picture has a profile

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        # Grey pictures often have a profile for colours, in which they are shades like others.
        mode = "RGB" if space == "RGB" and mode == "L" else mode
        if {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}.get(space) != mode:
            raise ValueError(f"it is for {space} and not for {mode}")
        if mode == "RGB" and "srgb" in ImageCms.getProfileDescription(source).lower():
            return None
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            # Several threads use it, so it must not remember the colour before.
            flags=ImageCms.Flags.NOCACHE,
        )
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
        raise ValueError(str(error)) from error
    return Conversion(mode, transform)
