"""Names from strangers, and numbers -> text to show."""

import os
import unicodedata

LONGEST_LABEL = 1000  # characters; what is longer is no name, but a text in the wrong column


def visible(text: str) -> str:
    r"""Spell out the characters that hide, reorder or break text.

    Control and direction characters become their escapes, bytes of undecodable names become `\xNN`. The two
    joiners that some scripts and emoji need stay.

    Example:
        >>> print(visible("photo\u202egpj.exe"), visible("a\nb"), visible("caf\udce9.jpg"))
        photo\u202egpj.exe a\nb caf\xe9.jpg
    """
    if text.isprintable():
        return text
    return "".join(map(_visible_character, text))


def find_label_fault(name: str) -> str:
    r"""Say why a class cannot have that name, as words after "it"; nothing where it can.

    Names of classes are data: each that is text will do. Where a file needs a name, it gets one that is like it.

    Example:
        >>> find_label_fault("n/a"), find_label_fault("caf\udce9")
        ('', 'has bytes that are not text')
    """
    if not name.strip():
        return "is empty"
    if "\0" in name or any("\ud800" <= character <= "\udfff" for character in name):
        return "has bytes that are not text"
    return f"has more than {LONGEST_LABEL:,} characters" if len(name) > LONGEST_LABEL else ""


def _visible_character(character: str) -> str:
    if unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} or character in "\u200c\u200d":
        return character
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def fold(name: str) -> str:
    r"""Return what is equal for names that some system takes for the same file: it tells neither case nor form.

    Example:
        >>> fold("MU\u0308SLI.JPG") == fold("m\xfcsli.jpg")
        True
    """
    return unicodedata.normalize("NFC", name).casefold()


def quote(argument: str) -> str:
    """Write an argument as the shell of this system wants it."""
    import shlex
    import subprocess

    return subprocess.list2cmdline([argument]) if os.name == "nt" else shlex.quote(argument)


def cause(error: Exception) -> str:
    """Say what went wrong, without the number and the path that messages of the system have.

    Example:
        >>> cause(FileNotFoundError(2, "No such file", "photos"))
        'No such file'
    """
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def say_time(seconds: float) -> str:
    """Say seconds as people do who look at a clock.

    Example:
        >>> say_time(42.1), say_time(500)
        ('42 s', '8 min')
    """
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def plural(n: int, noun: str) -> str:
    """Write a number with its noun.

    Example:
        >>> plural(1, "photo"), plural(1200, "photo")
        ('1 photo', '1,200 photos')
    """
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def percent(share: float) -> str:
    """Write a share with one decimal, never rounded up to all or down to nothing; its sign stays on the same line.

    Example:
        >>> [percent(share).split() for share in (47 / 49, 0.9999, 1.0)]
        [['95.9', '%'], ['99.9', '%'], ['100.0', '%']]
    """
    shown = 100 * share
    if 0 < share < 1:
        shown = min(max(shown, 0.1), 99.9)
    return f"{shown:.1f}\u00a0%"
