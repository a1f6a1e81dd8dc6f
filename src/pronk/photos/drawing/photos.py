"""A kind, a seed and a number -> a drawn photo; kinds and a folder -> class folders of JPEG files."""

import io
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from pronk.errors import DataError, SettingsError
from pronk.photos.drawing.animals import ANIMALS
from pronk.photos.drawing.brush import Colour, Floats, Material, Place, crop_noise, paint, silhouette
from pronk.photos.drawing.outlines import Part
from pronk.photos.drawing.scenery import Scene, draw_scene
from pronk.photos.drawing.things import THINGS
from pronk.storage.files import write_atomically

DEMO_KINDS: tuple[str, ...] = ("alpaca", "bird", "mushroom")
_FIGURES = ANIMALS | THINGS
KINDS: tuple[str, ...] = DEMO_KINDS + tuple(sorted(set(_FIGURES) - set(DEMO_KINDS)))

# Every kind takes its colours from this one list, so that no colour gives a kind away.
_COATS: tuple[Colour, ...] = (
    (0.93, 0.90, 0.84), (0.88, 0.80, 0.67), (0.76, 0.62, 0.45), (0.62, 0.44, 0.28), (0.45, 0.30, 0.20),
    (0.30, 0.22, 0.18), (0.20, 0.19, 0.20), (0.55, 0.53, 0.52), (0.72, 0.71, 0.70), (0.60, 0.39, 0.28),
)  # fmt: skip
_ACCENTS: tuple[Colour, ...] = ((0.80, 0.55, 0.22), (0.35, 0.30, 0.28), (0.62, 0.35, 0.28))
_TURNED = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


def draw_photo(kind: str, rng: np.random.Generator, size: tuple[int, int] = (640, 480)) -> Image.Image:
    """Draw one photo-like picture of one of `KINDS` in a landscape: RGB, of a width and height of at least 32 pixels.

    Every choice comes from the random numbers, so the same state draws the same picture.
    """
    _check((kind,), size)
    scene = draw_scene(rng, size)
    parts = _FIGURES[kind](rng)
    place = _choose_place(parts, rng, scene)
    _cast_shadow(scene, parts, place)
    material = _choose_material(rng, scene.ground)
    paint(scene.canvas, parts, place=place, material=material, light=scene.light, rng=rng)
    np.clip(scene.canvas, 0, 1, out=scene.canvas)
    image = Image.fromarray((scene.canvas * np.float32(255)).astype(np.uint8))
    _grow_grass(image, scene, place, rng)
    return _develop(image, rng)


def draw_photos(
    out: Path,
    *,
    photos_per_class: int = 60,
    seed: int = 42,
    size: tuple[int, int] = (640, 480),
    kinds: Sequence[str] = DEMO_KINDS,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Draw a folder of class folders of JPEG photos.

    About a third are in portrait format, and some are stored turned with an EXIF orientation, as cameras do.
    A photo depends on its kind, its number, the size and the seed only: more kinds or more photos leave the
    others as they are.

    The folder is made, or exists and is empty, and is returned. The size is that of a landscape photo, and each of the
    kinds, from KINDS, becomes a class folder. `on_progress` is called with (photos done, photos to draw).

    Raises:
        DataError: if the folder is not empty, or is a file.
        SettingsError: if a kind is unknown or given twice, or a number is too small.
        StorageError: if a photo cannot be written.
    """
    _check(kinds, size)
    if photos_per_class < 1 or seed < 0:
        got = f"Got {photos_per_class} and {seed}"
        raise SettingsError(f"photos_per_class must be at least 1 and seed at least 0. {got}", hint="take 60 and 42")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"'{out}' exists and is not an empty folder", hint="name a new folder, or remove this one")
    photos = [(kind, number) for kind in kinds for number in range(1, photos_per_class + 1)]
    for done, (kind, number) in enumerate(photos, start=1):
        rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), number])
        _write_photo(out / kind / f"{kind}_{number:04d}.jpg", kind, rng, size)
        on_progress(done, len(photos))
    return out


def _check(kinds: Sequence[str], size: tuple[int, int]) -> None:
    unknown = [kind for kind in kinds if kind not in _FIGURES]
    if unknown or not kinds or len(set(kinds)) < len(kinds):
        raise SettingsError(
            f"kinds must be known and named once. Got {list(kinds)}", hint=f"choose from {', '.join(KINDS)}"
        )
    if min(size) < 32:
        raise SettingsError(f"a drawn photo has at least 32 pixels each way. Got {size}", hint="size=(640, 480)")


def _write_photo(path: Path, kind: str, rng: np.random.Generator, size: tuple[int, int]) -> None:
    if rng.random() < 0.35:
        size = (size[1], size[0])
    quality = int(rng.integers(80, 96))
    orientation = int(rng.choice([1, 3, 6, 8], p=[0.82, 0.06, 0.06, 0.06]))
    image = draw_photo(kind, rng, size)
    exif = Image.Exif()
    if orientation != 1:
        image = image.transpose(_TURNED[orientation])
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, exif=exif)
    write_atomically(path, buffer.getvalue(), durable=False)


def _choose_material(rng: np.random.Generator, ground: Colour) -> Material:
    # Of two coats take the one that stands out more, as a photographer would.
    first, other, second = rng.choice(len(_COATS), 3, replace=False)
    coat = max(first, other, key=lambda index: float(np.abs(np.subtract(_COATS[index], ground)).sum()))
    jitter = rng.uniform(0.9, 1.06) * rng.uniform(0.98, 1.02, 3)
    colours = {"coat": _COATS[coat], "second": _COATS[second], "accent": _ACCENTS[rng.integers(3)]}
    shifted = {name: (c[0] * jitter[0], c[1] * jitter[1], c[2] * jitter[2]) for name, c in colours.items()}
    shifted |= {"dark": (0.07, 0.06, 0.06), "glint": (0.95, 0.95, 0.95)}
    patches = float(rng.uniform(0.5, 1)) if rng.random() < 0.2 else 0.0
    return Material(shifted, str(rng.choice(["wool", "fur", "locks"])), rng.uniform(0.05, 0.16), patches)


def _measure(parts: list[Part]) -> tuple[float, Floats]:
    """Area of the silhouette in square units, and its box: left, bottom, right, top."""
    outlines = [outline for part in parts for outline in part.outlines]
    points = np.vstack(outlines)
    low, high = points.min(0), points.max(0)
    zoom = 80 / float((high - low).max())
    mask = silhouette([(outline - low) * zoom for outline in outlines], (81, 81))
    return float(np.count_nonzero(np.asarray(mask))) / zoom**2, np.concatenate([low, high]).astype(np.float32)


def _choose_place(parts: list[Part], rng: np.random.Generator, scene: Scene) -> Place:
    """Scale by area, so that no kind is larger than another, and keep nearly all of it in the frame."""
    height, width = scene.canvas.shape[:2]
    area, box = _measure(parts)
    tall, wide = float(box[3]), float(box[2] - box[0])
    scale = rng.uniform(0.36, 0.50) * min(width, height) / np.sqrt(area)
    scale = min(max(scale, 0.25 * height / tall), 0.88 * height / tall, 0.95 * width / wide)
    lowest = max(scene.horizon + 0.4 * (height - scene.horizon), scale * tall + 0.04 * height)
    highest = (0.95 if width > height else 0.9) * height
    foot = rng.uniform(min(lowest, highest - 0.03 * height), highest)
    mirror, lean, stretch = rng.random() < 0.5, rng.normal(0, 0.035), rng.uniform(0.92, 1.1)
    room = max(0.02, 0.34 - 0.36 * scale * wide / width)
    middle = float(box[0] + box[2]) / 2 * scale * stretch * (-1 if mirror else 1)
    x = (0.5 + rng.uniform(-room, room)) * width - middle
    return Place(x, foot, scale, mirror=mirror, lean=lean, stretch=stretch)


def _cast_shadow(scene: Scene, parts: list[Part], place: Place) -> None:
    """Darken the ground where the figure, laid flat away from the light, would cover it."""
    height, width = scene.canvas.shape[:2]
    lying = []
    for outline in (place.put(outline) for part in parts for outline in part.outlines):
        up = np.maximum(place.y - outline[:, 1], 0)
        lying.append(np.stack([outline[:, 0] - up * scene.light.x, place.y - up * 0.2], 1) / 2)
    soft = float(place.scale * (0.02 + 0.03 * (1.2 - scene.light.hardness)))
    top = int(max(scene.horizon, place.y - place.scale * 0.5)) // 2
    mask = silhouette([line - [0, top] for line in lying], (width // 2, max(1, height // 2 - top)))
    mask = mask.filter(ImageFilter.GaussianBlur(soft))
    mask = mask.resize((width, height - 2 * top), Image.Resampling.BILINEAR)
    depth = np.float32((0.25 + 0.3 * min(scene.light.hardness, 1)) / 255)
    scene.canvas[2 * top :] *= (1 - depth * np.asarray(mask, np.float32))[..., None]


def _grow_grass(image: Image.Image, scene: Scene, place: Place, rng: np.random.Generator) -> None:
    """Draw blades in front of the figure's foot and, in tufts, higher: some cover a part of it."""
    width, height = image.size
    reach = 0.05 * height * (0.5 + scene.grassy)
    top = int(max(0, place.y - 4.5 * reach))
    count = int(40 + 200 * scene.grassy)
    x, y = rng.uniform(0, width, count), rng.uniform(place.y - 0.2 * reach, height + reach, count)
    tall = reach * rng.uniform(0.4, 1.3, count) * (1 + 1.2 * (y - place.y) / (height - place.y + reach))
    for _ in range(rng.integers(0, 4)):
        tuft = np.abs(x - rng.uniform(0, width)) < 0.05 * width
        tall[tuft] *= rng.uniform(1.3, 2.4)
    bend, thick = rng.normal(0, 0.35, count) * tall, rng.uniform(0.001, 0.004, count) * height
    blades = np.stack([x - thick, y, x + bend * 0.35 - thick * 0.7, y - tall * 0.6, x + bend, y - tall,
                       x + bend * 0.35 + thick * 0.7, y - tall * 0.6, x + thick, y], 1) * 2  # fmt: skip
    blades[:, 1::2] -= 2 * top
    twice = (2 * width, 2 * (height - top))
    shades, mask = Image.new("L", twice, 128), Image.new("L", twice)
    shade_pen, mask_pen = ImageDraw.Draw(shades), ImageDraw.Draw(mask)
    fills = rng.integers(80, 190, count).tolist()
    for blade, shade in zip(blades[np.argsort(y)].tolist(), fills, strict=True):
        shade_pen.polygon(blade, fill=shade)
        mask_pen.polygon(blade, fill=255)
    levels = np.arange(256)[None] / 140 * np.array(scene.ground)[:, None]
    table = (np.clip(levels, 0, 1) * 255).astype(int).ravel().tolist()
    image.paste(Image.merge("RGB", [shades.reduce(2)] * 3).point(table), (0, top), mask.reduce(2))


@lru_cache(maxsize=8)
def _vignette(size: tuple[int, int]) -> Image.Image:
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in (size[1], size[0]))
    fall = 1 - 0.16 * (x[None] ** 2 + y[:, None] ** 2)
    return Image.fromarray((fall * 255).astype(np.uint8)).convert("RGB")


def _develop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Do what a camera does: vignette, white balance, exposure, contrast and grain."""
    image = ImageChops.multiply(image, _vignette(image.size))
    levels = np.arange(256)[None] / 255
    contrast, exposure = rng.uniform(0.85, 1.12), rng.uniform(0.92, 1.2)
    balance = rng.uniform(0.96, 1.04, (3, 1))
    curves = np.clip((levels * exposure * balance - 0.45) * contrast + 0.45, 0.05, 0.95)
    image = image.point((curves * 255).round().astype(int).ravel().tolist())
    # The curves keep clear of black and white by more than the grain, so that adding it never wraps around.
    noise = crop_noise("fine", (image.height, image.width), rng) * np.float32(rng.uniform(3, 11))
    grain = Image.fromarray(noise.astype(np.int8).view(np.uint8))
    return ImageChops.add_modulo(image, Image.merge("RGB", (grain, grain, grain)))
