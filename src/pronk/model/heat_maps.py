"""Model + photo -> what in the photo spoke for a class, as a heat map over it; no training framework is needed."""

import contextlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pronk.errors import ImageError, SettingsError, StorageError
from pronk.model.predictor import Prediction, Predictor
from pronk.photos.decoding import load_image, load_photo, read_bytes
from pronk.pools import run_in_order
from pronk.progress import Progress, no_progress
from pronk.storage.files import storage_error, write_atomically
from pronk.storage.places import number_names
from pronk.storage.remote import is_remote, to_path
from pronk.text import fold

LONGEST_SIDE = 1024
LONGEST_STEM = 180  # bytes: room for "-beside", a number and the ending of a temporary file within 255
# Eight colours of the scale "plasma" (Smith and van der Walt 2015, CC0), without its greenish end: lightness rises
# evenly from dark blue to gold, for colour-blind eyes too, and its pinks and oranges are rare in photos.
ANCHORS = ((13, 8, 135), (76, 2, 161), (126, 3, 168), (170, 35, 149), (204, 71, 120), (230, 108, 92), (248, 149, 64),
           (253, 197, 39))  # fmt: skip
# Where the network pads with zeros, at the corners, a few places may speak louder than all else in the photo.
STRONG = 0.97
STRONGEST = 0.62  # share of the colour where the heat is 1: the photo stays visible there too
UNSEEN = 0.35  # brightness that is left of what the network did not see
LEVELS = np.linspace(0, 1, 256)
COLOURS = np.stack([np.interp(LEVELS, np.linspace(0, 1, len(ANCHORS)), part) for part in zip(*ANCHORS, strict=True)], 1)
COLOURS = (COLOURS + 0.5).astype(np.uint8)
OPACITY = (255 * STRONGEST * LEVELS + 0.5).astype(np.uint8)
ENLARGE = Image.Resampling.BICUBIC


def class_activation_map(heat: np.ndarray, index: int) -> np.ndarray:
    """Tell where a photo speaks for a class.

    This is the class activation map of Zhou et al. 2016 (https://arxiv.org/abs/1512.04150) without what speaks
    against the class, summed over all blocks that the head reads. Where pooling and one Dense layer follow the maps, as
    here, it equals Grad-CAM (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391) up to a factor, and is exact: its
    mean, before negative values are cut off, is the class's logit without the bias.

    Args:
        heat: what the model says of one photo, float32 [h, w, C]; see `pronk.model.formats.runtimes.Outputs`.
        index: number of the class.

    Returns:
        Heat from 0 to 1, float32 [h, w]: 1 at the strongest 3 % of the places, unless nothing speaks for the class:
        then all are 0.

    Example:
        >>> class_activation_map(np.array([[[1, 0], [4, 1], [0, 3]]], np.float32), 0)
        array([[0.25, 1.  , 0.  ]], dtype=float32)
    """
    positive: np.ndarray = np.maximum(heat[:, :, index].astype(np.float32), 0)
    strong = float(np.quantile(positive, STRONG, method="higher")) or float(positive.max()) or 1.0
    return np.asarray(np.minimum(positive / strong, 1))


def draw_overlay(image: Image.Image, heat: np.ndarray, *, fit: str = "squash") -> Image.Image:
    """Lay a heat map over a picture, which stays visible: the hotter, the more colour.

    Args:
        image: mode RGB, of any size; it is not changed.
        heat: from 0 to 1, float32 [h, w], over the square that the network saw.
        fit: how the picture became that square: `squash` spreads the heat over the whole picture, also over one
            that is the square itself; `crop` over the centre square, around which the picture is dimmed; `pad` over
            a square around the picture.

    Returns:
        A picture of the same size, mode RGB.

    Example:
        >>> picture = draw_overlay(Image.new("RGB", (64, 32)), np.ones((2, 2), np.float32), fit="crop")
        >>> picture.size, picture.getpixel((0, 0)), picture.getpixel((32, 16))
        ((64, 32), (0, 0, 0), (157, 122, 24))
    """
    box = _network_square(image.size, fit)
    levels = _spread_heat(heat, image.size, box)
    coloured = Image.composite(Image.fromarray(COLOURS[levels]), image, Image.fromarray(OPACITY[levels]))
    overlay = image.convert("L").point(lambda value: UNSEEN * value).convert("RGB")
    seen = (max(box[0], 0), max(box[1], 0), min(box[2], image.width), min(box[3], image.height))
    overlay.paste(coloured.crop(seen), seen[:2])
    return overlay


def draw_heat(heat: np.ndarray, *, side: int) -> bytes:
    """Draw a heat map alone, to be laid over a picture: a PNG whose colours are those of `draw_overlay`.

    Args:
        heat: from 0 to 1, float32 [h, w].
        side: side of the square picture, in pixels.

    Returns:
        Bytes of a PNG with 256 colours, each with its opacity; no heat is transparent.
    """
    picture = Image.fromarray(_spread_heat(heat, (side, side), (0, 0, side, side)))
    picture.putpalette(COLOURS.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", transparency=OPACITY.tobytes())
    return buffer.getvalue()


def seen_box(size: tuple[int, int], fit: str) -> tuple[float, float, float, float]:
    """Return the network's square in a picture: left, top, width and height as shares of the picture's sides."""
    left, top, right, bottom = _network_square(size, fit)
    return left / size[0], top / size[1], (right - left) / size[0], (bottom - top) / size[1]


def explain(
    model: Path | str | Predictor,
    paths: Iterable[Path | str],
    *,
    out: Path | str,
    label: str | None = None,
    on_progress: Progress = no_progress,
) -> list[dict[str, Any]]:
    """Draw what in each photo speaks for a class: `<name>.png`, and `<name>-beside.png` with the photo on its left.

    The pictures have the photo's own aspect and are at most 1024 pixels long. Nothing is overwritten: where a name
    is taken, by a file in the folder or by another photo of the same name, `-2` and so on is added to it.

    Args:
        model: a run folder, its `model/`, an export, or an opened predictor.
        paths: the photos.
        out: folder to write to, made where it is missing; it must not be one that the photos lie in.
        label: the class to explain; None for each photo's most likely one.
        on_progress: called with ("explain", done, total).

    Returns:
        One record per photo, in order: path, label (the class explained) and score (its probability), image (path
        of the overlay), and error, {code, message} where the photo cannot be used, else None.

    Raises:
        ModelError: if the model is missing, damaged or fails its self-test.
        SettingsError: if the model does not know the class, or `out` is a folder of the photos.
        StorageError: if a picture cannot be written.
    """
    predictor = model if isinstance(model, Predictor) else Predictor.load(model)
    folder, photos, records = Path(out), [to_path(path) for path in paths], []
    index = _find_class(predictor.classes, label)
    _check_folder(folder, photos)
    names = _choose_names(folder, photos)
    tasks = zip(photos, names, strict=True)
    for record in run_in_order(lambda task: _explain_one(predictor, index, task[0], folder / task[1]), tasks):
        records.append(record)
        on_progress("explain", len(records), len(photos))
    return records


def _network_square(size: tuple[int, int], fit: str) -> tuple[int, int, int, int]:
    """Return the box of the network's square in a picture: within it for crop, around it for pad."""
    width, height = size
    if fit == "squash":
        return 0, 0, width, height
    side = min(size) if fit == "crop" else max(size)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _spread_heat(heat: np.ndarray, size: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    """Enlarge a heat map to the box of a picture; return levels from 0 to 255, uint8 [height, width]."""
    left, top, right, bottom = box
    enlarged = Image.fromarray(np.asarray(heat, np.float32)).resize((right - left, bottom - top), ENLARGE)
    spread = Image.new("F", size)
    spread.paste(enlarged, (left, top))
    # Bicubic interpolation swings a little beyond the values it passes through.
    levels: np.ndarray = np.clip(np.asarray(spread), 0, 1) * 255 + 0.5
    return levels.astype(np.uint8)


def _find_class(classes: Sequence[str], label: str | None) -> int | None:
    if label is not None and label not in classes:
        raise SettingsError(f"the model has no class {label!r}", hint=f"its classes are {', '.join(classes)}")
    return None if label is None else classes.index(label)


def _check_folder(folder: Path, paths: Iterable[Path]) -> None:
    """Refuse to mix heat maps with the photos: a later command would take them for photos."""
    for parent in {path.parent for path in paths if not is_remote(path)}:
        with contextlib.suppress(OSError, ValueError):  # one of them is missing, or has an impossible name
            if parent.samefile(folder):
                raise SettingsError(
                    f"the folder {str(folder)!r} holds the photos", hint="name another folder for --out"
                )


def _choose_names(folder: Path, paths: Iterable[Path]) -> list[str]:
    """Choose a name per photo, without an ending, that is free in the folder and among the other photos."""
    try:
        taken = {fold(file.name) for file in folder.iterdir()}
    except FileNotFoundError:
        taken = set()
    except OSError as error:
        raise storage_error(folder, error) from error
    names, numbered = [], dict[str, Iterator[Path]]()
    for path in paths:
        stem = path.stem
        while len(stem.encode("utf-8", "surrogatepass")) > LONGEST_STEM:
            stem = stem[:-1]
        files = numbered.setdefault(stem, number_names(Path(f"{stem}.png")))  # goes on where the last one got its name
        name = next(file.stem for file in files if taken.isdisjoint(map(fold, _files_of(file.stem))))
        taken.update(map(fold, _files_of(name)))
        names.append(name)
    return names


def _files_of(name: str) -> tuple[str, str]:
    return f"{name}.png", f"{name}-beside.png"


def _explain_one(predictor: Predictor, index: int | None, path: Path, target: Path) -> dict[str, Any]:
    """Draw one photo's heat map and return its record."""
    record: dict[str, Any] = {"path": str(path), "label": None, "score": None, "image": None, "error": None}
    try:
        pixels, photo = _load(path, predictor)
    except ImageError as error:
        return record | {"error": Prediction(record["path"], predictor.classes, None, error).record()["error"]}
    outputs = predictor.runtime.run(pixels[None], heat=True)
    chosen = int(outputs.probabilities[0].argmax()) if index is None else index
    heat = class_activation_map(outputs.heat[0], chosen)
    overlay = draw_overlay(photo, heat, fit=predictor.bundle.fit)
    beside = Image.new("RGB", (2 * photo.width, photo.height))
    beside.paste(photo, (0, 0))
    beside.paste(overlay, (photo.width, 0))
    files = [target.with_name(name) for name in _files_of(target.name)]
    for picture, file in zip((overlay, beside), files, strict=True):
        _save(picture, file)
    score = float(outputs.probabilities[0][chosen])
    return record | {"label": predictor.classes[chosen], "score": score, "image": str(files[0])}


def _load(path: Path, predictor: Predictor) -> tuple[np.ndarray, Image.Image]:
    """Read a photo as the network sees it and as people do."""
    data, size = read_bytes(path), predictor.bundle.size
    image, pixels = load_photo(data, size=size, fit=predictor.bundle.fit, version=predictor.bundle.decoding)
    if max(image.size) < LONGEST_SIDE:  # perhaps only because the network needs no more
        image = load_image(data, min_side=LONGEST_SIDE // 2, version=predictor.bundle.decoding)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return pixels, image


def _save(picture: Image.Image, path: Path) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)  # photos hardly shrink further, and it takes half the time
    if os.path.lexists(path):
        raise StorageError(f"{path} has appeared meanwhile and is not overwritten", hint="type the same command again")
    write_atomically(path, buffer.getvalue(), durable=False)
