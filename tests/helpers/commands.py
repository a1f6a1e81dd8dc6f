"""What a finished command said, checked."""


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
