"""Photos at addresses: listed and read as those of a folder, whatever the network does."""

import dataclasses
import itertools
import json
import sys
import threading
import zipfile

import pytest

from helpers.commands import fails, listing, ok, predict, run_inside
from helpers.stores import Shaky, open_store, serve_folder, serve_s3, upload
from helpers.training import tiny_settings, write_photos
from helpers.trees import grow_tree
from pronk.dataset.checkup import check
from pronk.dataset.listing import list_leniently, list_photos
from pronk.dataset.loading import load_dataset
from pronk.errors import DataError, MissingExtra, SettingsError, StorageError
from pronk.photos.decoding import MAX_BYTES, read_bytes
from pronk.storage import remote, sources
from pronk.storage.remote import find_shared_folder, is_address, is_remote, to_path
from pronk.storage.sources import AHEAD, MOST_AHEAD, read_ahead, read_elsewhere, scan
from pronk.training.recipe import train


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))
    with open_store() as opened:
        yield opened


# --- what an address is


@pytest.mark.parametrize("text", ["s3://b/k", "http://h/x", "hf://datasets/a/b", "simplecache::memory://photos"])
def test_addresses_are_told_from_paths(text):
    assert is_address(text)


@pytest.mark.parametrize("text", ["photos", "C:\\photos", "C:/photos", "a:b", "/s3:/b", "s3:/b", "./http:", "-"])
def test_other_texts_are_paths(text):
    assert not is_address(text)
    assert not is_remote(to_path(text))


def test_a_chained_address_keeps_copies(store, tmp_path):
    store.pipe_file("photos/1.png", b"photo")
    read = []
    Shaky.before_read = read.append
    for _ in range(2):
        assert read_elsewhere(to_path("simplecache::shaky://photos/1.png")) == b"photo"
    assert len(read) <= 1, "the second time from the copy"
    upload(store, write_photos(tmp_path / "set", 8), "set")
    found, wanted = load_dataset("simplecache::shaky://set", seed=1), load_dataset(tmp_path / "set", seed=1)
    assert found.photos == wanted.photos


def test_what_nothing_reads_says_so(monkeypatch):
    with pytest.raises(DataError, match="no address that can be read") as caught:
        to_path("nonsense://photos")
    assert caught.value.hint
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(DataError, match="gcsfs"):
        to_path("gs://bucket/photos")
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(MissingExtra) as missing:
        to_path("s3://bucket/photos")
    assert "pronk[remote]" in missing.value.hint


# --- as a folder


@pytest.mark.parametrize("seed", range(12))
def test_random_folders_come_out_the_same(tmp_path, store, seed):
    tree = grow_tree(tmp_path / "tree", seed)
    for path in sorted(tree.root.rglob("*"), reverse=True):  # stores have neither links nor empty folders
        if path.is_symlink():
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    upload(store, tree.root, "tree")
    wanted, found = list_leniently(tree.root), list_leniently(to_path("shaky:///tree"))
    assert (found.entries, found.classes) == (wanted.entries, wanted.classes)
    strip = lambda finding: dataclasses.replace(finding, message="", hint="")  # noqa: E731 - roots are named in some
    assert sorted(map(repr, map(strip, found.findings))) == sorted(map(repr, map(strip, wanted.findings)))
    one, other = check("shaky:///tree"), check(tree.root)
    assert (one.classes, one.files) == (other.classes, other.files)


@pytest.mark.parametrize("kind", ["folder", "zip", "list", "list of addresses"])
def test_a_data_set_at_an_address_is_that_of_the_folder(tmp_path, store, kind):
    photos = write_photos(tmp_path / "photos", 8)
    wanted = load_dataset(photos, seed=1)
    upload(store, photos, "photos")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for photo in wanted.photos:
            archive.write(photos / photo.path, photo.path)
    store.pipe_file("photos.zip", (tmp_path / "photos.zip").read_bytes())
    lines = [f"{photo.path},{photo.label}\n" for photo in wanted.photos]
    store.pipe_file("photos/list.csv", f"path,label\n{''.join(lines)}".encode())
    (tmp_path / "list.csv").write_text(f"path,label\n{''.join(f'shaky:///photos/{line}' for line in lines)}")
    data = {
        "folder": "shaky:///photos",
        "zip": "shaky:///photos.zip",
        "list": "shaky:///photos/list.csv",
        "list of addresses": tmp_path / "list.csv",
    }[kind]
    found = load_dataset(data, seed=1)
    if kind == "list of addresses":  # relative to what all share
        assert str(found.root) == "shaky:///photos"
    assert found.photos == wanted.photos, "with the same digests and parts"
    assert found.classes == wanted.classes


def test_a_folder_within_one_of_the_same_name_is_listed(store):
    store.pipe_file("cats/cats/1.png", b"x")
    assert [(item.name, item.is_folder) for item in scan(to_path("shaky:///cats"))] == [("cats", True)]


def test_a_list_names_photos_of_one_place(tmp_path):
    for rows in ("s3://a/1.jpg,x\ns3://b/1.jpg,y\n", "s3://a/1.jpg,x\nb/1.jpg,y\n"):
        (tmp_path / "list.csv").write_text("path,label\n" + rows)
        with pytest.raises(DataError, match="several places"):
            list_photos(tmp_path / "list.csv")
    assert find_shared_folder(["s3://a/b/1.jpg", "s3://a/bc/1.jpg"]) == "s3://a"


def test_a_run_from_an_address_is_that_of_the_folder(tmp_path, store, tiny_weights, workers_inside):
    photos = write_photos(tmp_path / "photos", 12)
    upload(store, photos, "bucket/photos")
    settings = tiny_settings(tiny_weights, frozen_only=True)
    options = {"settings": settings, "cache": tmp_path / "cache"}
    places = (photos, "shaky:///bucket/photos")
    runs = [train(data, out=tmp_path / f"run-{i}", **options).folder for i, data in enumerate(places)]
    for name in ("predictions.csv", "split.csv"):
        assert (runs[0] / name).read_text() == (runs[1] / name).read_text()
    assert 'data = "shaky:///bucket/photos"' in (runs[1] / "settings.toml").read_text(), "so that it can be replayed"
    said = [ok(run_inside("predict", runs[0], path, "--format", "jsonl")).replace(str(path), "") for path in places]
    assert said[0] == said[1]
    assert len({ok(run_inside("evaluate", runs[0], path, "--json")) for path in places}) == 1
    assert "is new to the model" in fails(run_inside("next", runs[0], places[1])), "it knows them by their content"


def test_predictions_by_name_pattern_and_list(predictor, served_model, tmp_path, store):
    photos = write_photos(tmp_path / "photos", 3)
    upload(store, photos, "in box")
    everything = [f"shaky:///in box/{label}/{i}.png" for label in ("cold", "warm") for i in range(3)]
    assert [row.path for row in predictor.predict(map(to_path, everything))] == everything
    assert predictor.predict_one(to_path(everything[0])).score == predictor.predict_one(photos / "cold" / "0.png").score
    lines = ok(run_inside("predict", served_model, "shaky:///in box/*/1.png")).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["shaky:///in box/cold/1.png", "shaky:///in box/warm/1.png"]
    said = ok(run_inside("predict", served_model, "-", "--format", "csv", stdin="\n".join(everything).encode()))
    assert [line.split(",")[0] for line in said.splitlines()[1:]] == everything
    ok(run_inside("next", served_model, "shaky:///in box", "--count", "2", "--html", tmp_path / "next.html"))
    assert (tmp_path / "next.html").read_text().count("data:image") >= 2, "with their pictures"


def test_a_heat_map_of_a_photo_at_an_address(whole_bundle, tmp_path, store):
    upload(store, write_photos(tmp_path / "photos", 1), "in box")
    said = ok(run_inside("explain", whole_bundle, "shaky:///in box/cold/0.png", "--out", tmp_path / "maps", "--json"))
    assert json.loads(said)[0]["path"] == "shaky:///in box/cold/0.png"
    assert listing(tmp_path / "maps") == ["0-beside.png", "0.png"]


def test_a_web_server_gives_photos(served_model, tmp_path):
    photos = write_photos(tmp_path / "web" / "photos", 3)
    with zipfile.ZipFile(tmp_path / "web" / "photos.zip", "w") as archive:
        archive.write(photos / "cold" / "0.png", "cold/0.png")
    with serve_folder(tmp_path / "web") as address:
        lines = ok(run_inside("predict", served_model, f"{address}/photos/", f"{address}/none.jpg")).splitlines()
        assert [line.split("  ")[0] for line in lines[:6]] == [
            f"{address}/photos/{label}/{i}.png" for label in ("cold", "warm") for i in range(3)
        ]
        assert "vanished" in lines[6]
        said = [
            run_inside("check", place, "--json").stdout for place in (photos, f"{address}/photos", f"{address}/photos/")
        ]
        assert said[0] == said[1] == said[2], "a folder there is a page, with a slash or without"
        (tmp_path / "web" / "list.csv").write_text("path,label\nphotos/cold/0.png,a\nphotos/warm/0.png,b\n")
        assert list_photos(to_path(f"{address}/list.csv")).classes == ("a", "b")
        assert "no address" in fails(run_inside("check", f"simplecache::{address}/photos"))
        # This server sends no parts of files, and what is in an archive lies anywhere in it.
        assert "range requests" in fails(run_inside("check", f"{address}/photos.zip"))


# --- when the network fails


def test_a_read_is_tried_again(store):
    store.pipe_file("a/1.png", b"photo")
    times = itertools.count(1)

    def fail_twice(path):
        if next(times) <= 2:
            raise ConnectionResetError("reset by peer")

    Shaky.before_read = fail_twice
    assert read_bytes(to_path("shaky:///a/1.png")) == b"photo"
    assert next(times) == 4


def test_what_cannot_be_read_is_a_row_with_its_reason(served_model, tmp_path, store):
    upload(store, write_photos(tmp_path / "photos", 4), "photos")
    store.pipe_file("photos/cold/empty.png", b"")

    def fail(path):
        if "2.png" in path:
            raise TimeoutError("no answer")
        if "3.png" in path:
            raise PermissionError(13, "access denied")

    Shaky.before_read = fail
    done, text, _ = predict(served_model, "shaky:///photos", form="jsonl")
    rows = {row["path"].removeprefix("shaky:///photos/"): row["error"] for row in map(json.loads, text.splitlines())}
    assert (done.photos, done.failed) == (9, 5)
    assert rows["cold/0.png"] is None
    assert rows["cold/2.png"] == {"code": "unreadable", "message": "2.png cannot be read: no answer"}
    assert rows["cold/3.png"]["message"] == "3.png cannot be read: access denied"
    assert rows["cold/empty.png"]["code"] == "zero_byte"
    assert len([scan for scan in check("shaky:///photos").findings if scan.severity == "error"]) >= 5, (
        "check says it too"
    )


def test_no_more_is_read_than_a_photo_may_have(store, monkeypatch):
    store.pipe_file("a/huge.png", bytes(1000))
    real = Shaky.info
    monkeypatch.setattr(Shaky, "info", lambda self, path, **kwargs: real(self, path) | {"size": 10 * MAX_BYTES})
    read = []
    Shaky.before_read = read.append
    assert len(read_elsewhere(to_path("shaky:///a/huge.png"), 10)) == 10
    assert not read, "not as a whole"


def test_a_place_that_cannot_be_listed_says_why(monkeypatch, store):
    def fail(self, *args, **kwargs):
        raise ConnectionRefusedError(111, "connection refused")

    monkeypatch.setattr(Shaky, "info", fail)
    monkeypatch.setattr(Shaky, "ls", fail)
    for command in ("check", "train"):
        assert "shaky:///photos" in fails(run_inside(command, "shaky:///photos"))


# --- ahead


def test_reads_run_side_by_side_and_come_in_order(store):
    for i in range(40):
        store.pipe_file(f"a/{i}.png", str(i).encode())
    together = threading.Barrier(AHEAD, timeout=30)

    def wait(path):
        if int(path.split("/")[-1][:-4]) < AHEAD:
            together.wait()  # passes only if all of them are being read at a time

    Shaky.before_read = wait
    paths = [to_path(f"shaky:///a/{i}.png") for i in range(40)]
    assert [read_elsewhere(path) for path in read_ahead(paths)] == [str(i).encode() for i in range(40)]
    assert not sources._begun


def test_what_is_read_ahead_has_a_bound_and_an_end(store, tmp_path):
    for i in range(200):
        store.pipe_file(f"a/{i}.png", b"x")
    paths = [to_path(f"shaky:///a/{i}.png") for i in range(200)]
    readers = [read_ahead(paths[20 * i :]) for i in range(8)]
    for reader in readers:
        next(reader)
    assert 0 < len(sources._begun) <= MOST_AHEAD
    for reader in readers:
        reader.close()
    assert len(sources._begun) <= len(readers), "but for what was handed out already"
    mixed = [tmp_path / "1.png", *paths[:3], tmp_path / "2.png"]
    assert list(read_ahead(mixed)) == mixed
    sources._begun.clear()


# --- what is written


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_answers_go_to_an_address_whole_or_not_at_all(served_model, tmp_path, store, monkeypatch, form):
    monkeypatch.setenv("PRONK_CACHE", str(tmp_path / "cache"))
    photos = write_photos(tmp_path / "photos", 4)
    out = to_path(f"shaky:///bucket/answers.{form}")

    def fail(path):
        raise ConnectionError("no route")

    Shaky.before_write = fail
    with pytest.raises(StorageError, match="no route"):
        predict(served_model, photos, out=out)
    assert not out.exists()
    Shaky.before_write = lambda path: None
    done, _, remarks = predict(served_model, photos, out=out)
    assert (done.photos, remarks) == (8, ["goes on: 8 of 8 shards are done"])
    local = tmp_path / f"answers.{form}"
    predict(served_model, photos, out=local)
    assert out.read_bytes() == local.read_bytes()
    assert listing(tmp_path / "cache" / "batches") == [], "nothing is left"
    with pytest.raises(SettingsError, match="exists"):
        predict(served_model, photos, out=out)


def test_features_go_to_an_address(whole_bundle, tmp_path, store):
    photos, out = write_photos(tmp_path / "photos", 3), "shaky:///bucket/features.csv"
    for place in (tmp_path / "features.csv", out):
        ok(run_inside("features", whole_bundle, photos, "--out", place))
    assert store.cat_file("bucket/features.csv") == (tmp_path / "features.csv").read_bytes()
    assert "exists" in fails(run_inside("features", whole_bundle, photos, "--out", out), code=2)


def test_nothing_at_an_address_is_moved(served_model, tmp_path, store):
    upload(store, write_photos(tmp_path / "photos", 3), "photos")
    before, aside = dict(Shaky.store), tmp_path / "aside"
    (tmp_path / "review.csv").write_text("path,digest,given,action,label\n")
    fails(run_inside("check", "shaky:///photos", "--fix", "--quarantine", aside), code=2)
    fails(run_inside("predict", served_model, "shaky:///photos", "--sort-into", aside, "--move"), code=2)
    review = ("--apply", tmp_path / "review.csv", "--move", "--quarantine", aside)
    fails(run_inside("audit", "shaky:///photos", *review), code=2)
    assert before == Shaky.store
    assert not aside.exists()


# --- a real one


@pytest.mark.more
def test_a_bucket_is_checked_trained_and_predicted(tmp_path, tiny_weights, tiny_photos, own_cache):
    """The whole of it against a server of S3, with worker processes that read from there too."""
    with serve_s3("photo-box") as (client, env):
        for path in sorted(tiny_photos.rglob("*")):
            if path.is_file():
                client.upload_file(str(path), "photo-box", f"set/{path.relative_to(tiny_photos).as_posix()}")
        client.put_object(Bucket="photo-box", Key="set/", Body=b"")  # as consoles make folders
        packed = tmp_path / "set.zip"
        with zipfile.ZipFile(packed, "w") as archive:
            for path in tiny_photos.rglob("*.*"):
                archive.write(path, path.relative_to(tiny_photos).as_posix())
        client.upload_file(str(packed), "photo-box", "set.zip")
        places = (tiny_photos, "s3://photo-box/set", "s3://photo-box/set.zip", "simplecache::s3://photo-box/set")
        said = [run_inside("check", place, "--json", env=env).stdout for place in places]
        assert said == [said[0]] * 4
        options = (
            "--weights",
            tiny_weights,
            "--image-size",
            "96",
            "--frozen-only",
            "--quiet",
            "--cache",
            tmp_path / "c",
        )
        for name, data in (("disk", tiny_photos), ("store", "s3://photo-box/set")):
            ok(run_inside("train", data, "--out", tmp_path / name, *options, env=env))
        for name in ("split.csv", "predictions.csv"):
            assert (tmp_path / "disk" / name).read_bytes() == (tmp_path / "store" / name).read_bytes()
        out = "s3://photo-box/answers/all.jsonl"
        ok(run_inside("predict", tmp_path / "store", "s3://photo-box/set", "--out", out, env=env))
        rows = client.get_object(Bucket="photo-box", Key="answers/all.jsonl")["Body"].read().decode().splitlines()
        assert len(rows) == sum(path.is_file() for path in tiny_photos.rglob("*"))
        assert "exists" in fails(run_inside("predict", tmp_path / "store", tiny_photos, "--out", out, env=env), code=2)
