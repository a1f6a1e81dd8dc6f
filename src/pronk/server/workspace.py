"""Photos that people add -> class folders on disk that `pronk train` takes, and nothing elsewhere."""

import contextlib
import hashlib
import io
import os
import re
import stat
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pronk.dataset.listing import list_photos, natural_key
from pronk.errors import RunError, StorageError
from pronk.photos.decoding import decode, load_image
from pronk.photos.formats import FORMATS
from pronk.server.http_errors import HttpError
from pronk.storage import places
from pronk.storage.files import guard_writes, lock_folder, remove_leftovers, sync_folder, write_atomically
from pronk.storage.places import SYSTEM_NAMES, UNKNOWN, leads_elsewhere
from pronk.text import fold, plural, visible

PHOTO_ID = rf"[0-9a-f]{{16}}\.(?:{'|'.join(sorted(row.suffixes[0][1:] for row in FORMATS.values()))})"
NAME_BYTES = 100
JOINERS = "\u200c\u200d"  # some scripts, and emoji, need them; they do not tell names apart
THUMBNAIL_SIDE = 160
MIN_CLASSES = 2
MIN_PHOTOS = 5
MOST_UNLABELLED = 2000  # to choose among them takes a core some 15 ms each
# What file browsers put into every folder that is looked at.
CLUTTER = (".ds_store", *SYSTEM_NAMES)


@dataclass(frozen=True)
class PhotoClass:
    """One class: its name, and the ids of the photos that were added here, the oldest first."""

    name: str
    photos: tuple[str, ...]


class Workspace:
    """The classes and photos of a work folder, which `open_workspace` prepares and holds.

    What a client names is looked for among what is there, and never becomes a path by itself; links lead nowhere.
    Every method may be called from any thread, and raises HttpError (404 where there is no such class or photo, 409
    for a name that is taken, 422 for an impossible one) or StorageError, where the disk refuses.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.photos = self.folder / "photos"
        self.unlabelled = self.folder / "unlabelled"
        self.runs = self.folder / "runs"
        self.cache = self.folder / "cache"
        self._changing = threading.Lock()

    def classes(self) -> list[PhotoClass]:
        """List the classes in natural order."""
        return [PhotoClass(folder.name, _list_ids(folder)) for folder in self._folders()]

    def create(self, name: str) -> PhotoClass:
        """Make a class without photos."""
        name = check_name(name)
        with self._changing, guard_writes(self.photos / name):
            self._check_free(name)
            (self.photos / name).mkdir()
            sync_folder(self.photos)
        return PhotoClass(name, ())

    def rename(self, name: str, new: str) -> PhotoClass:
        """Give a class another name; its photos stay."""
        new = check_name(new)
        with self._changing, guard_writes(self.photos / new):
            folder = self._find(name)
            self._check_free(new, but=folder.name)
            folder = folder.rename(self.photos / new)
            sync_folder(self.photos)
            return PhotoClass(new, _list_ids(folder))

    def delete(self, name: str) -> None:
        """Delete a class and the photos that were added here; with other files in it HttpError 409, and all stays."""
        with self._changing:
            folder = self._find(name)
            with guard_writes(folder):
                paths = sorted(folder.iterdir())
                others = [path for path in paths if not _is_ours(path)]
                if others:
                    raise HttpError(
                        409,
                        f"'{folder.name}' also holds {plural(len(others), 'file')} that nobody added here, such as "
                        f"'{visible(others[0].name)}'",
                        code="conflict",
                        hint=f"move them out of {visible(str(folder))}",
                    )
                for path in paths:
                    path.unlink()
                folder.rmdir()
                sync_folder(self.photos)

    def add(self, name: str | None, data: bytes) -> str:
        """Keep a photo once, as it is, and return its id; ImageError where training could not use it.

        Here as in what follows, None stands for the photos that wait for a label.
        """
        self._find(name)
        kind = decode(data, min_side=THUMBNAIL_SIDE // 2).format
        photo_id = hashlib.sha256(data).hexdigest()[:16] + FORMATS[kind].suffixes[0]
        with self._changing:
            path = self._find(name) / photo_id  # which could be gone by now
            if not (_is_file(path) and path.stat().st_size == len(data)):
                write_atomically(path, data)
        return photo_id

    def list_unlabelled(self) -> list[Path]:
        """List the photos that wait for a label, the oldest first."""
        return [self.unlabelled / photo_id for photo_id in _list_ids(self.unlabelled)]

    def label(self, photo_id: str, name: str) -> None:
        """Move a photo that waited for a label into a class."""
        with self._changing:
            path, folder = self._find_photo(None, photo_id), self._find(name)
            with guard_writes(folder / photo_id):
                path.replace(folder / photo_id)
                sync_folder(folder)

    def clear_unlabelled(self) -> None:
        """Delete the photos that wait for a label."""
        with self._changing, guard_writes(self.unlabelled):
            for path in self.list_unlabelled():
                path.unlink(missing_ok=True)
            sync_folder(self.unlabelled)

    def remove(self, name: str | None, photo_id: str) -> None:
        """Delete one photo."""
        with self._changing:
            path = self._find_photo(name, photo_id)
            with guard_writes(path):
                path.unlink()
                sync_folder(path.parent)

    def thumbnail(self, name: str | None, photo_id: str) -> bytes:
        """Return a photo as a small upright JPEG without its remarks, such as where it was taken."""
        image = load_image(self._find_photo(name, photo_id), min_side=THUMBNAIL_SIDE // 2)
        image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        return buffer.getvalue()

    def check_enough(self) -> None:
        """Look whether there is enough to train on, as training itself will see it.

        HttpError 422 names every class with too few photos, DataError those that cannot be told apart.
        """
        entries = list_photos(self.photos, min_classes=0).entries
        numbers = Counter(entry.label for entry in entries)
        names = sorted({one.name for one in self.classes()} | set(numbers), key=natural_key)
        if len(names) < MIN_CLASSES:
            found = f"only the class '{visible(names[0])}'" if names else "no class"
            _refuse(f"there is {found}", f"make at least {MIN_CLASSES} classes, with {MIN_PHOTOS} photos each")
        short = [f"'{visible(name)}' has {numbers[name]}" for name in names if numbers[name] < MIN_PHOTOS]
        if short:
            _refuse(f"too few photos: {', '.join(short)}", f"show at least {MIN_PHOTOS} of each class, or delete it")

    def _folders(self) -> list[Path]:
        with guard_writes(self.photos):
            paths = sorted(self.photos.iterdir(), key=lambda path: natural_key(path.name))
        # A link, or a link above it, resolves to another path.
        return [path for path in paths if not find_fault(path.name) and path.is_dir() and not leads_elsewhere(path)]

    def _find(self, name: str | None) -> Path:
        if name is None:
            return self.unlabelled
        wanted = unicodedata.normalize("NFC", name)
        for folder in self._folders():
            if unicodedata.normalize("NFC", folder.name) == wanted:
                return folder
        raise HttpError(404, f"there is no class '{visible(name):.100}'", code="not_found", hint="create it first")

    def _find_photo(self, name: str | None, photo_id: str) -> Path:
        path = self._find(name) / photo_id if re.fullmatch(PHOTO_ID, photo_id) else None
        if path is None or not _is_file(path):
            where = "without a label" if name is None else f"in '{visible(name):.100}'"
            message = f"there is no photo '{visible(photo_id):.100}' {where}"
            raise HttpError(404, message, code="not_found", hint="it may have been deleted; look at the class again")
        return path

    def _check_free(self, name: str, *, but: str = "") -> None:
        taken = {fold_name(path.name): path.name for path in self.photos.iterdir() if path.name != but}
        other = taken.get(fold_name(name))
        if other is not None:
            hint = f"add the photos to '{visible(other)}', or choose another name"
            raise HttpError(409, f"there is a class '{visible(other)}' already", code="conflict", hint=hint)


@contextlib.contextmanager
def open_workspace(folder: Path) -> Iterator[Workspace]:
    """Make a work folder, or go on with one, and hold it for this process.

    Args:
        folder: new or empty folder, or a former work folder; what else is in it is left alone.

    Raises:
        RunError: where another process holds it.
        StorageError: where it cannot be written, or its folders are links to other places.
    """
    workspace = Workspace(folder)
    own = (workspace.photos, workspace.unlabelled, workspace.runs, workspace.cache)
    with guard_writes(folder):
        for path in own:
            path.mkdir(parents=True, exist_ok=True)
    for path in own:
        if leads_elsewhere(path):
            hint = "name another folder with --work, or put a folder in place of the link"
            raise StorageError(f"{path} is a link to {path.resolve()}", hint=hint)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lock_folder(workspace.folder))
        except RunError as error:
            raise RunError(str(error), hint="stop that process, or name another --work") from error
        for path in (workspace.photos, workspace.unlabelled):
            remove_leftovers(path)
        yield workspace


def check_name(name: str) -> str:
    r"""Return the name of a class in the one form in which it is kept.

    Example:
        >>> check_name("Mu\u0308sli")
        'Müsli'
        >>> check_name("../photos")
        Traceback (most recent call last):
        pronk.server.http_errors.HttpError: a class cannot be called '../photos': it starts with a dot
    """
    kept = unicodedata.normalize("NFC", name)
    fault = find_fault(name) or find_fault(kept)
    if fault:
        hint = f"use letters, digits, spaces and hyphens; at most {NAME_BYTES} bytes"
        raise HttpError(422, f"a class cannot be called '{visible(name):.100}': {fault}", code="usage", hint=hint)
    return kept


def find_fault(name: str) -> str:
    """Say why no class can have that name on some system, or nothing."""
    size = len(name.encode("utf-8", "surrogatepass"))
    if not 0 < size <= NAME_BYTES:
        return f"it has {size:,} bytes" if size else "it is empty"
    if name[0] == ".":
        return "it starts with a dot"
    if fault := places.find_fault(name):
        return f"it {fault}"
    if not all(character.isprintable() or character in JOINERS for character in name):
        return "it has characters that nobody can see"
    if not fold_name(name) or fold_name(name) in (UNKNOWN, *SYSTEM_NAMES):
        return "that name has a meaning of its own"
    return ""


def fold_name(name: str) -> str:
    """Return what is equal for names that people or systems take for the same."""
    return fold(fold(name)).translate(dict.fromkeys(map(ord, JOINERS)))


def _list_ids(folder: Path) -> tuple[str, ...]:
    try:
        with os.scandir(folder) as entries:
            ours = [entry for entry in entries if re.fullmatch(PHOTO_ID, entry.name)]
            found = [(entry.stat(follow_symlinks=False), entry.name) for entry in ours]
    except OSError:  # deleted while it was looked at
        return ()
    files = sorted((status.st_mtime_ns, name) for status, name in found if stat.S_ISREG(status.st_mode))
    return tuple(name for _, name in files)


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _is_ours(path: Path) -> bool:
    temporary = rf"\.{PHOTO_ID}\.[0-9]+-[0-9]+\.tmp"  # of a write that was cut off
    ours = re.fullmatch(f"{PHOTO_ID}|{temporary}", path.name) or path.name.lower() in CLUTTER
    return bool(ours) and _is_file(path)


def _refuse(message: str, hint: str) -> None:
    raise HttpError(422, message, code="usage", hint=hint)
