"""The guide "better data", walked through on drawn photos with planted faults, as its reader would.

$PRONK_PICTURES names a folder that gets the pictures of the guide.
"""

import csv
import io
import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from helpers.browser import photograph, visit
from helpers.pictures import encode
from helpers.training import run_pronk
from pronk.photos.drawing import DEMO_KINDS, draw_photos
from pronk.report.pages import render_page
from pronk.report.plots import draw_growth

pytestmark = pytest.mark.more

PER_KIND = 30
SIZE = (320, 240)
WIDTH, HEIGHT, COLOURS, MOST_BYTES = 900, 1000, 96, 260_000
# What stays at the foot of the window would lie over the middle of the picture.
FLOATING = """
    for (const one of document.body.querySelectorAll("*"))
        if (["fixed", "sticky"].includes(getComputedStyle(one).position)) one.style.display = "none";
"""
COLOURS_OF_PAGE = {"--muted": "#6a6459", "--line": "#e3ddd1", "--accent": "#0b6e66", "--second": "#b0722a"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Drawn photos: two of each kind stand in the folder of another, and some files have faults."""
    folder = draw_photos(tmp_path_factory.mktemp("guide") / "photos", photos_per_class=PER_KIND, size=SIZE)
    first = {kind: sorted((folder / kind).iterdir()) for kind in DEMO_KINDS}
    for kind, other in zip(DEMO_KINDS, DEMO_KINDS[1:] + DEMO_KINDS[:1], strict=True):
        for file in first[kind][:2]:
            file.rename(folder / other / f"from_{kind}_{file.name}")
    alpaca, bird, mushroom = (folder / kind for kind in DEMO_KINDS)
    picture = Image.open(first["alpaca"][5])
    shutil.copy(first["alpaca"][5], alpaca / "IMG_0005 (1).jpg")
    (bird / "IMG_0005.jpg").write_bytes(encode(picture, quality=70))
    (mushroom / "scan.jpg").write_bytes(encode(Image.new("RGB", SIZE, "white")))
    (mushroom / "shaky.jpg").write_bytes(encode(Image.open(first["mushroom"][6]).filter(ImageFilter.GaussianBlur(9))))
    (alpaca / "download.jpg").write_bytes(first["alpaca"][7].read_bytes()[:3000])
    (bird / "empty.jpg").touch()
    return folder


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return ("--weights", "offline", "--image-size", "160", "--cache", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def pictures():
    named = os.environ.get("PRONK_PICTURES")
    return Path(named) if named else None


def write_picture(chrome, page, path, *, start):
    """Write a part of a page for the documents: small, and of drawn photos only."""
    visit(chrome, page.as_uri(), width=WIDTH)
    chrome.execute_script(FLOATING)
    top = chrome.execute_script("return document.querySelector(arguments[0]).getBoundingClientRect().top", start)
    shown = Image.open(io.BytesIO(photograph(chrome))).convert("RGB")
    shown = shown.crop((0, int(top), shown.width, min(shown.height, int(top) + HEIGHT)))
    shown.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size < MOST_BYTES


def test_check_names_the_faults_and_moves_some_aside(photos, chrome, pictures, tmp_path, monkeypatch):
    folder = shutil.copytree(photos, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "check.html"
    done = run_pronk("check", "photos", "--html", page, "--json")
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
    if pictures:
        write_picture(chrome, page, pictures / "check.png", start="#findings")

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert run_pronk("check", folder, "--fix", "--quarantine", tmp_path / "bad").returncode == 1
    assert not (folder / "bird" / "empty.jpg").exists()
    assert (folder / "bird" / "IMG_0005.jpg").exists(), "a picture with two labels needs a decision"
    assert run_pronk("undo", tmp_path / "bad" / "undo.csv").returncode == 0
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == files


def test_audit_finds_photos_in_the_wrong_folder(photos, options, chrome, pictures, tmp_path, monkeypatch):
    page = tmp_path / "review.html"
    monkeypatch.chdir(photos.parent)
    done = run_pronk("audit", "photos", *options, "--html", page, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    wrong = {f"{other}/{file.name}" for other in DEMO_KINDS for file in (photos / other).glob("from_*")}
    assert len(wrong) == 6
    assert len(wrong & {row["path"] for row in rows[:9]}) >= 5
    if pictures:
        write_picture(chrome, page, pictures / "review.png", start="body")

    review = tmp_path / "review.csv"
    decide(page, photos, review, wrong)
    assert run_pronk("audit", photos, "--apply", review, "--out", photos.parent / "corrected.csv").returncode == 0
    with (photos.parent / "corrected.csv").open(newline="") as file:
        labels = {Path(row["path"]).name: row["label"] for row in csv.DictReader(file)}
    for path in wrong:
        name = Path(path).name
        assert labels[name] == name.split("_")[1]
    trained = run_pronk(
        "train", photos.parent / "corrected.csv", *options, "--frozen-only", "--out", tmp_path / "run", "--quiet"
    )
    assert trained.returncode == 0, trained.stderr


def decide(page, photos, review, wrong):
    """Write what a person saves on the page who moves every photo back to where it belongs."""
    from pronk.storage.files import digest_file

    lines = ["path,digest,given,action,label"]
    for path in sorted(wrong):
        given, name = path.split("/")
        lines.append(f"{path},{digest_file(photos / path)},{given},move,{name.split('_')[1]}")
    review.write_text("\n".join(lines) + "\n")


def test_curve_says_what_more_photos_would_bring(photos, options, pictures):
    done = run_pronk("curve", photos, *options, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    values = [point["accuracy"]["value"] for point in record["points"]]
    assert values[-1] > values[0] + 0.05
    assert "per class would bring about" in record["advice"]
    if pictures:
        title, style = "Accuracy by number of photos, and the forecast", render_page("plot.css")
        for name, colour in COLOURS_OF_PAGE.items():
            style = style.replace(f"var({name})", colour)
        style += "text { font-family: sans-serif; }"
        svg = str(draw_growth(record)).replace(">", f"><title>{title}</title><style>{style}</style>", 1)
        svg = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" width="560" ', 1)
        (pictures / "growth.svg").write_text(svg + "\n")
