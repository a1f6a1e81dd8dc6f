import contextlib
import io
import os
import re
import threading
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.pictures import draw_picture, encode
from pronk.errors import DataError, ImageError, RunError, StorageError
from pronk.photos.decoding import decode
from pronk.server.http_errors import HttpError
from pronk.server.workspace import PHOTO_ID, PhotoClass, check_name, find_fault, fold_name, open_workspace
from pronk.storage.files import lock_folder, write_atomically

posix_only = pytest.mark.skipif(os.name == "nt", reason="links and such names need rights there")
NAMES = st.text(max_size=12) | st.text(st.sampled_from("./\\: aA~%0*\0é\u0301\u200d\u202econ"), max_size=8)


@pytest.fixture
def workspace(tmp_path):
    with open_workspace(tmp_path / "work") as opened:
        yield opened


@pytest.fixture(scope="module")
def photo():
    return encode(draw_picture("circle", 1))


def refused(status, action, *arguments):
    with pytest.raises(HttpError) as caught:
        action(*arguments)
    assert caught.value.status == status, caught.value
    assert str(caught.value)
    assert caught.value.hint
    return str(caught.value)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "it is empty"), ("x" * 101, "101 bytes"), ("é" * 51, "102 bytes"), (".", "a dot"), ("..", "a dot"),
        (".hidden", "a dot"), (" cats", "a space"), ("../up", "a dot"), ("a/b", "do not take"), ("\ud800", "nobody"),
        ("a\0b", "nobody can see"), ("\u200d", "meaning"), ("Unknown", "a meaning of its own"), ("con", "Windows"),
    ],
)  # fmt: skip
def test_impossible_names_are_refused_with_the_reason(workspace, name, says):
    assert says in refused(422, workspace.create, name)
    assert files(workspace.photos) == []
    workspace.create("cats")
    assert says in refused(422, workspace.rename, "cats", name)
    assert [one.name for one in workspace.classes()] == ["cats"]


@pytest.mark.parametrize("other", ["müsli", "MÜSLI", "mu\u0308sli", "Mu\u0308\u200dsli"])
def test_case_and_form_do_not_tell_names_apart(workspace, photo, other):
    workspace.create("Müsli")
    assert "'Müsli' already" in refused(409, workspace.create, other)
    workspace.create("cats")
    refused(409, workspace.rename, "cats", other)
    workspace.add("Mu\u0308sli", photo)
    renamed = workspace.rename("Müsli", other)
    assert renamed.name == unicodedata.normalize("NFC", other)
    assert len(renamed.photos) == 1


@settings(max_examples=50, deadline=None)
@given(NAMES)
@example("..")
@example("con")
@example("\udcff")
def test_a_name_is_refused_or_is_one_plain_folder(tmp_path_factory, name):
    fault = find_fault(name)
    if fault:
        refused(422, check_name, name)
        return
    kept = check_name(name)
    assert not find_fault(kept)
    assert fold_name(kept) == fold_name(name)
    assert Path(kept).name == kept
    assert len(Path(kept).parts) == 1
    assert kept.encode()


@settings(max_examples=30, deadline=None)
@given(NAMES, NAMES, st.text(max_size=24) | st.from_regex(PHOTO_ID))
def test_nothing_outside_is_written_or_read(tmp_path_factory, name, new, photo_id):
    base = tmp_path_factory.mktemp("base")
    (base / "secret.jpg").write_bytes(b"secret")
    (base / "other").mkdir()
    picture = encode(draw_picture("circle", 1, (24, 24)))
    with open_workspace(base / "work") as workspace:
        for action in (
            lambda: workspace.create(name),
            lambda: workspace.add(name, picture),
            lambda: workspace.rename(name, new),
            lambda: workspace.add(new, picture),
            lambda: workspace.thumbnail(name, photo_id),
            lambda: workspace.remove(new, photo_id),
            lambda: workspace.add(None, picture),
            lambda: workspace.label(photo_id, name),
            lambda: workspace.thumbnail(None, photo_id),
            lambda: workspace.remove(None, photo_id),
            lambda: workspace.delete(name),
        ):
            with contextlib.suppress(HttpError):
                action()
        assert sorted(path.name for path in base.iterdir()) == ["other", "secret.jpg", "work"]
        own = [".lock", "cache", "photos", "runs", "unlabelled"]
        assert sorted(path.name for path in workspace.folder.iterdir()) == own
        assert (base / "secret.jpg").read_bytes() == b"secret"
        for path in workspace.photos.rglob("*"):
            depth = len(path.relative_to(workspace.photos).parts)
            assert path.is_dir() if depth == 1 else re.fullmatch(PHOTO_ID, path.name)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_every_format_gets_its_ending(workspace, kind):
    workspace.create("cats")
    photo_id = workspace.add("cats", encode(draw_picture("circle", 3), kind))
    assert re.fullmatch(PHOTO_ID, photo_id)
    thumbnail = decode(workspace.thumbnail("cats", photo_id))
    assert thumbnail.format == "JPEG"


def test_a_thumbnail_is_small_upright_and_silent(workspace):
    picture = Image.new("RGB", (640, 320), "red")
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    workspace.create("cats")
    data = workspace.thumbnail("cats", workspace.add("cats", encode(picture, exif=exif)))
    thumbnail = Image.open(io.BytesIO(data))
    assert thumbnail.size == (80, 160)
    assert not thumbnail.getexif()
    tiny = workspace.thumbnail("cats", workspace.add("cats", encode(Image.new("RGB", (3, 2)), "PNG")))
    assert decode(tiny).size == (3, 2)


def test_a_photo_that_was_damaged_on_disk_is_written_again(workspace, photo):
    workspace.create("cats")
    path = workspace.photos / "cats" / workspace.add("cats", photo)
    path.write_bytes(photo[:100])
    with pytest.raises(ImageError):
        workspace.thumbnail("cats", path.name)
    workspace.add("cats", photo)
    assert path.read_bytes() == photo


def test_deleting_a_class_takes_only_what_was_added_here(workspace, photo):
    workspace.create("cats")
    photo_id = workspace.add("cats", photo)
    folder = workspace.photos / "cats"
    for name in (".DS_Store", "Thumbs.db", f".{photo_id}.123-456.tmp"):
        (folder / name).touch()
    (folder / "holiday.jpg").write_bytes(photo)
    assert "'holiday.jpg'" in refused(409, workspace.delete, "cats")
    assert (folder / photo_id).exists(), "nothing is gone"
    (folder / "holiday.jpg").unlink()
    (folder / "more").mkdir()
    refused(409, workspace.delete, "cats")
    (folder / "more").rmdir()
    workspace.delete("cats")
    assert files(workspace.photos) == []


@posix_only
def test_links_lead_nowhere(workspace, photo, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.jpg").write_bytes(photo)
    workspace.create("cats")
    photo_id = workspace.add("cats", photo)
    (workspace.photos / "dogs").symlink_to(outside)
    assert [one.name for one in workspace.classes()] == ["cats"]
    refused(404, workspace.add, "dogs", photo)
    refused(404, workspace.delete, "dogs")
    refused(409, workspace.create, "dogs")
    linked = workspace.photos / "cats" / "0123456789abcdef.jpg"
    linked.symlink_to(outside / "secret.jpg")
    assert workspace.classes()[0].photos == (photo_id,)
    refused(404, workspace.thumbnail, "cats", linked.name)
    refused(404, workspace.remove, "cats", linked.name)
    refused(409, workspace.delete, "cats")
    (workspace.photos / "cats" / photo_id).unlink()
    (workspace.photos / "cats" / photo_id).symlink_to(outside / "secret.jpg")
    workspace.add("cats", photo)
    assert not (workspace.photos / "cats" / photo_id).is_symlink(), "the link was replaced, not followed"
    assert files(outside) == ["secret.jpg"]


@posix_only
def test_the_folders_of_the_work_folder_are_no_links(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "photos").symlink_to(tmp_path / "outside")
    with pytest.raises(StorageError, match="photos is a link to") as caught, open_workspace(tmp_path / "work"):
        pass
    assert "--work" in caught.value.hint
    (tmp_path / "linked").symlink_to(tmp_path / "outside")
    with open_workspace(tmp_path / "linked") as workspace:  # the folder itself may be one: it was named
        workspace.create("cats")
    assert (tmp_path / "outside" / "photos" / "cats").is_dir()


def test_a_work_folder_is_held_and_can_be_taken_up_again(tmp_path, photo):
    with open_workspace(tmp_path) as workspace:
        workspace.create("cats")
        photo_id = workspace.add("cats", photo)
        with pytest.raises(RunError, match=f"in use by process {os.getpid()}") as caught, open_workspace(tmp_path):
            pass
        assert "--work" in caught.value.hint
    (tmp_path / "photos" / "cats" / f".{photo_id}.1-2.tmp").touch()
    with open_workspace(tmp_path) as workspace:
        assert workspace.classes() == [PhotoClass("cats", (photo_id,))]
    assert files(tmp_path / "photos") == ["cats", f"cats/{photo_id}"]
    with lock_folder(tmp_path):
        pass


def test_what_cannot_be_written_is_said(tmp_path, photo, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"), open_workspace(tmp_path / "file"):
        pass
    with open_workspace(tmp_path / "work") as workspace:
        workspace.create("cats")

        def no_space(path, data):
            write_atomically(Path("/proc/nothing") if os.name != "nt" else Path("?:"), data)

        monkeypatch.setattr("pronk.server.workspace.write_atomically", no_space)
        with pytest.raises(StorageError):
            workspace.add("cats", photo)
        (workspace.photos / "cats").rmdir()
        workspace.photos.rmdir()
        for action in (workspace.classes, lambda: workspace.create("dogs")):
            with pytest.raises(StorageError):
                action()


def test_threads_do_not_disturb_each_other(workspace, photo):
    pictures = [encode(draw_picture("circle", seed, (24, 24)), "PNG") for seed in range(8)]
    workspace.create("cats")
    barrier, made = threading.Barrier(8), []

    def change(number):
        barrier.wait()
        workspace.add("cats", pictures[number])
        with contextlib.suppress(HttpError):
            made.append(workspace.create("Dogs" if number % 2 else "dogs"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(change, range(8)))
    assert len(made) == 1
    assert sorted(len(one.photos) for one in workspace.classes()) == [0, 8]


def fill(workspace, counts):
    for name, number in counts.items():
        workspace.create(name)
        for seed in range(number):
            workspace.add(name, encode(draw_picture(name, seed, (24, 24)), "PNG"))


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({}, "there is no class"),
        ({"cats": 9}, "only the class 'cats'"),
        ({"cats": 9, "dogs": 0}, "'dogs' has 0"),
        ({"cats": 4, "dogs": 5, "birds": 1}, "'birds' has 1, 'cats' has 4"),
    ],
)
def test_too_little_to_train_on(workspace, counts, says):
    fill(workspace, counts)
    assert says in refused(422, workspace.check_enough)


def test_classes_that_would_be_taken_for_parts(workspace):
    fill(workspace, {"train": 5, "test": 5})
    with pytest.raises(DataError, match="may be parts"):
        workspace.check_enough()


def test_enough_to_train_on(workspace, photo):
    fill(workspace, {"train": 5, "bus": 5})
    workspace.check_enough()
    workspace.create("birds")
    for number in range(5):
        (workspace.photos / "birds" / f"{number}.jpg").write_bytes(photo)
    workspace.check_enough()  # training takes these as well
    (workspace.photos / "CATS").mkdir()
    (workspace.photos / "Cats").mkdir()
    for name in ("CATS", "Cats"):
        for number in range(5):
            (workspace.photos / name / f"{number}.jpg").write_bytes(photo)
    if len(list(workspace.photos.iterdir())) == 5:  # on a system that tells them apart
        with pytest.raises(DataError, match="differ only in case"):
            workspace.check_enough()
