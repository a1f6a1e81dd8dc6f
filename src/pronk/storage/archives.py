"""Archives as folders: what is in a zip or tar file is listed and read in place, and nothing is ever unpacked to disk.

A path leads into an archive as into a folder: `photos.zip/cats/1.jpg`.
"""

import dataclasses
import functools
import re
import tarfile
import threading
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pronk.errors import DataError
from pronk.storage.remote import is_remote, open_random

SUFFIXES = (".zip", ".tar")
MAY_LEAD_INSIDE = re.compile(r"\.(?:zip|tar)(?:[/\\]|$)", re.IGNORECASE)
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".gz", ".7z", ".rar")
MOST_MEMBERS = 5_000_000
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, RuntimeError, UnicodeError)


class Item(NamedTuple):
    """What lies in a folder: its name, and whether it is a folder itself."""

    name: str
    is_folder: bool


@dataclasses.dataclass(frozen=True)
class Archive:
    """An opened archive; several threads may read at once.

    Attributes:
        files: its files, by path.
        folders: what lies in each of its folders.
        read: gives at most so many bytes of a file.
    """

    files: frozenset[str]
    folders: dict[str, list[Item]]
    read: Callable[[str, int], bytes]


def is_archive(path: Path) -> bool:
    """Tell whether a path is an archive that can be read in place; DataError where it is one that cannot."""
    name = path.name.lower()
    if name.endswith(PACKED) and path.is_file():
        raise DataError(f"{path} can only be read from its start", hint="unpack it, or pack it again as .zip or .tar")
    return name.endswith(SUFFIXES) and path.is_file()


def find_archive(path: Path) -> tuple[Path, str] | None:
    """Return the archive that a path leads to or into, and the rest of the path; links are not followed inside."""
    if not MAY_LEAD_INSIDE.search(str(path)):  # nearly all paths, and quickly told
        return None
    for place in (path, *path.parents):
        if place.suffix.lower() in SUFFIXES and (_is_file_there(place) if is_remote(place) else place.is_file()):
            return place, "" if path == place else path.relative_to(place).as_posix()
    return None


def open_archive(path: Path) -> Archive:
    """Open an archive, or return it where it is open and has not changed; what lies at an address is opened once.

    Raises:
        OSError: if it cannot be read.
        DataError: if it is damaged, or holds names that lead out of it.
    """
    if is_remote(path):
        return _open_remote(path)
    status = path.stat()
    return _open_once(path, status.st_mtime_ns, status.st_size)


def _open_remote(path: Path) -> Archive:
    try:
        return _open_once(path, 0, 0)
    except (DataError, OSError):
        raise
    except Exception as error:  # each library of a network has its own
        raise OSError(5, f"{error:.300}", str(path)) from error


@functools.lru_cache(maxsize=4)
def _open_once(path: Path, changed: int, size: int) -> Archive:
    try:
        return _open_tar(path) if path.suffix.lower() == ".tar" else _open_zip(path)
    except DAMAGE as error:
        raise DataError(f"{path} is no whole archive: {error}", hint="copy it again") from error


@functools.lru_cache(maxsize=64)
def _is_file_there(path: Path) -> bool:
    return path.is_file()


def _open_zip(path: Path) -> Archive:
    archive = zipfile.ZipFile(open_random(path) if is_remote(path) else path)
    members = {_normalise(one.filename, path): one for one in archive.infolist() if not one.is_dir()}

    def read(name: str, most: int) -> bytes:
        with archive.open(members[name]) as file:
            return file.read(most)

    return Archive(frozenset(members), _arrange(members, path), read)


def _open_tar(path: Path) -> Archive:
    file, lock = open_random(path) if is_remote(path) else path.open("rb"), threading.Lock()
    with tarfile.open(fileobj=file, mode="r:") as archive:
        members = {_normalise(one.name, path): one for one in archive if not one.isdir()}

    def read(name: str, most: int) -> bytes:
        member = members[name]
        if not member.isreg():
            raise tarfile.TarError("a link or something else that is no file")
        with lock:
            file.seek(member.offset_data)
            return file.read(min(most, member.size))

    return Archive(frozenset(members), _arrange(members, path), read)


def _normalise(name: str, archive: Path) -> str:
    """Return the path of a member; of two with the same one the later counts, as for programs that unpack."""
    steps = PurePosixPath(name).parts
    if not steps or name.startswith("/") or "\0" in name or "\\" in name or ".." in steps:
        raise DataError(f"{archive} holds the name {name!r:.200}, which leads out of it", hint="pack it again")
    return "/".join(steps)


def _arrange(names: Collection[str], archive: Path) -> dict[str, list[Item]]:
    """Return what lies in each folder."""
    if len(names) > MOST_MEMBERS:
        raise DataError(f"{archive} holds more than {MOST_MEMBERS:,} files", hint="unpack it")
    folders: dict[str, list[Item]] = {"": []}
    for name in names:
        steps = name.split("/")
        for depth in range(1, len(steps)):
            folder, above = "/".join(steps[:depth]), "/".join(steps[: depth - 1])
            if folder not in folders:
                folders[folder] = []
                folders[above].append(Item(steps[depth - 1], True))
        folders["/".join(steps[:-1])].append(Item(steps[-1], False))
    return folders
