"""What a finished command said, checked, and what it has written."""

import csv
import time


def ok(done):
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def fails(done, *, code=1):
    """A failed command says what is wrong and what to do, on stderr, and nothing on stdout."""
    text = done.stderr.decode()
    assert done.returncode == code, text
    assert "Traceback" not in text
    if code in (1, 2):
        lines = [line for line in text.splitlines() if line.startswith(("error: ", "hint: "))]
        assert [line.split(":")[0] for line in lines] == ["error", "hint"], text
    return text


HOSTILE = [b"new\nline.png", b"=HYPERLINK(1).png", b"<img onerror=alert(1)>.png", b'quo"te,.png', b"\xff\xfe.png",
           "\u202egnp.exe".encode() + b".png"]  # fmt: skip


def read_csv(path):
    with path.open(newline="", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def count_lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.002)
