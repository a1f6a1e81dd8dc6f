"""File or bytes -> upright RGB uint8 pixels. Training and serving both use this one."""

import contextlib
import dataclasses
import io
import math
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pronk.errors import ImageError, Reason
from pronk.photos.colours import Conversion, Levels, find_conversion, find_levels, find_levels_1, to_rgb
from pronk.photos.formats import BY_PILLOW, FORMATS, MAX_PIXELS, recognise
from pronk.photos.heif import INSTALL, can_open
from pronk.photos.jpeg import JpegFile, is_lossless, is_text_copy
from pronk.photos.mending import brighten_png, find_significant_bits, is_deep_png, is_html, list_mendings
from pronk.photos.tiff import Tiff, open_tiff, read_tiff
from pronk.storage.remote import CHECK_ADDRESS, is_remote
from pronk.storage.sources import read_elsewhere
from pronk.text import cause

DECODING_VERSION = 2  # raise it when a file becomes other pixels, so that nothing kept of the old ones is used
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
WARNING = ("TIFF", "GIF", "PNG")  # formats whose decoders warn while they read pixels
# warnings.catch_warnings changes the whole process, so only one thread at a time may open a file.
_open_lock = threading.RLock()
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
        levels: the values that became black and white, of grey with more than 8 bits.
        profile_fault: why its colour profile could not be used.
        convert: turns the picture into sRGB, if it is not yet.
    """

    image: Image.Image
    format: str
    size: tuple[int, int]
    animated: bool = False
    exif: Mapping[int, object] = dataclasses.field(default_factory=dict)
    tables: Sequence[Sequence[int]] = ()
    levels: Levels | None = None
    profile_fault: str = ""
    convert: Conversion | None = None


class DamagedError(Exception):
    """The decoder has made up a part of the picture."""


def read_bytes(path: Path) -> bytes:
    """Read a regular, non-empty file of at most 100 MiB.

    Raises:
        ImageError: vanished, not_regular_file, zero_byte, too_large or unreadable.
    """
    try:
        read = _read_elsewhere(path)
        if read is not None:
            return read
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
        hint = CHECK_ADDRESS if is_remote(path) else "check its permissions"
        raise ImageError(Reason.UNREADABLE, f"{path.name} cannot be read: {cause(error)}", hint=hint) from error


def _read_elsewhere(path: Path) -> bytes | None:
    """Return the bytes of a file in an archive or at an address; None where a path is one of the disk."""
    data = read_elsewhere(path)
    if data is not None and not data:
        raise ImageError(Reason.ZERO_BYTE, f"{path.name} is empty", hint="copy the photo again")
    if data is not None and len(data) > MAX_BYTES:
        raise ImageError(Reason.TOO_LARGE, f"{path.name} has more than 100 MiB", hint="save it at most 100 MiB large")
    return data


def decode(
    data: bytes, *, min_side: int | None = None, version: int = DECODING_VERSION, in_srgb: bool = True
) -> Decoded:
    """Decode an encoded photo into upright 8-bit RGB.

    EXIF orientation is applied (mirrored ones too), alpha is put over white, colours are converted to sRGB by the
    profile in the file, grey of more bits is scaled to 8 (`find_levels` says how), CMYK, palette and grey are
    converted, and of an animation the first frame is taken.

    Args:
        data: the bytes of a picture file of one of FORMATS.
        min_side: the picture may come out smaller by a whole factor, which saves time and memory, as long as both
            sides stay at least twice this many pixels; None decodes in full.
        version: 1 decodes as models were trained with before DECODING_VERSION went up: colour profiles, fewer bits
            than 16, and transparency of 16 bits do not count.
        in_srgb: off leaves a picture in the colours of its profile, and tells the conversion: of what is made small
            first, fewer pixels have to be converted.

    Raises:
        ImageError: with its reason; no other exception leaves this function.
    """
    if not data:
        raise ImageError(Reason.ZERO_BYTE, "the photo has 0 bytes", hint="copy the photo again")
    try:
        decoded = _decode(data, min_side, version)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(str(error)) from error
    except Exception as error:  # Pillow's plugins raise far more than OSError on damaged files
        reason = error
        for mend in () if isinstance(error, MemoryError | DamagedError) else list_mendings(data):
            try:
                decoded = _decode(data, min_side, version, mend)
                break
            except ImageError:
                raise
            except Exception as other:
                reason = other if isinstance(other, EOFError | DamagedError) else reason
        else:
            raise _explain(data, reason) from error
    if in_srgb and decoded.convert:
        return dataclasses.replace(decoded, image=decoded.convert(decoded.image), convert=None)
    return decoded


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


def convert_picture(image: Image.Image) -> Image.Image:
    """Turn a picture that was opened elsewhere upright, and into RGB, as `decode` does.

    Raises:
        ImageError: if its file cannot be read any more.
    """
    try:
        image.load()
        upright = ImageOps.exif_transpose(image)
        convert, _ = _find_conversion(upright, DECODING_VERSION)
        picture = to_rgb(upright, 1, find_levels(upright), convert)
        return convert(picture) if convert and convert.mode == "RGB" else picture
    except Exception as error:
        raise ImageError(Reason.DECODE_ERROR, f"this picture is damaged: {error}", hint="open it again") from error


def load_pixels(source: Path | bytes, *, size: int, fit: str = "crop", version: int = DECODING_VERSION) -> np.ndarray:
    """Read one photo as the network sees it, in training and serving: pixels, uint8 (size, size, 3).

    Arguments and errors are those of `load_image` and `fit_pixels`.
    """
    decoded = _load(source, size=size, version=version)
    return fit_in_srgb(decoded, size=size, fit=fit)


def load_photo(
    source: Path | bytes, *, size: int, fit: str = "crop", version: int = DECODING_VERSION
) -> tuple[Image.Image, np.ndarray]:
    """Read one photo as people see it, at its own aspect, and as the network does, as `load_pixels`."""
    decoded = _load(source, size=size, version=version)
    image = decoded.convert(decoded.image) if decoded.convert else decoded.image
    return image, fit_in_srgb(decoded, size=size, fit=fit)


def fit_in_srgb(decoded: Decoded, *, size: int, fit: str) -> np.ndarray:
    """Make a decoded picture square, as `fit_pixels`, and only then convert its colours, if they are not sRGB yet."""
    (square,) = convert_views(decoded, fit_pixels(decoded.image, size=size, fit=fit)[None])
    return np.asarray(square)


def convert_views(decoded: Decoded, views: np.ndarray) -> np.ndarray:
    """Convert the colours of views of a picture, uint8 [n, size, size, 3], if they are not sRGB yet."""
    if decoded.convert is None:
        return views
    return np.stack([np.asarray(decoded.convert(Image.fromarray(view))) for view in views])


def _load(source: Path | bytes, *, size: int, version: int) -> Decoded:
    data = source if isinstance(source, bytes) else read_bytes(source)
    return decode(data, min_side=size, version=version, in_srgb=False)


def load_image(source: Path | bytes, *, min_side: int | None = None, version: int = DECODING_VERSION) -> Image.Image:
    """Read one photo as an upright RGB picture; arguments and errors are those of `read_bytes` and `decode`."""
    data = source if isinstance(source, bytes) else read_bytes(source)
    return decode(data, min_side=min_side, version=version).image


def _decode(data: bytes, min_side: int | None, version: int, mend: Callable[[], Image.Image] | None = None) -> Decoded:
    """Decode a file, as it is or as it was mended."""
    with _handle_warnings():
        image: Image.Image = mend() if mend else Image.open(io.BytesIO(data), formats=BY_PILLOW)
        animated = bool(getattr(image, "is_animated", False))
        if image.format == "TIFF":
            image.getexif()  # load() would, and warn then
    size, is_mpo = image.size, image.format == "MPO"
    kind = FORMATS["JPEG" if is_mpo else image.format or (recognise(data) or FORMATS["TIFF"]).name]
    if size[0] * size[1] > kind.most_pixels:
        raise _too_many_pixels(f"{size[0]} x {size[1]} pixels as {kind.name}", kind.most_pixels)
    watched = JpegFile(image) if kind is FORMATS["JPEG"] else None
    if min_side is not None and not (watched and is_lossless(data)):
        image.draft("RGB", (2 * min_side, 2 * min_side))
    # A JPEG shrinks while it is decoded, but a progressive one keeps all its coefficients meanwhile.
    held = math.prod(size if image.info.get("progressive") else image.size)
    with _large_lock if held > LARGE_PIXELS else contextlib.nullcontext():
        with _handle_warnings() if kind.name in WARNING else contextlib.nullcontext():
            image.load()
        if watched and (watched.is_damaged() or is_text_copy(data)):
            raise DamagedError("part of its data is missing or was altered")
        image, levels = _find_samples(image, data, version)
        factor = 1 if min_side is None else max(1, min(image.size) // (2 * min_side))
        convert, profile_fault = _find_conversion(image, version)
        picture = to_rgb(image, factor, levels, convert)
        # Of other modes than RGB it is converted on the way to RGB.
        left = convert if convert and convert.mode == "RGB" else None
        exif = _read_exif(image)
        orientation = exif.get(ORIENTATION_TAG)
        if isinstance(orientation, int) and orientation in TRANSPOSE:
            picture = picture.transpose(TRANSPOSE[orientation])
    tables = tuple(getattr(image, "quantization", {}).values())
    return Decoded(picture, kind.name, size, animated and not is_mpo, exif, tables, levels, profile_fault, left)


def _find_samples(image: Image.Image, data: bytes, version: int) -> tuple[Image.Image, Levels | None]:
    """Return the picture to convert, and what is black and white in it."""
    if version == 1:
        levels = find_levels_1(image)
        if levels:
            image.info.pop("transparency", None)
        return image, levels
    if image.format == "BMP" and image.mode == "RGBA" and image.getchannel(3).getextrema() == (0, 0):
        return image.convert("RGB"), None  # its fourth byte says nothing, as most programs read it
    tiff = open_tiff(data) if image.format == "TIFF" else None
    if tiff and (tiff.is_misread or (tiff.samples > 2 and tiff.bits == 16 and _is_dark(image))):
        read = read_tiff(tiff)
        if read is None and tiff.is_misread:
            raise unsupported_tiff(tiff)
        image = read or image
    bits = 16 if image.format == "PPM" and image.mode == "I" else 0
    if is_deep_png(data):
        bits = find_significant_bits(data)
        image = brighten_png(data, image) if _is_dark(image) else image
    return image, find_levels(image, bits=bits, range_=tiff.range if tiff else None)


def _is_dark(image: Image.Image) -> bool:
    """Tell whether colours that had 16 bits, of which 8 are left, may have had fewer bits."""
    return image.mode in ("RGB", "RGBA") and int(np.asarray(image)[..., :3].max()) < 64


def _find_conversion(image: Image.Image, version: int) -> tuple[Conversion | None, str]:
    """Return what turns the picture's colours into sRGB, and what is wrong with its colour profile."""
    try:
        return (find_conversion(image.info.get("icc_profile"), image.mode) if version > 1 else None), ""
    except ValueError as error:
        return None, str(error)


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


def _too_many_pixels(what: str, most: int = MAX_PIXELS) -> ImageError:
    remedy = f"save it with at most {most // 1_000_000} megapixels{', or as JPEG' if most < MAX_PIXELS else ''}"
    return ImageError(Reason.TOO_MANY_PIXELS, f"too large to decode safely: {what}", hint=remedy)


def _explain(data: bytes, error: Exception) -> ImageError:
    """Find the reason for a failed decode from the bytes, since Pillow's messages are not stable."""
    kind = recognise(data)
    if kind is None:
        what = "a page of a web site, not a picture" if is_html(data) else "not a picture"
        return ImageError(Reason.NOT_AN_IMAGE, f"the content is {what}", hint="remove it or copy it again")
    if kind.is_cut is None or (kind.name == "HEIC" and not can_open()):
        remedy = INSTALL if kind.name == "HEIC" else kind.remedy
        return ImageError(Reason.UNSUPPORTED_FORMAT, f"{kind.name} files are not supported", hint=remedy)
    if isinstance(error, MemoryError):
        message = f"no memory left to decode this {kind.name}"
        return ImageError(Reason.DECODE_ERROR, message, hint="close other programs")
    if "truncated" in str(error).lower() or kind.is_cut(data):
        message = f"this {kind.name} is cut off after {len(data):,} bytes"
        return ImageError(Reason.TRUNCATED, message, hint="copy the photo again")
    is_unknown = isinstance(error, UnidentifiedImageError) or "support" in str(error)
    tiff = open_tiff(data) if kind.name == "TIFF" and is_unknown else None
    if tiff:
        return unsupported_tiff(tiff)
    if is_unknown and kind.name == "BMP":
        return ImageError(Reason.UNSUPPORTED_FORMAT, f"this kind of BMP is not supported: {error}", hint=kind.remedy)
    detail = "" if is_unknown else f": {error}"
    return ImageError(Reason.DECODE_ERROR, f"this {kind.name} is damaged{detail}", hint="copy the photo again")


def unsupported_tiff(tiff: Tiff) -> ImageError:
    """Return the error for a kind of TIFF that is not read."""
    message = f"this kind of TIFF is not supported: {tiff.describe()}"
    return ImageError(Reason.UNSUPPORTED_FORMAT, message, hint="convert it to PNG, or to a TIFF of 8 bits a sample")
