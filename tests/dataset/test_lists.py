"""Lists of photos as people and programs write them."""

import pytest

from pronk.dataset.listing import list_photos
from pronk.dataset.lists import read_list
from pronk.errors import DataError

ROWS = [("a/1.jpg", "cat", "train"), ("a/2.jpg", "dog", "test"), ("b/3.jpg", "n/a", "val")]


def write(path, header, rows, *, separator=",", encoding="utf-8"):
    text = "".join(separator.join(row) + "\n" for row in [header, *rows])
    path.write_bytes(text.encode(encoding))
    return path


def read(path, **options):
    rows, findings = read_list(path, root=path.parent, **options)
    return [(row.path, row.label, row.part) for row in rows], findings


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_any_separator_and_encoding(tmp_path, separator, encoding):
    rows = [(path, label + "é", part) for path, label, part in ROWS]
    path = write(tmp_path / "p.csv", ("path", "label", "part"), rows, separator=separator, encoding=encoding)
    assert read(path) == (rows, [])


@pytest.mark.parametrize("first", ["path", "file", "Filename", "file_name", "IMAGE", "image path"])
@pytest.mark.parametrize("second", ["label", "Class", "category"])
@pytest.mark.parametrize("third", ["part", "split", "Set", "subset"])
def test_columns_have_the_names_that_others_give_them(tmp_path, first, second, third):
    header = (first, second, third)
    rows, findings = read(write(tmp_path / "p.csv", header, ROWS))
    assert rows == ROWS
    taken = [name for name in header if name not in ("path", "label", "part")]
    assert all(repr(name) in findings[0].message for name in taken) if taken else not findings


def test_a_column_of_parts_is_heeded_and_an_unknown_one_named(tmp_path):
    header, rows = ("file", "class", "split", "width"), [(*row, "640") for row in ROWS]
    listing = list_photos(write(tmp_path / "p.csv", header, rows, separator=";"))
    assert [entry.part for entry in listing.entries] == ["train", "test", "val"]
    assert [finding.message for finding in listing.findings] == [
        "of p.csv pronk takes 'file' as the path, 'class' as the label, 'split' as the part,"
        " and makes no use of 'width'"
    ]


@pytest.mark.parametrize(
    ("value", "part"),
    [("train", "train"), ("Training", "train"), ("val", "val"), ("valid", "val"), ("VALIDATION", "val"),
     ("dev", "val"), ("test", "test"), ("Testing", "test"), ("", None)],
)  # fmt: skip
def test_values_of_parts(tmp_path, value, part):
    rows, _ = read(write(tmp_path / "p.csv", ("path", "label", "split"), [("1.jpg", "cat", value)]))
    assert rows == [("1.jpg", "cat", part)]


def test_two_columns_that_could_be_meant_are_an_error(tmp_path):
    path = write(tmp_path / "p.csv", ("path", "label", "class"), ROWS)
    with pytest.raises(DataError, match="'label', 'class' could be the label"):
        read_list(path)


def test_paths_from_windows_and_without_an_ending_find_their_file(tmp_path):
    for name in ("a/1.jpg", "a/2.png", "a/2.jpg", "b/3.jpeg", "b/with\\slash.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    given = ["a\\1.jpg", "a/1", "b\\3", "a/2", "b/with\\slash.jpg", "gone"]
    rows, _ = read(write(tmp_path / "p.csv", ("path", "label"), [(name, f"c{i}") for i, name in enumerate(given)][1:]))
    assert [path for path, _, _ in rows] == ["a/1.jpg", "b/3.jpeg", "a/2", "b/with\\slash.jpg", "gone"]
    rows, _ = read(write(tmp_path / "q.csv", ("path", "label"), [(given[0], "cat")]))
    assert rows[0][0] == "a/1.jpg"


def test_a_list_that_pronk_wrote_is_read_as_it_is(tmp_path):
    names = [" spaces .jpg ", "back\\slash.jpg", "no ending"]
    path = write(tmp_path / "split.csv", ("path", "label", "part"), [(name, " cat ", "train") for name in names])
    rows, _ = read_list(path, needs_part=True)
    assert [(row.path, row.label) for row in rows] == [(name, " cat ") for name in names]
