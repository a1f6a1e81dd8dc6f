"""What can go wrong -> named errors with a hint, and the closed list of reasons to leave a file out.

The tree::

    PronkError
    ├── DataError        the photos cannot be used as asked
    ├── ImageError       one file is not a usable photo; carries a Reason
    ├── ModelError       a bundle is missing, damaged, too new or fails its self-test
    ├── SettingsError    a setting is unknown or out of range
    ├── RunError         the run folder exists, is locked, or cannot be continued
    ├── StorageError     a file cannot be written
    ├── GateError        a result is below the limit that was asked for
    └── MissingExtra     an optional dependency is not installed
"""

import contextlib
import functools
from collections.abc import Iterator
from enum import StrEnum

# What each extra in pyproject.toml brings, as modules: without one of these it is not installed.
EXTRAS = {
    "train": ("h5py", "keras", "loky", "onnx", "psutil", "scipy", "tensorflow", "threadpoolctl"),
    "litert": ("ai_edge_litert",),
    "parquet": ("pyarrow",),
    "ray": ("ray",),
    "remote": ("aiohttp", "fsspec", "upath"),
    "serve": ("fastapi", "httptools", "prometheus_client", "python_multipart", "starlette", "uvicorn"),
}
COPY_AGAIN = "copy the model folder again"  # the hint wherever a model is not what was written


class Reason(StrEnum):
    """Why a file was left out; the list is closed, so programs may rely on it."""

    OK = "ok"
    OK_WITH_WARNING = "ok_with_warning"
    ZERO_BYTE = "zero_byte"
    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED = "truncated"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_LARGE = "too_large"
    UNSUPPORTED_FORMAT = "unsupported_format"
    UNREADABLE = "unreadable"
    NOT_REGULAR_FILE = "not_regular_file"
    VANISHED = "vanished"
    DECODE_ERROR = "decode_error"
    CHANGED = "changed"
    LEAK = "leak"


class PronkError(Exception):
    """An error a person can act on.

    Args:
        message: a sentence that names the value.
        hint: the words to type, or the thing to do; may be empty.

    Example:
        >>> error = PronkError("no photos in 'empty'", hint="name a folder of class folders")
        >>> str(error), error.hint
        ("no photos in 'empty'", 'name a folder of class folders')
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class DataError(PronkError):
    """The photos cannot be used as asked."""


class ImageError(PronkError):
    """One file is not a usable photo, for a reason of the closed list."""

    def __init__(self, reason: Reason, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        # Workers send these through pickle, which would otherwise forget the reason and the hint.
        return functools.partial(ImageError, hint=self.hint), (self.reason, str(self))


class ModelError(PronkError):
    """A bundle is missing, damaged, too new, or fails its self-test."""


class SettingsError(PronkError):
    """A setting is unknown or out of range."""


class RunError(PronkError):
    """The run folder exists already, is in use, or cannot be continued."""


class StorageError(PronkError):
    """A file cannot be written."""


class GateError(PronkError):
    """A result is below the limit that was asked for."""


class MissingExtra(PronkError):  # noqa: N818 - reads as what it is: an extra is missing
    """An optional dependency is not installed: the extra's name, and the work that needs it."""

    def __init__(self, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs packages that are not installed", hint=f'pip install "pronk[{extra}]"')
        self.missing = extra, purpose

    def __reduce__(self) -> tuple[object, ...]:
        # Workers send these through pickle, which would otherwise call the class with the message.
        return MissingExtra, self.missing


@contextlib.contextmanager
def need_extra(extra: str, purpose: str) -> Iterator[None]:
    """Say which extra is missing where an import in the block finds none of its packages.

    A package that is there and broken is another matter: its own ImportError comes through.

    Raises:
        MissingExtra: naming the extra.

    Example:
        >>> with need_extra("parquet", "writing Parquet"):
        ...     raise ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow")
        Traceback (most recent call last):
        pronk.errors.MissingExtra: writing Parquet needs packages that are not installed
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS[extra]:
            raise
        raise MissingExtra(extra, purpose) from error
