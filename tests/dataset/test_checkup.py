"""Planted faults are found, clean photos are left in peace, and the page shows both."""

import dataclasses
import json
import re
import shutil

import pytest

from helpers.commands import run_inside
from helpers.pictures import draw_picture, encode, write_pictures
from helpers.planted import PHOTOS_PER_FAULT, compare, draw_clean, plant
from pronk import check
from pronk.dataset.checkup import checkup_record
from pronk.dataset.findings import SEVERITIES
from pronk.dataset.scan import look
from pronk.dataset.shortcuts import measure_shortcuts
from pronk.photos.decoding import load_image
from pronk.report.check_page import render_check


def found(checkup):
    return sorted((finding.code, finding.path) for finding in checkup.findings)


@pytest.mark.parametrize("per_kind", [3, pytest.param(10, marks=pytest.mark.more)])
def test_planted_faults_are_found_and_clean_photos_are_not_accused(tmp_path, per_kind):
    planted = plant(tmp_path / "photos", draw_clean(PHOTOS_PER_FAULT * per_kind + 15 * per_kind), per_kind=per_kind)
    assert len(planted.expected) == 20 * per_kind
    assert len({code for _, code in planted.expected}) == 19  # truncated JPEG and PNG share one
    missed, wrong = compare(planted, check(planted.root).findings)
    assert len(missed) <= len(planted.expected) // 100, missed
    assert len(wrong) <= len(planted.clean) // 100, wrong


@pytest.mark.more
def test_faults_among_real_photos_are_found(real_photos, tmp_path):
    photos = [load_image(file) for file in sorted(real_photos.glob("*/*"))]
    planted = plant(tmp_path / "photos", photos, per_kind=10)
    missed, wrong = compare(planted, check(planted.root).findings)
    assert len(missed) <= 2, missed
    # One photo of the real ones is blurred, and one is there twice.
    assert len(wrong) <= 3 + len(planted.clean) // 100, wrong


def test_clean_photos_have_no_findings(photo_folder):
    checkup = check(write_pictures(photo_folder, labels=("ring", "star"), count=4))
    assert set(found(checkup)) <= {("shortcut", "")}, "each shape is drawn in its own colour"
    few = check(write_pictures(photo_folder.parent / "few", count=4))
    assert not few.findings
    assert not few.matters
    assert few.classes == {"circle": 4, "square": 4, "triangle": 4}


def test_an_empty_folder_and_a_single_class(tmp_path):
    assert found(check(tmp_path)) == [("few_classes", "")]
    assert check(tmp_path).classes == {}
    write_pictures(tmp_path, labels=("cat",), count=3)
    assert found(check(tmp_path)) == [("few_classes", "")]


def test_the_same_picture_in_several_places_is_named_once_for_each_kind(tmp_path):
    for label in ("ant", "bee", "cat"):
        write_pictures(tmp_path, labels=(label,), count=3)
    data = encode(draw_picture("ant", 50))
    for name in ("ant/x.jpg", "bee/x.jpg", "bee/y.jpg", "bee/z.jpg", "cat/x.jpg"):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "cat" / "y.jpg").write_bytes(encode(draw_picture("cat", 1).resize((72, 54)), quality=70))
    checkup = check(tmp_path)
    near = [(copy.severity, copy.related) for copy in checkup.findings if copy.path == "cat/y.jpg"]
    assert near == [("info", ("cat/cat_001.jpg",))]
    assert [finding for finding in found(checkup) if finding[1] != "cat/y.jpg"] == [
        *(("exact_duplicate", f"bee/{name}.jpg") for name in "yz"),
        *(("label_conflict", f"bee/{name}.jpg") for name in "xyz"),
        ("label_conflict", "cat/x.jpg"),
    ]


def test_the_record_is_json_and_says_why(photo_folder):
    (photo_folder / "circle" / "bad.jpg").touch()
    record = json.loads(json.dumps(checkup_record(check(photo_folder))))
    assert list(record) == ["files", "classes", "findings", "shortcuts"]
    assert record["files"] == 37
    finding = record["findings"][0]
    assert list(finding) == ["path", "code", "severity", "message", "hint", "related", "why"]
    assert all(finding.values()) or not finding["related"]
    assert {row["severity"] for row in record["findings"]} <= set(SEVERITIES)
    assert [row["kind"] for row in record["shortcuts"]][:2] == ["file_size", "dimensions"]


HOSTILE = ("<script>alert(1)<_script>.jpg", "\u202egpj.exe", "{{ 7 * 7 }}.jpg", "caf\udce9.jpg", '"><img src=x>.jpg')


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    photo_folder = write_pictures(tmp_path_factory.mktemp("page") / "photos")
    for name in HOSTILE:
        (photo_folder / "circle" / name).write_bytes(encode(draw_picture("circle", len(name)), "PNG"))
    (photo_folder / "circle" / "<b>bad.jpg").touch()
    shutil.copy(photo_folder / "square/square_002.jpg", photo_folder / "triangle/wrong.jpg")
    for number in range(220):
        (photo_folder / "square" / f"empty_{number}.jpg").touch()
    return render_check(check(photo_folder), title="<Pets>", data="photos")


def test_the_page_is_one_file_without_scripts(page):
    assert "<h1>&lt;Pets&gt;</h1>" in page
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert not re.search(r'(src|href)="(?!data:image/jpeg;base64,|#)', page)
    page.encode()
    assert "\u202e" not in page
    assert "<b>bad" not in page
    assert "{{ 7 * 7 }}" in page


def test_the_page_says_what_why_and_what_to_do(page):
    assert "Empty files" in page
    assert "There is no picture in it" in page
    assert "<strong>Copy the photo again.</strong>" in page
    assert "pronk check photos --fix --quarantine set-aside" in page
    assert (
        page.index("Empty files") < page.index("The same picture in two classes") < page.index("Names that do not fit")
    )


def test_pairs_are_shown_side_by_side_long_lists_end_and_shortcuts_follow(page):
    conflict = page[page.index('id="label_conflict"') :]
    card = conflict[conflict.index("<article") : conflict.index("</article>")]
    assert card.index('alt="square/square_002.jpg"') < card.index('alt="triangle/wrong.jpg"')
    assert card.count("data:image/jpeg") == 2
    assert "And 21 more" in page
    shortcuts = page[page.index('<section id="shortcuts"') :]
    assert "by the mean colour alone" in shortcuts
    assert shortcuts.count('class="bar"') == 7


def test_the_page_of_a_folder_without_photos(tmp_path):
    page = render_check(check(tmp_path), title="empty", data="empty")
    assert "Fewer than two classes" in page
    assert "Too few photos to tell" in page
    assert "--fix" not in page


def test_the_record_is_json_whatever_warns(tmp_path):
    """A shortcut of all classes together, of none alone, once was a number that JSON does not know."""
    sides = [look(encode(draw_picture("circle", 1, (side, side)))).properties for side in (100, 200, 300, 400)]
    found = measure_shortcuts(sides * 40, ["a", "b", "a", "b"] * 40, range(160))
    assert {type(shortcut.warns) for shortcut in found} == {bool}
    assert any(shortcut.warns for shortcut in found)
    json.dumps([dataclasses.asdict(shortcut) for shortcut in found])


@pytest.mark.parametrize("command", ["check", "audit", "curve"])
def test_no_page_is_written_among_the_photos(photo_folder, command):
    before = sorted(photo_folder.rglob("*"))
    done = run_inside(command, photo_folder, "--html", photo_folder / "circle" / "page.html")
    assert done.returncode == 2
    assert b"--html must lie outside of the photos" in done.stderr
    assert sorted(photo_folder.rglob("*")) == before
