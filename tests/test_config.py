"""Settings: every wrong value named at once, and TOML that reads back as it was."""

import os
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pronk.config import BLOCKS, CHANGES, SETTINGS, Settings, find_problems, read_settings, to_toml
from pronk.errors import SettingsError

texts = st.text(st.characters(exclude_categories=["Cs"])) | st.binary().map(os.fsdecode)
RANGES = {name: setting.limits for name, setting in SETTINGS.items() if setting.limits}
CHOICES = {name: setting.choices for name, setting in SETTINGS.items() if setting.choices}
settings = st.builds(
    Settings,
    data=texts,
    split=st.none() | texts,
    val=st.floats(0.01, 0.45),
    test=st.floats(0.01, 0.45),
    group_by=st.none() | texts.map(re.escape),
    weights=texts,
    alpha=st.sampled_from(CHOICES["alpha"]),
    image_size=st.integers(1, 32).map(lambda n: 32 * n),
    fit=st.sampled_from(CHOICES["fit"]),
    views=st.just("auto") | st.integers(1, 64),
    augment=st.just("auto") | st.lists(st.sampled_from(CHANGES), min_size=1).map(",".join),
    fine_tune_from=st.sampled_from(BLOCKS),
    learning_rate=st.just("auto") | st.floats(1e-9, 1),
    frozen_only=st.booleans(),
    fail_under=st.none() | st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)


def write(path, text):
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


@given(settings)
@example(Settings(data='quote" back\\slash\nnew\ttab\x7f\x00\x1b é 😀'))
def test_settings_come_back_from_toml(tmp_path_factory, value):
    file = write(tmp_path_factory.getbasetemp() / "settings.toml", to_toml(value))
    assert Settings(**read_settings(file)) == value


def test_a_file_of_a_windows_editor_is_read(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_bytes(b"\xef\xbb\xbfviews = 2\r\nval = 1\r\n")
    with pytest.raises(SettingsError):
        Settings(**read_settings(file))
    file.write_bytes(b"\xef\xbb\xbfviews = 2\r\nval = 0.2\r\n")
    assert Settings(**read_settings(file)) == Settings(views=2, val=0.2)


def test_all_faults_of_a_file_are_named_at_once(tmp_path):
    file = write(tmp_path / "settings.toml", 'veiws = 2\nviews = "2"\nfrozen_only = 1\nseed = true\nval = 0.2\n')
    with pytest.raises(SettingsError) as caught:
        read_settings(file)
    for part in ("setting 'veiws'", "frozen_only must be true", "seed must be an int"):
        assert part in str(caught.value)
    assert "val" not in str(caught.value).replace(file.name, "")
    assert "views" in caught.value.hint


@pytest.mark.parametrize("text", ["views =", "views = 1\nviews = 2", "\x00", "= 3"])
def test_what_is_no_toml_is_refused(tmp_path, text):
    with pytest.raises(SettingsError, match="not valid TOML") as caught:
        read_settings(write(tmp_path / "settings.toml", text))
    assert caught.value.hint
    with pytest.raises(SettingsError, match=r"cannot read .*gone.toml"):
        read_settings(tmp_path / "gone.toml")


@pytest.mark.parametrize("name", RANGES)
def test_both_ends_of_each_range(name):
    low, high = RANGES[name]
    kind = int if Settings.__dataclass_fields__[name].type in (int, int | None, int | str) else float
    if name not in ("val", "test", "image_size"):
        assert not find_problems(Settings(**{name: kind(low)}))
        assert not find_problems(Settings(**{name: kind(high)}))
    for wrong in (low - (1 if kind is int else 1e-10), high + (1 if kind is int else 1e-6)):
        with pytest.raises(SettingsError, match="--" + name.replace("_", "-")):
            Settings(**{name: kind(wrong)})


@pytest.mark.parametrize("name", CHOICES)
def test_only_known_choices(name):
    for value in CHOICES[name]:
        assert getattr(Settings(**{name: value}), name) == value
    with pytest.raises(SettingsError, match=r"must be (one of|auto or)") as caught:
        Settings(**{name: 7.0 if name == "alpha" else "other"})
    assert caught.value.hint


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"val": 0.6, "test": 0.5}, "--val and --test leave no photos to train on"),
        ({"image_size": 200}, "--image-size must be a multiple of 32"),
        ({"learning_rate": float("nan")}, "--learning-rate must be auto or from"),
        ({"views": "two"}, "--views must be auto or from 1 to 64. Got 'two'"),
        ({"augment": "crop,flip"}, "--augment knows auto, none, crop, .* with commas. Got 'crop,flip'"),
        ({"augment": ""}, "--augment knows"),
        ({"augment": "none", "views": 2}, "--augment none leaves the photo itself. Got --views 2"),
        ({"group_by": "("}, "--group-by must be a regular expression"),
        ({"fail_under": 0.5, "test": 0.0}, "--fail-under needs a test part"),
        ({"frozen_only": True, "keep": "fine-tuned"}, "--keep fine-tuned needs phase 2"),
        ({"views": 2.5}, "views must be an integer"),
        ({"views": None}, "views must be an integer or a string"),
        ({"seed": True}, "seed must be an integer"),
        ({"frozen_only": "yes"}, "frozen_only must be true or false"),
        ({"data": b"photos"}, "data must be a string"),
    ],
)
def test_other_wrong_values_are_refused(changes, says):
    with pytest.raises(SettingsError, match=says):
        Settings(**changes)


def test_all_wrong_values_are_named_at_once():
    with pytest.raises(SettingsError) as caught:
        Settings(fit="stretch", views=0, epochs=0, image_size=100)
    for option in ("--fit", "--views", "--epochs", "--image-size"):
        assert option in str(caught.value)


def test_whole_numbers_serve_as_floats():
    assert Settings(test=0, learning_rate=1) == Settings(test=0.0, learning_rate=1.0)


def test_every_setting_is_described():
    assert all(f"{name}: {setting.help}" in Settings.__doc__ for name, setting in SETTINGS.items())
