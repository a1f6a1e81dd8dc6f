"""The guide "better data", walked through on drawn photos with wrong labels, as its reader would."""

import json
from pathlib import Path

import pytest

from helpers.commands import ok, read_csv, run_inside
from pronk.photos.drawing import DEMO_KINDS, draw_photos
from pronk.storage.files import digest_file, write_csv


@pytest.mark.more
def test_photos_in_the_wrong_folder_are_found_and_a_corrected_list_is_trained_on(tmp_path):
    photos = draw_photos(tmp_path / "photos", photos_per_class=30, size=(320, 240))
    truth = {}
    for kind, other in zip(DEMO_KINDS, DEMO_KINDS[1:] + DEMO_KINDS[:1], strict=True):
        for number in (1, 2):
            path = f"{other}/from_{kind}_{number}.jpg"
            (photos / kind / f"{kind}_000{number}.jpg").rename(photos / path)
            truth[path] = kind
    options = ("--weights", "offline", "--image-size", "160", "--cache", tmp_path / "cache")
    rows = json.loads(ok(run_inside("audit", photos, *options, "--html", tmp_path / "review.html", "--json")))
    assert len(truth.keys() & {row["path"] for row in rows[:9]}) >= 5
    # What a person saves on the page who moves every photo back to where it belongs.
    decisions = [
        {"path": path, "digest": digest_file(photos / path), "given": Path(path).parent.name, "action": "move"}
        | {"label": kind}
        for path, kind in truth.items()
    ]
    write_csv(tmp_path / "review.csv", list(decisions[0]), decisions)
    corrected = tmp_path / "corrected.csv"
    ok(run_inside("audit", photos, "--apply", tmp_path / "review.csv", "--out", corrected))
    labels = {Path(row["path"]).name: row["label"] for row in read_csv(corrected)}
    assert all(labels[Path(path).name] == kind for path, kind in truth.items())
    run = tmp_path / "run"
    ok(run_inside("train", corrected, *options, "--views", "1", "--frozen-only", "--out", run, "--quiet"))
