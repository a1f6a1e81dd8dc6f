import io
import json
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from helpers.training import change_answers, change_record
from pronk.errors import ModelError, StorageError
from pronk.model.bundle import FORMAT, golden_photo, open_bundle, write_bundle
from pronk.storage.files import digest_file


def test_round_trip(tmp_path):
    contents = {"model.onnx": b"onnx", "golden/1.jpg": b"jpeg", "golden/expected.json": b'{"1.jpg": [0.25, 0.75]}'}
    options = {"classes": ["été", "2"], "size": 64, "fit": "pad", "weights": {"name": "offline", "sha256": "ab"}}
    written = write_bundle(tmp_path / "model", contents, temperature=1.5, **options)
    opened = open_bundle(tmp_path / "model")
    assert opened == written
    assert opened.classes == ("été", "2")
    assert (opened.size, opened.fit, opened.temperature) == (64, "pad", 1.5)
    assert opened.weights == {"name": "offline", "sha256": "ab"}
    assert opened.golden() == {"golden/1.jpg": [0.25, 0.75]}
    assert opened.files["model.onnx"] == digest_file(tmp_path / "model" / "model.onnx")


def test_the_record_has_the_fields_of_the_contract(whole_bundle):
    record = json.loads((whole_bundle / "model.json").read_text())
    assert list(record) == [
        "format", "classes", "image", "blocks", "runtime", "temperature", "unknown", "sets", "rest_class", "files",
        "weights", "versions",
    ]  # fmt: skip
    assert record["image"] == {"size": 32, "fit": "crop", "resample": "bilinear", "decoding": 2}
    assert {"python", "pronk", "numpy", "pillow", "onnxruntime"} <= record["versions"].keys()
    assert set(record["files"]) == {
        path.relative_to(whole_bundle).as_posix() for path in whole_bundle.rglob("*") if path.is_file()
    } - {"model.json"}


@pytest.mark.parametrize("name", ["model.onnx", "golden/3.jpg", "golden/expected.json"])
@pytest.mark.parametrize("how", ["altered", "missing"])
def test_a_tampered_file_is_named(bundle_copy, name, how):
    path = bundle_copy / name
    if how == "missing":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    with pytest.raises(ModelError, match=f"{name} (is|was) {how}") as caught:
        open_bundle(bundle_copy)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("version", "hint"),
    [("7.5.0", 'pip install "pronk>=7.5.0"'), ('1"; touch /tmp/x; "', "install a newer version of pronk")],
)
def test_a_newer_format_names_the_version_to_install_and_nothing_that_a_shell_would_run(bundle_copy, version, hint):
    change_record(bundle_copy, format=FORMAT + 1, versions={"pronk": version}, classes=17)
    with pytest.raises(ModelError, match=f"format {FORMAT + 1}") as caught:
        open_bundle(bundle_copy)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"format": "one"}', '{"format": 1}', "\xff", "[" * 200_000]
)
def test_a_damaged_record_is_an_error(bundle_copy, text):
    (bundle_copy / "model.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=r"model\.json is damaged"):
        open_bundle(bundle_copy)


def test_a_run_folder_and_its_model_are_the_same(bundle_copy):
    assert open_bundle(bundle_copy.parent) == open_bundle(bundle_copy) == open_bundle(str(bundle_copy))


def test_an_unfinished_run_says_how_to_go_on(tmp_path):
    (tmp_path / "settings.toml").touch()
    with pytest.raises(ModelError, match="not finished") as caught:
        open_bundle(tmp_path)
    assert "--resume" in caught.value.hint


def test_the_record_comes_last(tmp_path):
    """So a folder that was not written whole is none."""
    full = mock.patch("pronk.model.bundle.write_json", side_effect=StorageError("disk full"))
    with full, pytest.raises(StorageError):
        write_bundle(tmp_path / "m", {"model.onnx": b""}, classes="ab", size=32, fit="crop", weights={})
    with pytest.raises(ModelError, match="no model"):
        open_bundle(tmp_path / "m")


def test_golden_photos_are_small_upright_and_bare():
    noted = Image.fromarray(np.zeros((600, 1200, 3), np.uint8))
    exif = Image.Exif()
    exif[0x010E] = "my garden"
    noted.info |= {"comment": b"private", "exif": exif.tobytes()}
    golden = golden_photo(noted)
    with Image.open(io.BytesIO(golden)) as image:
        assert image.size == (512, 256)
        assert not image.getexif()
    assert b"private" not in golden
    assert b"garden" not in golden
    with Image.open(io.BytesIO(golden_photo(Image.new("RGB", (30, 20))))) as image:
        assert image.size == (30, 20)


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": "ab"},
        {"classes": []},
        {"classes": [1, 2]},
        {"classes": ["a", "\0"]},
        {"classes": ["a", "\udcff"]},
        {"classes": ["a", ""]},
        {"classes": ["a", "a"]},
        {"classes": ["a", "x" * 3000]},
        {"temperature": 0},
        {"temperature": float("nan")},
        {"temperature": 1e9},
        {"image": {"size": True, "fit": "crop"}},
        {"image": {"size": 10**9, "fit": "crop"}},
        {"image": {"size": 32, "fit": "stretch"}},
        {"files": []},
        {"files": {"model.onnx": 5}},
        {"files": {"/etc/passwd": "00"}},
        {"files": {"golden/../../x": "00"}},
        {"files": {"a\0b": "00"}},
        {"files": {f"{i}": "00" for i in range(1000)}},
        {"runtime": "pickle"},
        {"unknown": {"threshold": 1.0}},
        {"rest_class": "a class that it does not have"},
        {"sets": {"n": 3, "scores": [0.5]}},
        {"format": True},
        {"format": 0},
    ],
)
def test_what_cannot_be_true_is_refused(bundle_copy, changes):
    change_record(bundle_copy, **changes)
    with pytest.raises(ModelError, match="damaged"):
        open_bundle(bundle_copy)


@pytest.mark.parametrize(("place", "says"), [("kept", "not an ordinary file"), ("../kept", "outside the model folder")])
def test_a_link_in_place_of_a_file_is_refused(bundle_copy, place, says):
    path = bundle_copy / "model.onnx"
    path.rename(bundle_copy / place)
    path.symlink_to(bundle_copy / place)
    with pytest.raises(ModelError, match=says):
        open_bundle(bundle_copy)


def test_a_huge_or_unnamed_model_is_not_even_read(bundle_copy):
    with (bundle_copy / "model.onnx").open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(ModelError, match="bytes"):
        open_bundle(bundle_copy)
    change_record(bundle_copy, files={})
    with pytest.raises(ModelError, match=r"model\.onnx is not named"):
        open_bundle(bundle_copy)
    (bundle_copy / "model.json").write_bytes(b" " * (9 * 2**20))
    with pytest.raises(ModelError, match="refused"):
        open_bundle(bundle_copy)


@pytest.mark.parametrize(
    "expected",
    [
        '{"1.jpg": [2, -1]}',
        '{"1.jpg": [NaN, 0]}',
        '{"1.jpg": [0.5]}',
        '{"1.jpg": ["a", "b"]}',
        '{"1.jpg": null}',
        "[" * 100_000,
        '{"../x": [1, 0]}',
    ],
)
def test_golden_answers_are_probabilities_of_golden_photos(bundle_copy, expected):
    change_answers(bundle_copy, expected)
    with pytest.raises(ModelError, match=r"damaged|does not fit"):
        open_bundle(bundle_copy).golden()
