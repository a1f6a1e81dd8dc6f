"""The guide "better data", walked through on drawn photos with planted faults, as its reader would."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from helpers.commands import ok, read_csv, run_inside
from helpers.pictures import encode
from pronk.photos.drawing import DEMO_KINDS, draw_photos
from pronk.storage.files import digest_file, write_csv

pytestmark = pytest.mark.more

SIZE = (320, 240)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Drawn photos: two of each kind stand in the folder of another, and some files have faults."""
    folder = draw_photos(tmp_path_factory.mktemp("guide") / "photos", photos_per_class=30, size=SIZE)
    first = {kind: sorted((folder / kind).iterdir()) for kind in DEMO_KINDS}
    for kind, other in zip(DEMO_KINDS, DEMO_KINDS[1:] + DEMO_KINDS[:1], strict=True):
        for file in first[kind][:2]:
            file.rename(folder / other / f"from_{kind}_{file.name}")
    alpaca, bird, mushroom = (folder / kind for kind in DEMO_KINDS)
    shutil.copy(first["alpaca"][5], alpaca / "IMG_0005 (1).jpg")
    (bird / "IMG_0005.jpg").write_bytes(encode(Image.open(first["alpaca"][5]), quality=70))
    (mushroom / "scan.jpg").write_bytes(encode(Image.new("RGB", SIZE, "white")))
    (mushroom / "shaky.jpg").write_bytes(encode(Image.open(first["mushroom"][6]).filter(ImageFilter.GaussianBlur(9))))
    (alpaca / "download.jpg").write_bytes(first["alpaca"][7].read_bytes()[:3000])
    (bird / "empty.jpg").touch()
    return folder


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return ("--weights", "offline", "--image-size", "160", "--cache", tmp_path_factory.mktemp("cache"))


def test_check_names_the_faults_and_moves_some_aside(photos, tmp_path):
    folder = shutil.copytree(photos, tmp_path / "photos")
    done = run_inside("check", folder, "--html", tmp_path / "check.html", "--json")
    assert done.returncode == 1
    found = {(row["code"], row["path"]) for row in json.loads(done.stdout)["findings"]}
    expected = {
        ("truncated", "alpaca/download.jpg"),
        ("zero_byte", "bird/empty.jpg"),
        ("blank", "mushroom/scan.jpg"),
        ("blurred", "mushroom/shaky.jpg"),
        ("exact_duplicate", "alpaca/alpaca_0006.jpg"),
        ("label_conflict", "bird/IMG_0005.jpg"),
    }
    assert expected <= found, found
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert run_inside("check", folder, "--fix", "--quarantine", tmp_path / "bad").returncode == 1
    assert not (folder / "bird" / "empty.jpg").exists()
    assert (folder / "bird" / "IMG_0005.jpg").exists(), "a picture with two labels needs a decision"
    ok(run_inside("undo", tmp_path / "bad" / "undo.csv"))
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == files


def test_audit_finds_photos_in_the_wrong_folder(photos, options, tmp_path):
    rows = json.loads(ok(run_inside("audit", photos, *options, "--html", tmp_path / "review.html", "--json")))
    wrong = {f"{other}/{file.name}" for other in DEMO_KINDS for file in (photos / other).glob("from_*")}
    assert len(wrong) == 6
    assert len(wrong & {row["path"] for row in rows[:9]}) >= 5
    # What a person saves on the page who moves every photo back to where it belongs.
    truth = {path: Path(path).name.split("_")[1] for path in wrong}
    decisions = [
        {"path": path, "digest": digest_file(photos / path), "given": path.split("/")[0], "action": "move"}
        | {"label": label}
        for path, label in truth.items()
    ]
    write_csv(tmp_path / "review.csv", list(decisions[0]), decisions)
    corrected = photos.parent / "corrected.csv"
    ok(run_inside("audit", photos, "--apply", tmp_path / "review.csv", "--out", corrected))
    labels = {Path(row["path"]).name: row["label"] for row in read_csv(corrected)}
    assert all(labels[Path(path).name] == label for path, label in truth.items())
    ok(run_inside("train", corrected, *options, "--views", "1", "--frozen-only", "--out", tmp_path / "run", "--quiet"))


def test_curve_says_what_more_photos_would_bring(photos, options):
    record = json.loads(ok(run_inside("curve", photos, *options, "--json")))
    values = [point["accuracy"]["value"] for point in record["points"]]
    assert values[-1] > values[0] + 0.05
    assert "per class would bring about" in record["advice"]
