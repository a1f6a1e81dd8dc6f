"""A model file that somebody may have made to harm -> nothing, or a named refusal, before any library opens it.

Checksums only say that the files of a folder belong together: whoever changes a model changes them too. The libraries
that run models were written for files one trusts: they open other files that a model names, load code, and take what
memory it asks for. So a file must be one that pronk could have written, of operators on a list; the rest is refused.
"""

import stat
from pathlib import Path

from pronk.errors import ModelError

MAX_BYTES = 128 * 2**20  # MobileNetV2 of the largest width has 17 MB
SHOWN = 60
NOT_OURS = "open only models that pronk wrote, from people you trust; if this is one, copy its folder again"


def refusal(what: str) -> ModelError:
    """Return the error for a model file that pronk does not open."""
    return ModelError(f"the model file is refused: {what}", hint=NOT_OURS)


def show(value: int | bytes | memoryview | str) -> str:
    """Return a value from a hostile file as a short text for an error."""
    if isinstance(value, int):
        return str(value)
    text = value if isinstance(value, str) else bytes(value[: SHOWN + 1]).decode("utf-8", "replace")
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


def read_limited(path: Path) -> bytes:
    """Read a model file, once `check_ordinary` has nothing against it."""
    check_ordinary(path)
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES)
    except OSError as error:
        raise refusal(f"{path} cannot be read: {error.strerror}") from error


def check_ordinary(path: Path, *, most: int = MAX_BYTES) -> None:
    """Refuse, by a ModelError, what is not a file of sensible size: folders, links, devices."""
    try:
        status = path.lstat()
    except (OSError, ValueError) as error:
        raise refusal(f"{path} is not an ordinary file") from error
    if not stat.S_ISREG(status.st_mode):
        raise refusal(f"{path} is not an ordinary file")
    if status.st_size > most:
        raise refusal(f"{path} has {status.st_size} bytes")
