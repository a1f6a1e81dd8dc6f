"""What people call a class -> a folder name that every system takes, or what is wrong with it."""

import unicodedata

from pronk.dataset.listing import SYSTEM_NAMES
from pronk.model.predictor import UNKNOWN
from pronk.moving.sorting import DEVICES
from pronk.server.errors import HttpError
from pronk.text import fold, visible

NAME_BYTES = 100
FORBIDDEN = '/\\:*?"<>|'
JOINERS = "\u200c\u200d"  # some scripts, and emoji, need them; they do not tell names apart


def check_name(name: str) -> str:
    r"""Return the name of a class in the one form in which it is kept.

    Raises:
        HttpError: 422 saying what is wrong with it.

    Example:
        >>> check_name("Mu\u0308sli")
        'Müsli'
        >>> check_name("../photos")
        Traceback (most recent call last):
        pronk.server.errors.HttpError: a class cannot be called '../photos': it starts with a dot
    """
    kept = unicodedata.normalize("NFC", name)
    fault = find_fault(name) or find_fault(kept)
    if fault:
        hint = f"use letters, digits, spaces and hyphens; at most {NAME_BYTES} bytes"
        raise HttpError(422, f"a class cannot be called '{visible(name):.100}': {fault}", code="usage", hint=hint)
    return kept


def find_fault(name: str) -> str:
    """Say why no class can have that name on some system, or nothing.

    Example:
        >>> find_fault("cats"), find_fault("aux.txt")
        ('', 'Windows has a device of that name')
    """
    size = len(name.encode("utf-8", "surrogatepass"))
    if not 0 < size <= NAME_BYTES:
        return f"it has {size:,} bytes" if size else "it is empty"
    if name[0] == ".":
        return "it starts with a dot"
    if name[0] == " " or name[-1] in ". ":
        return "it starts or ends with a space, or ends with a dot"
    if any(character in FORBIDDEN for character in name):
        return f"some systems do not take any of {' '.join(FORBIDDEN)}"
    if not all(character.isprintable() or character in JOINERS for character in name):
        return "it has characters that nobody can see"
    if not fold_name(name) or fold_name(name) in (UNKNOWN, *SYSTEM_NAMES):
        return "that name has a meaning of its own"
    stem = name.split(".")[0].strip()
    return (
        "Windows has a device of that name" if DEVICES.fullmatch(stem) or stem.lower() in ("conin$", "conout$") else ""
    )


def fold_name(name: str) -> str:
    """Return what is equal for names that people or systems take for the same.

    Example:
        >>> fold_name("CATS") == fold_name("cats")
        True
    """
    return fold(fold(name)).translate(dict.fromkeys(map(ord, JOINERS)))
