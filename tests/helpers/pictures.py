"""Small drawn pictures for tests: the class shows in shape and colour, and no two pictures are near copies."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

LABELS = ("circle", "square", "triangle")
COLOURS = {"circle": (215, 60, 50), "square": (55, 185, 70), "triangle": (65, 85, 225)}
GRAIN = 8  # pixels per patch of background, so that the low frequencies, which are compared, are random


def draw_picture(label: str, seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """Draw one shape of its class's colour on random patches; the same arguments draw the same picture."""
    rng = np.random.default_rng([seed, *label.encode()])
    colour = COLOURS.get(label) or tuple(int(c) for c in np.random.default_rng([*label.encode()]).integers(40, 216, 3))
    grid = (max(2, size[1] // GRAIN), max(2, size[0] // GRAIN), 3)
    patches = np.clip(rng.normal(0, 55, grid[:2])[..., None] + rng.normal(115, 18, grid) * 0.6 + 45, 0, 255)
    picture = Image.fromarray(patches.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    shade = tuple(int(np.clip(c + rng.integers(-25, 26), 0, 255)) for c in colour)
    radius = min(size) * rng.uniform(0.22, 0.34)
    x, y = (rng.uniform(radius, side - radius) for side in size)
    draw = ImageDraw.Draw(picture)
    box = (x - radius, y - radius, x + radius, y + radius)
    if label == "circle":
        draw.ellipse(box, fill=shade)
    elif label == "triangle":
        draw.regular_polygon((x, y, radius), 3, rotation=int(rng.integers(-20, 21)), fill=shade)
    else:
        draw.rectangle(box, fill=shade)
    return picture


def encode(picture: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """Return the bytes of a picture file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def write_pictures(
    root: Path,
    *,
    labels: Sequence[str] = LABELS,
    count: int = 12,
    size: tuple[int, int] = (96, 72),
    start: int = 0,
) -> Path:
    """Write `count` JPEG pictures per class into class folders, numbered from `start`; return the folder."""
    for label in labels:
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(start, start + count):
            name = root / label / f"{label}_{number:03d}.jpg"
            name.write_bytes(encode(draw_picture(label, number, size), quality=92))
    return root
