"""State after an epoch -> two generations on disk, each whole or refused."""

import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pronk.errors import RunError
from pronk.storage.files import write_atomically

logger = logging.getLogger(__name__)
DIGEST_BYTES = 32


def save_checkpoint(folder: Path, epoch: int, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> None:
    """Write the state after an epoch over the older of the two generations.

    The file starts with the sha256 of the rest, so a torn or altered one is noticed.

    Args:
        folder: of the run's work.
        epoch: counted from 1.
        arrays: by name; no array may be named `state`.
        state: JSON values.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> save_checkpoint(folder, 1, {"kernel": np.ones(2)}, {"epoch": 1})
        >>> load_checkpoint(folder)[1]
        {'epoch': 1}
    """
    buffer = io.BytesIO()
    packed = np.frombuffer(json.dumps(dict(state)).encode(), np.uint8)
    np.savez(buffer, state=packed, **arrays)  # type: ignore[arg-type]
    body = buffer.getvalue()
    write_atomically(_generation(folder, epoch), hashlib.sha256(body).digest() + body)


def load_checkpoint(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Return the arrays and state of the newest whole generation, or None where there is none at all.

    Raises:
        RunError: if there are checkpoints and all are damaged.

    Example:
        >>> load_checkpoint(Path("no such folder")) is None
        True
    """
    found = [path for path in (_generation(folder, 0), _generation(folder, 1)) if path.exists()]
    loaded = [(path, _read(path)) for path in found]
    whole = [content for _, content in loaded if content is not None]
    damaged = [path.name for path, content in loaded if content is None]
    if found and not whole:
        raise RunError(
            f"the checkpoints in {folder} are damaged: {', '.join(damaged)}",
            hint="remove the run folder and train again; the features are still in the cache",
        )
    if damaged:
        logger.warning("checkpoint %s is damaged; going on from the one before", damaged[0])
    return max(whole, key=lambda content: content[1]["epoch"], default=None)


def _generation(folder: Path, epoch: int) -> Path:
    return folder / f"checkpoint-{epoch % 2}.npz"


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    try:
        data = path.read_bytes()
        body = data[DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != data[:DIGEST_BYTES]:
            return None
        with np.load(io.BytesIO(body), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        state = json.loads(arrays.pop("state").tobytes())
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return arrays, state
