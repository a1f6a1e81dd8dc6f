"""Records of predictions -> a table, CSV, JSON, JSON lines or Parquet, row by row."""

import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pronk.errors import SettingsError, need_extra
from pronk.storage.files import format_csv_line, move_into_place, storage_error
from pronk.text import visible

FORMS = ("table", "csv", "json", "jsonl", "parquet")
SUFFIXES = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".parquet": "parquet", ".txt": "table"}
COLUMNS = ("path", "label", "score", "unknown", "distance", "error_code", "error_message")
ROWS_PER_GROUP = 8192

Record = dict[str, Any]


def choose_form(form: str | None, out: Path | None) -> str:
    """Return the form of rows: as given, or by the suffix, or a table; SettingsError where that cannot be."""
    if out and not form and out.suffix.lower() not in SUFFIXES:
        raise SettingsError(f"--out must end in {', '.join(SUFFIXES)}. Got {str(out)!r}", hint="or add --format")
    form = form or (SUFFIXES[out.suffix.lower()] if out else "table")
    if form == "parquet" and not out:
        raise SettingsError("parquet cannot go to stdout", hint=f"add --out FILE, or choose {', '.join(FORMS[:-1])}")
    return form


def list_columns(top: int, *, sets: bool = False) -> list[str]:
    """Name the columns of CSV and Parquet; the scores become label_1, score_1 and so on."""
    ranked = [f"{key}_{rank}" for rank in range(1, top + 1) for key in ("label", "score")]
    return [*COLUMNS, *(["set"] if sets else []), *ranked]


def flatten(record: Record) -> Record:
    """Give a record the fields of `list_columns`; those without a value may be missing."""
    flat = {key: value for key, value in record.items() if key not in ("scores", "error")}
    for rank, score in enumerate(record["scores"], start=1):
        flat |= {f"{key}_{rank}": value for key, value in score.items()}
    return flat | {f"error_{key}": value for key, value in (record["error"] or {}).items()}


def format_record(form: str, record: Record, columns: list[str]) -> str:
    """Return one record as a line: of a table, of CSV or of JSON lines."""
    if form == "jsonl":
        return json.dumps(record) + "\n"
    if form == "csv":
        flat = flatten(record)
        if "set" in flat:  # as JSON, since a class may have any character in its name
            flat["set"] = json.dumps(flat["set"])
        return format_csv_line([flat.get(column) for column in columns])
    name = visible(record["path"])
    if record["error"]:
        return f"{name}  error {record['error']['code']}: {visible(record['error']['message'])}\n"
    scores = "  ".join(f"{visible(score['label'])} {100 * score['score']:.1f} %" for score in record["scores"])
    shown = f"  of {{{', '.join(map(visible, record['set']))}}}" if "set" in record else ""
    return f"{name}  {'unknown  ' if record['unknown'] else ''}{scores}{shown}\n"


def write_text(form: str, records: Iterable[Record], columns: list[str]) -> Iterator[str]:
    """Yield records in one of FORMS but Parquet, piece by piece."""
    if form == "json":
        opening = "[\n"
        for record in records:
            yield opening + json.dumps(record)
            opening = ",\n"
        yield "\n]\n" if opening == ",\n" else "[]\n"
        return
    if form == "csv":
        yield format_csv_line(columns)
    for record in records:
        yield format_record(form, record, columns)


def save_records(out: Path, form: str, records: Iterable[Record], columns: list[str], *, work: Path) -> None:
    """Write records, taken one by one, to a file that is whole or absent; it grows in `work`, on the same disk."""
    growing = work / ".joined.tmp"
    try:
        with growing.open("wb") as file:
            if form == "parquet":
                _write_parquet(file, records, columns)
            for piece in write_text(form, records, columns) if form != "parquet" else ():
                file.write(piece.encode("utf-8", "surrogateescape"))
            file.flush()
            os.fsync(file.fileno())
        move_into_place(growing, out)
    except OSError as error:
        growing.unlink(missing_ok=True)
        raise storage_error(out, error) from error


def require_parquet() -> None:
    """Refuse before the work what would fail after it: without pyarrow a MissingExtra."""
    with need_extra("parquet", "writing Parquet"):
        import pyarrow.parquet  # noqa: F401


def _write_parquet(file: BinaryIO, records: Iterable[Record], columns: list[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    kinds: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "score": (pyarrow.float64(), float),
        "distance": (pyarrow.float64(), float),
        "unknown": (pyarrow.bool_(), bool),
        "set": (pyarrow.list_(pyarrow.string()), lambda names: [to_unicode(name) for name in names]),
    }
    kinds |= {column: kinds["score"] for column in columns if column.startswith("score_")}
    text = (pyarrow.string(), to_unicode)
    fields = [(column, *kinds.get(column, text)) for column in columns]
    # Parquet's text is UTF-8, which names of files need not be.
    schema = pyarrow.schema([*((column, kind) for column, kind, _ in fields), ("path_bytes", pyarrow.binary())])
    with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        rows = map(flatten, records)
        while chunk := list(itertools.islice(rows, ROWS_PER_GROUP)):
            arrays = [
                pyarrow.array([None if row.get(name) is None else turn(row[name]) for row in chunk], kind)
                for name, kind, turn in fields
            ]
            arrays.append(pyarrow.array([_undecodable_bytes(row["path"]) for row in chunk], pyarrow.binary()))
            writer.write_batch(pyarrow.record_batch(arrays, schema=schema))


def to_unicode(text: str) -> str:
    """Return a path as UTF-8, which the names of files need not be."""
    return visible(text) if _undecodable_bytes(text) else text


def _undecodable_bytes(path: str) -> bytes | None:
    try:
        path.encode()
    except UnicodeEncodeError:
        return path.encode("utf-8", "surrogateescape")
    return None
