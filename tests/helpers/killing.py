"""A process that dies at a chosen step, and what it leaves on disk."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest


def snapshot(folder):
    """Every file with its content, links as such, and every folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name] = "folder" if path.is_dir() else path.read_bytes()
    return found


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs, but for what finally clauses do."""


@contextlib.contextmanager
def killed_at(step):
    """Stop the process, so to speak, before or after one of the calls that change something on disk."""
    left = [step]

    def wrap(real):
        def call(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            result = real(*arguments, **options)
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        for home, name in ((os, "link"), (os, "fsync"), (Path, "replace"), (shutil, "copyfile")):
            patch.setattr(home, name, wrap(getattr(home, name)))
        real = Path.unlink

        def unlink(self, missing_ok=False):
            if self.name == ".lock" or self.suffix == ".tmp":
                return real(self, missing_ok)
            return wrap(real)(self, missing_ok)

        patch.setattr(Path, "unlink", unlink)
        yield
