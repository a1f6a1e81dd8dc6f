"""report.html as a person meets it: opened from its file, wide and narrow, light and dark, with hostile names in it."""

import io
import itertools
import re

import numpy as np
import pytest
from PIL import Image

from helpers.browser import (
    DESK,
    PAPER,
    PHONE,
    find_overhang,
    find_violations,
    look_around,
    notice,
    photograph,
    read_text,
    say_what_is_missing,
    visit,
)
from helpers.metrics import CURVE, make_accuracy, make_metrics, make_parity, suspicion
from helpers.pages import HIDDEN, HOSTILE, INTRUDERS, NAMES, write_if_possible
from helpers.pictures import encode
from helpers.sharing import make_once
from helpers.training import tiny_settings
from pronk.analysis.metrics import score
from pronk.dataset.findings import Finding
from pronk.model.run import EvaluationMetrics
from pronk.report.gallery import Gallery
from pronk.report.run_page import ReportContent, insert_exports, render_report
from pronk.text import visible
from pronk.training.recipe import train

pytestmark = [pytest.mark.more, pytest.mark.skipif(bool(say_what_is_missing()), reason=say_what_is_missing())]

MOST_BYTES = 1_500_000
PHOTOS = 68
ROWS = 150

PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACwAAAAAAQABAAACAkQBADs="
LABELS = ("x<", "\"'><img src=x onerror=alert(1)>\u202e\nb")
CODES = ("truncated", "zero_byte", "leak", "<intruder>")


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory, tiny_weights):
    """A run on photos with hostile names, whose labels are luck, so that many answers are wrong."""
    return make_once(tmp_path_factory, "hostile", lambda base: train_on_hostile_names(base, tiny_weights))


def train_on_hostile_names(base, weights):
    rng, photos = np.random.default_rng(0), base / '<intruder> it\'s "photos" & more'
    for label in LABELS:
        (photos / label).mkdir(parents=True)
    for number, (name, label) in zip(range(PHOTOS), itertools.cycle(itertools.product(NAMES, LABELS)), strict=False):
        write_if_possible(photos / label / f"{name} {number}.jpg", draw_busy_photo(rng))
    for name in NAMES:
        write_if_possible(photos / LABELS[0] / f"{name}.jpg", b"")
    settings = tiny_settings(weights, image_size=224, views=2, frozen_only=True)
    return train(photos, out=base / "<intruder> $(run) 'it'", settings=settings, cache=base / "cache")


@pytest.fixture(scope="module")
def hostile_page(hostile_run):
    return hostile_run.folder / "report.html"


@pytest.fixture(scope="module")
def crowded_page(tmp_path_factory):
    """A page with a dozen classes, every kind of number, and more rows than it can show."""
    rng, names = np.random.default_rng(0), (*LABELS, *NAMES[:10])
    labels = rng.integers(0, len(names), ROWS)
    predicted = np.where(rng.random(ROWS) < 0.5, labels, rng.integers(0, len(names), ROWS))
    paths = [f"{name} {number}.jpg" for number, name in zip(range(ROWS), itertools.cycle(HOSTILE), strict=False)]
    test = score(np.eye(len(names))[predicted] * 0.8 + 0.2 / len(names), labels, names)
    numbers = {"loss": 0.5, "accuracy": 0.8, "val_loss": 0.6, "val_accuracy": 0.7}
    content = ReportContent(
        title=NAMES[2],
        metrics=make_metrics(
            names,
            counts={"train": 2800, "val": 600, "test": 300},
            comparison={"gained": 3, "lost": 1, "p": 0.625, "kept": "fine_tuned", "why": NAMES[0]},
            calibration={"temperature": 1.8, "ece": {"val": None, "test": {"before": 0.25, "after": 0.125}}},
            unknown={"coverage": 0.95, "n": 600, "threshold": 0.5},
            test={**test, "coverage": make_accuracy(400, 300)},
            curve=CURVE,
        ),
        history=[
            {"phase": phase, "epoch": epoch, **numbers}
            for phase, epochs in (("frozen", 3), ("fine_tuned", 2))
            for epoch in range(1, epochs + 1)
        ],
        suspicions=[suspicion(path, names[0], names[1], PIXEL) for path in paths[:20]],
        predictions=[
            {"path": path, "part": "test", "label": names[label], "predicted": names[answer], "score": 0.9}
            | {"distance": label / 12, "unknown": label > 7}
            for path, label, answer in zip(paths, labels, predicted, strict=True)
        ],
        findings=[
            Finding(path, code, "warning", f"{path!r} ends", f"Copy {path}")
            for path, code in zip(paths[:80], itertools.cycle(CODES), strict=False)
        ],
        class_counts={name: {"train": 250, "val": 50, "test": 50} for name in names},
        settings={"views": 4, "group_by": None, NAMES[0]: NAMES[5], "image": {"size": 224}},
        model_path="runs/" + "/".join(HOSTILE),
        gallery=Gallery(dict.fromkeys(paths[:100], PIXEL)),
    )
    page = write_page(tmp_path_factory.mktemp("crowded"), content)
    exports = [make_parity(name, accepted=bool(i % 2)) for i, name in enumerate(("litert", *HOSTILE))]
    page.write_text(insert_exports(page.read_text(encoding="utf-8"), exports), encoding="utf-8")
    return page


@pytest.fixture(scope="module")
def judged_page(tmp_path_factory):
    """What `pronk evaluate` writes: no training, nothing left out."""
    test = score(np.eye(2)[[0, 1, 1, 1]] * 0.8 + 0.1, np.array([0, 0, 1, 1]), LABELS)
    metrics = EvaluationMetrics(classes=LABELS, counts={"test": 4}, test={**test, "coverage": None})
    rows = [{"path": f"{LABELS[0]}/1.jpg", "part": "test", "label": LABELS[0], "predicted": LABELS[1], "score": 0.9}]
    content = ReportContent(title="Judged", metrics=metrics, predictions=rows)
    return write_page(tmp_path_factory.mktemp("judged"), content)


def draw_busy_photo(rng):
    """A photo that takes more bytes than most: its thumbnail of 96 pixels has 4 KB, one of a real photo 2 KB."""
    spots = Image.fromarray(rng.integers(0, 256, (32, 42, 3)).astype(np.uint8))
    return encode(spots.resize((256, 192), Image.Resampling.BICUBIC))


def write_page(folder, content):
    page = folder / "report.html"
    page.write_text(render_report(content), encoding="utf-8")
    return page


@pytest.mark.parametrize(
    ("name", "names", "width", "dark"),
    [
        ("hostile", NAMES, PHONE, True),
        ("crowded", HOSTILE, DESK, False),
        ("crowded", HOSTILE, PHONE, True),
        ("judged", (), DESK, True),
    ],
)
def test_it_fits_and_loads_nothing_and_names_from_strangers_are_text(chrome, request, name, names, width, dark):
    visit(chrome, request.getfixturevalue(f"{name}_page"), width=width, dark=dark)
    assert find_overhang(chrome, width=width) == []
    look_around(chrome)
    assert find_overhang(chrome, width=width) == []
    missing = "return [...document.images].filter(one => !one.naturalWidth).map(one => one.alt)"
    assert chrome.execute_script(missing) == []
    assert notice(chrome) == []
    assert find_violations(chrome) == []
    corner = Image.open(io.BytesIO(photograph(chrome))).convert("L").getpixel((0, 0))
    assert corner < 64 if dark else corner > 192
    text = read_text(chrome)
    assert [name for name in (*names, *LABELS) if visible(name) not in text] == []
    assert chrome.execute_script(INTRUDERS) == []
    source = chrome.execute_script("return document.documentElement.outerHTML")
    assert sorted(set(HIDDEN.findall(source))) == []


def test_a_page_of_many_photos_is_small(hostile_page, hostile_run):
    assert sum(hostile_run.metrics.counts.values()) == PHOTOS
    assert hostile_page.stat().st_size < MOST_BYTES


def test_the_answer_is_seen_first(chrome, judged_page):
    visit(chrome, judged_page, width=PHONE)
    bottom = "return document.querySelector('.big').getBoundingClientRect().bottom"
    assert 0 < chrome.execute_script(bottom) < 844  # a phone is not higher


def test_without_scripts_it_says_the_same(chrome, crowded_page):
    visit(chrome, crowded_page)
    text = read_text(chrome)
    visit(chrome, crowded_page, scripts=False)
    assert read_text(chrome) == text
    assert len(text.split()) > 100


def test_nothing_is_cut_off_on_paper(chrome, crowded_page):
    visit(chrome, crowded_page, width=PAPER, media="print")
    assert find_overhang(chrome, width=PAPER) == []


def test_a_bad_page_is_noticed(chrome, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        """<!DOCTYPE html><meta name="viewport" content="width=device-width"><title></title>
        <img src="http://pictures.invalid/1.png"><p style="color: #ccc">pale</p><p id="said">as it was</p>
        <div style="overflow: hidden"><div style="width: 1000px; height: 9px"></div></div>
        <details><summary>more</summary><img src="http://pictures.invalid/2.png" loading="lazy"></details>
        <style>@keyframes turn { to { rotate: 1turn; } }</style><p style="animation: turn 1s infinite">never rests</p>
        <b onclick="0"></b><div style="height: 9000px"></div>
        <script>
        console.warn("careful"); alert("here"); document.getElementById("said").textContent = "changed";
        </script>"""
    )
    visit(chrome, page, width=PHONE, scripts=False)
    assert "as it was" in read_text(chrome)
    visit(chrome, page, width=PHONE)
    assert "changed" in read_text(chrome)
    look_around(chrome)
    expected = [r"asks for .*/1.png", r"asks for .*/2.png", r"console, WARNING: .*careful", "dialog: here"]
    noticed = notice(chrome)
    assert [one for one in expected if not any(re.match(one, text) for text in noticed)] == []
    chrome.execute_script("document.getElementById('said').animate({opacity: [0.1, 0.1, 1]}, 2000)")
    violations = find_violations(chrome)
    assert {text.partition(":")[0] for text in violations} >= {"color-contrast", "image-alt"}
    assert not any("color-contrast" in text and "changed" in text for text in violations)
    assert any("up to 1" in text for text in find_overhang(chrome, width=PHONE))
    assert len(chrome.execute_script(INTRUDERS)) == 3
