"""Name + settings -> a run folder held for this process: new, continued, or done already."""

import contextlib
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

from pronk.config import Settings, read_settings, to_toml
from pronk.errors import RunError
from pronk.model.run import METRICS, SETTINGS, WORK
from pronk.storage.files import lock_folder, remove_leftovers, storage_error, write_atomically


def new_run_folder(data: Path, base: Path = Path("runs"), *, resume: bool = False) -> Path:
    """Return the first free `runs/<name of data>-<N>`, or to resume the one before it, where there is one.

    Example:
        >>> new_run_folder(Path("photos/pets"), Path("no such folder")).name
        'pets-1'
    """
    name = data.resolve().stem if data.is_file() else data.resolve().name
    number = 1
    while (base / f"{name}-{number}").exists():
        number += 1
    return base / f"{name}-{max(1, number - 1) if resume else number}"


@contextlib.contextmanager
def hold_run(folder: Path, settings: Settings, *, resume: bool) -> Iterator[bool]:
    """Create or continue a run folder and hold its lock; yields whether the run is done already.

    Raises:
        RunError: if it exists and `resume` is off, was made with other settings, or is held by another process.
        StorageError: if it cannot be written.
    """
    exists = folder.is_dir() and any(folder.iterdir())
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file", hint="name another --out")
    if exists and not resume and not (folder / ".lock").exists():
        raise RunError(f"{folder} exists already", hint="name another --out, or go on with --resume")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    with lock_folder(folder):
        if exists and not resume:
            raise RunError(f"{folder} exists already", hint="name another --out, or go on with --resume")
        if exists:
            _check_settings(folder, settings)
        remove_leftovers(folder)
        done = (folder / METRICS).is_file()
        if not done:
            write_atomically(folder / SETTINGS, to_toml(settings).encode("utf-8", "surrogateescape"))
        try:
            yield done
        except BaseException:
            _remove_if_empty(folder)
            raise
        shutil.rmtree(folder / WORK, ignore_errors=True)


def _remove_if_empty(folder: Path) -> None:
    """Remove a run that has come to nothing, so that the same name can be used once the mistake is mended."""
    # Without split.csv there is no checkpoint either; what is in .work is made again.
    if {path.name for path in folder.iterdir()} <= {".lock", SETTINGS, WORK}:
        shutil.rmtree(folder, ignore_errors=True)


def _check_settings(folder: Path, settings: Settings) -> None:
    if not (folder / SETTINGS).is_file():
        if {path.name for path in folder.iterdir()} <= {".lock"}:
            return
        raise RunError(f"{folder} is no run folder", hint="name another --out")
    former = read_settings(folder / SETTINGS)
    current = tomllib.loads(to_toml(settings))
    different = sorted(name for name in former.keys() | current.keys() if former.get(name) != current.get(name))
    if different:
        raise RunError(
            f"{folder} was started with other settings: {', '.join(different)}",
            hint=f"go on with pronk train --config {folder / SETTINGS} --out {folder} --resume, or name another --out",
        )
