"""Random folders of photos as people have them, with what a careful person would read in them."""

import dataclasses
import functools
import random
from pathlib import Path

from helpers.pictures import draw_picture, encode

PARTS = (
    ("train", "val", "test"), ("train", "test"), ("training_set", "test_set"), ("Train", "Valid"),
    ("01_train", "02_dev"), ("train_data", "test_data"), ("TrainingImages", "ValidationImages", "TestImages"),
    ("val", "train"),
)  # fmt: skip
CLASSES = (
    "cat", "dog", "Bär", "not cat", "2", "10", "n.a.", "#1", "ñandú", "日本", "a'b", "100%", "dot.", "-x",
    "lesser-spotted eagle", "train", "test", "images", "other",
)  # fmt: skip
SIDECARS = ("notes.txt", "1.xml", "labels.json", "readme.md", "Thumbs.db", ".DS_Store", "list.csv")


@dataclasses.dataclass(frozen=True)
class Tree:
    """A folder that was made.

    Attributes:
        root: the folder.
        classes: the names that are classes, as it was meant, but for those without photos.
        parts: names of folders that hold classes, and are none.
    """

    root: Path
    classes: frozenset[str]
    parts: tuple[str, ...]


def grow_tree(root: Path, seed: int) -> Tree:
    """Make a folder: classes, perhaps in parts, around or inside them, with things beside and among the photos."""
    rng = random.Random(seed)
    classes = rng.sample(CLASSES, rng.choice((1, 2, 2, 3, 4)))
    shape = rng.choice(("flat", "flat", "flat", "around", "around", "around", "inside"))
    parts = () if shape == "flat" else rng.choice(PARTS)
    if shape != "flat" or len(classes) == 1:
        # Nobody could tell a class that is called like a part from one.
        classes = [name for name in classes if name not in ("train", "test", "images")] or ["cat"]
    for label in classes:
        for part in parts or ("",):
            steps = {"flat": (label,), "around": (part, label), "inside": (label, part)}[shape]
            _fill(root.joinpath(*steps), label, rng)
    _scatter(root, [path for path in root.rglob("*") if path.is_dir()], rng)
    return Tree(root, frozenset(classes), parts)


def _fill(folder: Path, label: str, rng: random.Random) -> None:
    """Write none to seven photos, some of them copies, some in a folder of their own, some damaged."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(rng.choice((0, 1, 3, 5, 5, 6, 7, 7, 7))):
        place = folder / rng.choice(("2019", "close up")) if rng.random() < 0.1 else folder
        place.mkdir(exist_ok=True)
        data = _draw(label, rng.randrange(24))
        if rng.random() < 0.05:
            data = rng.choice((b"", data[: len(data) // 2], b"<html>", data + b"more"))
        (place / f"{rng.choice(('IMG ', 'ä', '', '#'))}{number}.{rng.choice(('jpg', 'JPG', 'jpeg'))}").write_bytes(data)


def _scatter(root: Path, folders: list[Path], rng: random.Random) -> None:
    """Add what lies about: notes, hidden and stray folders, links."""
    for number in range(rng.randint(0, 4)):
        folder = rng.choice([root, *folders])
        match rng.randint(0, 4):
            case 0:
                (folder / rng.choice(SIDECARS)).write_bytes(b"{}")
            case 1:
                (folder / ".cache").mkdir(exist_ok=True)
                (folder / ".cache" / "1.jpg").write_bytes(b"x")
            case 2 if folder != root:
                (folder / f"back{number}").symlink_to(root, target_is_directory=True)
            case 3 if folder != root:
                (folder / f"link{number}.jpg").symlink_to(rng.choice(("nowhere", f"link{number}.jpg", str(folder))))
            case _:
                (folder / "docs").mkdir(exist_ok=True)
                (folder / "docs" / "paper.pdf").write_bytes(b"%PDF")


@functools.cache
def _draw(label: str, seed: int) -> bytes:
    return encode(draw_picture(label, seed, (48, 40)), quality=90)
