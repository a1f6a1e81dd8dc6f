"""Name + settings -> a run folder held for this process: new, continued, or done already."""

import contextlib
import dataclasses
import shutil
import tomllib
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from pronk.backbone.architecture import Backbone
from pronk.config import Settings, read_settings, to_toml
from pronk.dataset.listing import Listing
from pronk.errors import RunError
from pronk.model.run import FOLD_ROWS, METRICS, SETTINGS, WORK
from pronk.progress import Note, Progress, no_note, no_progress
from pronk.storage.files import lock_folder, remove_leftovers, storage_error, write_atomically
from pronk.storage.places import enclosing
from pronk.storage.remote import is_remote


@dataclasses.dataclass(frozen=True)
class Run:
    """What all steps of a run share.

    Attributes:
        settings: the settings, with absolute paths.
        backbone: the pre-trained network.
        folder: the run folder; a temporary one for a survey.
        cache: folder of the features, which later runs use too.
        pool: worker processes of this machine.
        engine: where features are extracted; see `pronk.batch.engines.open_engine`.
        address: address of a cluster.
        on_progress: called with (stage, done, total).
        cache_limit: bytes that the cache is cut down to at the end; None where there is no limit.
        on_note: called with what is worth saying before the work.
    """

    settings: Settings
    backbone: Backbone
    folder: Path
    cache: Path
    pool: Executor
    engine: str = "local"
    address: str | None = None
    on_progress: Progress = no_progress
    cache_limit: int | None = None
    on_note: Note = no_note

    def settle(self, **chosen: Any) -> "Run":
        """Return the run with what was chosen in the place of `auto`."""
        return dataclasses.replace(self, settings=self.settings.replace(**chosen))

    @property
    def work(self) -> Path:
        """Folder of what is needed until the end only."""
        return self.folder / WORK


def new_run_folder(data: Path, base: Path = Path("runs"), *, resume: bool = False) -> Path:
    """Return the first free `runs/<name of data>-<N>`, or to resume the one before it, where there is one."""
    name = data.resolve().stem if data.is_file() else data.resolve().name
    number = 1
    while (base / f"{name}-{number}").exists():
        number += 1
    return base / f"{name}-{max(1, number - 1) if resume else number}"


def keep_out(data: Path, listing: Listing, **folders: Path) -> None:
    """Refuse to write among the photos, where a run would become a class of the next one.

    Raises:
        RunError: naming the folder and the option.
    """
    if is_remote(listing.root):
        return
    photos = {(listing.root / entry.path).parent.resolve() for entry in listing.entries}
    if data.is_dir():
        photos.add(data.resolve())
    for option, folder in folders.items():
        if photos & enclosing(folder):
            raise RunError(f"{folder} lies among the photos", hint=f"name a folder elsewhere, with --{option}")


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
        raise _taken(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    with lock_folder(folder):
        if exists and not resume:
            raise _taken(folder)
        if exists:
            _check_settings(folder, settings)
        remove_leftovers(folder)
        done = (folder / METRICS).is_file()
        if not done:
            write_settings(folder, settings)
        try:
            yield done
        except BaseException:
            _remove_if_empty(folder)
            raise
        shutil.rmtree(folder / WORK, ignore_errors=True)


def write_settings(folder: Path, settings: Settings) -> None:
    """Write settings.toml, which replays the run."""
    write_atomically(folder / SETTINGS, to_toml(settings).encode("utf-8", "surrogateescape"))


def _taken(folder: Path) -> RunError:
    if (folder / METRICS).is_file():
        return RunError(f"{folder} exists already, as a finished run", hint="name another --out")
    return RunError(f"{folder} exists already", hint="name another --out, or go on with --resume")


def _remove_if_empty(folder: Path) -> None:
    """Remove a run that has come to nothing, so that the same name can be used once the mistake is mended."""
    # Without split.csv there is no checkpoint either; what is in .work is made again, but for folds of a cross-fit.
    is_done = any((folder / WORK).glob(f"*/{FOLD_ROWS}"))
    if not is_done and {path.name for path in folder.iterdir()} <= {".lock", SETTINGS, WORK}:
        shutil.rmtree(folder, ignore_errors=True)


def _check_settings(folder: Path, settings: Settings) -> None:
    if not (folder / SETTINGS).is_file():
        if {path.name for path in folder.iterdir()} <= {".lock"}:
            return
        raise RunError(f"{folder} is not a run folder", hint="name another --out")
    former = read_settings(folder / SETTINGS)
    current = tomllib.loads(to_toml(settings))
    # A run that is done says there what `auto` came to.
    asked = {name for name in former.keys() | current.keys() if current.get(name) != "auto" or name not in former}
    different = sorted(name for name in asked if former.get(name) != current.get(name))
    if different:
        raise RunError(
            f"{folder} was started with other settings: {', '.join(different)}",
            hint=f"go on with pronk train --config {folder / SETTINGS} --out {folder} --resume, or name another --out",
        )
