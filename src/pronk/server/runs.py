"""Finished runs of a work folder -> how good they are, their reports, and their models as one file to take along."""

import dataclasses
import math
import re
import tempfile
import zipfile
from pathlib import Path
from typing import IO

from pronk.errors import ModelError, RunError
from pronk.model.guards.files import check_ordinary
from pronk.model.run import REPORT, Metrics, PhaseRecord, read_metrics
from pronk.server.http_errors import HttpError
from pronk.storage.files import storage_error
from pronk.storage.places import leads_elsewhere

RUN_NAME = "[1-9][0-9]{0,8}"
REPORT_BYTES = 2**26


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """A share of photos that were right, with its 95 % interval and their number."""

    value: float
    low: float
    high: float
    n: int


@dataclasses.dataclass(frozen=True)
class PhaseResult(Accuracy):
    """An accuracy, and the log-loss beside it; None where that is not a finite number."""

    loss: float | None


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a finished run has come to: the kept model on the test photos, and both phases on the validation photos.

    There is no accuracy where there were too few photos to set any aside. `kept` is "frozen", "fine_tuned" or "mixed".
    """

    accuracy: Accuracy | None
    frozen: PhaseResult
    fine_tuned: PhaseResult | None
    kept: str
    why: str


@dataclasses.dataclass(frozen=True)
class RunEntry:
    """A finished run: its number, its test accuracy, its classes, how many photos, and whether it predicts now."""

    name: str
    accuracy: Accuracy | None
    classes: tuple[str, ...]
    photos: int
    in_use: bool = False


def list_runs(folder: Path) -> list[RunEntry]:
    """List the finished runs in a folder by number; what else is there is passed over."""
    runs = []
    for number in _run_numbers(folder):
        if metrics := _read_metrics(folder / str(number)):
            photos = sum(metrics.counts.values())
            runs.append(RunEntry(str(number), _test_accuracy(metrics), tuple(metrics.classes), photos))
    return runs


def next_run(folder: Path) -> Path:
    """Return the folder that the next run gets; what has no number is passed over."""
    return folder / str(max(_run_numbers(folder), default=0) + 1)


def find_run(folder: Path, name: str) -> Path:
    """Return the folder of a finished run, or raise HttpError 404 where there is none of that name."""
    run = folder / name
    if not re.fullmatch(RUN_NAME, name) or _read_metrics(run) is None:
        hint = "GET /v1/teach lists the runs"
        raise HttpError(404, f"there is no finished run {name!r:.50}", code="not_found", hint=hint)
    return run


def read_summary(run: Path) -> Summary | None:
    """Return what a run has come to; None where it is not finished."""
    metrics = _read_metrics(run)
    if metrics is None:
        return None
    return Summary(
        _test_accuracy(metrics),
        _phase(metrics.frozen),
        _phase(metrics.fine_tuned) if metrics.fine_tuned else None,
        metrics.comparison["kept"],
        metrics.comparison["why"],
    )


def read_report(run: Path) -> bytes:
    """Return the page about a run, or raise HttpError 404 where it has none."""
    path = run / REPORT
    try:
        check_ordinary(path, most=REPORT_BYTES)
        return path.read_bytes()
    except (ModelError, OSError) as error:
        raise HttpError(404, f"run {run.name} has no report", code="not_found", hint="train again") from error


def pack_run(run: Path) -> IO[bytes]:
    """Return an open temporary file, at its start, with the run folder as a ZIP archive.

    Unpacked, it is what every command takes as MODEL. Closing the file removes it.
    """
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        with zipfile.ZipFile(file, "w") as archive:  # its content is dense already
            for path in sorted(run.rglob("*")):
                name = path.relative_to(run)
                is_hidden = any(part.startswith(".") for part in name.parts)
                if path.is_file() and not leads_elsewhere(path) and not is_hidden:
                    archive.write(path, f"run-{run.name}/{name.as_posix()}")
        file.seek(0)
    except OSError as error:
        file.close()
        raise storage_error(Path(f"run-{run.name}.zip"), error) from error
    return file


def _run_numbers(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if re.fullmatch(RUN_NAME, path.name))


def _read_metrics(run: Path) -> Metrics | None:
    """Return the numbers of a finished run; None where it is not finished, or lies elsewhere."""
    try:
        return None if leads_elsewhere(run) else read_metrics(run)
    except (RunError, OSError):
        return None


def _test_accuracy(metrics: Metrics) -> Accuracy | None:
    return Accuracy(**metrics.test["accuracy"]) if metrics.test else None


def _phase(phase: PhaseRecord) -> PhaseResult:
    loss = phase["val"]["loss"]
    return PhaseResult(**phase["val"]["accuracy"], loss=loss if math.isfinite(loss) else None)
