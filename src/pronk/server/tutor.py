"""A work folder -> one training at a time, which ends when the server does."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from pronk.config import Settings
from pronk.errors import RunError
from pronk.server.child import Child, Training, train_command
from pronk.server.errors import HttpError
from pronk.server.lessons import Lessons, open_lessons
from pronk.server.results import next_run


class Tutor:
    """Starts trainings on the photos of a work folder and remembers the last one.

    Every method may be called from any thread.

    Args:
        lessons: the work folder.
        weights: that a training starts from where nobody says; imagenet, offline or the path of an h5 file.
    """

    def __init__(self, lessons: Lessons, *, weights: str) -> None:
        self.lessons = lessons
        self.weights = weights
        self._child: Child | None = None
        self._is_over = False
        self._starting = threading.Lock()

    def look(self) -> Training | None:
        """Return how far the last training is; None where there was none."""
        return self._child.look() if self._child else None

    def start(self, weights: str | None = None) -> Training:
        """Start a training on all classes.

        Raises:
            HttpError: 409 while one is under way, 422 where there are too few photos.
            DataError: where the classes cannot be told apart.
            RunError: where no process can be started.
        """
        with self._starting:
            self.check_idle()
            if self._is_over:
                raise HttpError(503, "the server is about to stop", code="busy", hint="start it again")
            self.lessons.check_enough()
            photos, run = self.lessons.photos, next_run(self.lessons.runs)
            command = train_command(photos, run, cache=self.lessons.cache, weights=weights or self.weights)
            try:
                self._child = Child(command, run)
            except OSError as error:
                raise RunError(f"cannot start a training: {error.strerror or error}", hint="try again later") from error
            return self._child.look()

    def stop(self) -> Training:
        """Ask the training to stop, without waiting for that.

        Raises:
            HttpError: 409 where none was started.
        """
        if self._child is None:
            raise HttpError(409, "no training was started", code="conflict", hint="POST /v1/teach/train starts one")
        return self._child.stop()

    def check_idle(self) -> None:
        """Raise HttpError 409 while a training reads the photos."""
        if self._child and self._child.is_running:
            message = f"training {self._child.run.name} is under way"
            raise HttpError(409, message, code="conflict", hint="wait until it is done, or stop it")

    def close(self) -> None:
        """Stop the training, wait until it is gone, and start no other."""
        with self._starting:
            self._is_over = True
            if self._child:
                self._child.close()


@contextlib.contextmanager
def open_tutor(folder: Path, *, weights: str | None = None) -> Iterator[Tutor]:
    """Make a work folder, or go on with one; at the end a training that goes on is stopped.

    Args:
        folder: see `lessons.open_lessons`.
        weights: that a training starts from where nobody says; None takes the default of training.

    Raises:
        RunError: where another process holds the folder.
        StorageError: where it cannot be written.

    Example:
        >>> import tempfile
        >>> with open_tutor(Path(tempfile.mkdtemp())) as tutor:
        ...     tutor.look()
    """
    with open_lessons(folder) as lessons:
        tutor = Tutor(lessons, weights=weights or Settings().weights)
        try:
            yield tutor
        finally:
            tutor.close()
