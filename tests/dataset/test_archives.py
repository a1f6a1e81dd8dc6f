"""Zip and tar files as data: read in place, and never unpacked."""

import dataclasses
import hashlib
import io
import os
import shutil
import tarfile
import zipfile

import numpy as np
import pytest

from helpers.commands import fails, ok, run_inside
from helpers.training import tiny_settings, write_photos
from helpers.trees import grow_tree
from pronk.dataset.checkup import check
from pronk.dataset.listing import list_leniently, list_photos
from pronk.dataset.loading import load_dataset
from pronk.errors import DataError, ImageError, Reason
from pronk.photos.decoding import read_bytes
from pronk.storage.files import find_digest
from pronk.storage.sources import find_root, read_elsewhere, scan
from pronk.training.recipe import train

KINDS = ("zip", "tar")


def pack(folder, out, *, within=""):
    """Pack a folder as people do; `within` names a folder that all lies in."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    named = [(path, f"{within}/{path.relative_to(folder).as_posix()}".lstrip("/")) for path in files]
    if out.suffix == ".zip":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, name in named:
                archive.write(path, name)
    else:
        with tarfile.open(out, "w") as archive:
            for path, name in named:
                archive.add(path, name, recursive=False)
    return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("within", ["", "download"])
def test_an_archive_is_read_like_the_folder(tmp_path, kind, within):
    photos = write_photos(tmp_path / "photos", 8)
    packed = pack(photos, tmp_path / f"packed.{kind}", within=within)
    folder, archive = load_dataset(photos, seed=1), load_dataset(packed, seed=1)
    assert archive.photos == folder.photos, "with the same digests and parts"
    assert (archive.classes, archive.findings) == (folder.classes, folder.findings)
    assert archive.root == (packed / within if within else packed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(12))
def test_random_folders_come_out_the_same(tmp_path, kind, seed):
    tree = grow_tree(tmp_path / "tree", seed)
    for path in list(tree.root.rglob("*")):  # archives of people have neither
        if path.is_symlink() or (path.is_dir() and not any(path.rglob("*"))):
            path.unlink() if path.is_symlink() else shutil.rmtree(path, ignore_errors=True)
    assert any(path.is_file() for path in tree.root.rglob("*")), "each of these seeds draws something"
    packed = pack(tree.root, tmp_path / f"packed.{kind}")
    root = find_root(packed)
    wanted = list_leniently(tree.root / root.relative_to(packed))
    found = list_leniently(packed)
    assert (found.entries, found.classes) == (wanted.entries, wanted.classes)
    strip = lambda finding: dataclasses.replace(finding, message="", hint="")  # noqa: E731 - roots are named in some
    assert sorted(map(repr, map(strip, found.findings))) == sorted(map(repr, map(strip, wanted.findings)))
    one, other = check(packed), check(tree.root / root.relative_to(packed))
    assert (one.classes, one.files) == (other.classes, other.files)


def test_a_run_from_an_archive_is_that_of_the_folder(tmp_path, tiny_weights):
    photos = write_photos(tmp_path / "photos", 12)
    packed = pack(photos, tmp_path / "photos.zip")
    settings = tiny_settings(tiny_weights, frozen_only=True)
    options = {"settings": settings, "cache": tmp_path / "cache"}
    runs = [train(data, out=tmp_path / f"run-{data.name}", **options).folder for data in (photos, packed)]
    for name in ("predictions.csv", "split.csv"):
        assert (runs[0] / name).read_text() == (runs[1] / name).read_text()
    folders = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert folders == ["cache", "photos", "run-photos", "run-photos.zip"], "nothing was unpacked"
    predicted, evaluated = [], []
    for path in (photos, packed):
        answers = ok(run_inside("predict", runs[0], path, "--format", "jsonl"))
        predicted.append(answers.replace(str(path), ""))
        evaluated.append(ok(run_inside("evaluate", runs[0], path, "--json")))
    assert predicted[0] == predicted[1]
    assert evaluated[0] == evaluated[1]


def test_nothing_in_an_archive_is_changed(tmp_path):
    packed = pack(write_photos(tmp_path / "photos", 4), tmp_path / "photos.zip")
    before = packed.read_bytes()
    assert "it stays as it is" in fails(
        run_inside("check", packed, "--fix", "--quarantine", tmp_path / "aside"), code=2
    )
    assert packed.read_bytes() == before
    assert not (tmp_path / "aside").exists()


# zipfile itself takes the slash away that a name begins with.
OUTSIDE = [(kind, name) for kind in KINDS for name in ("../out.png", "a/../../x.png", "C:\\x.png", "a\\b.png")]


@pytest.mark.parametrize(("kind", "name"), [*OUTSIDE, ("tar", "/etc/x.png")])
def test_names_that_lead_out_of_it_are_refused(tmp_path, kind, name):
    path = tmp_path / f"bad.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, b"x")
    else:
        with tarfile.open(path, "w") as archive:
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(DataError, match="leads out of it"):
        scan(path)


def test_a_bomb_is_read_no_farther_than_a_photo_may_be_large(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("cats/1.png", "w") as file:
        for _ in range(101):
            file.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    with pytest.raises(ImageError) as caught:
        read_bytes(path / "cats" / "1.png")
    assert caught.value.reason == Reason.TOO_LARGE
    assert len(read_elsewhere(path / "cats" / "1.png", 10)) == 10


def test_damage_is_named(tmp_path):
    packed = pack(write_photos(tmp_path / "photos", 4), tmp_path / "photos.zip")
    data = bytearray(packed.read_bytes())
    (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="no whole archive"):
        list_photos(tmp_path / "cut.zip")
    start = zipfile.ZipFile(packed).infolist()[0].header_offset + 60
    data[start : start + 20] = bytes(20)
    (tmp_path / "spoiled.zip").write_bytes(data)
    dataset = load_dataset(tmp_path / "spoiled.zip")
    assert len(dataset.photos) == 7, "the other photos are there"
    assert [finding.severity for finding in dataset.findings].count("error") == 1


@pytest.mark.parametrize(("content", "code"), [(b"no archive at all", "not_an_image"), (None, "unsupported_format")])
def test_an_archive_among_the_photos_is_a_file_like_any_other(tmp_path, content, code):
    """Whole or not one, it is named as what it is, and the photos beside it are read."""
    photos = write_photos(tmp_path / "photos", 4)
    packed = pack(photos, tmp_path / "inner.zip")
    for name in ("inner.zip", "inner.tar"):
        (photos / "cold" / name).write_bytes(packed.read_bytes() if content is None else content)
    dataset = load_dataset(photos)
    assert len(dataset.photos) == 8
    errors = {finding.path: finding.code for finding in dataset.findings if finding.severity == "error"}
    assert errors == dict.fromkeys(("cold/inner.tar", "cold/inner.zip"), code)
    assert (
        find_digest(photos / "cold" / "inner.zip")
        == hashlib.sha256((photos / "cold" / "inner.zip").read_bytes()).hexdigest()
    )
    (tmp_path / "bad.zip").write_bytes(b"x")
    with pytest.raises(ImageError) as caught:  # a row with an error, not the end of all
        read_bytes(tmp_path / "bad.zip" / "1.png")
    assert caught.value.reason == Reason.UNREADABLE


def test_archives_beside_each_other_are_told_what_to_do_with(tmp_path):
    """One for each class is what some programs give out."""
    photos = write_photos(tmp_path / "photos", 4)
    (tmp_path / "zips").mkdir()
    for label in ("cold", "warm"):
        pack(photos / label, tmp_path / "zips" / f"{label}-samples.zip")
    findings = list_leniently(tmp_path / "zips").findings
    assert len(findings) == 2
    assert all("unpack it into a folder" in finding.hint for finding in findings)


def test_links_in_a_tar_are_no_photos(tmp_path):
    with tarfile.open(tmp_path / "links.tar", "w") as archive:
        info = tarfile.TarInfo("cats/passwd.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(ImageError, match="a link") as caught:
        read_bytes(tmp_path / "links.tar" / "cats" / "passwd.png")
    assert caught.value.reason == Reason.UNREADABLE


@pytest.mark.parametrize("name", ["photos.tar.gz", "photos.tgz", "photos.7z", "photos.rar"])
def test_what_can_only_be_read_from_its_start_says_what_to_do(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        list_photos(tmp_path / name)
    assert "unpack it" in caught.value.hint


def test_of_two_files_of_one_name_the_later_counts(tmp_path):
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("cats/1.png", b"old")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("cats/1.png", b"new")
    assert read_bytes(tmp_path / "twice.zip" / "cats" / "1.png") == b"new"
    assert [item.name for item in scan(tmp_path / "twice.zip" / "cats")] == ["1.png"]


def test_an_archive_that_was_replaced_is_opened_anew(tmp_path):
    path = tmp_path / "a.zip"
    for text in (b"one", b"three"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x", text)
        os.utime(path, ns=(len(text), len(text)))
        assert read_bytes(path / "x") == text


def test_threads_read_side_by_side(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    files = {f"cats/{i}.png": np.random.default_rng(i).bytes(20_000) for i in range(40)}
    for kind in KINDS:
        folder = tmp_path / kind
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        packed = pack(folder, tmp_path / f"packed.{kind}")
        with ThreadPoolExecutor(8) as pool:
            read = dict(zip(files, pool.map(lambda name, packed=packed: read_bytes(packed / name), files), strict=True))
        assert read == files
