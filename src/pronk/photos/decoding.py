"""File or bytes -> upright RGB uint8 pixels. Training and serving both use this one."""

import contextlib
import dataclasses
import io
import math
import os
import stat
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from pronk.errors import ImageError, Reason
from pronk.photos.formats import FORMATS, MAX_PIXELS, recognise

DECODING_VERSION = 1  # raise it when a file becomes other pixels, so that nothing kept of the old ones is used
LARGE_PIXELS = 8_000_000  # of pictures above it one is decoded at a time, so that threads do not add up their memory
MAX_BYTES = 100 * 2**20
RESAMPLE = Image.Resampling.BILINEAR
MAKE_TAG, MODEL_TAG, ORIENTATION_TAG = EXIF_TAGS = 0x010F, 0x0110, 0x0112
TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
BAND_PIXELS = 2**20  # pictures are converted in bands of rows: a whole one of 50 megapixels would take 200 MB per copy
# warnings.catch_warnings changes the whole process, so only one thread at a time may open a file.
_open_lock = threading.Lock()
_large_lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Decoded:
    """An upright RGB picture and what was noticed on the way.

    Attributes:
        image: mode RGB, orientation applied; it may be smaller than stored, see `decode`.
        format: the name in FORMATS that the content (not the file name) has.
        size: (width, height) as stored in the file.
        animated: there are more frames than the one that was decoded.
        exif: notes of the camera, by tag; empty where it cannot be read.
        tables: quantisation tables of a JPEG, luminance first.
    """

    image: Image.Image
    format: str
    size: tuple[int, int]
    animated: bool = False
    exif: Mapping[int, object] = dataclasses.field(default_factory=dict)
    tables: Sequence[Sequence[int]] = ()


def read_bytes(path: Path) -> bytes:
    """Read a regular, non-empty file of at most 100 MiB.

    Raises:
        ImageError: vanished, not_regular_file, zero_byte, too_large or unreadable.
    """
    try:
        status = path.stat()
        # Opening a FIFO would wait for ever, so look before opening.
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(Reason.NOT_REGULAR_FILE, f"{path.name} is a folder", hint="check whether it can be opened")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(Reason.NOT_REGULAR_FILE, f"{path.name} is not a regular file", hint="remove it")
        if status.st_size == 0:
            raise ImageError(Reason.ZERO_BYTE, f"{path.name} is empty", hint="copy the photo again")
        if status.st_size > MAX_BYTES:
            raise ImageError(
                Reason.TOO_LARGE,
                f"{path.name} has {status.st_size / 2**20:.0f} MiB",
                hint="save it at most 100 MiB large",
            )
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(Reason.VANISHED, f"{path.name} does not exist", hint="check the path") from error
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise ImageError(
            Reason.UNREADABLE, f"{path.name} cannot be read: {cause}", hint="check its permissions"
        ) from error


def decode(data: bytes, *, min_side: int | None = None) -> Decoded:
    """Decode an encoded photo into upright 8-bit RGB.

    EXIF orientation is applied (mirrored ones too), alpha is put over white, 16 bits are scaled to 8, CMYK, palette
    and grey are converted, and of an animation the first frame is taken.

    Args:
        data: the bytes of a picture file of one of FORMATS.
        min_side: the picture may come out smaller by a whole factor, which saves time and memory, as long as both
            sides stay at least twice this many pixels; None decodes in full.

    Raises:
        ImageError: with its reason; no other exception leaves this function.
    """
    if not data:
        raise ImageError(Reason.ZERO_BYTE, "the photo has 0 bytes", hint="copy the photo again")
    try:
        return _decode(data, min_side)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(str(error)) from error
    except Exception as error:  # Pillow's plugins raise far more than OSError on damaged files
        raise _explain(data, error) from error


def fit_pixels(image: Image.Image, *, size: int, fit: str = "crop") -> np.ndarray:
    """Make a picture square.

    Args:
        image: mode RGB.
        size: side of the square in pixels.
        fit: `crop` scales the short side to `size` and takes the centre square, `pad` scales the long side and
            fills up with mid-grey, `squash` ignores the aspect.

    Returns:
        Pixels of dtype uint8 and shape (size, size, 3).
    """
    width, height = image.size
    if fit == "pad":
        scale = size / max(width, height)
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        square = Image.new("RGB", (size, size), (127, 127, 127))
        square.paste(image.resize(inner, RESAMPLE), ((size - inner[0]) // 2, (size - inner[1]) // 2))
        return np.asarray(square)
    box = (0.0, 0.0, float(width), float(height))
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), RESAMPLE, box=box))


def load_pixels(source: Path | bytes, *, size: int, fit: str = "crop") -> np.ndarray:
    """Read one photo as the network sees it, in training and serving: pixels, uint8 (size, size, 3).

    Arguments and errors are those of `load_image` and `fit_pixels`.
    """
    return load_photo(source, size=size, fit=fit)[1]


def load_photo(source: Path | bytes, *, size: int, fit: str = "crop") -> tuple[Image.Image, np.ndarray]:
    """Read one photo as people see it, at its own aspect, and as the network does, as `load_pixels`."""
    image = load_image(source, min_side=size)
    return image, fit_pixels(image, size=size, fit=fit)


def load_image(source: Path | bytes, *, min_side: int | None = None) -> Image.Image:
    """Read one photo as an upright RGB picture; arguments and errors are those of `read_bytes` and `decode`."""
    return decode(read_bytes(source) if isinstance(source, Path) else source, min_side=min_side).image


def _decode(data: bytes, min_side: int | None) -> Decoded:
    with _handle_warnings():
        image: Image.Image = Image.open(io.BytesIO(data), formats=tuple(FORMATS))
        animated = bool(getattr(image, "is_animated", False))
        if image.format == "TIFF":
            image.getexif()  # load() would, and warn then
    size, is_mpo = image.size, image.format == "MPO"
    kind = FORMATS["JPEG" if is_mpo else image.format or ""]
    if size[0] * size[1] > kind.most_pixels:
        raise _too_many_pixels(f"{size[0]} x {size[1]} pixels as {kind.name}", kind.most_pixels)
    if min_side is not None:
        image.draft("RGB", (2 * min_side, 2 * min_side))
    # A JPEG shrinks while it is decoded, but a progressive one keeps all its coefficients meanwhile.
    held = math.prod(size if image.info.get("progressive") else image.size)
    with _large_lock if held > LARGE_PIXELS else contextlib.nullcontext():
        image.load()
        if kind.needs_end and kind.is_cut and kind.is_cut(data):
            raise EOFError("truncated")
        picture = _to_rgb(image, 1 if min_side is None else max(1, min(image.size) // (2 * min_side)))
        exif = _read_exif(image)
        orientation = exif.get(ORIENTATION_TAG)
        if isinstance(orientation, int) and orientation in TRANSPOSE:
            picture = picture.transpose(TRANSPOSE[orientation])
    tables = tuple(getattr(image, "quantization", {}).values())
    return Decoded(picture, kind.name, size, animated and not is_mpo, exif, tables)


@contextlib.contextmanager
def _handle_warnings() -> Iterator[None]:
    with _open_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _read_exif(image: Image.Image) -> Mapping[int, object]:
    # After load(), because PNG may carry its EXIF block behind the pixels and TIFF turns itself.
    try:
        with _handle_warnings():
            exif = image.getexif()
            return {tag: exif[tag] for tag in EXIF_TAGS if tag in exif}
    except Exception:  # damaged EXIF blocks are common, and not a reason to lose a photo
        return {}


def _to_rgb(image: Image.Image, factor: int) -> Image.Image:
    """Convert to RGB, smaller by a whole factor."""
    if factor == 1 and image.mode == "RGB" and "transparency" not in image.info:
        return image
    white = _find_white(image)
    rgb = Image.new("RGB", (math.ceil(image.width / factor), math.ceil(image.height / factor)))
    for top, band in _cut_bands(image, factor):
        rgb.paste(_band_to_rgb(band, white).reduce(factor), (0, top // factor))
    return rgb


def _cut_bands(image: Image.Image, factor: int) -> Iterator[tuple[int, Image.Image]]:
    rows = factor * math.ceil(BAND_PIXELS / (image.width * factor))
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _find_white(image: Image.Image) -> float | None:
    """Return the value that stands for white in a picture with more than 8 bits of grey; None for all others."""
    if image.mode.startswith("I;16"):
        return 65535.0
    if image.mode not in ("I", "F"):
        return None
    highest = max(float(np.nan_to_num(np.asarray(band)).max()) for _, band in _cut_bands(image, 1))
    steps = (1.0, 255.0) if image.mode == "F" else (255.0, 65535.0, 2.0**32 - 1)
    return next((step for step in steps if highest <= step), steps[-1])


def _band_to_rgb(band: Image.Image, white: float | None) -> Image.Image:
    if white is not None:
        # Pillow's own conversion clips 16 bits at 255, which turns most photos white.
        grey = np.nan_to_num(np.asarray(band, np.float32)) * (255 / white)
        return Image.fromarray(np.clip(grey + 0.5, 0, 255).astype(np.uint8)).convert("RGB")
    if band.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in band.info:
        picture = band.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return band.convert("RGB")


def _too_many_pixels(what: str, most: int = MAX_PIXELS) -> ImageError:
    remedy = f"save it with at most {most // 1_000_000} megapixels{', or as JPEG' if most < MAX_PIXELS else ''}"
    return ImageError(Reason.TOO_MANY_PIXELS, f"too large to decode safely: {what}", hint=remedy)


def _explain(data: bytes, error: Exception) -> ImageError:
    """Find the reason for a failed decode from the bytes, since Pillow's messages are not stable."""
    kind = recognise(data)
    if kind is None:
        return ImageError(Reason.NOT_AN_IMAGE, "the content is not a picture", hint="remove it or copy it again")
    if kind.is_cut is None:
        return ImageError(Reason.UNSUPPORTED_FORMAT, f"{kind.name} files are not supported", hint=kind.remedy)
    if isinstance(error, MemoryError):
        message = f"no memory left to decode this {kind.name}"
        return ImageError(Reason.DECODE_ERROR, message, hint="close other programs")
    if "truncated" in str(error).lower() or kind.is_cut(data):
        message = f"this {kind.name} is cut off after {len(data):,} bytes"
        return ImageError(Reason.TRUNCATED, message, hint="copy the photo again")
    detail = "" if isinstance(error, UnidentifiedImageError) else f": {error}"
    return ImageError(Reason.DECODE_ERROR, f"this {kind.name} is damaged{detail}", hint="copy the photo again")
