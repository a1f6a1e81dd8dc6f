"""Folder of photos -> Dataset: nothing leaks, given parts win, hopeless folders are refused with a hint."""

import hashlib
import shutil
from collections import Counter, defaultdict
from itertools import cycle

import numpy as np
import pytest

from helpers.pictures import LABELS, draw_picture, encode, write_pictures
from helpers.planted import ALTERED
from pronk.dataset.findings import find
from pronk.dataset.layout import read_part
from pronk.dataset.loading import load_dataset, load_unsplit, read_split_file, write_split
from pronk.errors import DataError, Reason
from pronk.photos.drawing import DEMO_KINDS, draw_photo
from pronk.storage.files import read_csv, write_csv


def parts(dataset):
    return {photo.path: photo.part for photo in dataset.photos}


def codes(dataset):
    return Counter(finding.code for finding in dataset.findings)


def write_csv_of(root, name, rows):
    write_csv(root / name, ["path", "label", "part"], rows)
    return root / name


def assert_no_group_straddles(dataset):
    by_group = defaultdict(set)
    for photo in dataset.photos:
        by_group[photo.group].add(photo.part)
    assert all(len(found) == 1 for found in by_group.values())


def test_a_folder_of_class_folders(photo_folder):
    dataset = load_dataset(photo_folder)
    assert dataset.classes == LABELS
    assert dataset.counts == {"train": 24, "val": 6, "test": 6}
    assert set(map(str, map(dict.values, dataset.counts_by_class.values()))) == {"dict_values([8, 2, 2])"}
    assert not dataset.findings
    assert dataset.files == 36
    assert [photo.path for photo in dataset.photos][:2] == ["circle/circle_000.jpg", "circle/circle_001.jpg"]
    assert dataset.targets(dataset.photos).tolist() == [0] * 12 + [1] * 12 + [2] * 12
    assert dataset.targets(dataset.photos).dtype == np.int64
    assert len(dataset.part("val")) == 6
    assert load_dataset(photo_folder, test=0).counts == {"train": 30, "val": 6, "test": 0}
    less = dataset.without([find("circle/circle_000.jpg", "changed", "was replaced")])
    assert (len(less.photos), codes(less), len(dataset.photos)) == (35, {Reason.CHANGED: 1}, 36)


def test_same_seed_same_split_whatever_the_names(photo_folder, tmp_path):
    first = load_dataset(photo_folder, seed=3)
    assert load_dataset(photo_folder, seed=3) == first
    assert parts(load_dataset(photo_folder, seed=4)) != parts(first)
    renamed = tmp_path / "renamed"
    for number, photo in enumerate(sorted(first.photos, key=lambda photo: photo.digest)):
        (renamed / photo.label).mkdir(parents=True, exist_ok=True)
        shutil.copy(photo_folder / photo.path, renamed / photo.label / f"{number}.jpg")
    by_digest = [{photo.digest: photo.part for photo in dataset.photos} for dataset in (first, load_dataset(renamed))]
    assert by_digest[0] == {photo.digest: photo.part for photo in load_dataset(renamed, seed=3).photos}
    assert by_digest[0] != by_digest[1]


def test_of_200_planted_copies_none_straddles_the_split(tmp_path):
    ways = cycle((*ALTERED[:3], ALTERED[-1]))  # smaller, worse, mirrored, lossless
    for number, kind in zip(range(100), cycle(DEMO_KINDS), strict=False):
        image = draw_photo(kind, np.random.default_rng(number), (160, 120))
        (tmp_path / "photos" / kind).mkdir(parents=True, exist_ok=True)
        for data in (encode(image, quality=92), next(ways)(image), next(ways)(image)):
            digest = hashlib.sha256(data).hexdigest()  # so that the order of names tells nothing
            (tmp_path / "photos" / kind / f"{digest[:9]}_{number}.jpg").write_bytes(data)
    for seed in range(3):
        dataset = load_dataset(tmp_path / "photos", seed=seed, memo=tmp_path / "memo")
        parts_of = defaultdict(set)
        for photo in dataset.photos:
            parts_of[photo.path.rsplit("_", 1)[1]].add(photo.part)
        assert len(dataset.photos) == 300
        assert [len(found) for found in parts_of.values()] == [1] * 100
        assert min(dataset.counts.values()) >= 30


def test_the_same_picture_in_two_classes_is_named_and_stays_together(photo_folder):
    shutil.copy(photo_folder / "circle/circle_000.jpg", photo_folder / "square/other.jpg")
    for seed in range(3):
        dataset = load_dataset(photo_folder, seed=seed)
        assert codes(dataset) == {"label_conflict": 1}
        assert parts(dataset)["circle/circle_000.jpg"] == parts(dataset)["square/other.jpg"]


def test_group_by_keeps_frames_together(photo_folder):
    for seed in range(2):
        dataset = load_dataset(photo_folder, group_by=r"_0(\d\d)", seed=seed, val=0.3, test=0.3)
        by_number = defaultdict(set)
        for photo in dataset.photos:
            by_number[photo.path[-6:]].add(photo.part)
        assert all(len(found) == 1 for found in by_number.values())
        assert len({photo.group for photo in dataset.photos}) == 12
    with pytest.raises(DataError, match="not a regular expression"):
        load_dataset(photo_folder, group_by="(")


def arrange(photo_folder, root, folders):
    """Copy class folders into part folders, photos dealt out by turns."""
    for label in LABELS:
        for number, file in enumerate(sorted((photo_folder / label).iterdir())):
            target = root / folders[number % len(folders)] / label
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    return root


@pytest.mark.parametrize(
    ("folders", "counts"),
    [
        (("train", "val", "test"), {"train": 12, "val": 12, "test": 12}),
        (("Training", "VALIDATION", "testing"), {"train": 12, "val": 12, "test": 12}),
        (("train", "valid"), {"train": 18, "val": 18, "test": 0}),
        (("train", "train", "train", "test"), {"train": 21, "val": 6, "test": 9}),  # what is missing comes from train
        (("train",), {"train": 30, "val": 6, "test": 0}),  # but no test part does
    ],
)
def test_given_folders_are_kept(photo_folder, tmp_path, folders, counts):
    dataset = load_dataset(arrange(photo_folder, tmp_path / "data", folders), val=0.2 if "test" in folders else 0.15)
    assert (dataset.classes, dataset.counts) == (LABELS, counts)
    for photo in dataset.photos:
        given = read_part(photo.path.split("/")[0])
        assert photo.part == given or (given, photo.part) == ("train", "val")


def test_given_parts_that_leak_are_left_out(photo_folder, tmp_path):
    data = arrange(photo_folder, tmp_path / "data", ("train", "train", "val", "test"))
    shutil.copy(data / "test/circle/circle_003.jpg", data / "train/circle/exact.jpg")
    small = draw_picture("circle", 2).resize((72, 54))
    (data / "train/circle/near.jpg").write_bytes(encode(small))
    shutil.copy(data / "test/square/square_003.jpg", data / "val/square/exact.jpg")
    dataset = load_dataset(data)
    leaks = {finding.path: finding for finding in dataset.findings if finding.code == Reason.LEAK}
    assert set(leaks) == {"train/circle/exact.jpg", "train/circle/near.jpg", "val/square/exact.jpg"}
    assert all(finding.severity == "error" and finding.hint for finding in leaks.values())
    assert not set(leaks) & set(parts(dataset))
    assert len(dataset.photos) == 36
    assert_no_group_straddles(dataset)


def test_csv_without_and_with_parts(photo_folder):
    names = [(f"{label}/{label}_{n:03d}.jpg", label, n) for label in LABELS for n in range(12)]
    file = write_csv_of(photo_folder, "plain.csv", [{"path": path, "label": label} for path, label, _ in names])
    assert parts(load_dataset(file)) == parts(load_dataset(photo_folder))
    dealt = ("train", "train", "val", "test")
    rows = [{"path": path, "label": label, "part": dealt[n % 4]} for path, label, n in names]
    dataset = load_dataset(write_csv_of(photo_folder, "full.csv", rows))
    assert parts(dataset) == {row["path"]: row["part"] for row in rows}
    rows = [row | {"part": "train" if number % 12 < 6 else ""} for number, row in enumerate(rows)]
    dataset = load_dataset(write_csv_of(photo_folder, "some.csv", rows))
    assert {parts(dataset)[row["path"]] for row in rows if row["part"]} == {"train"}
    assert dataset.counts == {"train": 24, "val": 6, "test": 6}


def test_findings_and_shortcuts_of_the_photos_come_along(photo_folder):
    (photo_folder / "circle" / "small?.jpg").write_bytes(encode(draw_picture("circle", 77, (48, 30))))
    dataset = load_dataset(photo_folder)
    assert codes(dataset) == {"odd_name": 1, "tiny": 1}
    assert "circle/small?.jpg" in parts(dataset)
    warns = {shortcut.kind: shortcut.warns for shortcut in dataset.shortcuts}
    assert warns["colour"], "each shape has its colour"
    assert not warns["camera"]
    assert load_unsplit(photo_folder).shortcuts == dataset.shortcuts


def test_a_former_split_is_kept_and_new_photos_are_assigned(photo_folder, tmp_path):
    former = load_dataset(photo_folder, seed=1)
    write_split(tmp_path / "split.csv", former)
    assert read_split_file(tmp_path / "split.csv") == former.photos
    assert list(read_csv(tmp_path / "split.csv")[0]) == ["path", "label", "part", "digest", "group"]
    write_pictures(photo_folder, count=12, start=12)
    (photo_folder / "circle/circle_000.jpg").unlink()
    dataset = load_dataset(photo_folder, seed=9, split=tmp_path / "split.csv")
    kept = {path: part for path, part in parts(former).items() if path != "circle/circle_000.jpg"}
    assert {path: part for path, part in parts(dataset).items() if path in kept} == kept
    assert dataset.counts == {"train": 49, "val": 11, "test": 11}


def test_a_former_split_goes_before_folders_and_folders_before_chance(photo_folder, tmp_path):
    data = arrange(photo_folder, tmp_path / "data", ("train", "train", "train", "test"))
    former = load_dataset(data)
    write_split(tmp_path / "split.csv", former)
    for label in LABELS:
        for part in ("train", "test"):
            for number in range(100, 104):
                new = encode(draw_picture(label, number + 10 * (part == "test")))
                (data / part / label / f"{part}{number}.jpg").write_bytes(new)
    dataset = load_dataset(data, split=tmp_path / "split.csv")
    assert {path: parts(dataset)[path] for path in parts(former)} == parts(former)
    for path, part in parts(dataset).items():
        assert (part == "test") == path.startswith("test/")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot read .*: No such file"),
        ("", "no rows"),
        ("path,label\na,b\n", "columns path,label,part"),
        ("path,label,part\na,b,some\n", "part must be train, val or test. Got 'some'"),
        ("path,label,part\na,b\nc,d,x\n", "line 2: part must be .* Got ''; line 3: .* Got 'x'"),
        ("path,label,part\n" + "x" * 200_000 + ",b,train\n", "cannot read .* as CSV"),
        ("path,label,part\nphotos/circle/circle_000.jpg,circle,train\n", "no photo in .* is named in"),
    ],
)
def test_a_faulty_split_is_an_error(photo_folder, tmp_path, text, said):
    file = tmp_path / "split.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DataError, match=said) as caught:
        load_dataset(photo_folder, split=file)
    assert caught.value.hint


PHOTO = encode(draw_picture("circle", 1))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: write_pictures(root, labels=("Cat", "cat")), "differ only in case"),
        (
            lambda root: [path.write_bytes(b"no photo") for path in write_pictures(root, count=2).glob("*/*")],
            "none of 6 files .* is usable: 6 not_an_image",
        ),
        (lambda root: [path.write_bytes(PHOTO) for path in write_pictures(root).glob("*/*")], "no photo left for val"),
        (lambda root: write_pictures(root, labels=("cat", "dog"), count=1), "no photo left for val"),
        (
            lambda root: write_pictures(write_pictures(root, labels=("cat", "dog")), labels=("ant",), count=1),
            "class 'ant' with no photo left for val",
        ),
    ],
)
def test_data_sets_that_cannot_be_trained_on(tmp_path, make, said):
    make(tmp_path / "photos")
    with pytest.raises(DataError, match=said) as caught:
        load_dataset(tmp_path / "photos")
    assert caught.value.hint


def test_a_class_of_two_is_a_warning(photo_folder):
    write_pictures(photo_folder, labels=("pair",), count=2)
    dataset = load_dataset(photo_folder)
    assert dataset.counts_by_class["pair"] == {"train": 1, "val": 1, "test": 0}
    assert [(f.code, f.severity) for f in dataset.findings] == [("imbalance", "info"), ("thin_class", "warning")]
