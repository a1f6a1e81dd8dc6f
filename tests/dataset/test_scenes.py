"""Photos of a camera that was not moved: all near copies of each other, and yet a class."""

import numpy as np
import pytest
from PIL import Image

from helpers.commands import fails, ok, run_inside
from helpers.pictures import draw_picture, encode, write_pictures
from helpers.training import tiny_settings
from pronk.dataset.loading import load_dataset
from pronk.errors import DataError
from pronk.training.recipe import train

SPOTS = {"kiwi": (90, 140, 40), "lemon": (230, 220, 60), "nothing": None}


def film(folder, frames=24, *, labels=SPOTS, seed=3):
    """Write frames as a camera on a table takes them: one wall for all classes, and a spot that wanders across."""
    wall = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)).resize((160, 120))
    for label in labels:
        (folder / label).mkdir(parents=True)
        for number in range(frames):
            frame = wall.copy()
            if SPOTS[label]:
                x, y = 4 + number * 130 // frames, 50 + number % 5
                frame.paste(Image.new("RGB", (20, 20), SPOTS[label]), (x, y))
            noise = np.random.default_rng([seed, number, len(label)]).integers(-2, 3, (120, 160, 3))
            frame = Image.fromarray(np.clip(np.asarray(frame, int) + noise, 0, 255).astype(np.uint8))
            (folder / label / f"frame-{number:03}.jpg").write_bytes(encode(frame, quality=92))
    return folder


def runs(dataset, label):
    """Return the parts of a class's photos in the order of their names, each run of equal ones once."""
    parts = [photo.part for photo in dataset.photos if photo.label == label]
    return [part for i, part in enumerate(parts) if i == 0 or parts[i - 1] != part]


def test_a_class_of_one_scene_is_cut_into_runs_and_named(tmp_path):
    dataset = load_dataset(film(tmp_path / "film"))
    (finding,) = (finding for finding in dataset.findings if finding.code == "one_scene")
    assert all(repr(label) in finding.message for label in SPOTS)
    assert not [finding for finding in dataset.findings if finding.code in ("label_conflict", "near_duplicate")]
    for label in SPOTS:
        counts = dataset.counts_by_class[label]
        assert min(counts.values()) >= 2
        assert counts["train"] >= 12
        assert len(runs(dataset, label)) <= 9, "neighbours stay together"
    assert load_dataset(tmp_path / "film").photos == dataset.photos


def test_such_a_set_can_be_trained(tmp_path, tiny_weights, workers_inside):
    settings = tiny_settings(tiny_weights, frozen_only=True)
    run = train(film(tmp_path / "film", 12), out=tmp_path / "run", settings=settings, cache=tmp_path / "cache")
    assert "one_scene" in {finding.code for finding in run.findings}
    page = (run.folder / "report.html").read_text()
    answer = page[page.index("How good is it?") : page.index("Did fine-tuning help?")]
    assert "look alike, so the test has photos like those that are learned from" in answer, "beside the number itself"
    assert 'id="answer" data-section="answer" class="good"' not in page, "nor in the colour of what is sure"


def test_photos_beside_a_scene_keep_their_groups(tmp_path):
    """Only the class that could not be divided is cut; near copies elsewhere stay together as ever."""
    folder = film(tmp_path / "film", labels=("kiwi",))
    write_pictures(folder, labels=("cat",), count=12)
    picture = draw_picture("cat", 1, (192, 144))
    for number in range(4):
        (folder / "cat" / f"near-{number}.jpg").write_bytes(encode(picture, quality=70 + 5 * number))
    dataset = load_dataset(folder)
    assert {photo.part for photo in dataset.photos if photo.label == "kiwi"} == {"train", "val", "test"}
    near = {(photo.part, photo.group) for photo in dataset.photos if photo.path.startswith("cat/near")}
    assert len(near) == 1


def test_exact_copies_are_never_divided(tmp_path):
    folder = film(tmp_path / "film", labels=("kiwi",))
    write_pictures(folder, labels=("cat",), count=12)
    frames = sorted((folder / "kiwi").iterdir())
    (folder / "kiwi" / "zz.jpg").write_bytes(frames[0].read_bytes())
    dataset = load_dataset(folder)
    parts = {photo.path: photo.part for photo in dataset.photos}
    assert parts["kiwi/zz.jpg"] == parts[f"kiwi/{frames[0].name}"]


def test_what_is_asked_for_is_never_cut(tmp_path):
    folder = film(tmp_path / "film")
    with pytest.raises(DataError, match="no photo left for"):
        load_dataset(folder, group_by="frame")


@pytest.mark.parametrize("number", [1, 3, 5])
def test_a_few_copies_of_one_photo_are_still_too_few(tmp_path, number):
    folder = write_pictures(tmp_path / "photos", labels=("cat",), count=12)
    (folder / "dog").mkdir()
    picture = draw_picture("dog", 1, (192, 144))
    for i in range(number):
        (folder / "dog" / f"{i}.jpg").write_bytes(encode(picture, quality=70 + 5 * i))
    with pytest.raises(DataError, match="no photo left for"):
        load_dataset(folder)


# --- groups that somebody names


def test_a_column_of_a_list_names_groups(tmp_path):
    write_pictures(tmp_path / "photos", labels=("cat", "dog"), count=12)
    paths = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg"))
    places = {path: f"place {number % 6}" for number, path in enumerate(paths)}
    rows = "".join(f"{path},{path.split('/')[1]},{places[path]}\n" for path in paths)
    (tmp_path / "list.csv").write_text(f"path,label,group\n{rows}")
    dataset = load_dataset(tmp_path / "list.csv")
    parts = {(places[photo.path], photo.part) for photo in dataset.photos}
    assert len(parts) == 6, "a place has one part"
    assert "columns" not in {finding.code for finding in dataset.findings}, "the column is read"


def test_a_pattern_that_matches_nothing_is_an_error(tmp_path):
    folder = write_pictures(tmp_path / "photos", labels=("cat", "dog"), count=6)
    with pytest.raises(DataError, match="matches no path") as caught:
        load_dataset(folder, group_by=r"site(\d+)_")
    assert "cat/" in caught.value.hint, "how a path looks"


def test_a_moved_photo_keeps_the_part_that_a_split_gives_its_content(tmp_path):
    from pronk.dataset.loading import write_split

    folder = write_pictures(tmp_path / "photos", labels=("cat", "dog"), count=12)
    before = load_dataset(folder)
    (tmp_path / "run").mkdir()
    write_split(tmp_path / "run" / "split.csv", before)
    parts = {photo.digest: photo.part for photo in before.photos}
    (folder / "dog").rename(folder / "hound")
    for number, path in enumerate(sorted((folder / "cat").iterdir())):
        path.rename(path.with_name(f"renamed-{number}.jpg"))
    write_pictures(folder, labels=("fox",), count=8)
    after = load_dataset(folder, split=tmp_path / "run")
    assert {photo.digest: photo.part for photo in after.photos if photo.digest in parts} == parts
    assert after.counts_by_class["fox"]["test"] > 0


def test_a_finished_run_says_what_it_knows_nothing_of(tiny_run, tiny_photos, tiny_weights, tmp_path):
    import shutil

    photos, run = tmp_path / "photos", tmp_path / "run"
    shutil.copytree(tiny_photos, photos)
    shutil.copytree(tiny_run.folder, run)
    command = ("train", photos, "--config", run / "settings.toml", "--out", run)
    assert "as a finished run" in fails(run_inside(*command))
    settings = (run / "settings.toml").read_text().replace(str(tiny_photos), str(photos))
    (run / "settings.toml").write_text(settings)
    done = run_inside(*command, "--resume")
    assert ok(done) == f"{run}\n"
    assert b"was finished before, and nothing was trained." in done.stderr
    (photos / "cold" / "new.png").write_bytes(encode(draw_picture("new", 7), "PNG"))
    assert b"It knows nothing of 1 file in the data" in run_inside(*command, "--resume").stderr
