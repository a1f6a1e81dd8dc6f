"""Outlines, a place and a light -> shaded, textured pixels on a canvas.

All texture comes from a few tiles of filtered noise that are made once; a frayed or woolly edge is a blurred
mask with noise added before it is cut at one half.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from pronk.photos.drawing.outlines import Part, Points

Floats = npt.NDArray[np.float32]
Colour = tuple[float, float, float]
TILE = 512


@dataclass(frozen=True)
class Place:
    """Where a figure stands: its foot in pixels, pixels per unit, mirror, lean in radians and stretch."""

    x: float
    y: float
    scale: float
    mirror: bool = False
    lean: float = 0.0
    stretch: float = 1.0

    def put(self, points: Points) -> Points:
        """Turn points of a figure (y up) into points on the canvas (y down)."""
        x = points[:, 0] * self.scale * (-self.stretch if self.mirror else self.stretch)
        y = points[:, 1] * self.scale
        cos, sin = np.cos(self.lean), np.sin(self.lean)
        return np.stack([self.x + x * cos - y * sin, self.y - x * sin - y * cos], 1)


@dataclass(frozen=True)
class Light:
    """Where the light comes from (a unit vector on the canvas, y down), its colour and how hard it is."""

    x: float
    y: float
    colour: Colour = (1.0, 1.0, 1.0)
    hardness: float = 1.0


@dataclass(frozen=True)
class Material:
    """The colours by tone, the noise on the surface and its strength, and how far `second` shows in patches."""

    colours: Mapping[str, Colour]
    texture: str = "wool"
    strength: float = 0.2
    patches: float = 0.0


# For each kind of noise, its peak frequency across and along (cycles per pixel) and the width of the band.
_BANDS = {
    "fine": (0.30, 0.30, 0.5),
    "wool": (0.085, 0.085, 0.55),
    "locks": (0.09, 0.03, 0.6),
    "fur": (0.20, 0.035, 0.8),
    "grass": (0.16, 0.05, 0.9),
}


@cache
def noise_tile(name: str) -> Floats:
    """Make a tile of noise that repeats without a seam, about -1 to 1, float32 [512, 512]."""
    white = np.random.default_rng(sum(name.encode())).standard_normal((TILE, TILE))
    fy, fx = np.abs(np.fft.fftfreq(TILE))[:, None], np.fft.rfftfreq(TILE)[None]
    if name == "cloud":
        gain = 1 / np.maximum(np.hypot(fx, fy), 1.5 / TILE) ** 1.9
        gain[0, 0] = 0
    else:
        across, along, width = _BANDS[name]
        radius = np.hypot(fx / across, fy / along) + 1e-6
        gain = np.exp(-0.5 * (np.log(radius) / width) ** 2)
    waves = np.fft.irfft2(np.fft.rfft2(white) * gain, (TILE, TILE))
    tile: Floats = np.clip(waves / (2.2 * waves.std()), -1, 1).astype(np.float32)
    return tile


def crop_noise(name: str, shape: tuple[int, int], rng: np.random.Generator, *, step: int = 1) -> Floats:
    """Cut `shape` rows and columns out of a tile at a random place, taking every `step`-th pixel."""
    top, left = rng.integers(0, TILE, 2).tolist()
    crop: Floats
    if max(shape) * step <= TILE:
        # The tile is kept four times side by side, so that most crops are views.
        crop = _fourfold(name)[top : top + shape[0] * step : step, left : left + shape[1] * step : step]
    else:
        rows = (top + np.arange(shape[0]) * step) % TILE
        columns = (left + np.arange(shape[1]) * step) % TILE
        crop = noise_tile(name)[rows[:, None], columns]
    return crop


@cache
def _fourfold(name: str) -> Floats:
    return np.tile(noise_tile(name), (2, 2))


def silhouette(outlines: list[Points], size: tuple[int, int]) -> Image.Image:
    """Fill outlines, already in pixels, on a black mask."""
    mask = Image.new("L", size)
    pen = ImageDraw.Draw(mask)
    for outline in outlines:
        pen.polygon(outline.ravel().tolist(), fill=255)
    return mask


def _unit(image: Image.Image) -> Floats:
    return np.asarray(image, np.float32) * np.float32(1 / 255)


def _cut_edge(mask: Image.Image, reach: float, noise: Floats) -> Floats:
    """Opacity with the edge moved by up to about `reach` pixels of noise."""
    blur = max(0.9, float(reach) * 1.4)
    soft = _unit(mask.filter(ImageFilter.BoxBlur(blur)))
    if reach > 0.8:
        soft += noise * np.float32(0.36)
        soft -= np.float32(0.5)
        soft *= np.float32(blur * 1.3)
        soft += np.float32(0.5)
        np.clip(soft, 0, 1, out=soft)
    return soft


def _relief(mask: Image.Image, thickness: float, light: Light) -> Floats:
    """Brightness of a body swollen out of its silhouette, about 0.5 to 1.4."""
    factor = max(1, int(thickness / 8))
    small = mask.reduce(factor)
    sigma = max(1.0, 0.42 * thickness / factor)
    height = _unit(small.filter(ImageFilter.GaussianBlur(sigma)))
    edged = np.pad(height, 1)
    dx, dy = edged[1:-1, 2:] - edged[1:-1, :-2], edged[2:, 1:-1] - edged[:-2, 1:-1]
    facing = -(dx * light.x + dy * light.y) * sigma * 1.25
    bright = 0.80 + 0.42 * light.hardness * facing + 0.28 * height
    picture = Image.fromarray(np.clip(bright * 127, 0, 255).astype(np.uint8))
    return np.asarray(picture.resize(mask.size, Image.Resampling.BILINEAR), np.float32) * np.float32(1 / 127)


def paint(
    canvas: Floats,
    parts: list[Part],
    *,
    place: Place,
    material: Material,
    light: Light,
    rng: np.random.Generator,
) -> None:
    """Paint a figure's parts, back to front, onto the canvas (float32 [h, w, 3], 0 to 1), in place."""
    for part in parts:
        _paint_part(canvas, part, place=place, material=material, light=light, rng=rng)


def _thickness(outlines: list[Points]) -> float:
    """Twice the area by the length of the outline: the width of a limb, the radius of a ball."""
    area = length = 0.0
    for line in outlines:
        after = np.concatenate((line[1:], line[:1]))
        area += abs(float((line[:, 0] * after[:, 1] - line[:, 1] * after[:, 0]).sum())) / 2
        length += float(np.hypot(*(after - line).T).sum())
    return max(1.5, 2 * area / max(length, 1.0))


def _paint_part(
    canvas: Floats, part: Part, *, place: Place, material: Material, light: Light, rng: np.random.Generator
) -> None:
    outlines = [place.put(outline) for outline in part.outlines]
    every = np.vstack(outlines)
    seeds = np.random.default_rng(rng.integers(1 << 32))
    thickness = _thickness(outlines)
    reach = part.fuzz * min(0.12 * thickness, 0.02 * canvas.shape[0])
    margin = 4 + 2.5 * reach
    low = np.maximum(np.floor(every.min(0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(every.max(0) + margin), [canvas.shape[1], canvas.shape[0]]).astype(int)
    width, height = (high - low).tolist()
    if width < 2 or height < 2:
        return
    mask = silhouette([line - low for line in outlines], (width, height))
    noise = crop_noise(material.texture, (height, width), seeds)
    opacity = _cut_edge(mask, reach, noise)
    bright = np.full_like(opacity, part.shade)
    if part.tone not in ("dark", "glint"):
        bright *= _relief(mask, thickness, light)
        bright += bright * noise * np.float32(material.strength)
    target = canvas[low[1] : high[1], low[0] : high[0]]
    colour = np.array(material.colours[part.tone], np.float32) * np.array(light.colour, np.float32)
    paint_here = bright[..., None] * colour
    if material.patches and part.tone == "coat":
        other = np.array(material.colours["second"], np.float32) * np.array(light.colour, np.float32)
        cloud = crop_noise("cloud", (height, width), seeds)
        share = np.clip((cloud - 0.1) * 6, 0, 1) * np.float32(material.patches)
        paint_here += (bright * share)[..., None] * (other - colour)
    paint_here -= target
    paint_here *= opacity[..., None]
    target += paint_here
