"""Bodies -> photos: whatever strangers send, it is read or refused, and soon."""

import base64
import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pronk.server.http_errors import HttpError
from pronk.server.uploads import MOST_FILES, Upload, parse_uploads

KIND = "multipart/form-data; boundary=b"
HEAD = b'--b\r\ncontent-disposition: form-data; name="a"; filename="x"\r\n\r\n'
TAIL = b"\r\n--b--\r\n"
MOST = 10_000_000  # bytes, as the server allows

# Names as programs send them: quotes and backslashes have a backslash before them, and lines end nowhere.
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40).filter(
    lambda name: name[1:3] != ":\\" and name[:2] != "\\\\"  # the path before a name, as an old browser sent it
)
LATIN = st.characters(max_codepoint=255)
FILES = st.lists(st.tuples(NAMES, st.binary(max_size=200)), min_size=1, max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def write_form(files):
    parts = []
    for name, data in files:
        escaped = name.replace("\\", "\\\\").replace('"', '\\"').encode()
        parts.append(b'--b\r\nContent-Disposition: form-data; name="photo"; filename="' + escaped + b'"\r\n\r\n' + data)
    return b"\r\n".join(parts) + TAIL


def read(kind, body):
    """Return the photos or the status of the refusal; anything else that comes out is a fault."""
    try:
        return parse_uploads(kind, body).photos
    except HttpError as error:
        refusal = error
    assert str(refusal)
    assert refusal.hint
    return refusal.status


@settings(max_examples=100, deadline=None)
@given(FILES)
@example([("x" * 1000, b"\r\n--b"), ("", b""), ("--b--", b"--b--")])
@example([("a;b=c.jpg", b"\r\n"), ("é\u202e😀.jpg", b"\r\n--c--\r\n"), ("a'*=utf-8''b", b"-")])
def test_what_was_put_into_a_form_comes_out(files):
    if any(b"\r\n--b" in b"\r\n" + data for _, data in files):
        return  # such photos need another boundary, which clients see to
    assert read(KIND, write_form(files)) == tuple(Upload(name, data) for name, data in files)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["multipart/form-data; ", "application/json", ""]), st.text(LATIN), st.binary(max_size=300))
@example("multipart/form-data; ", "boundary=" + "b" * 300, TAIL)
@example("multipart/form-data; ", 'boundary="', TAIL)
@example("multipart/form-data; ", "boundary*=utf-8''b", TAIL)
@example("multipart/form-data; ", "boundary=b", b"")
def test_any_type_and_bytes_are_read_or_refused(kind, options, body):
    read(kind + options, body)
    read(kind + options, write_form([("a", b"b")]))


@settings(max_examples=200, deadline=None)
@given(FILES, st.data())
def test_damaged_forms_are_read_or_refused(files, data):
    body = write_form(files)
    for _ in range(data.draw(st.integers(1, 4))):
        start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(body))] * 2)))
        put = data.draw(st.sampled_from([b"", b"\r", b"\n", b"--b", b"--", b'"', b":", b"\r\n\r\n", b"\0", b"\xff"]))
        body = body[:start] + put + (b"" if data.draw(st.booleans()) else body[start:])
        body += body[start:end]
    found = read(KIND, body)
    assert found in (400, 413, 422) if isinstance(found, int) else 0 < len(found) <= MOST_FILES


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100), st.integers(1, 10**9) | st.none(), JSON)
def test_any_json_is_read_or_refused(photo, top, value):
    inputs = base64.b64encode(photo).decode()
    found = parse_uploads("application/json", json.dumps({"inputs": inputs, "parameters": {"top_k": top}}).encode())
    assert (found.photos, found.top) == ((Upload("", photo),), top)
    for values in (value, {"inputs": value}, {"inputs": inputs, "parameters": value},
                   {"inputs": inputs, "parameters": {"top_k": value}}):  # fmt: skip
        read("application/json; charset=utf-8", json.dumps(values).encode())


EVIL_JSON = {
    "lists": b"[" * MOST,
    "objects": b'{"a":' * (MOST // 5),
    "digits": b'{"inputs":' + b"1" * MOST + b"}",
    "one photo": b'{"inputs":"' + b"A" * MOST + b'"}',
    "escapes": b'{"inputs":"' + b"\\n" * (MOST // 2) + b'"}',
    "keys": b"{" + b'"a":1,' * (MOST // 6) + b'"inputs":""}',
}
EVIL = EVIL_JSON | {
    "lines before": b"\r\n" * (MOST // 2),
    "carriage returns": HEAD + b"\r" * MOST + TAIL,
    "lines": HEAD + b"\r\n" * (MOST // 2) + TAIL,
    "almost boundaries": HEAD + b"\r\n--" * (MOST // 4) + TAIL,
    "other boundaries": HEAD + b"\r\n--c" * (MOST // 5) + TAIL,
    "text behind": HEAD + TAIL + b"x" * MOST,
    "lines behind": HEAD + TAIL + b"\r\n" * (MOST // 2),
    "headers": b"--b\r\n" + b"a: b\r\n" * (MOST // 6),
    "one header": b"--b\r\na: " + b"b" * MOST,
    "one header's name": b"--b\r\n" + b"a" * MOST,
    "fields": b'--b\r\ncontent-disposition: form-data; name="a"\r\n\r\nx\r\n' * (MOST // 55),
    "empty parts": b"--b\r\n\r\n\r\n" * (MOST // 9),
    "hyphens": b"--b" + b"-" * MOST,
    "options": b"--b\r\ncontent-disposition: form-data; " + b"a;" * 2000 + b'filename="x"\r\n\r\n' + TAIL,
    "quotes": b"--b\r\ncontent-disposition: form-data; filename=" + b'"\\' * 2000 + b"\r\n\r\n" + TAIL,
}


@pytest.mark.parametrize("name", EVIL)
def test_no_body_takes_long(name):
    started = time.process_time()
    read("application/json" if name in EVIL_JSON else KIND, EVIL[name])
    assert time.process_time() - started < 2


def test_a_path_before_a_name_is_left_out():
    """As one old browser sent it; the name is only given back, and never opened."""
    for sent in ("C:\\photos\\a.jpg", "\\\\server\\a.jpg"):
        assert read(KIND, write_form([(sent, b"x")])) == (Upload("a.jpg", b"x"),)
    for sent in ("../../etc/passwd", "/etc/passwd"):
        assert read(KIND, write_form([(sent, b"x")])) == (Upload(sent, b"x"),)
