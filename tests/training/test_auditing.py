"""Photos whose labels are wrong, from files to records, in Python and on the command line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import pronk
from helpers.commands import fails, ok
from helpers.training import run_pronk, tiny_settings, write_photos
from pronk.errors import DataError

PLANTED = {"warm/cold-3.png": "cold", "cold/warm-5.png": "warm"}


@pytest.fixture
def surveyed_inside(monkeypatch, workers_inside):
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.setattr("pronk.training.surveys.start_workers", lambda: ThreadPoolExecutor(2))


@pytest.fixture(scope="module")
def mixed_photos(tmp_path_factory):
    """Two classes of 16, of which one photo each lies in the other's folder."""
    folder = write_photos(tmp_path_factory.mktemp("mixed") / "photos", 16)
    for name in PLANTED:
        (label, old) = name.split("/")
        source, number = old.removesuffix(".png").split("-")
        (folder / source / f"{number}.png").rename(folder / label / old)
    return folder


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_photos_in_the_wrong_folder_come_first(mixed_photos, tiny_weights, tmp_path, surveyed_inside):
    before, steps = snapshot(mixed_photos), []
    settings = tiny_settings(tiny_weights, image_size=64)
    found = pronk.audit(mixed_photos, settings=settings, cache=tmp_path, on_progress=lambda *step: steps.append(step))
    assert {one.path: one.suggested for one in found.suspicions[:2]} == PLANTED
    assert (found.photos, found.classes, found.root) == (32, ("cold", "warm"), mixed_photos)
    assert found.accuracy["n"] == 32
    assert found.accuracy["mean"] > 0.8
    assert snapshot(mixed_photos) == before
    assert ("audit", 15, 15) in steps
    assert {stage for stage, _, _ in steps} >= {"check", "extract", "audit"}


def test_the_same_photos_give_the_same_audit(mixed_photos, tiny_weights, tmp_path, surveyed_inside):
    settings = tiny_settings(tiny_weights, image_size=64)
    first, second = (pronk.audit(mixed_photos, settings=settings, cache=tmp_path) for _ in range(2))
    assert first == second


def test_what_was_left_out_is_told(mixed_photos, tiny_weights, tmp_path, surveyed_inside):
    photos = shutil.copytree(mixed_photos, tmp_path / "photos")
    (photos / "cold" / "empty.png").touch()
    found = pronk.audit(photos, settings=tiny_settings(tiny_weights), cache=tmp_path / "cache")
    assert [finding.path for finding in found.findings if finding.code == "zero_byte"] == ["cold/empty.png"]
    assert found.photos == 32


def test_a_class_of_one_cannot_be_judged(tmp_path, tiny_weights, surveyed_inside):
    photos = write_photos(tmp_path / "photos", 4)
    for path in (photos / "warm").iterdir():
        if path.name != "0.png":
            path.unlink()
    with pytest.raises(DataError, match="'warm' has 1 photo apart from copies"):
        pronk.audit(photos, settings=tiny_settings(tiny_weights), cache=tmp_path / "cache")


def run_audit(photos, weights, *more, **options):
    words = ("audit", photos, "--weights", weights, "--image-size", "64")
    return run_pronk(*words, *more, **options)


def test_the_command_prints_records_and_writes_the_page(mixed_photos, tiny_weights, tmp_path):
    page = tmp_path / "review.html"
    done = run_audit(mixed_photos, tiny_weights, "--json", "--html", page)
    records = json.loads(ok(done))
    assert {row["path"]: row["suggested"] for row in records[:2]} == PLANTED
    assert all(set(row) == {"path", "given", "suggested", "score", "neighbours"} for row in records)
    assert b"of 32 photos" in done.stderr
    assert b"--apply review.csv" in done.stderr
    text = page.read_text(encoding="utf-8")
    assert all(name in text for name in PLANTED)
    table = ok(run_audit(mixed_photos, tiny_weights, "--most", "1", "--quiet")).splitlines()
    assert len(table) == 1
    assert table[0].split("  ")[0] in PLANTED
    assert " -> " in table[0]


def test_a_network_that_sees_little_is_said_to(tmp_path, tiny_weights):
    rng = np.random.default_rng(0)
    photos = write_photos(tmp_path / "photos", 10)
    names = list((photos / "warm").iterdir())
    for path in rng.choice(names, 5, replace=False):  # labels that are luck
        path.rename(photos / "cold" / f"other-{path.name}")
    for path in sorted((photos / "cold").glob("?.png"))[:5]:
        path.rename(photos / "warm" / f"other-{path.name}")
    done = run_audit(photos, tiny_weights)
    assert done.returncode == 0
    assert b"most of these labels will be right" in done.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--undo"], "--undo belongs to --apply"),
        (["--move"], "--move belongs to --apply"),
        (["--out", "x.csv"], "--out belongs to --apply"),
        (["--html", "page.pdf"], "--html must end in .html"),
        (["--apply", "r.csv", "--html", "a.html"], "--html has no meaning with --apply"),
        (["--apply", "r.csv", "--seed", "3"], "--seed has no meaning with --apply"),
        (["--apply", "r.csv", "--move"], "--move needs --quarantine DIR"),
        (["--apply", "r.csv", "--quarantine", "bad"], "--quarantine belongs to --move"),
        (["--apply", "r.csv", "--move", "--quarantine", "bad", "--out", "x.csv"], "--out has no meaning with --move"),
        (["--image-size", "33"], "--image-size must be a multiple of 32"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, options, expected):
    assert expected in fails(run_pronk("audit", tmp_path, *options), code=2)


# --- real photos


def flip(source, target, share, seed):
    """Link the photos into class folders, a share of them into the wrong one; return the paths of those."""
    paths = sorted(path.relative_to(source) for path in source.rglob("*.jpg"))
    labels = sorted({path.parts[0] for path in paths})
    rng = np.random.default_rng([seed, round(100 * share)])
    chosen = set(rng.choice(len(paths), round(share * len(paths)), replace=False).tolist())
    wrong = set()
    for i, path in enumerate(paths):
        label = labels[1 - labels.index(path.parts[0])] if i in chosen else path.parts[0]
        name = Path(label) / f"{path.parts[0]}-{path.name}"
        (target / label).mkdir(parents=True, exist_ok=True)
        (target / name).symlink_to((source / path).resolve())
        if i in chosen:
            wrong.add(name.as_posix())
    return wrong


@pytest.mark.more
@pytest.mark.parametrize("share", [0.05, 0.1])
def test_flipped_labels_of_real_photos_are_found(real_photos, real_weights, tmp_path, own_cache, share):
    weights = real_weights / "mobilenet_v2_1.0_224_no_top.h5"
    settings, hits = pronk.Settings(weights=str(weights)), []
    for seed in range(3):
        wrong = flip(real_photos, tmp_path / str(seed), share, seed)
        found = pronk.audit(tmp_path / str(seed), settings=settings).suspicions
        first = {one.path for one in found[: int(1.5 * len(wrong))]}
        hits.append(len(first & wrong) / len(wrong))
    assert min(hits) >= 0.8
    assert np.mean(hits) >= 0.9
