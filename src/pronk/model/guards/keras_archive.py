"""A .keras file -> the bytes of its weights; nothing else in it is read, so that Keras never sees its configuration.

The file is a zip of three members. Keras makes an object of every `class_name` in config.json, looks modules up by
name, and allocates what the layers declare; its own guard, `safe_mode`, is about Lambda layers only.
"""

import io
import stat
import struct
import zipfile
import zlib

from pronk.model.guards.schema import refusal, show

WEIGHTS = "model.weights.h5"
MEMBERS = ("config.json", "metadata.json", WEIGHTS)
MOST_BYTES = 128 * 2**20
END, END_BYTES, LONGEST_DIRECTORY = "<4s4H2LH", 22, 2**12


def read_weights(data: bytes) -> bytes:
    """Return the bytes of a .keras file's weights.

    They are an HDF5 file, of which nothing is checked here: that takes h5py, see `pronk.backbone.h5`.

    Raises:
        ModelError: if it is not the zip that pronk saves.
    """
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
    if member.file_size > MOST_BYTES:
        raise refusal(f"{WEIGHTS} has {member.file_size} bytes")
    return archive.read(member)
