"""Folder or CSV -> the files in it with their labels, and what is wrong with their arrangement."""

import contextlib
import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from pronk.dataset.findings import Finding, find
from pronk.dataset.layout import Folder, Layout, is_drawn, read_layout
from pronk.dataset.lists import read_list
from pronk.errors import DataError
from pronk.photos.formats import SUFFIXES
from pronk.storage.archives import PACKED, Item, is_archive
from pronk.storage.archives import SUFFIXES as ARCHIVES
from pronk.storage.places import SYSTEM_NAMES, UNKNOWN, is_hidden
from pronk.storage.remote import CHECK_ADDRESS, find_shared_folder, is_address, is_remote, to_path
from pronk.storage.sources import find_root, is_there, scan
from pronk.text import find_label_fault, plural, visible

MOST_SHOWN = 60  # characters of a name that cannot be one
RENAME, MOVE = "rename it if it belongs to the data set", "move it if it belongs to the data set"
LISTS = (".csv", ".tsv", ".txt")
UNPACK = "unpack it into a folder that is called like the class of its photos"
# What other programs keep beside photos: outlines, captions, tables. It is no photo, and no fault either.
SIDECARS = (
    ".txt", ".xml", ".json", ".jsonl", ".csv", ".tsv", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".log", ".md", ".rst",
    ".rtf", ".pdf", ".doc", ".docx", ".xls", ".xlsx", ".py", ".ipynb", ".npy", ".npz", ".mat", ".pkl", ".h5", ".hdf5",
    ".xmp", ".aae", ".thm", ".db",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A file that is meant to be a photo: path relative to the data folder, label, and part and group if given."""

    path: str
    label: str
    part: str | None = None
    group: str | None = None


@dataclasses.dataclass(frozen=True)
class Listing:
    """What was found.

    Attributes:
        root: the folder that paths are relative to.
        classes: in natural order.
        entries: the files.
        findings: what is worth a look.
        obstacles: findings without whose mending nothing can be trained.
        class_step: which step of a path is the class, where these are folders.
    """

    root: Path
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    findings: tuple[Finding, ...]
    obstacles: tuple[Finding, ...] = ()
    class_step: int = 0


def list_photos(data: Path, *, min_classes: int = 2) -> Listing:
    """List the files of a data set.

    Args:
        data: a folder of class folders, a folder of train/val/test folders of class folders, or a CSV with the
            columns `path,label` and perhaps `part`, its paths relative to the CSV.
        min_classes: fewer are an error.

    Raises:
        DataError: if there is nothing to list, or the classes cannot be told apart.
    """
    listing = list_leniently(data, min_classes=min_classes)
    for obstacle in listing.obstacles:
        raise DataError(obstacle.message, hint=obstacle.hint)
    return listing


def list_leniently(data: Path, *, min_classes: int = 2) -> Listing:
    """List the files of a data set as `list_photos`; classes that cannot be told apart are obstacles of the listing."""
    try:
        if not data.is_file() and not data.is_dir():
            what = f"{data} is neither a folder nor a CSV file" if is_there(data) else f"there is no {data}"
            raise DataError(what, hint="name a folder with one sub-folder per class")
        listing = _list_csv(data) if _is_list(data) else _list_folder(find_photo_root(data))
    except OSError as error:
        hint = CHECK_ADDRESS if is_remote(data) else "check its permissions"
        raise DataError(f"cannot list {error.filename or data}: {error.strerror or error}", hint=hint) from error
    obstacles = listing.obstacles or tuple(_find_class_problems(data, listing.classes, min_classes))
    return dataclasses.replace(listing, obstacles=obstacles)


def find_photo_root(data: Path) -> Path:
    """Return the folder that paths of a data set are relative to: of a list the one it lies in, of an archive inside.

    Raises:
        DataError: if it is an archive that cannot be read in place.
    """
    if is_archive(data):
        return find_root(data)
    return data.parent if _is_list(data) else data


def _is_list(data: Path) -> bool:
    """Tell whether a data set is a list of photos. At an address its name says, for web servers' folders are files."""
    may_be = data.suffix.lower() in LISTS if is_remote(data) else True
    return may_be and data.is_file() and not is_archive(data)


def list_files(folder: Path) -> list[str]:
    """List every visible file below a folder, in natural order of the paths relative to it."""
    return sorted(_walk(folder, folder), key=natural_key)


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key under which "2" comes before "10"; digits are 0 to 9, of any number.

    Example:
        >>> sorted(["10", "2", "b", "a"], key=natural_key)
        ['2', '10', 'a', 'b']
    """
    pieces = re.findall(r"0*([0-9]+)|([^0-9]+)", name)
    # Without leading zeros a longer number is a larger one, and Python need not read thousands of digits.
    keys = tuple((0, len(digits), digits) if digits else (1, 0, text) for digits, text in pieces)
    return (*keys, (-1, 0, name))


def _list_folder(data: Path) -> Listing:
    names, findings = _visible_folders(data, data)
    layout = read_layout([_look_into(data / name) for name in names])
    entries: list[Entry] = []
    classes: dict[str, str] = {}  # the path of the first folder of each
    walk = _Walk(data)
    for folder in layout.parts:
        inner, more = _visible_folders(data, data / folder)
        findings += more
        for label in inner:
            classes.setdefault(label, f"{folder}/{label}")
            entries += [Entry(path, label, layout.parts[folder]) for path in walk.list(f"{folder}/{label}")]
    for label in [] if layout.parts else names:
        classes[label] = label
        entries += [Entry(path, label, _inner_part(path, layout)) for path in walk.list(label)]
    for label in sorted(classes.keys() - {entry.label for entry in entries}, key=natural_key):
        message = f"class folder {label!r} has no photos"
        findings.append(find(classes[label], "empty_class", message, "add photos or remove it"))
    findings += [*walk.describe(), *_describe_layout(data, layout), *_find_drawn(entries)]
    listing = _finish(data, entries, findings)
    obstacles = tuple(_find_unclear(data, layout))
    return dataclasses.replace(listing, obstacles=obstacles, class_step=1 if layout.parts else 0)


def _look_into(folder: Path) -> Folder:
    """Return what tells classes from parts; a folder that cannot be listed has nothing in it."""
    folders, has_photos = [], False
    with contextlib.suppress(OSError):
        for entry in scan(folder):
            if is_hidden(entry.name):
                continue
            if entry.is_folder:
                folders.append(entry.name)
            else:
                has_photos = has_photos or entry.name.lower().endswith(SUFFIXES)
    return Folder(folder.name, tuple(sorted(folders, key=natural_key)), has_photos)


def _inner_part(path: str, layout: Layout) -> str | None:
    _, step, *below = path.split("/")
    return layout.inner_parts.get(step) if below else None


def _describe_layout(data: Path, layout: Layout) -> Iterator[Finding]:
    """Say what was taken for a part, unless it is called like one, and what lies beside the parts."""
    found = {name: part for name, part in {**layout.parts, **layout.inner_parts}.items() if name != part}
    if found:
        said = ", ".join(f"{name!r} as {part}" for name, part in found.items())
        yield find("", "parts", f"pronk takes the folder {said}", "rename a folder that is none")
    for name in layout.strays:
        photos = sum(path.lower().endswith(SUFFIXES) for path in _Walk(data).list(name))
        what = f" with {plural(photos, 'photo')}" if photos else ""
        message = f"the folder {name!r}{what} lies beside the parts, so it is not read"
        yield find(name, "stray_folder" if photos else "outside_classes", message, MOVE)


def _find_drawn(entries: Sequence[Entry]) -> Iterator[Finding]:
    """Say which classes hold masks, or other drawn pictures, in folders of their own."""
    folders = Counter(entry.path.rpartition("/")[0] for entry in entries)
    for folder, number in folders.items():
        name = folder.rsplit("/", 1)[-1]
        if "/" in folder and is_drawn(name):
            message = f"{plural(number, 'file')} in {name!r} look drawn, not photographed, and are learned as photos"
            yield find(folder, "drawn", message, "move the folder out of the data set, or list the photos in a CSV")


def _find_unclear(data: Path, layout: Layout) -> Iterator[Finding]:
    """Yield what makes it impossible to tell which folders are the classes."""
    if layout.unclear:
        hint = "name the parts train, val and test; or, if these are the classes, list the photos in a CSV: path,label"
        yield find("", "unclear_parts", f"it is not clear which folders of {data} are classes: {layout.unclear}", hint)


def _find_inner(folder: Path) -> Path | None:
    """Return the folder of several folders that a folder is wrapped around, as downloads are."""
    found = _look_into(folder)
    while len(found.folders) == 1 and not found.has_photos:
        folder /= found.folders[0]
        found = _look_into(folder)
    return folder if found.is_outer and len(found.folders) > 1 else None


def _list_csv(path: Path) -> Listing:
    rows, findings = read_list(path, root=path.parent)
    root, paths = _find_common([row.path for row in rows]) or (path.parent, [row.path for row in rows])
    entries = [Entry(place, row.label, row.part, row.group or None) for place, row in zip(paths, rows, strict=True)]
    return _finish(root, entries, findings)


def _find_common(places: Sequence[str]) -> tuple[Path, list[str]] | None:
    """Return the folder that addresses share, and each relative to it; None where they are paths of this machine.

    Raises:
        DataError: if there are both, or addresses of several stores.
    """
    if not any(map(is_address, places)):
        return None
    folder = find_shared_folder(places)
    if not all(map(is_address, places)) or not folder:
        raise DataError(
            "the list names photos of several places",
            hint="list paths, or addresses of one store, as in s3://bucket/...",
        )
    return to_path(folder), [place.removeprefix(folder + "/") for place in places]


def _finish(root: Path, entries: list[Entry], findings: list[Finding]) -> Listing:
    classes = sorted({entry.label for entry in entries}, key=natural_key)
    entries.sort(key=lambda entry: natural_key(entry.path))
    if classes and all(name.isdigit() for name in classes):
        order = ", ".join(classes[:4])
        message, hint = f"class names are numbers; their order is {order} ...", "name the folders after what is in them"
        findings.append(find("", "numeric_classes", message, hint))
    return Listing(root, tuple(classes), tuple(entries), tuple(findings))


def _find_class_problems(root: Path, classes: tuple[str, ...], min_classes: int) -> Iterator[Finding]:
    """Yield what makes it impossible to train on these classes."""
    if len(classes) < min_classes:
        found = f"only the class {classes[0]!r}" if classes else "no class with photos"
        hint = "make one sub-folder per class, at least two, and put the photos into them"
        if len(classes) == 1 and (inner := _find_inner(root / classes[0])):
            hint = f"if its classes are the folders inside, name {inner}"
        yield find("", "few_classes", f"{root} has {found}", hint)
    for name in classes:
        if fault := find_label_fault(name):
            message = f"a class cannot be named {visible(name[:MOST_SHOWN])!r}: the name {fault}"
            yield find("", "bad_label", message, "give the class a name that can be read")
        if name.lower() == UNKNOWN:
            message = f"a class cannot be named {name!r}: predictions use it for photos that fit no class"
            yield find(name, "reserved_class", message, "rename the folder, for example to 'other'")
    by_case: dict[str, list[str]] = {}
    for name in classes:
        by_case.setdefault(name.casefold(), []).append(name)
    for names in by_case.values():
        if len(names) > 1:
            message = f"classes {', '.join(map(repr, names))} differ only in case"
            yield find(names[0], "class_case", message, "merge these folders or rename one")


def _visible_folders(root: Path, folder: Path) -> tuple[list[str], list[Finding]]:
    """Return the names of a folder's visible folders, and findings, with paths from the root, for all else in it."""
    names, findings = [], []
    for entry in scan(folder):
        path = (folder / entry.name).relative_to(root).as_posix()
        if entry.is_folder:
            if is_hidden(entry.name):
                findings.append(find(path, "hidden", f"hidden folder {entry.name!r} is not a class", RENAME))
            else:
                names.append(entry.name)
        elif not is_hidden(entry.name):
            hint = UNPACK if entry.name.lower().endswith((*ARCHIVES, *PACKED)) else MOVE
            findings.append(find(path, "outside_classes", f"{entry.name!r} is not in a class folder", hint))
    findings.sort(key=lambda finding: finding.path)
    return sorted(names, key=natural_key), findings


class _Walk:
    """Lists what lies below folders of a data set, and notes what is left aside.

    Attributes:
        root: the folder that paths are relative to.
        hidden: paths of hidden folders and pictures, but not of what systems leave behind.
        sidecars: number of files beside the photos, by ending.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.hidden: list[str] = []
        self.sidecars = Counter[str]()

    def list(self, folder: str) -> Iterator[str]:
        """Yield each file that may be a photo, and each folder that cannot be listed: reading it will say why."""
        for path in _walk(self.root, self.root / folder, self.hidden):
            if path.lower().endswith(SIDECARS):
                self.sidecars["." + path.lower().rpartition(".")[2]] += 1
            else:
                yield path

    def describe(self) -> Iterator[Finding]:
        """Yield a finding for each hidden path, and for each kind of file beside the photos."""
        for path in sorted(self.hidden, key=natural_key):
            yield find(path, "hidden", f"hidden, so it is not part of {path.rsplit('/', 1)[0]!r}", RENAME)
        for suffix, number in sorted(self.sidecars.items()):
            yield find(
                "", "sidecar", f"{plural(number, f'{suffix} file')} beside the photos, which pronk does not read"
            )


def _walk(root: Path, folder: Path, hidden: list[str] | None = None) -> Iterator[str]:
    """Yield each visible file below a folder, and each folder that cannot be listed: reading it will say why.

    Hidden folders and pictures are noted in `hidden`, but not what systems leave behind.
    """
    above = frozenset(_identify(root / step) for step in folder.relative_to(root).parents)
    waiting: list[tuple[Path, frozenset[object]]] = [(folder, above)]
    while waiting:
        current, above = waiting.pop()
        inside = current.relative_to(root).as_posix()
        try:
            identity, entries = _identify(current), scan(current)
        except OSError:
            yield inside
            continue
        if identity in above:  # a link that leads back into a folder above it
            continue
        for entry in entries:
            path = entry.name if inside == "." else f"{inside}/{entry.name}"
            if is_hidden(entry.name):
                if hidden is not None and _may_be_missed(entry):
                    hidden.append(path)
            elif entry.is_folder:
                waiting.append((current / entry.name, above | {identity}))
            else:
                yield path


def _identify(folder: Path) -> object:
    """Return what a folder is the same by, whatever links lead to it; in archives and at addresses are none."""
    if is_remote(folder):
        return folder
    try:
        status = folder.stat()
    except NotADirectoryError:
        return folder
    return status.st_dev, status.st_ino


def _may_be_missed(entry: Item) -> bool:
    """Tell whether a hidden entry may be missed by somebody: a folder, or a picture that is not a leftover of macOS."""
    name = entry.name.lower()
    return (entry.is_folder or name.endswith(SUFFIXES)) and name not in SYSTEM_NAMES and name[:2] != "._"
