"""Folders -> classes and parts, however they are called and whatever lies beside them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.training import tiny_settings
from helpers.trees import grow_tree
from pronk.dataset.checkup import check
from pronk.dataset.layout import PARTS, Folder, read_layout, read_part
from pronk.dataset.listing import list_leniently, list_photos
from pronk.dataset.loading import load_dataset
from pronk.errors import DataError
from pronk.training.recipe import train

PAIRS = [
    ("training_set", "test_set"), ("train", "dev"), ("train_data", "test_data"), ("Training", "Validation"),
    ("trainset", "testset"), ("01_train", "02_test"), ("train2017", "val2017"), ("DatasetTrain", "DatasetTest"),
    ("training images", "testing images"), ("TRAIN", "TEST"), ("cats-train", "cats-val"), ("my_train", "my_valid"),
]  # fmt: skip

OBSTACLES = frozenset((
    "few_classes", "unclear_parts", "bad_label", "class_case", "reserved_class", "nothing_usable", "empty_part",
))  # fmt: skip


def make(root, *paths, data=b"x"):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def spread(*folders, names=("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg")):
    return [f"{folder}/{name}" for folder in folders for name in names]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("strays", [(), ("docs/notes.pdf",), ("docs/a/1.txt", "samples/1.jpg")])
def test_parts_are_parts_whatever_their_names_and_what_lies_beside_them(tmp_path, pair, strays):
    listing = list_photos(make(tmp_path, *spread(*pair), *strays))
    assert listing.classes == ("cat", "dog")
    assert {entry.path.split("/")[0]: entry.part for entry in listing.entries} == dict(
        zip(pair, map(read_part, pair), strict=True)
    )
    said = [finding for finding in listing.findings if finding.code == "parts"]
    assert [repr(name) in said[0].message for name in pair if name not in PARTS] if said else pair == ("train", "dev")
    beside = {f.path: f.code for f in listing.findings if f.code in ("stray_folder", "outside_classes")}
    assert beside == {s.split("/")[0]: "stray_folder" if s.endswith("jpg") else "outside_classes" for s in strays}


def test_a_part_without_labels_is_no_class(tmp_path):
    listing = list_photos(make(tmp_path, *spread("train"), "test/1.jpg", "test/2.jpg"))
    assert listing.classes == ("cat", "dog")
    assert {entry.part for entry in listing.entries} == {"train"}
    assert ("test", "stray_folder") in [(finding.path, finding.code) for finding in listing.findings]


def test_photos_beside_the_classes_of_a_part_change_nothing(tmp_path):
    listing = list_photos(make(tmp_path, *spread("train", "test"), "train/loose.jpg"))
    assert listing.classes == ("cat", "dog")
    assert {entry.part for entry in listing.entries} == {"train", "test"}


def test_parts_inside_the_classes_are_parts(tmp_path):
    names = [f"{label}/{part}/{n}.jpg" for label in ("cat", "dog") for part in ("train", "test") for n in "12"]
    listing = list_photos(make(tmp_path, *names, "cat/more.jpg"))
    assert listing.classes == ("cat", "dog")
    assert {entry.path: entry.part for entry in listing.entries} == {name: name.split("/")[1] for name in names} | {
        "cat/more.jpg": None
    }


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (spread("first", "second"), "'first', 'second' both hold the folders 'cat', 'dog'"),
        (spread("train", "test", "extra"), "'extra' with the same folders has no such name"),
        ([*spread("train"), "misc/1.jpg"], "'misc' beside it holds photos"),
        (spread("images", "masks"), "'images', 'masks' both hold the folders"),
        (["images/train/1.jpg", "labels/train/1.txt", "images/val/2.jpg", "labels/val/2.txt"], "are kinds of files"),
        (["train/1.jpg", "test/1.jpg"], "hold no class folders"),
    ],
)
def test_what_could_be_read_in_two_ways_is_an_error(tmp_path, files, said):
    make(tmp_path, *files)
    with pytest.raises(DataError, match=said) as caught:
        list_photos(tmp_path)
    assert "train, val and test" in caught.value.hint


@pytest.mark.parametrize(
    "files",
    [
        ["train/1.jpg", "bus/1.jpg"],
        ["train/old/1.jpg", "bus/old/1.jpg", "bus/2.jpg"],
        ["cat/1.jpg", "cat/new/2.jpg", "dog/1.jpg", "dog/new/2.jpg"],
        ["cat/images/1.jpg", "cat/masks/1.png", "dog/images/1.jpg", "dog/masks/1.png"],
        ["test_positive/1.jpg", "test_negative/1.jpg"],
    ],
)
def test_classes_are_classes(tmp_path, files):
    listing = list_photos(make(tmp_path, *files))
    assert listing.classes == tuple(sorted({file.split("/")[0] for file in files}))
    assert {entry.part for entry in listing.entries} == {None}


def test_masks_among_the_photos_are_pointed_out(tmp_path):
    listing = list_photos(make(tmp_path, *spread("cat", "dog", names=("images/1.jpg", "masks/1.png"))))
    assert [f.path for f in listing.findings if f.code == "drawn"] == ["cat/masks", "dog/masks"]


@pytest.mark.parametrize("wrapped", ["dataset", "dataset/dataset"])
def test_one_level_off_names_the_inner_folder(tmp_path, wrapped):
    make(tmp_path, *spread(wrapped))
    with pytest.raises(DataError, match="only the class 'dataset'") as caught:
        list_photos(tmp_path)
    assert str(tmp_path / wrapped) in caught.value.hint
    assert list_photos(tmp_path / wrapped).classes == ("cat", "dog")


def test_files_beside_photos_are_one_note_per_kind(tmp_path):
    names = ("1.jpg", "1.txt", "1.xml", "2.jpg", "2.txt", "2.xml")
    listing = list_photos(make(tmp_path, *spread("cat", "dog", names=names)))
    assert [finding.message.split(" beside")[0] for finding in listing.findings] == ["4 .txt files", "4 .xml files"]
    assert len(listing.entries) == 4


words = st.sampled_from(["train", "Test", "val", "dev_set", "training-2", "cat", "dog", "docs", "a b", "images", "x"])
inner = st.sampled_from(["cat", "dog", "bird", "masks", "train", "test", "2019", "é"])
names = st.sampled_from(["1.jpg", "2.PNG", "1.txt", "notes", ".hidden.jpg", "Thumbs.db", "3.jpeg"])
trees = st.lists(
    st.one_of(
        st.tuples(words, names),
        st.tuples(words, inner, names),
        st.tuples(words, inner, inner, names),
        st.tuples(st.just("one"), words, inner, names),
    ),
    min_size=1,
    max_size=24,
)


@given(trees)
def test_any_tree_is_read_without_taking_a_part_for_a_class(tmp_path_factory, tree):
    root = make(tmp_path_factory.mktemp("tree"), *("/".join(steps) for steps in tree))
    listing = list_leniently(root)
    tops = {steps[0] for steps in tree}
    holding = {top for top in tops if any(s[0] == top and len(s) > 2 for s in tree)}
    parts = {top for top in holding if read_part(top)}
    shared = [{s[1] for s in tree if s[0] == top and len(s) > 2} for top in sorted(parts)]
    if len({read_part(top) for top in parts}) > 1 and any(a & b for a in shared for b in shared if a is not b):
        # A class inside may be called like a part too.
        labels = [(entry.label, entry.path.split("/")) for entry in listing.entries]
        assert listing.obstacles or all(label == steps[1] for label, steps in labels if label in parts)
    # Here no file is a picture.
    assert any(finding.severity == "error" for finding in check(root).findings)
    with pytest.raises(DataError):
        load_dataset(root)


def assert_read_as_meant(tree):
    """Check, train and whoever made the tree agree on what is a class; tell whether it can be trained on."""
    checkup = check(tree.root)
    obstacles = [finding for finding in checkup.findings if finding.code in OBSTACLES]
    if not any(finding.code == "unclear_parts" for finding in obstacles):
        assert set(checkup.classes) <= tree.classes
    if obstacles:
        with pytest.raises(DataError) as refused:
            load_dataset(tree.root)
        assert refused.value.hint
        assert str(refused.value) in [finding.message for finding in obstacles]
        return False
    dataset = load_dataset(tree.root)
    assert set(dataset.classes) <= tree.classes
    assert {photo.part for photo in dataset.photos} <= set(PARTS)
    return True


@pytest.mark.parametrize("seed", range(6))
def test_folders_as_people_have_them_are_read_as_they_are_meant(tmp_path, seed):
    for number in range(10):
        assert_read_as_meant(grow_tree(tmp_path / str(number), 10 * seed + number))


@pytest.mark.slow
def test_500_folders_are_read_as_they_are_meant_and_those_that_check_passes_are_trained_on(tmp_path, tiny_weights):
    trained = 0
    for seed in range(1000, 1500):
        tree = grow_tree(tmp_path / str(seed), seed)
        if assert_read_as_meant(tree) and trained < 20:
            trained += 1
            train(tree.root, out=tmp_path / f"run{seed}", settings=tiny_settings(tiny_weights))
    assert trained == 20


@given(st.lists(st.builds(Folder, st.text(max_size=6), st.tuples(inner, inner), st.booleans()), max_size=9))
def test_any_folders_have_a_layout(folders):
    layout = read_layout(folders)
    assert set(layout.parts.values()) | set(layout.inner_parts.values()) <= set(PARTS)
    assert not (layout.unclear and layout.parts)
