"""Bytes -> which picture format they are, and whether they are all there."""

from typing import Literal

# MPO stays out: Pillow reaches it through JPEG, and naming it here raises KeyError for every file.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
}
# What people do put into photo folders and Pillow (as used here) does not read.
UNSUPPORTED = (
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"8BPS", "Photoshop"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x01\x00", "icon"),
    (b"FUJIFILM", "raw camera"),
)
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def sniff(data: bytes) -> str | None:
    """Name the supported format whose signature the bytes start with, or None.

    Example:
        >>> sniff(bytes([0x89]) + b"PNG...")
        'PNG'
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis"):
        return "AVIF"
    signatures = (
        (b"\xff\xd8", "JPEG"),
        (b"\x89PNG", "PNG"),
        (b"GIF8", "GIF"),
        (b"BM", "BMP"),
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"II+\0", "TIFF"),
        (b"MM\0+", "TIFF"),
    )
    return next((name for start, name in signatures if data.startswith(start)), None)


def foreign_format(data: bytes) -> str | None:
    """Name a picture format that pronk does not read, or None.

    Example:
        >>> foreign_format(b"8BPS...")
        'Photoshop'
    """
    if data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS:
        return "HEIC"
    if data.lstrip()[:1] == b"<" and b"<svg" in data[:4096]:
        return "SVG"
    return next((name for start, name in UNSUPPORTED if data.startswith(start)), None)


def is_cut(data: bytes, kind: str) -> bool:
    """Tell whether a file ends before its own end mark or declared length.

    Example:
        >>> is_cut(b"BM" + (100).to_bytes(4, "little"), "BMP")
        True
    """
    if kind == "JPEG":
        return b"\xff\xd9" not in data[-65536:]
    if kind == "PNG":
        return b"IEND" not in data
    if kind == "GIF":
        return not data.rstrip(b"\0").endswith(b";")
    return len(data) < _declared_length(data, kind)


def _declared_length(data: bytes, kind: str) -> int:
    if kind == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8
    if kind == "BMP":
        return int.from_bytes(data[2:6], "little")
    if kind == "TIFF":  # the directory, which many programs write last, has 12 bytes per entry
        order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
        start = int.from_bytes(data[4:8], order)
        return start + 6 + 12 * int.from_bytes(data[start : start + 2], order)
    position = 0
    while kind == "AVIF" and position < len(data):  # boxes, each with its length; 0 and 1 stand for longer ones
        length = int.from_bytes(data[position : position + 4], "big")
        if length < 8:
            break
        position += length
    return position
