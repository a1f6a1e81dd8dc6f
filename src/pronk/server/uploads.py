"""A request's body -> the photos in it: one as it is, several as a form, or one as text in JSON."""

import asyncio
import base64
import binascii
import contextlib
import dataclasses
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from python_multipart import MultipartParser
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from pronk.server.gateway import Admission
from pronk.server.http_errors import HttpError

MOST_FILES = 32
MOST_PARTS = 64  # files and fields, which are ignored
PARSED_AT_ONCE = 65_536  # bytes of a form; a larger one would keep the event loop from others
FORM_HINT = 'send each photo as a part with a filename, as curl -F "photo=@a.jpg" does'
JSON_HINT = 'send {"inputs": "<the photo in base64>"}, or the bytes of the photo as they are'


@dataclasses.dataclass(frozen=True)
class Upload:
    """One photo that a client sent: its file name, where the client says one, and its encoded bytes."""

    name: str
    data: bytes


@dataclasses.dataclass(frozen=True)
class Uploads:
    """The photos of one request, at least one, in the order they came, and how many classes its body asked for."""

    photos: tuple[Upload, ...]
    top: int | None = None


@dataclasses.dataclass(frozen=True)
class UploadReader:
    """Reads the photos of requests, never more at once than the machine can hold.

    Attributes:
        admission: bounds what is read and computed at once.
        body_bytes: most bytes of a body; a longer one is refused by what it declares, or as soon as it is longer.
        body_seconds: most seconds that a client may take to send it.
    """

    admission: Admission
    body_bytes: int
    body_seconds: float

    def __post_init__(self) -> None:
        # Each broken form is answered; the terminal of the server is no place for them.
        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

    @contextlib.asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[Uploads]:
        """Read the photos in the body of a request, which keeps its place and its bytes until the block ends.

        Raises:
            HttpError: 413 too long, 408 too slow, 503 no room, 400 a wrong length, a broken form, or given up by the
                client.
        """
        with self.admission.enter() as take:
            body, kind = await self._read_body(request, take), request.headers.get("content-type", "")
            if len(body) <= PARSED_AT_ONCE or not kind.lower().startswith(("multipart/", "application/json")):
                yield parse_uploads(kind, body)
            else:
                yield await run_in_threadpool(parse_uploads, kind, body)

    async def _read_body(self, request: Request, take: Callable[[int], None]) -> bytes:
        declared, body = _declared_length(request), bytearray()
        self._check_length(declared or 0)
        take(declared or 0)
        try:
            async with asyncio.timeout(self.body_seconds):
                async for chunk in request.stream():
                    body += chunk
                    self._check_length(len(body))
                    if declared is None:
                        take(len(chunk))
        except ClientDisconnect as error:
            raise HttpError(400, "the client went away", code="usage") from error
        except TimeoutError as error:
            message = f"the body did not arrive within {self.body_seconds:g} s ({len(body)} bytes did)"
            raise HttpError(408, message, code="slow", hint="send it over a faster connection, or smaller") from error
        return bytes(body)

    def _check_length(self, size: int) -> None:
        if size > self.body_bytes:
            message = f"the body has {size / 1e6:.1f} MB, and {self.body_bytes / 1e6:.1f} MB are allowed"
            hint = "send fewer or smaller photos, or raise --body-limit"
            raise HttpError(413, message, code="too_large", hint=hint)


def _declared_length(request: Request) -> int | None:
    text = request.headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        message = f"Content-Length must be a number. Got {text!r:.50}"
        raise HttpError(400, message, code="usage", hint="leave it to your HTTP library")
    return int(text)


def parse_uploads(content_type: str, body: bytes) -> Uploads:
    """Find the photos in a body; HttpError 400 for a broken form or JSON, 413 for too many photos, 422 for none."""
    kind, options = parse_options_header(content_type.encode("latin-1"))
    if kind == b"multipart/form-data":
        return Uploads(_parse_form(options.get(b"boundary", b""), body))
    if kind == b"application/json":
        return _parse_json(body)
    return Uploads((Upload("", body),))


def _parse_form(boundary: bytes, body: bytes) -> tuple[Upload, ...]:
    form = _Form()
    try:
        parser = MultipartParser(boundary, form.callbacks())
        parser.write(body)
        parser.finalize()
    except (MultipartParseError, ValueError) as error:
        raise HttpError(400, f"the form cannot be read: {error!s:.200}", code="usage", hint=FORM_HINT) from error
    if not form.is_whole:
        raise HttpError(400, "the form ends too early", code="usage", hint=FORM_HINT)
    if not form.photos:
        raise HttpError(422, "there is no photo in the form", code="usage", hint=FORM_HINT)
    return tuple(form.photos)


class _Form:
    """Collects the files of a form in memory, which the limit of the body bounds."""

    def __init__(self) -> None:
        self.photos: list[Upload] = []
        self.is_whole = False
        self._parts = 0
        self._field, self._value, self._data = bytearray(), bytearray(), bytearray()
        self._name: str | None = None

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_part_data": lambda data, start, end: self._data.extend(data[start:end]),
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise HttpError(413, f"the form has more than {MOST_PARTS} parts", code="too_large", hint="send fewer")
        self._name = None
        self._data.clear()

    def _end_header(self) -> None:
        if bytes(self._field).lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            if b"filename" in options:
                self._name = options[b"filename"].decode("utf-8", "surrogateescape")
        self._field.clear()
        self._value.clear()

    def _end(self) -> None:
        if self._name is None:
            return
        if len(self.photos) >= MOST_FILES:
            raise HttpError(413, f"the form has more than {MOST_FILES} files", code="too_large", hint="send fewer")
        self.photos.append(Upload(self._name, bytes(self._data)))

    def _finish(self) -> None:
        self.is_whole = True


def _parse_json(body: bytes) -> Uploads:
    try:
        values = json.loads(body)
        data = base64.b64decode(values["inputs"], validate=True)
        parameters = values.get("parameters")
        top = None if parameters is None else parameters.get("top_k")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, binascii.Error) as error:
        raise HttpError(400, f"the JSON holds no photo: {error!r:.200}", code="usage", hint=JSON_HINT) from error
    if isinstance(top, float) and top.is_integer():
        top = int(top)  # the same number for JSON
    if top is not None and (type(top) is not int or top < 1):
        raise HttpError(400, f"top_k must be a whole number above 0. Got {top!r:.50}", code="usage", hint=JSON_HINT)
    return Uploads((Upload("", data),), top)
