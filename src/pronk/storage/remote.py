"""Addresses such as s3://bucket/photos as paths: what fsspec and its libraries reach is listed and read like a folder.

Credentials, proxies and certificates are the affair of these libraries. A path at an address is a `upath.UPath`, which
does what a `pathlib.Path` does; nothing here is imported unless an address is named.
"""

import itertools
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any, BinaryIO, TypeVar, cast

from pronk.errors import DataError, need_extra
from pronk.text import cause

ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+(://|::)")  # also chained: filecache::s3://bucket/photos
PAUSES = (0.5, 2.0)  # seconds before a second and a third try
MAY_PASS = (408, 429)  # of HTTP's codes that blame who asks, those after which asking again may help

CHECK_ADDRESS = "check the address, the network and what gives access there"

Result = TypeVar("Result")


def is_address(text: str) -> bool:
    r"""Tell whether a text is an address, not a path of this machine.

    Example:
        >>> [is_address(text) for text in ("s3://bucket/photos", "photos/s3", "C:\\photos")]
        [True, False, False]
    """
    return ADDRESS.match(text) is not None


def to_path(place: Path | str) -> Path:
    """Return the path that a text means: one of this machine, or one at an address.

    Raises:
        DataError: if no library knows this kind of address, or the one that does is not installed.
        MissingExtra: without the packages of the extra `remote`.
    """
    if not isinstance(place, str) or not is_address(place):
        return Path(place) if isinstance(place, str) else place
    is_first = "upath" not in sys.modules
    with need_extra("remote", "reading from an address"):
        from upath import UPath
    if is_first:  # what it does for any kind of store is enough here
        warnings.filterwarnings("ignore", message="UPath .* filesystem not explicitly implemented")
    try:
        path = UPath(place if place.endswith("://") else place.rstrip("/"))  # or web servers' folders end in ""
        _ = path.fs  # imports the library that speaks this protocol
        _ = path / "name" if "::" in place else path  # some chains of several protocols lead no farther
    except ImportError as error:  # its message names the package
        raise DataError(f"{place} cannot be reached: {error}", hint="install that package beside pronk") from error
    except (TypeError, ValueError) as error:
        raise DataError(f"{place} is no address that can be read: {error}", hint="check its beginning") from error
    return cast(Path, path)


def join(folder: Path | str, place: str) -> Path:
    """Return the path that a text means as seen from a folder; an address means the same from everywhere."""
    return to_path(place) if is_address(place) else to_path(folder) / place


def find_shared_folder(addresses: Sequence[str]) -> str:
    """Return the deepest folder that holds what is at several addresses; nothing where it is not one store.

    Example:
        >>> find_shared_folder(["s3://bucket/cats/1.jpg", "s3://bucket/dogs/1.jpg"])
        's3://bucket'
    """
    steps = zip(*(address.split("/")[:-1] for address in addresses), strict=False)
    shared = [step[0] for step in itertools.takewhile(lambda step: len(set(step)) == 1, steps)]
    return "/".join(shared) if len(shared) > 2 else ""  # protocol, nothing, store


def is_remote(path: object) -> bool:
    """Tell whether a path leads to an address."""
    upath = sys.modules.get("upath")  # what was never imported has made no path
    return upath is not None and isinstance(path, upath.UPath) and not isinstance(path, PurePath)


def is_folder(path: Path) -> bool:
    """Tell whether a path at an address is a folder; OSError if that cannot be asked."""
    system, place = _locate(path)
    return bool(_try_often(lambda: system.isdir(place), path))


def list_names(folder: Path) -> list[tuple[str, bool]]:
    """Return the name of each thing in a folder at an address, and whether it is a folder itself.

    Raises:
        OSError: if it cannot be listed.
    """
    system, place = _locate(folder)
    found = _try_often(lambda: system.ls(place, detail=True), folder)
    entries = [(entry["name"].rstrip("/"), entry["type"] == "directory") for entry in found]
    here = place.rstrip("/")
    _sizes.update((entry["name"], entry["size"]) for entry in found if entry["type"] == "file")
    if entries == [(here, False)]:
        raise NotADirectoryError(20, "is a file", str(folder))
    # Object stores may keep an empty object for the folder itself.
    return [(name.rpartition("/")[2], is_folder) for name, is_folder in entries if name != here]


def find_matches(pattern: str) -> list[Path]:
    """Return the files at an address that match a pattern, in order."""
    place = to_path(pattern)
    system, inside = _locate(place)
    found = _try_often(lambda: system.glob(inside), place)
    return [to_path(system.unstrip_protocol(name)) for name in sorted(found)]


def fetch(path: Path, most: int) -> bytes:
    """Return at most so many bytes of a file at an address, after a second and a third try where the first fails.

    Raises:
        OSError: saying why it cannot be read.
    """
    system, place = _locate(path)

    def read() -> bytes:
        size = _sizes.get(place)
        if size is None:  # another process has listed it, or nobody
            about = system.info(place)
            size = about["size"]
            if about["type"] == "directory":
                raise IsADirectoryError(21, "is a folder", str(path))
        if size is not None and size <= most:
            return cast(bytes, system.cat_file(place))
        with system.open(place, "rb", cache_type="none") as file:
            return cast(bytes, file.read(most))

    return _try_often(read, path)


def open_random(path: Path) -> BinaryIO:
    """Open a file at an address to be read anywhere in it, for an archive.

    Raises:
        OSError: saying why it cannot be read so.
    """
    system, place = _locate(path)

    def start() -> BinaryIO:
        file: BinaryIO = system.open(place, "rb")
        file.seek(-1, os.SEEK_END)  # some servers of web pages give whole files only, which this tells at once
        file.read(1)
        file.seek(0)
        return file

    return _try_often(start, path)


def put(file: Path, target: Path) -> None:
    """Copy a file to an address. An object store makes it visible when it has all of it, other places as it grows.

    Raises:
        OSError: saying why it cannot be written.
    """
    system, place = _locate(target)
    _try_often(lambda: system.put_file(str(file), place), target)


def _locate(path: Path) -> tuple[Any, str]:
    """Return the file system of a path at an address, and its place there.

    fsspec has one for each thread, and what one has listed no other knows; those that many may use are shared here.
    """
    remote: Any = path
    system = remote.fs
    if system.async_impl:
        system = _shared.setdefault((type(system), repr(system.storage_options)), system)
    return system, remote.path


_shared: dict[tuple[type, str], Any] = {}
_sizes: dict[str, int | None] = {}  # of files that were listed, in bytes: to ask for one of them takes a request


def _try_often(work: Callable[[], Result], path: Path) -> Result:
    """Do what talks to a network; what may be better next time is tried again."""
    for pause in (*PAUSES, None):
        try:
            return work()
        except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError):
            raise
        except Exception as error:  # each library has its own
            status = getattr(error, "status", None)
            is_refused = isinstance(status, int) and 400 <= status < 500 and status not in MAY_PASS
            if pause is None or is_refused:
                raise OSError(5, f"{cause(error):.300}", str(path)) from error
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")
