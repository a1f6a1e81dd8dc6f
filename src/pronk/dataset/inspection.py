"""Properties, listing and counts -> findings: what is odd about a photo, and about how the photos are arranged."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pronk.dataset.findings import Finding, find
from pronk.dataset.listing import Entry
from pronk.photos.formats import FORMATS
from pronk.photos.properties import PhotoProperties
from pronk.storage.places import find_fault
from pronk.text import fold, plural

# The network sees 224 pixels across, the smallest of its standard sizes is 96: below 40 more than half of each row
# is made up, yet icons and drawn pictures of 48 and 64 pixels are still recognised.
TINY = 40
# Grey levels without the rarest. A lens cap and a white page come with noise and JPEG's own artefacts; the
# flattest of 327 photos has 77.
BLANK = 10
# Measured at 128 to 255 pixels on the short side: of 327 photos one is below it, and it is blurred; of photos that a
# Gaussian of 1/190 of their short side has blurred (4 of 768 pixels) 8 in 10 are, of 1/128 99 in 100.
BLURRED = 0.4
JUDGED = 96  # pixels on the short side; in smaller pictures a soft shade and a blurred edge look the same
MIN_PER_CLASS = 3  # one each for training, validation and test
UNEQUAL, VERY_UNEQUAL = 3, 10  # largest to smallest class; from the first on training weighs the classes
NEEDED = f"training needs at least {MIN_PER_CLASS} photos in each class, and more is better: add some"


def inspect_names(entries: Sequence[Entry], classes: Sequence[str]) -> tuple[Finding, ...]:
    """Find names that other systems or programs take in another way."""
    findings, first = [], dict[tuple[str, str], str]()
    for path, name in (*((name, name) for name in classes), *((e.path, e.path.rsplit("/", 1)[-1]) for e in entries)):
        if fault := find_fault(name):
            findings.append(find(path, "odd_name", f"the name {fault}", "rename it"))
    for entry in entries:
        folder, _, name = entry.path.rpartition("/")
        other = first.setdefault((folder, fold(name)), entry.path)
        if other != entry.path:
            message = f"its name differs from that of {other} only in case or in how accents are stored"
            findings.append(find(entry.path, "case_collision", message, "rename one of the two", (other,)))
    return tuple(findings)


def inspect_counts(counts: Mapping[str, int]) -> tuple[Finding, ...]:
    """Find classes that are too small, or much smaller than others, of the usable photos without copies."""
    findings = []
    for name, number in counts.items():
        if number < MIN_PER_CLASS:
            code = "single_photo" if number == 1 else "too_few"
            findings.append(find(name, code, f"{name!r} has {plural(number, 'photo')} apart from copies", NEEDED))
    return (*findings, *inspect_balance(counts))


def inspect_balance(counts: Mapping[str, int]) -> tuple[Finding, ...]:
    """Find out whether classes are of very different size."""
    sizes = {name: number for name, number in counts.items() if number}
    if len(sizes) < 2:
        return ()
    large, small = max(sizes, key=sizes.__getitem__), min(sizes, key=sizes.__getitem__)
    ratio = sizes[large] / sizes[small]
    if ratio <= UNEQUAL:
        return ()
    code = "imbalance" if ratio <= VERY_UNEQUAL else "severe_imbalance"
    message = f"{large!r} has {plural(sizes[large], 'photo')}, {small!r} {sizes[small]:,}: {ratio:.0f} to 1"
    return (find("", code, message, f"add photos of {small!r}"),)


def find_leaks(
    paths: Sequence[str], groups: Sequence[int], given: Sequence[str | None], parts: Sequence[str | None]
) -> Iterator[Finding]:
    """Name the photos that were left out of their given part because a copy is in one that is measured on.

    Each photo has a path, the group of its copies, the part it was given for and the one it got, None if left out.
    """
    measured: dict[int, int] = {}
    for index, part in enumerate(parts):
        if part is not None and given[index] is not None:
            measured.setdefault(groups[index], index)
    for index, part in enumerate(parts):
        if part is None and given[index] is not None:
            other = measured[groups[index]]
            message = f"given for {given[index]}, but the same picture is in {given[other]}: {paths[other]}"
            yield find(paths[index], "leak", message, "keep it in one part only", (paths[other],))


def count_different(labels: Iterable[str], groups: Iterable[int], classes: Sequence[str]) -> dict[str, int]:
    """Count photos per class, copies once."""
    counted = Counter(label for label, _ in set(zip(labels, groups, strict=True)))
    return {name: counted[name] for name in classes}


def inspect_photo(path: str, properties: PhotoProperties) -> Iterator[Finding]:
    """Find what is odd about one usable photo."""
    suffixes = FORMATS[properties.format].suffixes
    if not path.lower().endswith(suffixes):
        message = f"the content is {properties.format}, whatever its name says"
        yield find(path, "wrong_extension", message, f"rename it to end in {suffixes[0]}; pronk reads it as it is")
    if properties.animated:
        hint = "look whether its first frame shows what it should"
        yield find(path, "animated", "only the first frame of an animation is used", hint)
    if properties.orientation != 1:
        message = f"stored with EXIF orientation {properties.orientation}"
        yield find(path, "rotated", message, "nothing to do for pronk; export it upright for other programs")
    if properties.levels:
        low, high = properties.levels
        message = f"its values are taken from {low:,.6g} as black to {high:,.6g} as white"
        yield find(path, "deep_grey", message, "if that is wrong, save it with 8 bits")
    if properties.profile_fault:
        message = f"its colour profile cannot be used: {properties.profile_fault}"
        yield find(path, "colour_profile", message, "save it as sRGB")
    if properties.contrast <= BLANK:
        message = f"is one colour all over (about #{bytes(properties.colour).hex()})"
        yield find(path, "blank", message, "remove it, unless its class is about nothing")
    elif min(properties.width, properties.height) < TINY:
        yield find(path, "tiny", f"has {properties.width} x {properties.height} pixels", "get a larger version of it")
    elif properties.sharpness < BLURRED and min(properties.width, properties.height) >= JUDGED:
        yield find(path, "blurred", "has no sharp edge, even made small", "look at it, and remove it if it is spoilt")
