"""Clean photos, and a data set in which faults of 20 kinds are planted among them, each with what has to be found."""

import dataclasses
import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from helpers.bad_files import exif
from helpers.pictures import encode
from pronk.photos.drawing import DEMO_KINDS, draw_photo

PHOTOS_PER_FAULT = 16
CLASSES = ("cat", "dog", "owl")
ODD = ("two\nlines{}.jpg", "right\u202eto{}.jpg", " blank{}.jpg", "what?{}.jpg", "a|b{}.jpg", "nul.{}.jpg")


@dataclasses.dataclass(frozen=True)
class Planted:
    """A data set with faults: its folder, what has to be found of which file, and the photos that are fine."""

    root: Path
    expected: list[tuple[str, str]]
    clean: set[str]


def crop(image: Image.Image, share: float) -> Image.Image:
    """Cut a share of width and height off on each side."""
    left, top = round(image.width * share), round(image.height * share)
    return image.crop((left, top, image.width - left, image.height - top))


ALTERED: Sequence[Callable[[Image.Image], bytes]] = (
    lambda image: encode(image.resize((image.width // 2, image.height // 2)), quality=85),
    lambda image: encode(image, quality=40),
    lambda image: encode(ImageOps.mirror(image), quality=88),
    lambda image: encode(crop(image, 0.05), quality=88),
    lambda image: encode(ImageEnhance.Brightness(image).enhance(1.3), quality=88),
    lambda image: encode(ImageEnhance.Brightness(image).enhance(0.7), quality=88),
    lambda image: encode(image, "PNG"),
)


def draw_clean(number: int, size: tuple[int, int] = (320, 240)) -> list[Image.Image]:
    """Draw photos of which no two are alike; tests do not change them."""
    return [_draw_one(n, size) for n in range(number)]


@functools.lru_cache(100)  # of 230 KB
def _draw_one(number: int, size: tuple[int, int]) -> Image.Image:
    return draw_photo(DEMO_KINDS[number % len(DEMO_KINDS)], np.random.default_rng([7, number]), size)


def plant(root: Path, photos: Sequence[Image.Image], *, per_kind: int) -> Planted:
    """Write photos into train and test folders of class folders, and as many faults of each kind among them.

    The first ones stay as they are; those after them are spoilt, or are the originals of copies.
    """
    planted = Planted(root, [], set())
    needed = PHOTOS_PER_FAULT * per_kind
    clean, material = photos[: len(photos) - needed], iter(photos[len(photos) - needed :])
    for number, photo in enumerate(clean):
        part = "test" if number % 5 == 4 else "train"
        _write(planted, f"{part}/{CLASSES[number % 3]}/photo_{number:04d}.jpg", encode(photo, quality=92))
    for number in range(per_kind):
        label = CLASSES[number % 3]
        for name, data, code in _spoil(number, material):
            _write(planted, f"train/{label}/{name}", data, code)
        for code, target in (
            ("exact_duplicate", f"train/{label}/z_exact_{number}.jpg"),
            ("near_duplicate", f"train/{label}/z_near_{number}.jpg"),
            ("label_conflict", f"train/{CLASSES[(number + 1) % 3]}/z_conflict_{number}.jpg"),
            ("leak", f"test/{label}/z_leak_{number}.jpg"),
        ):
            _write_copy(planted, code, label, number, target, next(material))
        _write(planted, f"train/{label}/same_{number}.JPG", encode(next(material), quality=92))
        _write(planted, f"train/{label}/SAME_{number}.jpg", encode(next(material)), "case_collision")
        (root / f"train/empty_{number}").mkdir(parents=True)
        planted.expected.append((f"train/empty_{number}", "empty_class"))
    return planted


def _spoil(number: int, material: object) -> list[tuple[str, bytes, str]]:
    whole = encode(next(material), quality=92)
    png = encode(next(material).resize((80, 60)), "PNG")
    photo, other = next(material).resize((120, 90)), next(material)
    moving = encode(photo, "GIF", save_all=True, append_images=[ImageOps.flip(photo)])
    rng = np.random.default_rng(number)
    flat = np.clip(rng.normal(rng.integers(8, 248), 1.2, (120, 160, 1)) + rng.integers(-5, 6, 3), 0, 255)
    blur = ImageFilter.GaussianBlur(min(other.size) / 100)
    return [
        (f"empty_{number}.jpg", b"", "zero_byte"),
        (f"page_{number}.jpg", b"<!DOCTYPE html><html>404</html>" * (1 + number), "not_an_image"),
        (f"cut_{number}.jpg", whole[: len(whole) * (20 + 3 * number) // 100], "truncated"),
        (f"cut_{number}.png", png[: len(png) * (20 + 3 * number) // 100], "truncated"),
        (f"layers_{number}.jpg", b"8BPS\0\1" + bytes(200 + number), "unsupported_format"),
        (f"damaged_{number}.png", png[:29] + bytes(4) + png[33:], "decode_error"),
        (f"renamed_{number}.png", encode(next(material)), "wrong_extension"),
        (f"moving_{number}.gif", moving, "animated"),
        (f"turned_{number}.jpg", encode(next(material), exif=exif(2 + number % 7)), "rotated"),
        (f"tiny_{number}.jpg", encode(next(material).resize((38 - number, 20))), "tiny"),
        (f"blurred_{number}.jpg", encode(other.filter(blur)), "blurred"),
        (f"blank_{number}.jpg", encode(Image.fromarray(flat.astype(np.uint8))), "blank"),
        (ODD[number % len(ODD)].format(number), encode(next(material)), "odd_name"),
        (f".hidden_{number}.jpg", encode(next(material)), "hidden"),
    ]


def _write_copy(planted: Planted, code: str, label: str, number: int, target: str, photo: Image.Image) -> None:
    original = encode(photo, quality=92)
    _write(planted, f"train/{label}/{code}_{number}.jpg", original)
    data = original if code == "exact_duplicate" else ALTERED[number % len(ALTERED)](Image.open(io.BytesIO(original)))
    if data[:4] == b"\x89PNG":
        target = target.removesuffix(".jpg") + ".png"
    _write(planted, target, data, code)


def _write(planted: Planted, path: str, data: bytes, code: str = "") -> None:
    """Write a file with a fault, or without a code a clean one."""
    file = planted.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    if code:
        planted.expected.append((path, code))
    else:
        planted.clean.add(path)


def compare(planted: Planted, findings: Sequence) -> tuple[list[tuple[str, str]], list]:
    """Return the planted faults that were not found, and the findings about photos that are fine."""
    said = {(path, finding.code) for finding in findings for path in (finding.path, *finding.related)}
    missed = [fault for fault in planted.expected if fault not in said]
    spoilt = {path for path, _ in planted.expected}
    wrong = [
        finding
        for finding in findings
        if finding.path in planted.clean and not spoilt & {finding.path, *finding.related}
    ]
    return missed, wrong
