"""Kinds of things and a seed -> a folder of drawn, photo-like pictures to try pronk on.

Every kind is drawn with the same colours, textures, sizes and landscapes, so only its shape tells what it is.
"""

from pronk.photos.drawing.photos import DEMO_KINDS, KINDS, draw_photo, draw_photos

__all__ = ["DEMO_KINDS", "KINDS", "draw_photo", "draw_photos"]
