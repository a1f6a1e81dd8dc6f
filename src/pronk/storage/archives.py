"""Archives as folders: what is in a zip or tar file is listed and read in place, and nothing is ever unpacked to disk.

A path leads into an archive as into a folder: `photos.zip/cats/1.jpg`.
"""

import dataclasses
import functools
import os
import tarfile
import threading
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pronk.errors import DataError

SUFFIXES = (".zip", ".tar")
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".gz", ".7z", ".rar")
MOST_MEMBERS = 5_000_000
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, RuntimeError, UnicodeError)


class Item(NamedTuple):
    """What lies in a folder: its name, and whether it is a folder itself."""

    name: str
    is_folder: bool


def is_archive(path: Path) -> bool:
    """Tell whether a path is an archive that can be read in place; DataError where it is one that cannot."""
    name = path.name.lower()
    if name.endswith(PACKED) and path.is_file():
        raise DataError(f"{path} can only be read from its start", hint="unpack it, or pack it again as .zip or .tar")
    return name.endswith(SUFFIXES) and path.is_file()


def scan(folder: Path) -> list[Item]:
    """Return what lies in a folder, or in a folder of an archive, in any order.

    Raises:
        OSError: if it cannot be listed.
        DataError: if the archive is damaged, or holds names that lead out of it.
    """
    found = _find_archive(folder)
    if found is None:
        with os.scandir(folder) as entries:
            return [Item(entry.name, _leads_to_folder(entry)) for entry in entries]
    archive, inside = found
    try:
        return _open(archive).folders[inside]
    except KeyError as error:
        raise FileNotFoundError(2, "no such folder in the archive", str(folder)) from error


def read_inside(path: Path, most: int) -> bytes | None:
    """Return at most so many bytes of a file in an archive; None where a path leads into none.

    Raises:
        OSError: if there is no such file in it, or it cannot be read.
    """
    found = _find_archive(path)
    if found is None or not found[1]:  # an archive itself is a file like any other
        return None
    archive, inside = found
    try:
        opened = _open(archive)
        if inside in opened.folders:
            raise IsADirectoryError(21, "is a folder", str(path))
        if inside not in opened.files:
            raise FileNotFoundError(2, "no such file in the archive", str(path))
        return opened.read(inside, most)
    except (DataError, *DAMAGE) as error:  # damaged, encrypted, or packed in a way that nothing here reads
        raise OSError(5, f"in the archive: {error}", str(path)) from error


def leads_inside(path: Path) -> bool:
    """Tell whether a path leads into an archive, whatever is there."""
    found = _find_archive(path)
    return found is not None and bool(found[1])


def is_there(path: Path) -> bool:
    """Tell whether there is such a file or folder, on disk or in an archive."""
    found = _find_archive(path)
    if found is None or not found[1]:
        return path.exists()
    opened = _open(found[0])
    return found[1] in opened.files or found[1] in opened.folders


def find_root(archive: Path) -> Path:
    """Return the folder of an archive that holds the rest: itself, or the single one that downloads are wrapped in."""
    items = [item for item in scan(archive) if not item.name.startswith((".", "__MACOSX"))]
    if len(items) == 1 and items[0].is_folder and all(item.is_folder for item in scan(archive / items[0].name)):
        return archive / items[0].name
    return archive


def _find_archive(path: Path) -> tuple[Path, str] | None:
    """Return the archive that a path leads to or into, and the rest of the path; links are not followed inside."""
    for place in (path, *path.parents):
        if place.suffix.lower() in SUFFIXES and place.is_file():
            return place, "" if path == place else path.relative_to(place).as_posix()
    return None


def _open(path: Path) -> "_Archive":
    status = path.stat()
    return _open_once(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4)
def _open_once(path: Path, changed: int, size: int) -> "_Archive":
    try:
        return _open_tar(path) if path.suffix.lower() == ".tar" else _open_zip(path)
    except DAMAGE as error:
        raise DataError(f"{path} is no whole archive: {error}", hint="copy it again") from error


@dataclasses.dataclass(frozen=True)
class _Archive:
    """An opened archive; several threads may read at once.

    Attributes:
        files: its files, by path.
        folders: what lies in each of its folders.
        read: gives at most so many bytes of a file.
    """

    files: frozenset[str]
    folders: dict[str, list[Item]]
    read: Callable[[str, int], bytes]


def _open_zip(path: Path) -> _Archive:
    archive = zipfile.ZipFile(path)
    members = {_normalise(one.filename, path): one for one in archive.infolist() if not one.is_dir()}

    def read(name: str, most: int) -> bytes:
        with archive.open(members[name]) as file:
            return file.read(most)

    return _Archive(frozenset(members), _arrange(members, path), read)


def _open_tar(path: Path) -> _Archive:
    file, lock = path.open("rb"), threading.Lock()
    with tarfile.open(fileobj=file, mode="r:") as archive:
        members = {_normalise(one.name, path): one for one in archive if not one.isdir()}

    def read(name: str, most: int) -> bytes:
        member = members[name]
        if not member.isreg():
            raise tarfile.TarError("a link or something else that is no file")
        with lock:
            file.seek(member.offset_data)
            return file.read(min(most, member.size))

    return _Archive(frozenset(members), _arrange(members, path), read)


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


def _leads_to_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False
