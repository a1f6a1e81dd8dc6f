"""Files -> one look at each: whole or not, its digest, its facts, its perceptual hash."""

import contextlib
import dataclasses
import hashlib
import json
from concurrent.futures import Executor
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np

from pronk.dataset.findings import Finding, left_out
from pronk.dataset.inspection import inspect_photo
from pronk.dataset.listing import Entry, Listing
from pronk.errors import ImageError, StorageError
from pronk.photos.decoding import decode, read_bytes
from pronk.photos.duplicates import BITS, perceptual_hash
from pronk.photos.properties import Facts, describe_picture, shrink
from pronk.pools import run_in_order
from pronk.progress import Progress, no_progress
from pronk.storage.files import write_atomically

FILES_PER_TASK = 8
# Raise it when decoding, hashing or the facts change what they tell.
LOOK_VERSION = 2
# Pixels, of which decoding leaves twice as many: small enough for JPEG's quick decoding. With 48, a blur has to be half
# as strong again to be noticed, and one look takes 7 % less time.
LOOK_SIDE = 64

Batch = tuple[Path, tuple[Entry, ...], Path | None]


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """What the bytes of a usable picture told: facts, and signs of both its perceptual hashes, int8 (2, 255)."""

    facts: Facts
    signs: np.ndarray


@dataclasses.dataclass(frozen=True, slots=True)
class Scan:
    """What one look at a file told: its digest, its content if it is usable, and findings."""

    entry: Entry
    digest: str = ""
    content: Content | None = None
    findings: tuple[Finding, ...] = ()


def scan_photos(
    listing: Listing, *, pool: Executor | None = None, memo: Path | None = None, on_progress: Progress = no_progress
) -> list[Scan]:
    """Look at every listed file once, on all cores.

    Args:
        listing: from `list_photos`.
        pool: of worker processes; None uses threads of this one.
        memo: folder that remembers what was seen, by content; None looks at everything anew.
        on_progress: called with ("check", done, total).

    Example:
        >>> scan_photos(Listing(Path("photos"), (), (), ()))
        []
    """
    scans: list[Scan] = []
    starts = range(0, len(listing.entries), FILES_PER_TASK)
    batches = ((listing.root, listing.entries[start : start + FILES_PER_TASK], memo) for start in starts)
    for some in run_in_order(_scan_batch, batches, pool=pool):
        for scan in some:
            scans.append(scan)
            on_progress("check", len(scans), len(listing.entries))
    return scans


def _scan_batch(batch: Batch) -> list[Scan]:
    root, entries, memo = batch
    return [scan_photo(root, entry, memo) for entry in entries]


def scan_photo(root: Path, entry: Entry, memo: Path | None = None) -> Scan:
    """Look at one file: is it whole, what is its digest, its perceptual hash.

    Args:
        root: the data folder.
        entry: the file.
        memo: folder that remembers what was seen, by content.

    Example:
        >>> scan_photo(Path("."), Entry("gone.jpg", "cat")).findings[0].code
        'vanished'
    """
    try:
        data = read_bytes(root / entry.path)
        digest = hashlib.sha256(data).hexdigest()
        content = look(data, memo and memo / digest[:2] / f"{digest}.json")
    except ImageError as error:
        return Scan(entry, findings=(left_out(entry.path, error),))
    return Scan(entry, digest, content, inspect_photo(entry.path, content.facts))


def look(data: bytes, memo: Path | None = None) -> Content:
    """Decode a picture far enough to know that it is whole, or remember what that told the last time.

    Args:
        data: the bytes of a picture file.
        memo: file to keep the answer in; it must be named by the content.

    Raises:
        ImageError: if the picture cannot be used; that is not remembered.

    Example:
        >>> look(b"no picture")
        Traceback (most recent call last):
        pronk.errors.ImageError: the content is not a picture
    """
    if memo:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            return _recall(json.loads(memo.read_bytes()))
    decoded = decode(data, min_side=LOOK_SIDE)
    small = shrink(decoded.image)
    content = Content(describe_picture(decoded, small, len(data)), perceptual_hash(small))
    if memo:
        record = {"signs": content.signs.tobytes().hex(), "facts": dataclasses.asdict(content.facts)}
        with contextlib.suppress(StorageError):  # then the next run looks again
            write_atomically(memo, json.dumps(record).encode(), durable=False)
    return content


def _recall(record: dict[str, Any]) -> Content:
    signs = np.frombuffer(bytes.fromhex(record["signs"]), np.int8).reshape(2, BITS)
    facts = {name: tuple(value) if isinstance(value, list) else value for name, value in record["facts"].items()}
    return Content(Facts(**cast(dict[str, Any], facts)), signs)


def scan_memo(cache: Path) -> Path:
    """Return the folder of a cache that remembers what was seen in a file.

    Example:
        >>> scan_memo(Path("cache")).parent.as_posix()
        'cache/scans'
    """
    return cache / "scans" / f"{LOOK_VERSION}-{version('pillow')}"
