"""A photo or its pixels -> a small picture to be shown on a page."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from pronk.photos.decoding import load_image

THUMBNAIL_SIDE = 96
PICTURE_SIDE = 224
QUALITY = 75


def encode_picture(pixels: np.ndarray, *, side: int) -> str:
    """Return pixels, uint8 [h, w, 3], as the `data:` address of a JPEG file of at most `side` pixels."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def draw_thumbnail(source: Path | bytes, *, side: int) -> str:
    """Return a photo as the `data:` address of a JPEG file of at most `side` pixels.

    Raises:
        ImageError: if it cannot be read or decoded.
    """
    return encode_picture(np.asarray(load_image(source, min_side=side // 2)), side=side)
