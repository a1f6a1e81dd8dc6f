"""Top-level folders, with what lies in them -> which are classes, and which are parts that hold the classes.

Names alone do not tell: a class may be called `train`. What tells is that several folders hold sub-folders of the same
names, and no photos beside these.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

PARTS = ("train", "val", "test")
_WORDS = {
    **dict.fromkeys(("train", "training", "trn", "trainval", "trainvalid"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "validating", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_ENDING = re.compile(r"(?:datasets?|sets?|data|images?|imgs?|pictures?|photos?|files?|folders?|splits?)$")
# Folders that say what kind of files they hold, as every class may have them.
_KINDS = (
    r"(?i:(?:(?:raw|original|augmented?|processed|cropped|resized|rgb|gray|grey|colou?r|depth)[ _-]*)?"
    r"(?:images?|imgs?|pictures?|pics?|photos?|frames?|jpe?gs?|pngs?|tiffs?|thumb(?:nail)?s?|raw|originals?|augmented|"
    r"rgb|gray|grey|colou?r|depth|masks?|labels?|annotations?|anns?|gt|ground[ _-]*truths?|seg(?:mentation)?s?|"
    r"bbox(?:es)?|bounding[ _-]*box(?:es)?|json|xml|txt|csv)(?:[ _-]*(?:masks?|images?|maps?|files?))?)"
)
_DRAWN = r"(?i:mask|label|annotation|anns?$|^gt$|truth|^seg|bbox|bounding|depth)"


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder as a layout is read by it.

    Attributes:
        name: its name.
        folders: names of the visible folders in it.
        has_photos: whether a file that may be a photo lies directly in it.
    """

    name: str
    folders: tuple[str, ...]
    has_photos: bool

    @property
    def is_outer(self) -> bool:
        """Whether it holds folders, and no photos beside them."""
        return bool(self.folders) and not self.has_photos


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a data folder is read.

    Attributes:
        parts: the part of each folder that holds classes; empty where the folders themselves are the classes.
        inner_parts: the part of each folder inside the classes that is one.
        strays: folders that are neither a part nor a class.
        unclear: why it cannot be told what is a class, in words; else empty.
    """

    parts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    inner_parts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    strays: tuple[str, ...] = ()
    unclear: str = ""


def read_part(name: str) -> str | None:
    """Return the part that the name of a folder, or a value in a list, stands for.

    Example:
        >>> [read_part(name) for name in ("Training_Set", "val2017", "02-testImages", "dev", "cats", "train_test")]
        ['train', 'val', 'test', 'val', None, None]
    """
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    found = {part for word in words if (part := _WORDS.get(_ENDING.sub("", word)))}
    if found == {"train", "val"}:  # not told apart yet
        return "train"
    return found.pop() if len(found) == 1 else None


def is_drawn(name: str) -> bool:
    """Tell whether a folder of that name holds masks, or other pictures that were drawn for photos.

    Example:
        >>> is_drawn("masks"), is_drawn("images")
        (True, False)
    """
    return bool(re.fullmatch(_KINDS, name) and re.search(_DRAWN, name))


def read_layout(folders: Sequence[Folder]) -> Layout:
    """Tell parts from classes."""
    worded = [folder for folder in folders if folder.folders and read_part(folder.name)]
    times = Counter(name for folder in worded for name in folder.folders)
    # Photos beside the classes of a part are no reason to take it for a class.
    found = [folder for folder in worded if folder.is_outer or any(times[name] > 1 for name in folder.folders)]
    if found:
        return _read_parts(folders, {folder.name: read_part(folder.name) or "" for folder in found})
    if len({read_part(folder.name) for folder in folders} - {None}) > 1 and all(
        read_part(folder.name) and folder.has_photos for folder in folders
    ):
        return Layout(unclear=f"{_join([folder.name for folder in folders])} may be parts, but hold no class folders")
    return _read_classes([folder for folder in folders if folder.is_outer])


def _read_parts(folders: Sequence[Folder], parts: Mapping[str, str]) -> Layout:
    """Read folders some of which hold folders and are called like parts."""
    classes = {name for folder in folders if folder.name in parts for name in folder.folders}
    others = [folder for folder in folders if folder.name not in parts]
    rivals = [folder.name for folder in others if len(classes & set(folder.folders)) >= (1 if folder.is_outer else 2)]
    # A part without labels, as for a contest, is no class either.
    photos = [folder.name for folder in others if folder.has_photos and not read_part(folder.name)]
    is_one = len(set(parts.values())) == 1
    if rivals:
        return Layout(
            unclear=f"{_join(parts)} may be parts, but {_join(rivals)} with the same folders has no such name"
        )
    if is_one and photos and len(classes) < 2:  # a class `train` with a folder in it
        return Layout()
    if is_one and photos:
        return Layout(unclear=f"{_join(parts)} may be a part, but {_join(photos)} beside it holds photos")
    return Layout(parts=parts, strays=tuple(folder.name for folder in others))


def _read_classes(outer: Sequence[Folder]) -> Layout:
    """Read folders none of which is called like a part, by those that hold folders."""
    inner = {name: part for folder in outer for name in folder.folders if (part := read_part(name))}
    if inner and all(re.fullmatch(_KINDS, folder.name) for folder in outer):
        return Layout(unclear=f"{_join([folder.name for folder in outer])} are kinds of files, and hold {_join(inner)}")
    for folder in outer:
        if len({inner[name] for name in folder.folders if name in inner}) > 1:
            return Layout(inner_parts=inner)
    for one, other in _pairs(outer):
        shared = set(one.folders) & set(other.folders)
        if len([name for name in shared if not re.fullmatch(_KINDS, name)]) > 1:
            return Layout(unclear=f"{_join([one.name, other.name])} both hold the folders {_join(sorted(shared))}")
    return Layout()


def _pairs(folders: Sequence[Folder]) -> Iterator[tuple[Folder, Folder]]:
    """Yield each folder with one that shares a folder with it, so that thousands are not compared with each other."""
    first: dict[str, list[Folder]] = {}
    for folder in folders:
        for other in {id(other): other for name in folder.folders for other in first.get(name, ())[:9]}.values():
            yield other, folder
        for name in folder.folders:
            first.setdefault(name, []).append(folder)


def _join(names: Sequence[str] | Mapping[str, str]) -> str:
    shown = [repr(name) for name in names][:5]
    return ", ".join(shown) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
