"""What can go wrong -> the status and the words a client gets: the same message and hint as on the command line."""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pronk.errors import ImageError, MissingExtra, ModelError, PronkError, Reason, RunError, StorageError

logger = logging.getLogger(__name__)
RETRY_SECONDS = 1
# What is wrong with a photo decides the status: its size, its kind, or its content.
REASON_STATUS = {
    Reason.TOO_LARGE: 413,
    Reason.TOO_MANY_PIXELS: 413,
    Reason.UNSUPPORTED_FORMAT: 415,
    Reason.NOT_AN_IMAGE: 415,
}
KINDS: tuple[tuple[type[PronkError], int, str], ...] = (
    (RunError, 409, "conflict"),
    (ModelError, 409, "conflict"),
    (StorageError, 507, "storage"),
    (MissingExtra, 501, "missing"),
)
# What a status asks of a client: to come again, to show a token, or to stop sending what nobody reads any more.
STATUS_HEADERS = {
    503: {"retry-after": str(RETRY_SECONDS)},
    401: {"www-authenticate": "Bearer"},
    408: {"connection": "close"},
    413: {"connection": "close"},
}
DOCS_HINT = "see /docs for what there is"


class Problem(BaseModel):
    """The body of every refusal."""

    error: str
    code: str
    hint: str


class HttpError(PronkError):
    """A refusal with its HTTP status, and a word for programs."""

    def __init__(self, status: int, message: str, *, code: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code

    def response(self) -> JSONResponse:
        """Return the answer: a `Problem`, with the headers that the status asks for."""
        # Names of files may hold lone surrogates, which UTF-8 cannot say.
        words = [w.encode("utf-8", "backslashreplace").decode() for w in (str(self), self.code, self.hint)]
        body = dict(zip(("error", "code", "hint"), words, strict=True))
        return JSONResponse(body, self.status, STATUS_HEADERS.get(self.status))


def to_http(error: PronkError) -> HttpError:
    """Give any named error its status and code."""
    if isinstance(error, HttpError):
        return error
    if isinstance(error, ImageError):
        status, code = REASON_STATUS.get(error.reason, 422), error.reason.value
    else:
        status, code = next(((status, code) for kind, status, code in KINDS if isinstance(error, kind)), (422, "usage"))
    return HttpError(status, str(error), code=code, hint=error.hint)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what a route's OpenAPI description says of its refusals."""
    return {status: {"model": Problem} for status in statuses}


def explain_errors(app: FastAPI) -> None:
    """Let an app answer every error with a `Problem`."""
    app.add_exception_handler(PronkError, _explain)
    app.add_exception_handler(HTTPException, _explain_starlette)
    app.add_exception_handler(RequestValidationError, _explain_validation)
    app.add_exception_handler(Exception, _explain_fault)


async def _explain(request: Request, error: Exception) -> Response:
    assert isinstance(error, PronkError)
    return to_http(error).response()


async def _explain_starlette(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "not_allowed"}.get(error.status_code, "usage")
    message = f"{HTTPStatus(error.status_code).phrase}: {request.method} {request.scope['path']}"
    response = HttpError(error.status_code, message[:200], code=code, hint=DOCS_HINT).response()
    response.headers.update(error.headers or {})
    if error.status_code == 405:
        # Starlette names the methods of one route; others may have the same address.
        route = getattr(request.scope.get("route"), "path", "")
        methods = request.app.openapi()["paths"].get(route, {})
        if methods:
            response.headers["allow"] = ", ".join(map(str.upper, methods))
    return response


async def _explain_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = "; ".join(f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in error.errors())
    return HttpError(422, found[:500], code="usage", hint=DOCS_HINT).response()


async def _explain_fault(request: Request, error: Exception) -> Response:
    # uvicorn would say it among strangers' broken requests, which are no news.
    logger.error("%s %r", request.method, request.scope["path"], exc_info=error)
    hint = "report it with what the server's terminal shows"
    return HttpError(500, "a fault of the server's own", code="internal", hint=hint).response()
