"""What can go wrong -> the status and the words a client gets: the same message and hint as on the command line."""

from typing import Any

from pydantic import BaseModel

from pronk.errors import (
    DataError,
    ImageError,
    MissingExtra,
    ModelError,
    PronkError,
    Reason,
    RunError,
    SettingsError,
    StorageError,
)

# What is wrong with a photo decides the status: its size, its kind, or its content.
REASON_STATUS = {
    Reason.TOO_LARGE: 413,
    Reason.TOO_MANY_PIXELS: 413,
    Reason.UNSUPPORTED_FORMAT: 415,
    Reason.NOT_AN_IMAGE: 415,
}
KINDS: tuple[tuple[type[PronkError], int, str], ...] = (
    (SettingsError, 422, "usage"),
    (DataError, 422, "usage"),
    (RunError, 409, "conflict"),
    (ModelError, 409, "conflict"),
    (StorageError, 507, "storage"),
    (MissingExtra, 501, "missing"),
)


class Problem(BaseModel):
    """The body of every refusal."""

    error: str
    code: str
    hint: str


class HttpError(PronkError):
    """A refusal with its status.

    Args:
        status: of HTTP.
        message: what is wrong, with the value.
        code: for programs.
        hint: what to do about it; may be empty.

    Example:
        >>> HttpError(404, "no model 'x'", code="not_found").status
        404
    """

    def __init__(self, status: int, message: str, *, code: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code


def to_http(error: PronkError) -> HttpError:
    """Give any named error its status and code.

    Example:
        >>> refused = to_http(ImageError(Reason.TRUNCATED, "cut off"))
        >>> refused.status, refused.code
        (422, 'truncated')
    """
    if isinstance(error, HttpError):
        return error
    if isinstance(error, ImageError):
        status, code = REASON_STATUS.get(error.reason, 422), error.reason.value
    else:
        status, code = next(((status, code) for kind, status, code in KINDS if isinstance(error, kind)), (422, "usage"))
    return HttpError(status, str(error), code=code, hint=error.hint)


def problem(error: HttpError) -> dict[str, str]:
    """Return the body of a refusal.

    Example:
        >>> problem(HttpError(404, "no such page", code="not_found"))
        {'error': 'no such page', 'code': 'not_found', 'hint': ''}
    """
    # Names of files may hold lone surrogates, which UTF-8 cannot say.
    words = (str(error), error.code, error.hint)
    return dict(
        zip(("error", "code", "hint"), (w.encode("utf-8", "backslashreplace").decode() for w in words), strict=True)
    )


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what a route's OpenAPI description says of its refusals.

    Example:
        >>> list(refusals(404, 503))
        [404, 503]
    """
    return {status: {"model": Problem} for status in statuses}
