"""What people call a class -> a folder name that every system takes, or what is wrong with it."""

import unicodedata

from pronk.server.http_errors import HttpError
from pronk.storage import places
from pronk.storage.places import SYSTEM_NAMES, UNKNOWN
from pronk.text import fold, visible

NAME_BYTES = 100
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
        pronk.server.http_errors.HttpError: a class cannot be called '../photos': it starts with a dot
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
        ('', 'it is that of a device on Windows')
    """
    size = len(name.encode("utf-8", "surrogatepass"))
    if not 0 < size <= NAME_BYTES:
        return f"it has {size:,} bytes" if size else "it is empty"
    if name[0] == ".":
        return "it starts with a dot"
    if fault := places.find_fault(name):
        return f"it {fault}"
    if not all(character.isprintable() or character in JOINERS for character in name):
        return "it has characters that nobody can see"
    if not fold_name(name) or fold_name(name) in (UNKNOWN, *SYSTEM_NAMES):
        return "that name has a meaning of its own"
    return ""


def fold_name(name: str) -> str:
    """Return what is equal for names that people or systems take for the same.

    Example:
        >>> fold_name("CATS") == fold_name("cats")
        True
    """
    return fold(fold(name)).translate(dict.fromkeys(map(ord, JOINERS)))
