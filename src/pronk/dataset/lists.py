"""A list of photos as people and programs write it -> path, label and part of each row, and what was taken for what."""

import codecs
import csv
import dataclasses
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath

from pronk.dataset.findings import Finding, find
from pronk.dataset.layout import read_part
from pronk.errors import DataError
from pronk.photos.formats import SUFFIXES
from pronk.storage.remote import is_address
from pronk.storage.sources import is_there
from pronk.text import cause

# Names of columns, in small letters without spaces, hyphens and underscores.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "file", "filename", "filepath", "image", "imagepath"),
    "label": ("label", "class", "category"),
    "part": ("part", "split", "set", "subset"),
    "digest": ("digest",),
    "group": ("group",),
}
SEPARATORS = ",;\t"
MOST_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a list; digest and group are those of split.csv."""

    path: str
    label: str
    part: str | None = None
    digest: str = ""
    group: str = ""


def read_list(file: Path, *, root: Path | None = None, needs_part: bool = False) -> tuple[list[Row], list[Finding]]:
    """Read a CSV with a line per photo.

    Columns may have any of the names in COLUMNS, in any order and case, and any of SEPARATORS between them; the
    encoding is UTF-8 or UTF-16. Where a `root` is given, paths are looked for there: "\\\\" may stand for "/", and an
    ending or the spaces around a path may be too few or too many, where that leads to exactly one file.

    Returns:
        A row per line, and what was taken for what where the names are not pronk's own.

    Raises:
        DataError: naming the lines, if a path or label is missing or listed twice, or a part is none.
    """
    needed = ("path", "label", "part") if needs_part else ("path", "label")
    hint = f"the first line reads: {','.join(needed)}"
    try:
        text = _decode(file.read_bytes())
        separator = max(SEPARATORS, key=lambda one: _judge_header(next(_split(text, one), [])))
        header, *lines = list(_split(text, separator)) or [[]]
    except OSError as error:
        raise DataError(f"cannot read {file}: {cause(error)}", hint="check the path") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file} as CSV: {error}", hint=hint) from error
    roles = [_find_role(name) for name in header]
    for role, times in Counter(filter(None, roles)).items():
        if times > 1:
            names = ", ".join(repr(name) for name, found in zip(header, roles, strict=True) if found == role)
            raise DataError(f"{file}: each of the columns {names} could be the {role}", hint=f"keep one, as {role!r}")
    missing = [name for name in needed if name not in roles]
    if missing or not lines:
        columns = f"no rows with the columns {','.join(needed)}. Got {', '.join(header) or 'nothing'}"
        raise DataError(f"{file} has {columns if missing else 'no photos below its header'}", hint=hint)
    rows = _read_lines(file, lines, roles, _Paths(root) if root else None, needs_part=needs_part)
    return rows, _describe(file, header, roles)


def _decode(data: bytes) -> str:
    """Decode UTF-16 and UTF-8, with a byte order mark or without; what is neither stays as it is in names of files."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    zeros = data[:200:2].count(0), data[1:200:2].count(0)
    if max(zeros) > len(data[:200]) // 4:  # every second byte of Latin letters
        return data.decode("utf-16-be" if zeros[0] > zeros[1] else "utf-16-le")
    return data.decode("utf-8-sig", "surrogateescape")


def _split(text: str, separator: str) -> Iterator[list[str]]:
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    return (row for row in rows if any(cell.strip() for cell in row) or rows.line_num == 1)


def _find_role(name: str) -> str | None:
    plain = re.sub(r"[\s_-]", "", name).lower()
    return next((role for role, names in COLUMNS.items() if plain in names), None)


def _judge_header(header: Sequence[str]) -> tuple[int, int]:
    return len({_find_role(name) for name in header} - {None}), len(header)


def _describe(file: Path, header: Sequence[str], roles: Sequence[str | None]) -> list[Finding]:
    taken = [f"{name!r} as the {role}" for name, role in zip(header, roles, strict=True) if role and name != role]
    unused = [repr(name) for name, role in zip(header, roles, strict=True) if not role]
    said = [f"takes {', '.join(taken)}"] if taken else []
    said += [f"makes no use of {', '.join(unused)}"] if unused else []
    return [find("", "columns", f"of {file.name} pronk {', and '.join(said)}")] if said else []


def _read_lines(
    file: Path, lines: Sequence[Sequence[str]], roles: Sequence[str | None], paths: "_Paths | None", *, needs_part: bool
) -> list[Row]:
    rows, problems = [], []
    for number, line in enumerate(lines, start=2):
        cells = {role: cell for role, cell in zip(roles, line, strict=False) if role}
        name, label, given = cells.get("path", ""), cells.get("label", ""), cells.get("part", "")
        if paths:
            name, label = name.strip() if is_address(name.strip()) else paths.find(name), label.strip()
        part = read_part(given)
        if not name or not label:
            problems.append(f"line {number}: path or label is missing")
        elif any("\udc80" <= character <= "\udcff" for character in label):
            problems.append(f"line {number}: the label is not UTF-8; save the file as UTF-8")
        elif part is None and (given or needs_part):
            problems.append(f"line {number}: part must be train, val or test. Got {given!r}")
        else:
            plain = name if is_address(name) else Path(name).as_posix()
            rows.append(Row(plain, label, part, cells.get("digest", ""), cells.get("group", "")))
    listed = Counter(row.path for row in rows if paths)  # what pronk wrote itself tells photos by their digests
    problems += [f"{name} is listed twice" for name, times in listed.items() if times > 1]
    if problems:
        more = f"; and {len(problems) - MOST_SHOWN} more" if len(problems) > MOST_SHOWN else ""
        raise DataError(f"{file}: {'; '.join(problems[:MOST_SHOWN])}{more}", hint="correct these lines")
    return rows


class _Paths:
    """Finds the files that a list means, below its root; each folder is listed at most once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stems: dict[Path, dict[str, list[str]]] = {}

    def find(self, name: str) -> str:
        """Return the path of the file that is meant; one that leads nowhere as it is."""
        path = Path(name if self._exists(Path(name)) else name.strip())
        if not self._exists(path) and "\\" in name:
            path = Path(PureWindowsPath(name).as_posix())
        if not path.name.lower().endswith(SUFFIXES) and not self._exists(path):
            fitting = self._list_stems(path.parent).get(path.name, [])
            path = path.with_name(fitting[0]) if len(fitting) == 1 else path
        return path.as_posix() if name.strip() else ""

    def _exists(self, path: Path) -> bool:
        try:
            return is_there(self.root / path)
        except (OSError, ValueError):
            return False

    def _list_stems(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self.stems:
            found: dict[str, list[str]] = defaultdict(list)
            try:
                for path in (self.root / folder).iterdir():
                    if path.name.lower().endswith(SUFFIXES):
                        found[path.stem].append(path.name)
            except (OSError, ValueError):
                found.clear()
            self.stems[folder] = found
        return self.stems[folder]
