"""A request's body -> the photos in it: one as it is, several as a form, or one as text in JSON."""

import base64
import binascii
import dataclasses
import json
import logging
from typing import Any

from python_multipart import MultipartParser
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import parse_options_header

from pronk.server.errors import HttpError

MOST_FILES = 32
MOST_PARTS = 64  # files and fields, which are ignored
FORM_HINT = 'send each photo as a part with a filename, as curl -F "photo=@a.jpg" does'
JSON_HINT = 'send {"inputs": "<the photo in base64>"}, or the bytes of the photo as they are'
# Each broken form is answered; the terminal of the server is no place for them.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


@dataclasses.dataclass(frozen=True)
class Upload:
    """One photo that a client sent.

    Attributes:
        name: of the file, as the client calls it; empty where it does not say.
        data: its bytes.
    """

    name: str
    data: bytes


@dataclasses.dataclass(frozen=True)
class Batch:
    """The photos of one request.

    Attributes:
        uploads: in the order they came.
        top: how many classes the body asked for, where it did.
    """

    uploads: tuple[Upload, ...]
    top: int | None = None


def parse_uploads(content_type: str, body: bytes) -> Batch:
    """Find the photos in a body.

    Args:
        content_type: multipart/form-data, application/json, or whatever a photo's own type is.
        body: all of it.

    Raises:
        HttpError: 400 where the form or the JSON is broken, 413 for too many photos, 422 for none.

    Example:
        >>> parse_uploads("image/png", b"...").uploads
        (Upload(name='', data=b'...'),)
    """
    kind, options = parse_options_header(content_type.encode("latin-1"))
    if kind == b"multipart/form-data":
        return Batch(_parse_form(options.get(b"boundary", b""), body))
    if kind == b"application/json":
        return _parse_json(body)
    return Batch((Upload("", body),))


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
    if not form.uploads:
        raise HttpError(422, "there is no photo in the form", code="usage", hint=FORM_HINT)
    return tuple(form.uploads)


class _Form:
    """Collects the files of a form in memory, which the limit of the body bounds."""

    def __init__(self) -> None:
        self.uploads: list[Upload] = []
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
        if len(self.uploads) >= MOST_FILES:
            raise HttpError(413, f"the form has more than {MOST_FILES} files", code="too_large", hint="send fewer")
        self.uploads.append(Upload(self._name, bytes(self._data)))

    def _finish(self) -> None:
        self.is_whole = True


def _parse_json(body: bytes) -> Batch:
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
    return Batch((Upload("", data),), top)
