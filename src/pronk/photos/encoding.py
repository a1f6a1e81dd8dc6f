"""Pixels -> a small picture to be shown on a page."""

import base64
import io

import numpy as np
from PIL import Image

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
