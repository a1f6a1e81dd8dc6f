"""A folder of photos -> JPEGs of wanted numbers of bytes, as cameras and web pages send them."""

import io
import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image

BYTES_PER_PIXEL = 0.32  # of photos as cameras and web sites save them
QUALITIES = (50, 95)
GRAIN = 6  # grey levels: a small photo that is enlarged would else be too smooth for a camera's
LARGE = (7000, 7000)
MIX = (20_000, 45_000, 95_000, 200_000, 425_000, 900_000, 1_900_000, 4_000_000)  # each as often as the others


def write_bodies(photos: Path, folder: Path, *, sizes: tuple[int, ...], each: int) -> list[Path]:
    """Write `each` JPEGs of about each size in bytes, of different photos."""
    found = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not found:
        sys.exit(f"error: no photos at {photos}\nhint: name a folder, or set PRONK_PHOTOS")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for size in sizes:
        for number in range(each):
            path = folder / f"{size:08}-{number:03}.jpg"
            path.write_bytes(resize_photo(found[len(paths) * 7 % len(found)], size))
            paths.append(path)
    return paths


def resize_photo(path: Path, size: int) -> bytes:
    """Return the photo as a JPEG of about that many bytes."""
    with Image.open(path) as opened:
        photo = opened.convert("RGB")
    scale = math.sqrt(size / BYTES_PER_PIXEL / (photo.width * photo.height))
    picture = photo.resize((max(16, round(photo.width * scale)), max(16, round(photo.height * scale))))
    if scale > 1:
        grain = np.random.default_rng(0).normal(0, GRAIN, (picture.height, picture.width, 1))
        picture = Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))
    low, high = QUALITIES
    while low < high:
        middle = (low + high + 1) // 2
        if len(_encode(picture, middle)) <= size:
            low = middle
        else:
            high = middle - 1
    return _encode(picture, low)


def _encode(picture: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write_large(folder: Path) -> list[Path]:
    """Write pictures of 49 megapixels, each of a kind that takes memory in its own way."""
    folder.mkdir(parents=True, exist_ok=True)
    columns, rows = np.meshgrid(np.arange(LARGE[0]), np.arange(LARGE[1]))
    picture = Image.fromarray(
        np.stack([columns * 255 // LARGE[0], rows * 255 // LARGE[1], columns & 255], -1).astype(np.uint8)
    )
    picture.save(folder / "49mp.jpg", quality=60)
    picture.save(folder / "49mp-progressive.jpg", quality=60, progressive=True)
    picture.save(folder / "49mp.png", compress_level=1)
    return [folder / name for name in ("49mp.jpg", "49mp-progressive.jpg", "49mp.png")]
