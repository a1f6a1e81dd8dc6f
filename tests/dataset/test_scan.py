"""Files -> one verdict each: whatever lies in the folder, and whatever happens to it meanwhile."""

import contextlib
import os
import random
import tempfile
import threading
from collections import Counter
from pathlib import Path

import pytest

from helpers.bad_files import HOSTILE_NAMES, make_samples, write_hazards
from helpers.pictures import draw_picture, encode, write_pictures
from pronk.dataset.checkup import check
from pronk.dataset.listing import list_photos
from pronk.dataset.loading import load_dataset, write_split
from pronk.dataset.scan import scan_photos
from pronk.errors import Reason
from pronk.photos.decoding import decode
from pronk.storage.files import read_csv
from pronk.storage.segments import Segments, count_records


def verdict(scan):
    """Return the one verdict on a file that a scan comes to."""
    assert bool(scan.digest) == (scan.content is not None)
    if scan.content is not None:
        return Reason.OK_WITH_WARNING if scan.findings else Reason.OK
    (finding,) = scan.findings
    return Reason(finding.code)


@pytest.fixture
def corpus(tmp_path):
    """Two classes of good pictures, one of them full of bad files; with the verdict each file has to get."""
    root = write_pictures(tmp_path / "corpus", labels=("cat", "dog"), count=8)
    expected = {path.relative_to(root).as_posix(): Reason.OK for path in root.glob("*/*.jpg")}
    for sample in make_samples():
        (root / "cat" / sample.name).write_bytes(sample.data)
        expected[f"cat/{sample.name}"] = sample.verdict
    (root / "dog" / "hazards").mkdir()
    for name, reason in write_hazards(root / "dog" / "hazards").items():
        expected[f"dog/hazards/{name}"] = reason
    (root / "dog" / "names").mkdir()
    for number, name in enumerate(HOSTILE_NAMES):
        (root / "dog" / "names" / name).write_bytes(encode(draw_picture("dog", 500 + number)))
        expected[f"dog/names/{name}"] = Reason.OK_WITH_WARNING if name.endswith(" ") else Reason.OK
    (root / "-rf").mkdir()
    for number in range(4):
        (root / "-rf" / f"{number}.jpg").write_bytes(encode(draw_picture("-rf", number)))
        expected[f"-rf/{number}.jpg"] = Reason.OK
    (root / "empty class").mkdir()
    return root, expected


def snapshot(root):
    return {path: path.lstat().st_mtime_ns for path in root.rglob("*")}


def test_every_file_gets_its_verdict_and_the_data_set_loads(corpus, tmp_path):
    root, expected = corpus
    assert set(Reason) - set(expected.values()) == {Reason.CHANGED, Reason.LEAK}, "these no single look can give"
    before = snapshot(root)
    scans = scan_photos(list_photos(root))
    assert {scan.entry.path: verdict(scan) for scan in scans} == expected
    assert len(scans) == len(expected)
    for scan in scans:
        for finding in scan.findings:
            assert finding.path == scan.entry.path
            assert finding.message
            assert (finding.severity == "error") == (scan.content is None)
            assert finding.hint
    dataset = load_dataset(root)
    usable = {path for path, reason in expected.items() if reason in (Reason.OK, Reason.OK_WITH_WARNING)}
    assert {photo.path for photo in dataset.photos} == usable
    assert dataset.files == len(expected)
    assert dataset.classes == ("-rf", "cat", "dog")
    left_out = {finding.path: finding.code for finding in dataset.findings if finding.severity == "error"}
    assert left_out == {path: str(reason) for path, reason in expected.items() if path not in usable}
    write_split(tmp_path / "split.csv", dataset)
    assert [row["path"] for row in read_csv(tmp_path / "split.csv")] == [photo.path for photo in dataset.photos]
    again = load_dataset(root, split=tmp_path / "split.csv")
    assert again.photos == dataset.photos
    checked = check(root)
    assert checked.files == len(expected)
    assert checked.classes == Counter(path.split("/")[0] for path in usable)
    assert "empty_class" in {finding.code for finding in checked.findings}
    assert snapshot(root) == before


@contextlib.contextmanager
def as_nobody():
    """Give up root's right to read everything, where the tests run as root."""
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_unreadable_files_have_a_reason():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        Path(folder).chmod(0o755)
        root = write_pictures(Path(folder) / "photos", labels=("cat", "dog"), count=2)
        (root / "cat" / "cat_000.jpg").chmod(0)
        (root / "dog" / "sub").mkdir(mode=0)
        with as_nobody():
            scans = scan_photos(list_photos(root))
    codes = {scan.entry.path: scan.findings[0].code if scan.findings else None for scan in scans}
    assert codes == {
        "cat/cat_000.jpg": "unreadable",
        "cat/cat_001.jpg": None,
        "dog/dog_000.jpg": None,
        "dog/dog_001.jpg": None,
        "dog/sub": "not_regular_file",
    }


def test_files_may_change_while_they_are_looked_at(tmp_path):
    root = write_pictures(tmp_path / "photos", labels=("cat", "dog"), count=150, size=(64, 48))
    listed = list_photos(root)
    rng, stop = random.Random(0), threading.Event()

    def disturb():
        for entry in rng.sample(listed.entries, len(listed.entries)):
            path, kind = root / entry.path, rng.randrange(4)
            if kind == 0:
                path.unlink()
            elif kind == 1:
                os.truncate(path, rng.choice((0, 1, 500)))
            elif kind == 2:
                path.write_bytes(b"<html>")
            else:
                path.unlink()
                os.mkfifo(path)
            if stop.wait(0.0005):
                return

    def on_progress(stage, done, total):
        assert (stage, total) == ("check", 300)
        if done == 1:
            thread.start()

    thread = threading.Thread(target=disturb)
    scans = scan_photos(listed, on_progress=on_progress)
    stop.set()
    thread.join()
    assert [scan.entry for scan in scans] == list(listed.entries)
    verdicts = {verdict(scan) for scan in scans}
    assert Reason.OK in verdicts


def test_progress_counts_every_file(photo_folder):
    calls = []
    check(photo_folder, on_progress=lambda *call: calls.append(call))
    assert calls == [*(("check", n, 36) for n in range(1, 37)), ("compare", 36, 36)]


DAMAGES = (
    lambda data: b"{torn",
    lambda data: b"[]",
    lambda data: data.replace(b'"quality"', b'"beauty"'),
    lambda data: data.replace(b'"signs": "', b'"signs": "01'),
)


def test_what_was_seen_is_remembered_by_content(tmp_path, monkeypatch):
    root = write_pictures(tmp_path / "photos", labels=("cat", "dog"), count=3)
    (root / "cat" / "nothing.jpg").write_bytes(b"nothing")
    listing, memo = list_photos(root), tmp_path / "memo"
    first = scan_photos(listing, memo=memo)
    kept, (folder,) = [scan for scan in first if scan.content], {path.parent for path in memo.rglob("*.index")}
    assert count_records(memo) == len(kept) == 6, "what is not a picture is not kept"
    records = Segments(folder)
    for scan, damage in zip(kept, DAMAGES, strict=False):
        records.append(scan.digest, damage(records.read(scan.digest, 0)))
    decoded = []
    monkeypatch.setattr("pronk.dataset.scan.decode", lambda data, **side: decoded.append(1) or decode(data, **side))
    again = scan_photos(listing, memo=memo)
    assert len(decoded) == len(DAMAGES) + 1, "only what was damaged is looked at again"
    for before, after in zip(first, again, strict=True):
        assert (before.digest, before.findings) == (after.digest, after.findings)
        if before.content:
            assert before.content.properties == after.content.properties
            assert (before.content.signs == after.content.signs).all()
