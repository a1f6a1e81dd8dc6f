"""Nothing -> a folder of drawn photos and the settings to train on it offline: what `pronk demo` shows."""

from pathlib import Path

from pronk.config import Settings
from pronk.photos.drawing import draw_photos
from pronk.progress import Progress, no_progress

PHOTOS_PER_CLASS = 90


def draw_demo(out: Path, *, on_progress: Progress = no_progress) -> Path:
    """Draw the demo's photos into `out/photos`; the same ones every time.

    Raises:
        DataError: if there are files already.
    """
    return draw_photos(
        out / "photos",
        photos_per_class=PHOTOS_PER_CLASS,
        on_progress=lambda done, total: on_progress("draw", done, total),
    )


def demo_settings() -> Settings:
    """Return settings that need no download: the network that comes with pronk, at 160 px.

    Example:
        >>> demo_settings().weights
        'offline'
    """
    # This network has seen no photo, so more of it has to learn, and faster, than of one from ImageNet.
    return Settings(weights="offline", image_size=160, views=4, fine_tune_from="block_12_add", learning_rate=1e-4)
