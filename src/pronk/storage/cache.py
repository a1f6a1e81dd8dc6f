"""(photo, view, network) -> its features, kept on disk: rows by content key, in segments that grow.

What was used least recently goes first, a segment at a time; a damaged or missing row is simply computed again.
"""

import contextlib
import enum
import math
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from pronk.errors import SettingsError, StorageError
from pronk.storage.segments import INDEX, SEGMENT

DEFAULT_LIMIT = "10GB"
NAME_CACHE = "name a folder with --cache DIR, or in the environment as PRONK_CACHE"
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class CacheKind(enum.Enum):
    """What pronk keeps in a cache folder, each in a folder of its own, with the form of its files' names.

    Nothing else in a cache folder is ever touched. Rows and scans were files of their own once; such files are removed.
    """

    ROWS = r"[0-9a-f-]+\.(?:segment|index)|.+\.row"
    PREFIX = r".+\.onnx"
    SCANS = r"[0-9a-f-]+\.(?:segment|index)|[0-9a-f]{64}\.json"
    VERIFIED = r"[0-9a-f]{32}"
    PACKAGES = r".+\.tgz"

    def within(self, root: Path) -> Path:
        """Return the folder for this kind in a cache folder."""
        return root / self.name.lower()

    def is_own(self, name: str) -> bool:
        """Tell whether pronk wrote a file of that name there, whole or half."""
        return re.fullmatch(rf"{self.value}|\..+\.tmp", name) is not None


def default_cache() -> Path:
    """Return $PRONK_CACHE, else the folder for caches that the system gives each user."""
    if named := os.environ.get("PRONK_CACHE"):
        return Path(named)
    try:
        home = Path.home()
    except RuntimeError as error:
        raise StorageError(f"there is no home folder for the cache: {error}", hint=NAME_CACHE) from error
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "pronk"
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")) / "pronk"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "pronk"


def open_cache(named: Path | str | None = None) -> Path:
    """Return the folder of the cache, made where it is missing.

    Raises:
        StorageError: if nobody can write there, with the ways to name another.
    """
    place = Path(named) if named else default_cache()
    try:
        place.mkdir(parents=True, exist_ok=True)
        is_writable = os.access(place, os.W_OK | os.X_OK)
    except OSError as error:
        raise StorageError(f"cannot make the cache {place}: {error.strerror or error}", hint=NAME_CACHE) from error
    if not is_writable:
        raise StorageError(f"the cache {place} cannot be written", hint=NAME_CACHE)
    return place


def parse_size(text: str, *, option: str = "--cache-limit") -> int:
    """Turn "10GB" into bytes; SettingsError, by the name of the option, if it is no number with KB, MB, GB or TB."""
    unit = text.strip().upper()[-2:]
    with contextlib.suppress(ValueError, KeyError, OverflowError):
        size = int(float(text.strip()[:-2]) * UNITS[unit])
        if size > 0:
            return size
    raise SettingsError(f"{option} must be a size. Got {text!r}", hint=f"for example {option} 10GB")


def measure(root: Path) -> tuple[int, int]:
    """Return (number of files, bytes) in a cache."""
    sizes = [size for _, _, size in _files(root)]
    return len(sizes), sum(sizes)


def trim(root: Path, *, limit: int, since: float = math.inf) -> int:
    """Remove the least recently used files until the cache holds at most `limit` bytes; return the bytes removed.

    What was used after the moment `since`, in seconds as `time.time` counts them, stays; former kinds of files go.
    """
    files = sorted(_files(root), key=lambda file: (not _is_former(file[1]), *file))
    excess = sum(size for _, _, size in files) - limit
    removed = 0
    for used, path, size in files:
        if not _is_former(path) and (removed >= excess or used >= since):
            break
        with contextlib.suppress(OSError):
            Path(path).unlink()
            removed += size
            if path.endswith(SEGMENT):  # of which the index says nothing any more
                Path(path.removesuffix(SEGMENT) + INDEX).unlink()
    return removed


def _is_former(path: str) -> bool:
    return path.endswith((".row", ".json"))


def clear(root: Path) -> None:
    """Remove what pronk keeps in a cache folder, and nothing else in it."""
    for _, path, _ in _files(root):
        with contextlib.suppress(OSError):
            Path(path).unlink()
    for kind in CacheKind:
        for folder, _, _ in os.walk(kind.within(root), topdown=False):
            with contextlib.suppress(OSError):  # what holds other people's files stays
                Path(folder).rmdir()


def ensure_space(folder: Path, needed: int) -> None:
    """Refuse a disk without room for `needed` bytes before hours are spent; the folder on it need not exist yet."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise StorageError(
            f"the features need {needed / 1e6:,.0f} MB in {folder}, and {free / 1e6:,.0f} MB are free",
            hint="name another disk with --cache, use fewer --views, or a later --fine-tune-from block",
        )


def _files(root: Path) -> Iterator[tuple[float, str, int]]:
    for kind in CacheKind:
        for folder, _, names in os.walk(kind.within(root)):
            for file in filter(kind.is_own, names):
                path = os.path.join(folder, file)  # noqa: PTH118 - a hundred thousand Path objects take seconds
                with contextlib.suppress(OSError):
                    status = os.stat(path)  # noqa: PTH116
                    yield status.st_mtime, path, status.st_size
