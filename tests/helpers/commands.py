"""Commands run inside this process, and what a finished one said, checked, and has written."""

import contextlib
import csv
import os
import subprocess
import sys
import tempfile
import time

from pronk.batch.request import BatchRequest, predict_batch
from pronk.cli import run_command


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


def wait_for(condition, seconds=120, pause=0.002):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it takes too long"
        time.sleep(pause)


def run_inside(*arguments, stdin=b"", env=None):
    """Run the command line in this process, as `run_pronk` does in one of its own, which takes seconds longer."""
    former = sys.stdin, sys.stdout, sys.stderr, dict(os.environ)
    with contextlib.ExitStack() as held:
        files = [held.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        files[0].write(stdin)
        files[0].seek(0)
        sys.stdout.flush()
        sys.stderr.flush()
        for number, file in enumerate(files):
            kept = os.dup(number)
            held.callback(os.close, kept)
            held.callback(os.dup2, kept, number)
            os.dup2(file.fileno(), number)
        os.environ.update(env or {})
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False, errors="backslashreplace", buffering=1)
        try:
            code = run_command(list(map(os.fspath, arguments)))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            sys.stdin, sys.stdout, sys.stderr, environment = former
            os.environ.clear()
            os.environ.update(environment)
        said = []
        for file in files[1:]:
            file.seek(0)
            said.append(file.read())
    return subprocess.CompletedProcess(arguments, code, *said)


def predict(model, *paths, **options):
    """Give the result of a batch of predictions in this process, the rows that went to no file, and the remarks."""
    written, remarks = [], []
    request = BatchRequest(model=model, paths=list(map(str, paths)), **{"top": 2} | options)
    return predict_batch(request, write=written.append, tell=remarks.append), "".join(written), remarks
