"""HDF5 or .keras file -> its bytes after every object in them has been checked, or a named refusal.

HDF5 can name other files in four ways (external links, external storage, virtual datasets, filters loaded as
libraries), and declare arrays of any size for a few bytes. `safe_mode` of Keras looks at none of it.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import h5py

from pronk.model.guards.files import read_limited
from pronk.model.guards.keras_archive import read_weights
from pronk.model.guards.schema import refusal, show

MAX_BYTES = 128 * 2**20
MOST_OBJECTS = 10_000
PLAIN_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}

# What h5py raises where bytes make no sense.
DAMAGE = (OSError, ValueError, RuntimeError, LookupError, TypeError, ArithmeticError, AttributeError, MemoryError)


@contextlib.contextmanager
def open_h5(data: bytes) -> Iterator[h5py.File]:
    """Open an HDF5 file of weights after all of its objects have been checked.

    Raises:
        ModelError: if it is none, or anything in it is elsewhere, no number, or larger than the file.

    Example:
        >>> with open_h5(b"no file"):
        ...     pass
        Traceback (most recent call last):
        pronk.errors.ModelError: the model file is refused: it is not an HDF5 file: ...
    """
    if len(data) > MAX_BYTES:
        raise refusal(f"it has {len(data)} bytes")
    try:
        file = h5py.File(io.BytesIO(data), "r")
    except DAMAGE as error:
        raise refusal(f"it is not an HDF5 file: {error}") from error
    with file:
        try:
            _check_objects(file, len(data))
        except DAMAGE as error:
            raise refusal(f"it is damaged: {error}") from error
        yield file


@contextlib.contextmanager
def open_network(path: Path) -> Iterator[h5py.File]:
    """Open the weights of a .keras file, without Keras and without looking at anything else in it.

    Raises:
        ModelError: if pronk would not have saved such a file.
    """
    with open_h5(read_weights(read_limited(path))) as file:
        yield file


def _check_objects(file: h5py.File, size: int) -> None:
    groups, seen, total = [file["/"]], {_identity(file)}, 0
    while groups:
        group = groups.pop()
        for name in group:
            # Asked for the link, h5py does not follow it.
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise refusal(f"{show(name)} is a link: {type(link).__name__}")
            found = group[name]
            identity = _identity(found)
            if identity in seen or len(seen) >= MOST_OBJECTS:
                raise refusal(f"{show(name)} is there twice, or one of too many objects")
            seen.add(identity)
            if isinstance(found, h5py.Group):
                groups.append(found)
                continue
            total += _check_dataset(found, name, size)
            if total > MAX_BYTES:
                raise refusal(f"its arrays have more than {MAX_BYTES} bytes")


def _identity(found: h5py.HLObject) -> object:
    info = h5py.h5o.get_info(found.id)
    return info.fileno, info.addr


def _check_dataset(found: h5py.HLObject, name: str, size: int) -> int:
    """Return the number of bytes that reading it takes."""
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "fiub":
        raise refusal(f"{show(name)} is not an array of numbers")
    if found.is_virtual or found.external:
        raise refusal(f"{show(name)} lies in another file")
    settings = found.id.get_create_plist()
    filters = {settings.get_filter(index)[0] for index in range(settings.get_nfilters())}
    if not filters <= PLAIN_FILTERS:
        raise refusal(f"{show(name)} needs the filters {sorted(filters)}")
    stored = found.id.get_storage_size()
    if not filters and not found.nbytes <= stored <= size:
        raise refusal(f"{show(name)} of shape {found.shape} has {stored} bytes, and the file {size}")
    return int(found.nbytes)
