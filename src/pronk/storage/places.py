"""Names and places: what a file or folder may be called, which name is free, and what lies in what."""

import itertools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from pronk.text import visible

UNKNOWN = "unknown"  # the label of photos of other things: no class may have this name
SYSTEM_NAMES = ("thumbs.db", "desktop.ini", "__macosx")  # what file browsers leave in every folder, in lower case
FORBIDDEN = '<>:"/\\|?*'  # Windows takes none of these in a name, and no device as a name, whatever follows the dot
DEVICES = re.compile(r"con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$", re.IGNORECASE)
NAME_BYTES = 255  # the longest name that the usual file systems take


def is_single_name(name: str) -> bool:
    """Tell whether a name from a stranger is one step of a path, on every system.

    Example:
        >>> [is_single_name(name) for name in ("cat", "..", "a/b", "")]
        [True, False, False, False]
    """
    return name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}


def can_be_folder(name: str, *, windows: bool = os.name == "nt") -> bool:
    """Tell whether this system can hold a visible folder of that name.

    Example:
        >>> can_be_folder("cat"), can_be_folder(".cat"), can_be_folder("aux", windows=True)
        (True, False, False)
    """
    try:
        length = len(os.fsencode(name))
    except UnicodeEncodeError:
        return False
    if not is_single_name(name) or length > NAME_BYTES or name[0] == "." or any(letter < " " for letter in name):
        return False
    return not (windows and (_is_device(name) or name[-1] in ". " or set(name) & set(FORBIDDEN)))


def find_fault(name: str) -> str:
    """Say what some system or program would stumble over in a name, as words after "it" or "the name"; else nothing.

    Example:
        >>> find_fault("cats"), find_fault("aux.txt")
        ('', 'is that of a device on Windows')
    """
    if visible(name) != name:
        return "has characters that nobody can see, or bytes that are not text"
    if name != name.strip() or name.endswith("."):
        return "starts or ends with a space, or ends with a dot"
    if found := set(FORBIDDEN) & set(name):
        return f"has {', '.join(sorted(found))}, which some systems do not take"
    return "is that of a device on Windows" if _is_device(name) else ""


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is hidden, or one that a system leaves behind."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def number_names(path: Path, start: int = 1) -> Iterator[Path]:
    """Yield a path, then the same with -2, -3 and so on before its ending; from another number than 1 on if asked.

    Example:
        >>> [path.name for path in itertools.islice(number_names(Path("a.jpg")), 3)]
        ['a.jpg', 'a-2.jpg', 'a-3.jpg']
    """
    for number in itertools.count(start):
        yield path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def find_free(path: Path, is_taken: Callable[[str], bool] = lambda name: False) -> Path:
    """Return the first numbered name where nothing lies and which nobody else has taken."""
    return next(name for name in number_names(path) if not os.path.lexists(name) and not is_taken(os.fspath(name)))


def enclosing(path: Path) -> set[Path]:
    """Return a path, its links resolved, together with every folder above it."""
    resolved = path.resolve()
    return {resolved, *resolved.parents}


def lies_in(path: Path, folder: Path) -> bool:
    """Tell whether a path is a folder or lies in it, links resolved; neither has to exist."""
    return folder.resolve() in enclosing(path)


def overlap(one: Path, other: Path) -> bool:
    """Tell whether one of two folders lies in the other, or both are the same."""
    return lies_in(one, other) or lies_in(other, one)


def leads_elsewhere(path: Path) -> bool:
    """Tell whether an absolute path is a link, or below one: then it leads to another place than it says."""
    return path.resolve() != path


def _is_device(name: str) -> bool:
    return DEVICES.fullmatch(name.split(".")[0].strip()) is not None
