"""HEIC bytes -> picture, by pillow-heif where the user has installed it; in a process of its own, which may crash.

Phones take HEIC unless told otherwise. Its decoders are large and meet files of strangers, so that pronk neither brings
one along nor runs one in a server.
"""

import importlib.util
import io
import sys

from PIL import Image

from pronk.photos.formats import MAX_PIXELS

SECONDS = 60.0
INSTALL = "install pillow-heif (pip install pillow-heif), or save it as JPEG"
is_allowed = True  # the server sets it to False


def can_open() -> bool:
    """Tell whether HEIC is read here."""
    return is_allowed and importlib.util.find_spec("pillow_heif") is not None


def open_heif(data: bytes) -> Image.Image:
    """Decode a picture in another process: upright, with its colour profile.

    Raises:
        ValueError: if it cannot be decoded, or HEIC is not read here.
    """
    if not can_open():
        raise ValueError("HEIC is not read here")
    import subprocess  # only where there is such a photo

    command = [sys.executable, "-m", "pronk.photos.heif"]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ValueError("decoding it takes too long") from error
    if done.returncode:
        raise ValueError(done.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1] or "its decoder crashed")
    picture = Image.open(io.BytesIO(done.stdout), formats=("TIFF",))
    picture.load()
    picture.format = "HEIC"
    return picture


def main() -> None:
    """Write the picture on stdin to stdout, as TIFF."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    picture = Image.open(io.BytesIO(sys.stdin.buffer.read()), formats=("HEIF",))
    if picture.width * picture.height > MAX_PIXELS:
        sys.exit(f"it has {picture.width} x {picture.height} pixels")
    rgb = picture if picture.mode in ("RGB", "RGBA", "L") else picture.convert("RGB")
    buffer = io.BytesIO()
    rgb.save(buffer, "TIFF", icc_profile=picture.info.get("icc_profile"))
    sys.stdout.buffer.write(buffer.getvalue())


if __name__ == "__main__":
    main()
