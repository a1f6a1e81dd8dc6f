"""Folder of photos -> Dataset: nothing leaks, given parts win, hopeless folders are refused with a hint."""

import shutil
from collections import Counter, defaultdict
from itertools import cycle

import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers.pictures import LABELS, draw_picture, encode, write_pictures
from pronk.dataset.listing import PART_FOLDERS
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


# Class folders


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


def test_no_test_part(photo_folder):
    dataset = load_dataset(photo_folder, test=0)
    assert dataset.counts == {"train": 30, "val": 6, "test": 0}
    assert not dataset.findings


def test_without_leaves_out_and_remembers(photo_folder):
    from pronk.dataset.findings import changed

    dataset = load_dataset(photo_folder)
    less = dataset.without([changed("circle/circle_000.jpg")])
    assert len(less.photos) == 35
    assert codes(less) == {Reason.CHANGED: 1}
    assert len(dataset.photos) == 36


# Copies


def plant_copies(photos, root):
    """Write each photo and two altered copies of it under unrelated names; return the number of copies."""
    ways = cycle(
        [
            lambda image, path: image.resize((image.width // 2, image.height // 2)).save(path, quality=85),
            lambda image, path: image.save(path, quality=40),
            lambda image, path: ImageOps.mirror(image).save(path, quality=90),
            lambda image, path: image.save(path.with_suffix(".png")),
        ]
    )
    planted = 0
    for number, (label, image, data) in enumerate(photos):
        folder = root / label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(data)
        for copy in range(2):
            next(ways)(image, folder / f"{number * 7919 % 1000}_{copy}_copy_of_{number}.jpg")
            planted += 1
        if number % 10 == 0:
            (folder / f"{number}_exact.jpg").write_bytes(data)
    return planted


def count_straddling(dataset):
    """Count planted copies that are in another part than their original."""
    original = {photo.path.split("/")[1].removesuffix(".jpg"): photo.part for photo in dataset.photos}
    straddling = 0
    for photo in dataset.photos:
        name = photo.path.split("/")[1].rsplit(".", 1)[0]
        number = name.split("_")[-1] if "copy_of" in name else name.removesuffix("_exact")
        straddling += photo.part != original[number]
    return straddling


def test_of_200_planted_copies_none_straddles_the_split(tmp_path):
    drawn = []
    for number, kind in zip(range(100), cycle(DEMO_KINDS), strict=False):
        image = draw_photo(kind, np.random.default_rng(number), (160, 120))
        drawn.append((kind, image, encode(image, quality=92)))
    assert plant_copies(drawn, tmp_path) == 200
    for seed in range(3):
        dataset = load_dataset(tmp_path, seed=seed)
        assert len(dataset.photos) == 310
        assert count_straddling(dataset) == 0
        assert_no_group_straddles(dataset)
        assert min(dataset.counts.values()) >= 30


@pytest.mark.more
def test_of_200_copies_of_real_photos_none_straddles_the_split(real_photos, tmp_path):
    files = sorted(real_photos.glob("*/*"))[::3][:100]
    photos = []
    for file in files:
        with Image.open(file) as image:
            image = ImageOps.exif_transpose(image).convert("RGB")
            image.thumbnail((480, 480))
        photos.append((file.parent.name, image, encode(image, quality=92)))
    planted = plant_copies(photos, tmp_path)
    assert planted == 200
    assert count_straddling(load_dataset(tmp_path)) == 0


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


# Given parts


def arrange(photo_folder, root, folders):
    """Copy class folders into part folders, photos dealt out by turns."""
    for label in LABELS:
        for number, file in enumerate(sorted((photo_folder / label).iterdir())):
            target = root / folders[number % len(folders)] / label
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    return root


@pytest.mark.parametrize(
    "folders", [("train", "val", "test"), ("Training", "VALIDATION", "testing"), ("train", "valid")]
)
def test_given_folders_are_kept(photo_folder, tmp_path, folders):
    dataset = load_dataset(arrange(photo_folder, tmp_path / "data", folders))
    assert dataset.classes == LABELS
    assert len(dataset.photos) == 36
    for photo in dataset.photos:
        assert photo.part == PART_FOLDERS[photo.path.split("/")[0].lower()]


def test_given_train_and_test_val_is_taken_from_train(photo_folder, tmp_path):
    dataset = load_dataset(arrange(photo_folder, tmp_path / "data", ("train", "train", "train", "test")), val=0.2)
    for photo in dataset.photos:
        assert photo.part in (("test",) if photo.path.startswith("test") else ("train", "val"))
    assert dataset.counts == {"train": 21, "val": 6, "test": 9}


def test_given_train_alone_no_test_part_is_made(photo_folder, tmp_path):
    dataset = load_dataset(arrange(photo_folder, tmp_path / "data", ("train",)))
    assert dataset.counts == {"train": 30, "val": 6, "test": 0}


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


def test_csv_with_some_parts_keeps_them_and_assigns_the_rest(photo_folder):
    rows = [
        {"path": f"{label}/{label}_{n:03d}.jpg", "label": label, "part": "train" if n < 6 else ""}
        for label in LABELS
        for n in range(12)
    ]
    dataset = load_dataset(write_csv_of(photo_folder, "some.csv", rows))
    assert {parts(dataset)[row["path"]] for row in rows if row["part"]} == {"train"}
    assert dataset.counts == {"train": 24, "val": 6, "test": 6}


def test_csv_paths_that_are_not_there_are_vanished(photo_folder):
    rows = [{"path": f"{label}/{label}_{n:03d}.jpg", "label": label} for label in LABELS for n in range(13)]
    dataset = load_dataset(write_csv_of(photo_folder, "more.csv", rows))
    assert codes(dataset) == {Reason.VANISHED: 3}
    assert dataset.files == 39


# What a checkup tells, too


def test_findings_and_shortcuts_of_the_photos_come_along(photo_folder):
    (photo_folder / "circle" / "small?.jpg").write_bytes(encode(draw_picture("circle", 77, (48, 30))))
    dataset = load_dataset(photo_folder)
    assert codes(dataset) == {"odd_name": 1, "tiny": 1}
    assert "circle/small?.jpg" in parts(dataset)
    told = {shortcut.kind: shortcut.warns for shortcut in dataset.shortcuts}
    assert told["colour"], "each shape has its colour"
    assert not told["camera"]
    assert load_unsplit(photo_folder).shortcuts == dataset.shortcuts


# A former split


def test_a_former_split_is_kept_and_new_photos_are_assigned(photo_folder, tmp_path):
    former = load_dataset(photo_folder, seed=1)
    write_split(tmp_path / "split.csv", former)
    write_pictures(photo_folder, count=12, start=12)
    (photo_folder / "circle/circle_000.jpg").unlink()
    dataset = load_dataset(photo_folder, seed=9, split=tmp_path / "split.csv")
    kept = {path: part for path, part in parts(former).items() if path != "circle/circle_000.jpg"}
    assert {path: part for path, part in parts(dataset).items() if path in kept} == kept
    assert dataset.counts == {"train": 49, "val": 11, "test": 11}


def test_a_copy_of_a_former_photo_joins_its_part(photo_folder, tmp_path):
    former = load_dataset(photo_folder)
    write_split(tmp_path / "split.csv", former)
    for photo in former.photos:
        shutil.copy(photo_folder / photo.path, photo_folder / photo.label / f"copy_{photo.path.split('/')[1]}")
    dataset = load_dataset(photo_folder, split=tmp_path / "split.csv")
    assert_no_group_straddles(dataset)
    assert dataset.counts == {"train": 48, "val": 12, "test": 12}


def test_a_former_split_goes_before_folders_and_folders_before_chance(photo_folder, tmp_path):
    data = arrange(photo_folder, tmp_path / "data", ("train", "train", "train", "test"))
    former = load_dataset(data)
    write_split(tmp_path / "split.csv", former)
    for label in LABELS:
        for part in ("train", "test"):
            for number in range(100, 104):
                (data / part / label / f"{part}{number}.jpg").write_bytes(
                    encode(draw_picture(label, number + 10 * (part == "test")))
                )
    dataset = load_dataset(data, split=tmp_path / "split.csv")
    assert {path: parts(dataset)[path] for path in parts(former)} == parts(former)
    for path, part in parts(dataset).items():
        assert (part == "test") == path.startswith("test/")


def test_split_columns_are_those_of_the_run_folder(photo_folder, tmp_path):
    dataset = load_dataset(photo_folder)
    write_split(tmp_path / "split.csv", dataset)
    assert read_split_file(tmp_path / "split.csv") == dataset.photos
    assert list(read_csv(tmp_path / "split.csv")[0]) == ["path", "label", "part", "digest", "group"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot read the split"),
        ("", "no rows"),
        ("path,label\na,b\n", "columns path,label,part"),
        ("path,label,part\na,b,dev\n", "part must be train, val or test. Got 'dev'"),
        ("path,label,part\na,b\nc,d,x\n", "Got '', 'x'"),
        ("path,label,part\n" + "x" * 200_000 + ",b,train\n", "cannot read the split"),
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


def test_parts_of_a_split_may_be_written_in_other_ways(photo_folder, tmp_path):
    rows = [
        {"path": "./circle//circle_000.jpg", "label": "circle", "part": "Validation"},
        {"path": "circle/circle_001.jpg", "label": "circle", "part": "TEST"},
    ]
    dataset = load_dataset(photo_folder, split=write_csv_of(tmp_path, "split.csv", rows))
    assert parts(dataset)["circle/circle_000.jpg"] == "val"
    assert parts(dataset)["circle/circle_001.jpg"] == "test"


# Hopeless and thin data sets


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: write_pictures(root, labels=("Cat", "cat")), "differ only in case"),
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


def test_nothing_readable(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.jpg").write_bytes(b"no photo")
        (tmp_path / label / "2.jpg").touch()
    with pytest.raises(DataError, match=r"none of 4 files .* is usable: 2 not_an_image, 2 zero_byte") as caught:
        load_dataset(tmp_path)
    assert "pronk check" in caught.value.hint


def test_nothing_but_copies(tmp_path):
    for label in ("circle", "square"):
        (tmp_path / label).mkdir()
        for number in range(10):
            (tmp_path / label / f"{number}.jpg").write_bytes(encode(draw_picture(label, 1)))
    with pytest.raises(DataError, match="no photo left for val") as caught:
        load_dataset(tmp_path)
    assert "copies" in caught.value.hint


def test_a_class_of_two_is_a_warning(photo_folder):
    write_pictures(photo_folder, labels=("pair",), count=2)
    dataset = load_dataset(photo_folder)
    assert dataset.counts_by_class["pair"] == {"train": 1, "val": 1, "test": 0}
    assert [(f.code, f.severity) for f in dataset.findings] == [("imbalance", "info"), ("thin_class", "warning")]


def test_very_many_classes_of_two(tmp_path):
    rng = np.random.default_rng(1)
    for label in range(150):
        (tmp_path / f"c{label}").mkdir()
        for number in range(2):
            noise = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
            (tmp_path / f"c{label}" / f"{number}.png").write_bytes(encode(noise, "PNG"))
    dataset = load_dataset(tmp_path)
    assert len(dataset.classes) == 150
    assert dataset.classes[:3] == ("c0", "c1", "c2")
    assert dataset.counts == {"train": 150, "val": 150, "test": 0}
