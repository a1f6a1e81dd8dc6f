"""Pictures -> perceptual hashes -> groups of the same photo, resized, re-encoded or mirrored."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

HASH_VERSION = 1  # raise it when the hash of a picture changes
GRID = 32
FREQUENCIES = 16
BITS = FREQUENCIES * FREQUENCIES - 1
ODD = (np.arange(1, BITS + 1) % 2).astype(bool)  # signs of odd horizontal frequencies
COSINES = np.cos(np.pi * np.arange(FREQUENCIES)[:, None] * (2 * np.arange(GRID)[None, :] + 1) / (2 * GRID))
# Measured on 327 photos, in signs of 255: copies of half the size, of quality 30, mirrored, or brightened by 30 %
# differ in at most 37, by 50 % in 54; with 5 % cropped off on each side, by the inner hash, in 57; off one side only in
# 68 (97 of 100) to 79; photos of different things in 91 and more. A crop from two sides that meet is rarely found.
MAX_DISTANCE = 72
# Drawn scenes with one horizon and one sky resemble each other more: of 245,000 pairs 45 are within the distance, but
# one within this. Above it the mean colours have to agree as well, which those of 98 in 100 cropped photos do, and
# those of 5 in 100 different ones.
SURE_DISTANCE = 50
NEAR_COLOUR = 12  # levels of 255, in the channel that differs most
# Comparing all signs of all pairs would take longer than looking at the photos. Of the 104 signs of the lowest
# frequencies at most 34 differ in 99 of 100 pairs with 5 % cropped off, and in 1 of 1,000 pairs of different photos.
LOWEST, MAX_LOW_DISTANCE = 14, 34
ODD_LOWEST = 49  # of the 104 belong to odd horizontal frequencies
# Cropping moves what is left, so a hash without the margin is compared as well: this much on each side.
MARGIN = 0.03
FLAT = 2.0
BLOCK = 512  # pictures compared with as many others at once: tiles of 2 MB, however many pictures there are


def perceptual_hash(image: Image.Image) -> np.ndarray:
    """Describe a picture by the signs of its low spatial frequencies.

    The picture is reduced to 32 x 32 grey values; the signs of the 16 x 16 lowest coefficients of their discrete
    cosine transform, without the mean, are the hash (after Zauner 2010, "Implementation and Benchmarking of
    Perceptual Image Hash Functions").

    Returns:
        Signs -1 or 1 of dtype int8 and shape (2, 255): of the whole picture, and of what is inside the margin. All 0
        for a picture without contrast, which resembles nothing.
    """
    grey, (width, height) = image.convert("L"), image.size
    boxes = [(width * m, height * m, width * (1 - m), height * (1 - m)) for m in (0.0, MARGIN)]
    small = np.stack([np.asarray(grey.resize((GRID, GRID), Image.Resampling.BOX, box=box)) for box in boxes])
    coefficients = (COSINES @ small.astype(np.float64) @ COSINES.T).reshape(2, -1)[:, 1:]
    signs = np.where(coefficients > 0, 1, -1).astype(np.int8)
    signs[small.std(axis=(1, 2)) < FLAT] = 0
    return signs


def find_similar(
    hashes: np.ndarray,
    inner: np.ndarray,
    colours: np.ndarray,
    *,
    on_rows: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[tuple[int, int]]:
    """Find the pairs of pictures that are the same but for size, encoding, mirroring, brightness or a small crop.

    Args:
        hashes: signs of shape (n, 255), dtype int8, the first ones of `perceptual_hash`.
        inner: the second ones, which find cropped pictures too.
        colours: mean colours of shape (n, 3), which have to agree where the signs alone do not settle it.
        on_rows: called with the share of the work that is done, in pictures, and with n.

    Yields:
        Pairs (i, j) with i < j. Time grows with n squared (some 8 s for 30,000 pictures), memory with n.
    """
    shown = np.flatnonzero(hashes.any(axis=1))
    low = _pack_lowest(hashes[shown])
    for start in range(0, len(shown), BLOCK):
        for other in range(start, len(shown), BLOCK):
            alike = _are_low_alike(low, start, other)
            if alike.any():
                tile = np.argwhere(np.triu(alike, k=1) if other == start else alike)
                pairs = shown[tile + np.array([start, other])]
                yield from map(tuple, pairs[_confirm(pairs, hashes, inner, colours)].tolist())
        left = max(0, len(shown) - start - BLOCK)  # which are compared with each other only
        on_rows(len(shown) - left * left // len(shown), len(shown))


def group_indices(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Join indices that are linked by pairs, directly or through others (union-find).

    Returns:
        For each of the `count` indices the smallest index of its group.

    Example:
        >>> group_indices(4, [(0, 2), (2, 3)])
        [0, 1, 0, 0]
    """
    parents = list(range(count))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    for first, second in pairs:
        low, high = sorted((root(first), root(second)))
        parents[high] = low
    return [root(index) for index in range(count)]


def chain_equal(keys: Sequence[object]) -> Iterator[tuple[int, int]]:
    """Pair each index with the first one that has the same key; None is equal to nothing."""
    first: dict[object, int] = {}
    for index, key in enumerate(keys):
        if key is not None and first.setdefault(key, index) != index:
            yield first[key], index


def _pack_lowest(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pack the signs of the lowest frequencies into two words: those of even and of odd horizontal frequencies."""
    places = np.arange(1, BITS + 1)
    lowest = places // FREQUENCIES + places % FREQUENCIES < LOWEST
    words = []
    for columns in (lowest & ~ODD, lowest & ODD):
        bits = np.zeros((len(hashes), 64), bool)
        bits[:, : columns.sum()] = hashes[:, columns] > 0
        words.append(np.packbits(bits, axis=1).view(np.uint64).ravel())
    return words[0], words[1]


def _are_low_alike(low: tuple[np.ndarray, np.ndarray], start: int, other: int) -> np.ndarray:
    """Tell of a tile of pairs which differ in few of their lowest signs.

    Mirroring a picture changes the sign of every odd horizontal frequency, so either few or nearly all of these differ.
    """
    even, odd = (
        np.bitwise_count(word[start : start + BLOCK, None] ^ word[None, other : other + BLOCK]) for word in low
    )
    alike: np.ndarray = even + np.minimum(odd, ODD_LOWEST - odd) <= MAX_LOW_DISTANCE
    return alike


def _confirm(pairs: np.ndarray, hashes: np.ndarray, inner: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Tell of which pairs all signs are close enough, whichever of the two was cropped, and the colours if in doubt."""
    first, second = pairs.T
    sides = ((hashes, hashes), (hashes, inner), (inner, hashes))
    agreement = np.maximum.reduce([_agree(one[first], other[second]) for one, other in sides])
    apart = np.abs(colours[first].astype(np.int16) - colours[second]).max(axis=1)
    is_sure, is_near = agreement >= BITS - 2 * SURE_DISTANCE, apart <= NEAR_COLOUR
    return np.asarray((agreement >= BITS - 2 * MAX_DISTANCE) & (is_sure | is_near))


def _agree(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    equal = (first * second).astype(np.int16)
    agreement: np.ndarray = equal[:, ~ODD].sum(axis=1) + np.abs(equal[:, ODD].sum(axis=1))
    return agreement
