"""Where photos are: in folders, in archives, at addresses; all are listed and read in the same way."""

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from pronk.storage.archives import Item, find_archive, open_archive
from pronk.storage.remote import fetch, is_remote, list_names

MOST_BYTES = 100 * 2**20 + 1  # of a file: one more than a photo may have
AHEAD = 16  # photos at addresses that one reader waits for at a time
MOST_AHEAD = 64  # of all readers of a process, so that memory has a bound


def scan(folder: Path) -> list[Item]:
    """Return what lies in a folder, also of an archive or at an address, in any order.

    Raises:
        OSError: if it cannot be listed.
        DataError: if the archive is damaged, or holds names that lead out of it.
    """
    found = find_archive(folder)
    if found is not None:
        archive, inside = found
        try:
            return open_archive(archive).folders[inside]
        except KeyError as error:
            raise FileNotFoundError(2, "no such folder in the archive", str(folder)) from error
    if is_remote(folder):
        return [Item(*one) for one in list_names(folder)]
    with os.scandir(folder) as entries:
        return [Item(entry.name, _leads_to_folder(entry)) for entry in entries]


def read_elsewhere(path: Path, most: int = MOST_BYTES) -> bytes | None:
    """Return at most so many bytes of a file in an archive or at an address; None where a path is one of the disk.

    Raises:
        OSError: if there is no such file, or it cannot be read.
    """
    begun = _take_begun(path) if is_remote(path) else None
    return begun.result() if begun else _read(path, most)


def _read(path: Path, most: int) -> bytes | None:
    found = find_archive(path)
    if found is not None and found[1]:  # an archive itself is a file like any other
        return _read_inside(path, *found, most)
    return fetch(path, most) if is_remote(path) else None


def _read_inside(path: Path, archive: Path, inside: str, most: int) -> bytes:
    try:
        opened = open_archive(archive)
        if inside in opened.folders:
            raise IsADirectoryError(21, "is a folder", str(path))
        if inside not in opened.files:
            raise FileNotFoundError(2, "no such file in the archive", str(path))
        return opened.read(inside, most)
    except OSError:
        raise
    except Exception as error:  # damaged, encrypted, packed in a way that nothing here reads; or a network's own error
        raise OSError(5, f"in the archive: {error}", str(path)) from error


def lies_on_disk(path: Path) -> bool:
    """Tell whether a path leads neither into an archive nor to an address, whatever is there."""
    found = find_archive(path)
    return not is_remote(path) and (found is None or not found[1])


def is_there(path: Path) -> bool:
    """Tell whether there is such a file or folder, on disk, in an archive or at an address."""
    found = find_archive(path)
    if found is None or not found[1]:
        return path.exists()
    opened = open_archive(found[0])
    return found[1] in opened.files or found[1] in opened.folders


def find_root(archive: Path) -> Path:
    """Return the folder of an archive that holds the rest: itself, or the single one that downloads are wrapped in."""
    items = [item for item in scan(archive) if not item.name.startswith((".", "__MACOSX"))]
    if len(items) == 1 and items[0].is_folder and all(item.is_folder for item in scan(archive / items[0].name)):
        return archive / items[0].name
    return archive


def read_ahead(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield paths as they are; of those at addresses the next few are being read meanwhile, for `read_elsewhere`."""
    waiting: deque[Path] = deque()
    is_done = False
    try:
        for path in paths:
            if is_remote(path):
                _begin(path)
            waiting.append(path)
            if len(waiting) > AHEAD or not is_remote(path):
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
        is_done = True
    finally:
        for path in () if is_done else waiting:  # nobody will ask for them
            _take_begun(path)


_begun: dict[Path, Future[bytes | None]] = {}
_readers: list[ThreadPoolExecutor] = []
_lock = threading.Lock()


def _begin(path: Path) -> None:
    """Begin to read a photo at an address, unless too many are being read already: then it is read when its turn is."""
    with _lock:
        if not _readers:
            _readers.append(ThreadPoolExecutor(MOST_AHEAD, thread_name_prefix="read-ahead"))
        if path not in _begun and len(_begun) < MOST_AHEAD:
            _begun[path] = _readers[0].submit(_read, path, MOST_BYTES)


def _take_begun(path: Path) -> Future[bytes | None] | None:
    with _lock:
        return _begun.pop(path, None)


def _leads_to_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False
