"""A work folder -> one training at a time, in a process of its own, watched by its lines of progress."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from pronk.config import Settings
from pronk.errors import RunError
from pronk.model.run import read_split
from pronk.progress import STAGES
from pronk.server.http_errors import HttpError
from pronk.server.runs import Summary, list_runs, next_run, read_summary
from pronk.server.workspace import Workspace, open_workspace

NICENESS = 10  # predictions go first
PATIENCE = 10.0  # seconds from being asked to stop to being killed
LEFTOVER_SECONDS = 2.0
LINE_BYTES = 2**16
MOST_STEPS = 2**53  # above it, JavaScript counts wrongly


@dataclasses.dataclass(frozen=True)
class StageProgress:
    """How far one stage is; a total of 0 is not known yet."""

    stage: str
    name: str
    done: int
    total: int


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a training failed, and what to do about it."""

    message: str
    hint: str


@dataclasses.dataclass(frozen=True)
class TrainingStatus:
    """A training as it was at one moment: its run's number, and its stages in the order in which they began.

    The seconds end with it; it has an error where it failed, and a summary where it is done.
    """

    run: str
    state: Literal["running", "done", "failed", "stopped"]
    stages: tuple[StageProgress, ...] = ()
    seconds: float = 0.0
    error: Failure | None = None
    summary: Summary | None = None


def train_command(photos: Path, run: Path, *, cache: Path, weights: str, split: Path | None = None) -> list[str]:
    """Return the command that trains on photos and tells programs how far it is; `split` is a run whose parts stay."""
    options = {"--out": run, "--cache": cache, "--weights": weights, "--progress": "json"}
    options |= {"--split": split} if split else {}
    words = [str(word) for option in options.items() for word in option]
    return [sys.executable, "-m", "pronk", "train", str(photos), *words]


class TrainingJob:
    """A training in a process of its own, in a group with the processes that it starts, with low priority.

    A framework that fills the memory or crashes takes nothing else with it, and the server never imports one.

    Args:
        command: program that trains and says on standard error how far it is, see `train_command`.
        run: folder that it makes; removed where that comes to nothing.
        patience: seconds that it gets to stop by itself.

    Raises:
        OSError: where it cannot be started.
    """

    def __init__(self, command: Sequence[str], run: Path, *, patience: float = PATIENCE) -> None:
        self.run = run
        self.patience = patience
        self._started = time.monotonic()
        self._now = TrainingStatus(run.name, "running")  # replaced by the one thread that watches, never changed
        self._error = self._hint = ""
        self._asked, self._over = threading.Event(), threading.Event()
        self._is_new = not run.exists()
        self._process = _start(command)
        threading.Thread(target=self._watch, name=f"training {run.name}", daemon=True).start()

    @property
    def is_running(self) -> bool:
        """Whether it goes on."""
        return not self._over.is_set()

    def status(self) -> TrainingStatus:
        """Return how far it is."""
        now = self._now
        return dataclasses.replace(now, seconds=self._seconds()) if now.state == "running" else now

    def stop(self) -> TrainingStatus:
        """Ask it to stop, without waiting; it is killed where it does not."""
        if self.is_running and not self._asked.is_set():
            self._asked.set()
            threading.Thread(target=self._insist, name=f"stopping {self.run.name}", daemon=True).start()
        return self.status()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until it is over."""
        self._over.wait(seconds)

    def close(self) -> None:
        """Stop it and wait until it is gone."""
        self.stop()
        self.wait(self.patience + 2 * LEFTOVER_SECONDS)

    def _seconds(self) -> float:
        return round(time.monotonic() - self._started, 2)

    def _insist(self) -> None:
        _end(self._process, at_once=False)
        if not self._over.wait(self.patience):
            _end(self._process, at_once=True)

    def _watch(self) -> None:
        reader = threading.Thread(target=self._read, name=f"reading {self.run.name}", daemon=True)
        reader.start()
        code = self._process.wait()
        # Whatever it started has the pipe too; what it said itself is in there by now.
        reader.join(1.0)
        _end_leftovers(self._process)
        reader.join(1.0)
        self._now = self._finish(code)
        self._over.set()

    def _finish(self, code: int) -> TrainingStatus:
        summary = read_summary(self.run) if self._is_new else None  # its last file is there: the run is whole
        end = dataclasses.replace(self._now, seconds=self._seconds(), summary=summary)
        if summary is not None:
            return dataclasses.replace(end, state="done")
        if self._is_new:
            shutil.rmtree(self.run, ignore_errors=True)  # features stay in the cache: the next run is quick
        if self._asked.is_set():
            return dataclasses.replace(end, state="stopped")
        return dataclasses.replace(end, state="failed", error=self._explain(code))

    def _explain(self, code: int) -> Failure:
        if self._error:
            return Failure(self._error, self._hint)
        if code < 0:
            message = f"training was killed by the system (signal {-code}), which often means too little memory"
            return Failure(message, "close other programs, then train again")
        return Failure(f"training ended with exit code {code} and without a word", "train again; see `pronk check`")

    def _read(self) -> None:
        assert self._process.stderr is not None, "it was started with a pipe"
        # The pipe belongs to this thread alone, so that closing it cannot wait for a reader.
        with self._process.stderr as stderr, contextlib.suppress(OSError):
            for line in iter(lambda: stderr.readline(LINE_BYTES), b""):
                self._take(line.decode("utf-8", "replace").strip())

    def _take(self, line: str) -> None:
        if line.startswith("error: "):
            self._error, self._hint = line.removeprefix("error: "), ""
        elif line.startswith("hint: "):
            self._hint = line.removeprefix("hint: ")
        elif line.startswith("{"):
            stage = parse_progress(line)
            if stage is not None:
                stages = {former.stage: former for former in self._now.stages} | {stage.stage: stage}
                self._now = dataclasses.replace(self._now, stages=tuple(stages.values()))


class TrainingRunner:
    """Starts trainings on the photos of a work folder, one at a time, and remembers the last one.

    Every method may be called from any thread.
    """

    def __init__(self, workspace: Workspace, *, weights: str) -> None:
        self.workspace = workspace
        self.weights = weights
        self._job: TrainingJob | None = None
        self._is_closed = False
        self._starting = threading.Lock()

    def status(self) -> TrainingStatus | None:
        """Return how far the last training is; None where there was none."""
        return self._job.status() if self._job else None

    def start(self, weights: str | None = None) -> TrainingStatus:
        """Start a training on all classes; HttpError 409 while one is under way, 422 where there are too few photos."""
        with self._starting:
            self.check_idle()
            if self._is_closed:
                raise HttpError(503, "the server is about to stop", code="busy", hint="start it again")
            self.workspace.check_enough()
            photos, run = self.workspace.photos, next_run(self.workspace.runs)
            cache, former = self.workspace.cache, self._find_former()
            command = train_command(photos, run, cache=cache, weights=weights or self.weights, split=former)
            try:
                self._job = TrainingJob(command, run)
            except OSError as error:
                raise RunError(f"cannot start a training: {error.strerror or error}", hint="try again later") from error
            return self._job.status()

    def _find_former(self) -> Path | None:
        """Return the last finished run with photos that are here still: judged by the same ones, models compare."""
        there = {photo for one in self.workspace.classes() for photo in one.photos}
        for entry in reversed(list_runs(self.workspace.runs)):
            run = self.workspace.runs / entry.name
            with contextlib.suppress(RunError):
                if any(PurePosixPath(photo.path).name in there for photo in read_split(run)):
                    return run
        return None

    def stop(self) -> TrainingStatus:
        """Ask the training to stop, without waiting for that; HttpError 409 where none was started."""
        if self._job is None:
            raise HttpError(409, "no training was started", code="conflict", hint="POST /v1/teach/train starts one")
        return self._job.stop()

    def check_idle(self) -> None:
        """Raise HttpError 409 while a training reads the photos."""
        if self._job and self._job.is_running:
            message = f"training {self._job.run.name} is under way"
            raise HttpError(409, message, code="conflict", hint="wait until it is done, or stop it")

    def close(self) -> None:
        """Stop the training, wait until it is gone, and start no other."""
        with self._starting:
            self._is_closed = True
            if self._job:
                self._job.close()


@contextlib.contextmanager
def open_trainings(folder: Path, *, weights: str | None = None) -> Iterator[TrainingRunner]:
    """Make a work folder, or go on with one, see `open_workspace`; at the end a training that goes on is stopped."""
    with open_workspace(folder) as workspace:
        trainings = TrainingRunner(workspace, weights=weights or Settings().weights)
        try:
            yield trainings
        finally:
            trainings.close()


def parse_progress(line: str) -> StageProgress | None:
    """Read a line that `pronk train --progress json` wrote; None where it is something else.

    Example:
        >>> parse_progress('{"stage": "check", "done": 3, "total": 30}')
        StageProgress(stage='check', name='checking photos', done=3, total=30)
    """
    try:
        record = json.loads(line)
        stage, done, total = record["stage"], record["done"], record["total"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    is_known = isinstance(stage, str) and stage in STAGES
    is_counted = all(type(n) is int and 0 <= n < MOST_STEPS for n in (done, total))
    return StageProgress(stage, STAGES[stage], done, total) if is_known and is_counted else None


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    windows = os.name == "nt"
    flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.BELOW_NORMAL_PRIORITY_CLASS if windows else 0  # type: ignore[attr-defined]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUTF8": "1"},  # so that what it says can be read whatever the system's encoding
        creationflags=flags,
        # A group, and no session: Linux weighs whole sessions against each other, whatever their niceness.
        process_group=None if windows else 0,
    )
    if not windows:
        # From outside, since code between fork and exec is not safe in a program with threads.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
    return process


def _end(process: subprocess.Popen[bytes], *, at_once: bool) -> None:
    with contextlib.suppress(OSError):  # it is gone
        if os.name != "nt":
            os.killpg(process.pid, signal.SIGKILL if at_once else signal.SIGINT)
        elif at_once:
            process.kill()
        else:
            process.send_signal(signal.CTRL_BREAK_EVENT)  # type: ignore[attr-defined]


def _end_leftovers(process: subprocess.Popen[bytes]) -> None:
    """Give processes that it started a moment to go, then kill them: they may still write into its folder."""
    if os.name == "nt":
        return
    until = time.monotonic() + LEFTOVER_SECONDS
    with contextlib.suppress(OSError):  # the group is empty
        while time.monotonic() < until:
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
