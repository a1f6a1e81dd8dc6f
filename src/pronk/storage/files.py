"""Bytes -> files that are whole or absent: atomic writes, digests, locks. The portable module."""

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pronk.errors import RunError, StorageError
from pronk.storage.remote import is_remote, put
from pronk.storage.sources import lies_on_disk, read_elsewhere

LOCKED_BYTE = 2**30


def write_atomically(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write bytes under a temporary name in the same folder, then rename into place.

    Args:
        path: the file to create or replace; parents are created.
        data: its content.
        durable: also wait until disk and folder hold it. Off for what can be computed again.

    Raises:
        StorageError: naming the path and the cause; the former file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise storage_error(path, error) from error


def choose_temporary(out: Path) -> Path:
    """Return where a file may grow before it gets its name: beside it, or for an address in the system's folder."""
    if is_remote(out):
        return Path(tempfile.gettempdir()) / f"pronk-{os.getpid()}-{out.name}.tmp"
    return out.with_name(f".{out.name}.tmp")


def move_into_place(file: Path, out: Path) -> None:
    """Give a whole file its name, on the same disk or at an address; OSError where that fails."""
    if is_remote(out):
        put(file, out)
        file.unlink()
        return
    file.replace(out)
    sync_folder(out.parent)


def storage_error(path: Path, error: OSError) -> StorageError:
    """Turn an OSError into a StorageError with a hint that fits its cause."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "free some space" if full else "check the path and its permissions"
    return StorageError(
        f"cannot write {path}: {error.strerror or error}",
        hint=f"{remedy}, or name another folder; what was there before is unchanged",
    )


@contextlib.contextmanager
def guard_writes(path: Path) -> Iterator[None]:
    """Turn every OSError of a block into a StorageError that names the path."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, error) from error


def write_json(path: Path, value: object) -> None:
    """Write a JSON file atomically, in a fixed form."""
    # Names that are not UTF-8 arrive as lone surrogates, which only JSON's ASCII escapes can hold.
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode("ascii"))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write a CSV file atomically; undecodable file names keep their bytes."""
    lines = [columns, *([row.get(name) for name in columns] for row in rows)]
    write_atomically(path, "".join(map(format_csv_line, lines)).encode("utf-8", "surrogateescape"))


def format_csv_line(values: Sequence[object]) -> str:
    r"""Return values as one line of CSV; None is left empty.

    Example:
        >>> format_csv_line(["a,b", None, 1])
        '"a,b",,1\n'
    """
    text = io.StringIO()
    # Python quotes a carriage return within a value only if it is part of the line's end.
    csv.writer(text, lineterminator="\r\n").writerow(values)
    return text.getvalue().removesuffix("\r\n") + "\n"


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a CSV file into one dictionary per row."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def digest_file(path: Path) -> str:
    """Return the sha256 of a file's bytes as hexadecimal digits; it may lie in an archive or at an address."""
    read = read_elsewhere(path)
    if read is not None:
        return hashlib.sha256(read).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_digest(path: Path) -> str:
    """Return the sha256 of a file, or nothing where no ordinary file is: reading a pipe would wait for ever."""
    try:
        is_file = not lies_on_disk(path) or stat.S_ISREG(path.stat().st_mode)
        return digest_file(path) if is_file else ""
    except (OSError, ValueError):
        return ""


def sync_folder(folder: Path) -> None:
    """Wait until renames inside a folder are on disk, where the system can do that."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files and folders that a killed process left in a folder."""
    for temporary in list(folder.rglob(".*.tmp")):
        if temporary.is_dir() and not temporary.is_symlink():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold a folder, or raise a RunError that names its holder; the system frees the lock of a killed process."""
    path = folder / ".lock"
    with guard_writes(path):
        file = path.open("a+b", buffering=0)
    with file:
        if not (_try_lock(file.fileno()) and _is_same_file(path, file.fileno())):
            file.seek(0)
            holder = file.read().decode().strip() or "unknown"
            raise RunError(
                f"{folder} is in use by process {holder}", hint="wait for it, stop it, or name another --out"
            )
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        try:
            yield
        finally:
            if os.name == "nt":
                file.close()  # there, nobody can remove what is open: if another process holds it by now, it stays
            with contextlib.suppress(OSError):
                path.unlink()


def _try_lock(descriptor: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            # It locks from the position on: always the same byte, and none that another process reads.
            os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_same_file(path: Path, descriptor: int) -> bool:
    # The former holder may have removed the file between our opening and locking it.
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False
