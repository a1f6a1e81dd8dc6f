"""One file -> the same under another name: linked, copied or moved, and back; nothing is ever replaced."""

import contextlib
import dataclasses
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from pronk.storage.files import digest_file, find_digest, sync_folder

KINDS = ("link", "copy", "move")
# Every further action would fail in the same way.
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


@dataclasses.dataclass(frozen=True)
class Action:
    """One change of a file.

    Attributes:
        kind: link (a copy where links are not possible), copy or move.
        source: absolute path of the file.
        target: absolute path that it gets; its folder is made where it is missing.
        digest: sha256 of the file's bytes.
    """

    kind: str
    source: str
    target: str
    digest: str


def place(action: Action, run: str) -> None:
    """Do an action, or what of it is not done yet; its target is free, or a killed process has begun this very action.

    After an OSError, which says why it cannot be done, the source is still there.
    """
    source, target = Path(action.source), Path(action.target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if is_placed(action):
        if action.kind == "move" and os.path.lexists(source):
            _remove_copy(source, target, action.digest)
        return
    with contextlib.suppress(OSError):
        if stat.S_ISREG(target.lstat().st_mode) and not target.lstat().st_size:
            target.unlink()  # the name that a killed process had just taken, see `_publish`
    if action.kind != "copy":
        # Not the link that a source may be, but the photo behind it.
        origin = source if action.kind == "move" else source.resolve(strict=True)
        try:
            _publish(origin, target, keep=action.kind == "link")
            return
        except OSError as error:
            elsewhere = error.errno == errno.EXDEV
            hopeless = isinstance(error, FileExistsError | FileNotFoundError) or error.errno in DISK_ERRORS
            if hopeless or (action.kind == "move" and not elsewhere):
                raise
    _place_copy(action, run)


def _place_copy(action: Action, run: str) -> None:
    source, target, temporary = Path(action.source), Path(action.target), _temporary(action, run)
    try:
        _copy_durably(source, temporary)
        if digest_file(temporary) != action.digest:
            raise OSError(f"{source.name} was changed meanwhile")
        _publish(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    sync_folder(target.parent)
    if action.kind == "move":
        with _taken_back(source, target):
            _remove_copy(source, target, action.digest)


def take_back(action: Action, run: str) -> str:
    """Reverse an action, or return why that would lose something; OSError where it cannot be done."""
    source, target = Path(action.source), Path(action.target)
    with contextlib.suppress(OSError):
        _temporary(action, run).unlink(missing_ok=True)
    if not os.path.lexists(target):
        lost = action.kind == "move" and not os.path.lexists(source)
        return "it is neither here nor where it came from" if lost else ""
    if not is_placed(action):
        return "it was changed, or is another file by now"
    if action.kind == "move" and not os.path.lexists(source):
        place(Action("move", action.target, action.source, action.digest), run)
    elif _is_same(source, target) or find_digest(source) == action.digest:
        _remove_copy(target, source, action.digest)
    elif action.kind == "move":
        return f"another file is at {source}"
    else:
        return f"it may be the last copy: {source} is gone or was changed"
    return ""


def _temporary(action: Action, run: str) -> Path:
    # Always the same, so that doing the action again replaces what a killed process left.
    return Path(action.target).with_name(f".{action.digest[:16]}-{run[:16]}.tmp")


def is_placed(action: Action) -> bool:
    """Tell whether the target is the file itself, or has its content."""
    source, target = Path(action.source), Path(action.target)
    return _is_same(source, target) or find_digest(target) == action.digest


def _is_same(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:
        return False


def _publish(source: Path, target: Path, *, keep: bool = False) -> None:
    """Give a file a name that must be free, within one file system; without `keep` it loses its former one."""
    if os.name == "nt" and not keep:
        source.rename(target)  # there, renaming never replaces
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if keep or isinstance(error, FileExistsError | FileNotFoundError) or error.errno == errno.EXDEV:
            raise
        # No hard links here: whoever makes this empty file owns the name.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        with _taken_back(source, target):
            source.replace(target)
        return
    if not keep:
        with _taken_back(source, target):
            source.unlink()


@contextlib.contextmanager
def _taken_back(source: Path, target: Path) -> Iterator[None]:
    """Where the source cannot be removed, leave no second one; where it is gone, the second one is the only one."""
    try:
        yield
    except OSError:
        if os.path.lexists(source):
            target.unlink()
        raise


def _copy_durably(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with contextlib.suppress(OSError):
        shutil.copystat(source, target)
    with target.open("rb+") as file:
        os.fsync(file.fileno())


def _remove_copy(path: Path, other: Path, digest: str) -> None:
    """Remove a file whose content lies at another path as well."""
    if _is_same(path, other):
        if path.stat().st_nlink < 2:
            raise OSError(f"{path} and {other} are one file under two names")
    elif not find_digest(path) == find_digest(other) == digest:
        raise OSError(f"{path} was changed meanwhile")
    path.unlink()
