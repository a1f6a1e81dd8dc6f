import dataclasses
import os
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from helpers.training import draw_tiny, lively_backbone, tiny_settings, write_photos
from pronk.dataset.loading import load_dataset
from pronk.errors import DataError, StorageError
from pronk.photos.decoding import load_pixels
from pronk.storage.segments import Segments
from pronk.training import features as features_module
from pronk.training.features import READ_VIEWS, extract_features, plan_extraction
from pronk.training.rows import load_square
from pronk.training.run_folder import Run

SETTINGS = tiny_settings("unused", views=3)


@pytest.fixture(scope="module")
def backbone():
    return lively_backbone(0.35)


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(2) as threads:
        yield threads


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos", 8)


@pytest.fixture
def extract(tmp_path, photos, backbone, pool):
    """Split and extract with a cache of this test's own, and tell what it came to."""

    def run(settings=SETTINGS, *, split=None, dataset=None, backbone=backbone, **options):
        dataset = dataset or load_dataset(photos, seed=settings.seed, split=split)
        run = Run(settings, backbone, tmp_path / "run", tmp_path / "cache", pool, **options)
        return dataset, extract_features(dataset, run, views=settings.views)

    return run


def rows_of(dataset, settings=SETTINGS):
    return dataset.counts["train"] * settings.views + dataset.counts["val"] + dataset.counts["test"]


def test_each_photo_has_its_views(extract):
    said = []
    dataset, features = extract(on_progress=lambda *step: said.append(step))
    assert features.computed == rows_of(dataset)
    assert features.dataset == dataset
    assert said[-1] == ("extract", 16, 16)
    train = dataset.part("train")
    pooled = features.pooled(train, views=3)
    widths = features.extraction.store.pooled
    assert pooled.shape == (len(train) * 3, sum(widths.values()))
    np.testing.assert_array_equal(features.reading("top").pooled(train, views=3), pooled[:, -1280:])
    assert pooled.dtype == np.float32
    np.testing.assert_array_equal(pooled[3], features.pooled(train[1:2])[0])
    cuts, fixed = features.inputs(train, [2] * len(train))
    assert cuts.shape == (len(train), 1, 1, 56)
    assert cuts.dtype == fixed.dtype == np.float32
    np.testing.assert_array_equal(fixed, pooled[2::3, : sum(widths.values()) - 1280 - widths["block_16_expand_relu"]])
    assert len(features.reading("top").inputs(train)) == 1


def test_a_second_run_computes_nothing(extract):
    _, first = extract()
    dataset, second = extract()
    assert second.computed == 0
    np.testing.assert_array_equal(second.pooled(dataset.photos), first.pooled(dataset.photos))
    for changes in ({"learning_rate": 0.5}, {"epochs": 9}, {"class_weights": "none"}, {"views": 2}, {"val": 0.3}):
        assert extract(SETTINGS.replace(**changes), dataset=dataset)[1].computed == 0, changes


def test_views_that_no_head_reads_have_no_features(extract):
    """They serve phase 2; a run that leaves it out computes them whole."""
    early = SETTINGS.replace(fine_tune_from="block_5_add")
    dataset, features = extract(early)
    train = dataset.part("train")
    assert features.read_views == READ_VIEWS == 2
    cuts = [row for (row,) in (features.inputs(train, [view] * len(train)) for view in range(3))]
    store, keys = features.extraction.store, [features.extraction.row_key(train[0], view) for view in range(3)]
    assert [store.has(key) for key in keys] == [True, True, False]
    assert store.has(keys[2], features=False)
    _, frozen = extract(early.replace(frozen_only=True), dataset=dataset)
    assert (frozen.computed, frozen.read_views) == (len(train), 3)
    np.testing.assert_array_equal(frozen.inputs(train, [2] * len(train))[0], cuts[2])
    assert np.abs(frozen.pooled(train, views=3)[2::3]).sum(axis=1).min() > 0
    assert extract(early, dataset=dataset)[1].computed == 0


def test_more_photos_compute_their_views_only(extract, photos, tmp_path):
    from pronk.dataset.loading import write_split

    dataset, _ = extract()
    write_split(tmp_path / "split.csv", dataset)
    given = (tmp_path / "split.csv").read_text()
    rng = np.random.default_rng(99)
    for label in ("cold", "warm"):
        draw_tiny(rng, label).save(photos / label / "new.png")
        given += f"{label}/new.png,{label},train,,\n"
    (tmp_path / "split.csv").write_text(given)
    grown, features = extract(split=tmp_path / "split.csv")
    assert grown.counts["train"] == dataset.counts["train"] + 2
    assert features.computed == 2 * SETTINGS.views


@pytest.mark.parametrize(
    ("name", "value"),
    [("image_size", 64), ("fit", "pad"), ("fine_tune_from", "block_14_add"), ("seed", 43), ("augment", "crop")],
)
def test_what_changes_the_numbers_is_computed_anew(extract, name, value):
    dataset, _ = extract()
    settings = SETTINGS.replace(**{name: value})
    computed = extract(settings, dataset=dataset)[1].computed
    # View 0, the photo itself, depends neither on the seed nor on what other views differ in.
    expected = rows_of(dataset) - (len(dataset.photos) if name in ("seed", "augment") else 0)
    assert computed == expected
    other = dataclasses.replace(lively_backbone(0.35, seed=8), sha256="another")
    assert extract(settings, dataset=dataset, backbone=other)[1].computed == rows_of(dataset)


def test_copies_share_a_row(extract, photos):
    (photos / "cold" / "copy.png").write_bytes((photos / "cold" / "0.png").read_bytes())
    dataset, features = extract()
    assert len(dataset.photos) == 17
    shared = SETTINGS.views if "cold/copy.png" in {photo.path for photo in dataset.part("train")} else 1
    assert features.computed == rows_of(dataset) - shared


def test_a_limit_below_what_a_run_needs_is_said_once_before_the_work(extract):
    said = []
    dataset, features = extract(on_note=said.append, cache_limit=10**9)
    needed = rows_of(dataset) * features.extraction.store.row_bytes()
    assert not said
    extract(dataset=dataset, on_note=said.append, cache_limit=needed - 1)
    assert len(said) == 1
    assert "--cache-limit" in said[0]


def test_long_work_says_before_how_long_it_takes(extract, monkeypatch):
    said = []
    dataset, _ = extract(on_note=said.append)
    assert not said, "a few rows are done before anybody has read it"
    monkeypatch.setattr("pronk.training.features.MANY_ROWS", 1)
    other = dataclasses.replace(lively_backbone(0.35, seed=9), sha256="unseen")
    extract(dataset=dataset, on_note=said.append, backbone=other)
    (note,) = said
    assert f"{rows_of(dataset):,} views" in note
    assert re.search(r"about \d+ (s|min)\.$", note)
    extract(dataset=dataset, on_note=said.append, backbone=other)
    assert len(said) == 1, "what is there takes no time"


def test_a_photo_that_vanishes_before_it_is_timed_is_left_out_like_any_other(extract, photos, monkeypatch):
    said = []
    dataset, _ = extract()
    gone = dataset.part("train")[0]
    (photos / gone.path).unlink()
    monkeypatch.setattr("pronk.training.features.MANY_ROWS", 1)
    other = dataclasses.replace(lively_backbone(0.35, seed=9), sha256="unseen")
    _, features = extract(dataset=dataset, on_note=said.append, backbone=other)
    assert len(said) == 1
    assert [finding.path for finding in features.dataset.findings if finding.code == "vanished"] == [gone.path]


@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_a_damaged_row_is_computed_again(extract, how):
    dataset, features = extract()
    photo = dataset.part("train")[0]
    train = dataset.part("train")
    expected = read_rows(features, train)
    key, store = features.extraction.row_key(photo, 1), features.extraction.store
    place = Segments(store.folder).find(key)
    data = bytearray(place.segment.read_bytes())
    data[place.start] ^= 1
    data[place.start + place.sizes[0]] ^= 1
    if how == "gone":
        place.segment.unlink()
    else:
        place.segment.write_bytes(data if how == "flipped" else data[:50])
    for found, array in zip(read_rows(features, train), expected, strict=True):
        np.testing.assert_array_equal(found, array)
    computed = extract(dataset=dataset)[1].computed
    assert (computed == 0) == (how != "gone"), "the other rows were in it too"


def read_rows(features, photos):
    return *features.inputs(photos, [1] * len(photos)), features.pooled(photos, views=2)


def test_a_damaged_row_whose_photo_changed_is_an_error(extract, photos):
    dataset, features = extract()
    photo = dataset.part("train")[0]
    Segments(features.extraction.store.folder).find(features.extraction.row_key(photo, 1)).segment.unlink()
    (photos / photo.path).write_bytes(b"")
    with pytest.raises(DataError, match=f"{photo.path} changed"):
        features.pooled([photo], views=2)


def test_the_photos_to_be_judged_are_kept_as_pixels(extract, photos, tmp_path):
    for _ in ("from the empty cache", "from the full one"):
        dataset, features = extract()
        judged = [photo for photo in dataset.photos if photo.part != "train"]
        squares = features.extraction.squares
        assert {path.name for path in squares.iterdir()} == {photo.digest for photo in judged}
        for photo in judged:
            expected = load_pixels(photos / photo.path, size=32)
            np.testing.assert_array_equal(load_square(features.extraction, photo), expected)
            elsewhere = dataclasses.replace(features.extraction, squares=tmp_path)
            np.testing.assert_array_equal(load_square(elsewhere, photo), expected)
            (squares / photo.digest).write_bytes(b"torn")  # as by a power cut; the next run makes its own


def test_only_so_many_photos_are_kept_as_pixels(extract, monkeypatch):
    monkeypatch.setattr(features_module, "SQUARES_BYTES", 3 * 32 * 32 * 3)
    dataset, features = extract()
    assert len(list(features.extraction.squares.iterdir())) == 3
    assert features.computed == rows_of(dataset)


def test_without_room_for_pixels_the_photos_are_decoded_again(extract, photos, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".work").write_text("no folder")
    dataset, features = extract()
    photo = dataset.part("test")[0]
    np.testing.assert_array_equal(load_square(features.extraction, photo), load_pixels(photos / photo.path, size=32))


def test_a_full_disk_is_reported_before_the_first_row(extract, monkeypatch):
    monkeypatch.setattr("pronk.storage.cache.shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(StorageError, match="are free"):
        extract()


def test_a_disk_that_fills_up_is_reported_with_its_path(extract, monkeypatch):
    def refuse(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    with pytest.raises(StorageError, match="No space left"):
        extract()


def test_the_prefix_is_written_once(tmp_path, photos, backbone, monkeypatch):
    run = Run(SETTINGS, backbone, tmp_path / "run", tmp_path / "cache", None)
    extraction = plan_extraction(photos, run)
    os.utime(extraction.prefix, (1, 1))
    monkeypatch.setattr(features_module, "write_prefix", None)
    assert plan_extraction(photos, run) == extraction
    assert extraction.prefix.stat().st_mtime > 1, "it counts as used"
