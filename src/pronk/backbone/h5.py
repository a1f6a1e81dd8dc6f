"""HDF5 or .keras file -> its arrays after every object in it has been checked, or a named refusal.

A .keras file is a zip of three members. Keras makes an object of every `class_name` in config.json, looks modules up
by name, and allocates what the layers declare; its own guard, `safe_mode`, is about Lambda layers only. Here the
weights alone are read, which are an HDF5 file. HDF5 can name other files in four ways (external links, external
storage, virtual datasets, filters loaded as libraries), and declare arrays of any size for a few bytes.
"""

import contextlib
import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator

import h5py

from pronk.model.guards.files import MAX_BYTES, refusal, show

WEIGHTS = "model.weights.h5"
MEMBERS = ("config.json", "metadata.json", WEIGHTS)
END, END_BYTES, LONGEST_DIRECTORY = "<4s4H2LH", 22, 2**12
MOST_OBJECTS = 10_000
PLAIN_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}

# What h5py raises where bytes make no sense.
DAMAGE = (OSError, ValueError, RuntimeError, LookupError, TypeError, ArithmeticError, AttributeError, MemoryError)


@contextlib.contextmanager
def open_h5(data: bytes) -> Iterator[h5py.File]:
    """Open an HDF5 file of checked weights; ModelError for what is elsewhere, no number, or larger than the file."""
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


def read_weights(data: bytes) -> bytes:
    """Return the bytes of a .keras file's weights, and look at nothing else; ModelError if pronk saves no such zip."""
    if len(data) < END_BYTES or data[:4] != b"PK\x03\x04":
        raise refusal("it is not a .keras file")
    # A directory of millions of entries takes gigabytes as soon as it is opened.
    _, disk, first, here, entries, size, start, note = struct.unpack(END, data[-END_BYTES:])
    if (disk, first, note) != (0, 0, 0) or not (here == entries == len(MEMBERS) and size <= LONGEST_DIRECTORY):
        raise refusal(f"it has {entries} members instead of {len(MEMBERS)}: {', '.join(MEMBERS)}")
    if start + size + END_BYTES != len(data):
        raise refusal("its directory is not at its end")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read_member(archive)
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, EOFError, struct.error, zlib.error) as error:
        raise refusal(f"it is damaged: {error}") from error


def _read_member(archive: zipfile.ZipFile) -> bytes:
    names = sorted(archive.namelist())
    if names != sorted(MEMBERS):
        raise refusal(f"it has the members {show(', '.join(names))}")
    member = archive.getinfo(WEIGHTS)
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG) or member.flag_bits & 1:
        raise refusal(f"{WEIGHTS} is a link or encrypted")
    # Keras stores without compression, so what is read is never larger than the file.
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise refusal(f"{WEIGHTS} is compressed")
    return archive.read(member)


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
