"""Death of the process that started Ray -> end of what it started; runs beside it, as a program of its own.

Ray's own processes end when the one that started them was killed, but two of them need a minute for it.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

GRACE_SECONDS = 3.0  # until processes that were just being started are there too


@contextlib.contextmanager
def guard() -> Iterator[None]:
    """End Ray's processes that this one started, also should it be killed meanwhile; on Linux.

    Example:
        >>> with guard():
        ...     pass
    """
    if sys.platform != "linux":
        yield
        return
    # In a session of its own, so that Ctrl-C does not reach it.
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            yield
        finally:
            kill_session(os.getpid())  # what was just being started when Ctrl-C came
            process.kill()


def kill_session(owner: int) -> None:
    """Kill the processes of Ray's that write into a folder of the session that a process began.

    Args:
        owner: the process; Ray names the folder by it.

    Example:
        >>> kill_session(0)
    """
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes()
            if (b"ray::" in line or b"/ray/" in line) and any(_is_of(owner, link) for link in (entry / "fd").iterdir()):
                os.kill(int(entry.name), signal.SIGKILL)


def _is_of(owner: int, link: Path) -> bool:
    with contextlib.suppress(OSError):
        return any(part.startswith("session_") and part.endswith(f"_{owner}") for part in link.readlink().parts)
    return False


if __name__ == "__main__":
    sys.stdin.read()  # until the other end is closed, which the system does when its owner dies
    kill_session(int(sys.argv[1]))
    time.sleep(GRACE_SECONDS)
    kill_session(int(sys.argv[1]))
