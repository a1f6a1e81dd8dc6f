"""A random state and a size -> an empty landscape, its horizon, ground colour and light.

The far view is drawn at half size and blurred, as a lens would do; the ground near the viewer gets its detail
at full size. Nothing here knows what will stand in the landscape.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from pronk.photos.drawing.brush import TILE, Colour, Floats, Light, Material, Place, crop_noise, noise_tile, paint
from pronk.photos.drawing.outlines import Part, ellipse
from pronk.photos.drawing.things import PROPS


@dataclass(frozen=True)
class Mood:
    """The weather: sky above, sky at the horizon, colour of the light, its hardness, share of cloud."""

    above: Colour
    below: Colour
    light: Colour
    hardness: float
    cloud: float


@dataclass(frozen=True)
class Scene:
    """A landscape to put things into.

    Its canvas is float32 [h, w, 3], 0 to 1; the horizon is a row, and the ground a colour in this light, which is
    more or less grassy, 0 to 1.
    """

    canvas: Floats
    horizon: float
    ground: Colour
    light: Light
    grassy: float


_MOODS = (
    Mood((0.28, 0.50, 0.80), (0.74, 0.85, 0.93), (1.02, 1.0, 0.96), 1.0, 0.5),
    Mood((0.42, 0.60, 0.82), (0.86, 0.90, 0.92), (1.0, 1.0, 1.0), 0.8, 0.9),
    Mood((0.45, 0.55, 0.72), (0.97, 0.83, 0.63), (1.08, 0.96, 0.80), 1.15, 0.6),
    Mood((0.66, 0.70, 0.74), (0.83, 0.85, 0.86), (0.92, 0.94, 0.97), 0.35, 1.2),
    Mood((0.40, 0.42, 0.60), (0.90, 0.70, 0.66), (0.94, 0.88, 0.88), 0.7, 0.8),
)
# Two colours the ground is mixed from, and how much grass grows on it.
_GROUNDS: tuple[tuple[Colour, Colour, float], ...] = (
    ((0.36, 0.50, 0.20), (0.55, 0.62, 0.30), 1.0),
    ((0.28, 0.42, 0.18), (0.42, 0.50, 0.26), 1.0),
    ((0.62, 0.57, 0.34), (0.48, 0.50, 0.26), 0.8),
    ((0.78, 0.66, 0.47), (0.66, 0.53, 0.36), 0.2),
    ((0.55, 0.44, 0.33), (0.45, 0.42, 0.28), 0.45),
    ((0.60, 0.58, 0.54), (0.48, 0.46, 0.42), 0.25),
)
_LEAVES: tuple[Colour, ...] = ((0.20, 0.34, 0.15), (0.30, 0.42, 0.18), (0.42, 0.44, 0.20), (0.48, 0.36, 0.18))
_ROCKS: tuple[Colour, ...] = ((0.55, 0.53, 0.50), (0.45, 0.40, 0.36), (0.62, 0.55, 0.46))


def draw_scene(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """Draw an empty landscape of `size` (width, height)."""
    width, height = size
    mood = _MOODS[rng.integers(len(_MOODS))]
    light = _choose_light(rng, mood)
    horizon = rng.uniform(0.2, 0.52)
    dark, pale, grassy = _GROUNDS[rng.integers(len(_GROUNDS))]
    far = _draw_sky(rng, ((height + 1) // 2, (width + 1) // 2), mood)
    row = horizon * far.shape[0]
    _draw_backdrop(far, rng, row, mood)
    _draw_ground(far, rng, row, (dark, pale), mood)
    _place_props(far, rng, row, light)
    canvas = _focus(far, rng, size, row)
    _add_detail(canvas, rng, round(horizon * height), 0.10 + 0.10 * grassy)
    tint = (np.add(dark, pale) / 2 * light.colour).tolist()
    return Scene(canvas, horizon * height, (tint[0], tint[1], tint[2]), light, grassy)


def _choose_light(rng: np.random.Generator, mood: Mood) -> Light:
    angle = rng.uniform(-1.1, 1.1)
    level = rng.uniform(0.85, 1.08)
    red, green, blue = (channel * level for channel in mood.light)
    return Light(float(np.sin(angle)), float(-np.cos(angle)), (red, green, blue), mood.hardness)


def _draw_sky(rng: np.random.Generator, shape: tuple[int, int], mood: Mood) -> Floats:
    above, below = np.array(mood.above, np.float32), np.array(mood.below, np.float32)
    fade = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None, None] ** 0.8
    sky = above + np.minimum(fade * np.float32(1.6), 1) * (below - above)
    white = np.clip(crop_noise("cloud", shape, rng) * 2 + np.float32(mood.cloud - 0.7), 0, 1) * np.float32(0.75)
    clouded: Floats = sky + white[..., None] * (np.float32(0.96) - sky)
    return clouded


def _ridge(rng: np.random.Generator, width: int, rough: float) -> Floats:
    """The outline of a mountain range, hills or tree tops: about -1 to 1 for each column."""
    x = np.linspace(0, 1, width)
    line = np.zeros(width)
    for octave in range(7):
        waves = 1.7 * 2**octave
        line += rough**octave * np.sin(2 * np.pi * (waves * rng.uniform(0.8, 1.2) * x + rng.random()))
    return (line / 1.6).astype(np.float32)


def _draw_backdrop(far: Floats, rng: np.random.Generator, row: float, mood: Mood) -> None:
    """Stand ranges, woods or a wall behind the horizon, paler the farther away."""
    height, width = far.shape[:2]
    style = rng.choice(["mountains", "hills", "woods", "wall", "open"], p=[0.25, 0.25, 0.22, 0.16, 0.12])
    if style == "wall":
        _draw_wall(far, rng, row)
        return
    layers = {"mountains": 3, "hills": 3, "woods": 2, "open": 1}[style]
    rough = {"mountains": 0.55, "hills": 0.3, "woods": 0.75, "open": 0.3}[style]
    tall = {"mountains": 0.22, "hills": 0.10, "woods": 0.13, "open": 0.03}[style]
    leaf = np.array(_LEAVES[rng.integers(len(_LEAVES))])
    rock = np.array((0.42, 0.45, 0.55)) if style == "mountains" else leaf
    for layer in range(layers):
        near = (layer + 1) / (layers + 0.6)
        top = row - height * tall * (1.25 - near) * (1.1 + 0.7 * _ridge(rng, width, rough))
        colour = np.array(mood.below) * (1 - near) + (rock * (1 - near) + leaf * near) * np.array(mood.light) * near
        band = slice(max(0, int(top.min())), int(row) + 2)
        rows = np.arange(height, dtype=np.float32)[band, None]
        noise = crop_noise("cloud" if style == "mountains" else "wool", (len(rows), width), rng, step=2)
        shade = 1 + np.float32(0.12 + 0.2 * near) * noise + (rows - np.float32(row)) * np.float32(0.1 / height)
        far[band] += np.clip(rows - top, 0, 1)[..., None] * (shade[..., None] * colour.astype(np.float32) - far[band])


def _draw_wall(far: Floats, rng: np.random.Generator, row: float) -> None:
    height, width = far.shape[:2]
    top = int(max(0, row - height * rng.uniform(0.15, 0.6)))
    bottom = int(row) + 1
    colour = np.array(_ROCKS[rng.integers(3)] if rng.random() < 0.5 else (0.52, 0.38, 0.26), np.float32)
    board = max(6, int(width * rng.uniform(0.03, 0.09)))
    columns = np.arange(width)
    boards = rng.uniform(0.82, 1.12, width // board + 2)[columns // board] * np.where(columns % board == 0, 0.6, 1)
    grain = 1 + 0.18 * crop_noise("fur", (bottom - top, width), rng)
    far[top:bottom] = (boards[None] * grain)[..., None].astype(np.float32) * colour


def _perspective(name: str, rng: np.random.Generator, shape: tuple[int, int], grain: float) -> tuple[Floats, Floats]:
    """Lay a noise tile on the ground plane; return it and the nearness of each row, 0 at the horizon to 1."""
    rows, columns = shape
    near: Floats = ((np.arange(rows, dtype=np.float32) + 0.5) / rows).astype(np.float32)[:, None]
    depth = np.float32(grain) / (near + np.float32(0.06))
    left, top = rng.integers(TILE, size=2).tolist()
    down = (np.float32(top) + rows * depth).astype(np.int32) % TILE
    # Whole tiles are added, since casting to integers would round negative numbers the other way.
    columns_from_middle = np.arange(columns, dtype=np.float32) - np.float32(columns / 2)
    across = (columns_from_middle * depth + np.float32(left + 64 * TILE)).astype(np.int32) % TILE
    return noise_tile(name).ravel().take(down * TILE + across), near


def _draw_ground(far: Floats, rng: np.random.Generator, row: float, tones: tuple[Colour, Colour], mood: Mood) -> None:
    start = min(int(row), far.shape[0] - 2)
    shape = (far.shape[0] - start, far.shape[1])
    patches, near = _perspective("cloud", rng, shape, 0.8)
    blades, _ = _perspective("grass", rng, shape, 1.2)
    dark, pale = (np.array(tone, np.float32) * np.array(mood.light, np.float32) for tone in tones)
    share = np.clip(0.5 + patches * 0.8, 0, 1)[..., None]
    ground = (dark + share * (pale - dark)) * (1 + np.float32(0.13) * blades * np.sqrt(near))[..., None]
    haze = (np.clip(1 - near * 6, 0, 1) * np.float32(0.35))[..., None]
    far[start:] = (ground + haze * (np.array(mood.below, np.float32) - ground)) * (1.04 - 0.16 * near)[..., None]


def _place_props(far: Floats, rng: np.random.Generator, row: float, light: Light) -> None:
    """Scatter a few rocks, bushes, trees or a fence over the ground, the farthest first."""
    height, width = far.shape[:2]
    names = list(PROPS)
    for near in sorted(rng.uniform(0.02, 0.55, rng.integers(0, 5)) ** 1.3):
        name = names[rng.integers(len(names))]
        shade: Colour = tuple((far[-1].mean(0) * 0.75).tolist())
        leaf, stone = _LEAVES[rng.integers(4)], _ROCKS[rng.integers(3)]
        material = Material({"coat": stone, "leaf": leaf, "wood": (0.45, 0.36, 0.27), "dark": shade}, "wool", 0.22)
        tall = {"rock": 0.3, "bush": 0.45, "fir": 1.3, "broadleaf": 1.4, "fence": 0.75}[name]
        scale = height * (0.1 + 0.5 * near) * tall * rng.uniform(0.5, 1.0)
        left, foot = rng.uniform(-0.05, 1.05) * width, row + near * (height - row)
        place = Place(left, foot, scale, stretch=rng.uniform(0.8, 1.2))
        shadow = Part((ellipse(-0.25 * light.x, 0, 3.1 if name == "fence" else 0.5, 0.07),), "dark", fuzz=0)
        paint(far, [shadow], place=place, material=material, light=light, rng=rng)
        paint(far, PROPS[name](rng), place=place, material=material, light=light, rng=rng)


def _focus(far: Floats, rng: np.random.Generator, size: tuple[int, int], row: float) -> Floats:
    """Enlarge the half-size view, blurred far away and sharper towards the viewer."""
    sharp = Image.fromarray((np.clip(far, 0, 1) * np.float32(255)).astype(np.uint8))
    # Halved again first: a blur of a few pixels leaves nothing that the smaller picture could not hold.
    blur = ImageFilter.GaussianBlur(rng.uniform(0.4, 1) ** 2 * far.shape[0] / 90)
    blurred = sharp.reduce(2).filter(blur).resize(sharp.size, Image.Resampling.BILINEAR)
    rows = np.clip((np.arange(far.shape[0]) - row) / (far.shape[0] - row) * 2.5 - 0.5, 0, 1) * 255
    mask = Image.fromarray(np.repeat(rows.astype(np.uint8)[:, None], far.shape[1], axis=1))
    picture = Image.composite(sharp, blurred, mask).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(picture, np.float32) * np.float32(1 / 255)


def _add_detail(canvas: Floats, rng: np.random.Generator, start: int, strength: float) -> None:
    ground = canvas[start:]
    blades, near = _perspective("grass", rng, ground.shape[:2], 1.0)
    ground *= (1 + np.float32(strength) * blades * near)[..., None]
