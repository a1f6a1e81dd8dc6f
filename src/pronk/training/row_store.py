"""(photo, view, network) -> its features, kept on disk by content."""

import dataclasses
import math
import os
import zlib
from pathlib import Path

import numpy as np

from pronk.storage.files import write_atomically

MAGIC = b"pronkrow"


@dataclasses.dataclass(frozen=True)
class RowStore:
    """Rows of one recipe (network, image size, cut): pooled features and activations at the cut.

    Attributes:
        folder: where the rows are.
        pooled_shape: shape of the float32 pooled features, such as (1280,).
        cut_shape: shape of the float16 activations, such as (14, 14, 96).

    Example:
        >>> import tempfile
        >>> store = RowStore(Path(tempfile.mkdtemp()), (2,), (1, 1, 3))
        >>> store.write("key", np.ones(2, np.float32), np.ones((1, 1, 3), np.float16))
        >>> store.read("key")[0]
        array([1., 1.], dtype=float32)
    """

    folder: Path
    pooled_shape: tuple[int, ...]
    cut_shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Size of one row's file."""
        return len(MAGIC) + 4 + 4 * math.prod(self.pooled_shape) + 2 * math.prod(self.cut_shape)

    def path(self, key: str) -> Path:
        """Return the file of a row."""
        return self.folder / key[:2] / f"{key}.row"

    def has(self, key: str) -> bool:
        """Tell whether a row is there in full size, and mark it as used."""
        path = self.path(key)
        try:
            whole = path.stat().st_size == self.row_bytes
            if whole:
                os.utime(path)
        except OSError:
            return False
        return whole

    def write(self, key: str, pooled: np.ndarray, cut: np.ndarray) -> None:
        """Keep one row: `pooled` as float32, `cut` as float16."""
        body = pooled.astype("<f4").tobytes() + cut.astype("<f2").tobytes()
        # Not durable: a row that a power cut destroyed fails its checksum and is computed again.
        write_atomically(self.path(key), MAGIC + zlib.crc32(body).to_bytes(4, "little") + body, durable=False)

    def read(self, key: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Return (pooled float32, cut float16), or None where the row is missing or damaged."""
        try:
            data = self.path(key).read_bytes()
        except OSError:
            return None
        start = len(MAGIC) + 4
        body = memoryview(data)[start:]
        if len(data) != self.row_bytes or data[: len(MAGIC)] != MAGIC:
            return None
        if zlib.crc32(body) != int.from_bytes(data[len(MAGIC) : start], "little"):
            return None
        size = math.prod(self.pooled_shape)
        pooled = np.frombuffer(data, "<f4", count=size, offset=start).reshape(self.pooled_shape)
        cut = np.frombuffer(data, "<f2", offset=start + 4 * size).reshape(self.cut_shape)
        return pooled, cut
