"""Features of photos -> CSV, JSON lines or Parquet, row by row, in a file that is whole or absent."""

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pronk.batch.tables import require_parquet, to_unicode
from pronk.errors import ImageError, SettingsError
from pronk.model.embedding import Embedded
from pronk.progress import Progress, no_progress
from pronk.storage.files import choose_temporary, format_csv_line, move_into_place, storage_error
from pronk.storage.remote import is_remote

SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}
ROWS_PER_GROUP = 4096

Failed = list[tuple[str, ImageError]]


def choose_form(form: str | None, out: Path) -> str:
    """Return the form of a file: as given, or by its suffix.

    Raises:
        SettingsError: where neither tells, or the file is there already.
        MissingExtra: without pyarrow, for Parquet.
    """
    if out.exists() or (not is_remote(out) and out.is_symlink()):
        raise SettingsError(f"--out {out} exists and is not overwritten", hint="name another file")
    if form is None and out.suffix.lower() not in SUFFIXES:
        raise SettingsError(f"--out must end in {', '.join(SUFFIXES)}. Got {str(out)!r}", hint="or add --format")
    form = form or SUFFIXES[out.suffix.lower()]
    if form == "parquet":
        require_parquet()
    return form


def save_vectors(
    out: Path, form: str, found: Iterable[Embedded], total: int, *, on_progress: Progress = no_progress
) -> Failed:
    """Write path, digest and features of photos as they come; return those that cannot be used.

    CSV has a column per feature, feature_0 and so on; JSON lines and Parquet have a list, of float32 in the latter.
    Progress is told as ("extract", done, total).

    Raises:
        StorageError: if the file cannot be written; then there is none.
    """
    failed: Failed = []

    def watch() -> Iterator[Embedded]:
        for done, one in enumerate(found, start=1):
            on_progress("extract", done, total)
            if one.error:
                failed.append((one.path, one.error))
            else:
                yield one

    growing = choose_temporary(out)
    try:
        with growing.open("wb") as file:
            if form == "parquet":
                _write_parquet(file, watch())
            for line in _format(form, watch()) if form != "parquet" else ():
                file.write(line.encode("utf-8", "surrogateescape"))
            file.flush()
            os.fsync(file.fileno())
        move_into_place(growing, out)
    except OSError as error:
        raise storage_error(out, error) from error
    finally:
        growing.unlink(missing_ok=True)
    return failed


def _format(form: str, found: Iterator[Embedded]) -> Iterator[str]:
    for number, one in enumerate(found):
        assert one.features is not None, "those without are left out"
        values = one.features.tolist()
        if form == "jsonl":
            yield json.dumps({"path": one.path, "digest": one.digest, "features": values}) + "\n"
            continue
        if number == 0:
            yield format_csv_line(["path", "digest", *(f"feature_{i}" for i in range(len(values)))])
        yield format_csv_line([one.path, one.digest, *(f"{value:.9g}" for value in values)])


def _write_parquet(file: BinaryIO, found: Iterator[Embedded]) -> None:
    import pyarrow
    import pyarrow.parquet

    text, vector = pyarrow.string(), pyarrow.list_(pyarrow.float32())
    schema = pyarrow.schema([("path", text), ("digest", text), ("features", vector)])
    with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        while chunk := list(itertools.islice(found, ROWS_PER_GROUP)):
            columns: list[Any] = [
                pyarrow.array([to_unicode(one.path) for one in chunk], text),
                pyarrow.array([one.digest for one in chunk], text),
                pyarrow.array([one.features for one in chunk], vector),
            ]
            writer.write_batch(pyarrow.record_batch(columns, schema=schema))
