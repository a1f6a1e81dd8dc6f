"""Which class is that of all the rest: found by its name, or named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pronk.dataset.rest_class import find_rest_class
from pronk.errors import SettingsError


@pytest.mark.parametrize(
    ("classes", "rest"),
    [
        (["alpaca", "not_alpaca"], "not_alpaca"),
        (["Helmet", "No Helmet"], "No Helmet"),
        (["hot_dog", "not-hotdog"], "not-hotdog"),
        (["cat", "dog", "not_cat_or_dog"], "not_cat_or_dog"),
        (["cat", "dog", "Other"], "Other"),
        (["cat", "dog", "the rest"], "the rest"),
        (["cat", "background", "dog"], "background"),
        (["positive", "negative"], "negative"),
        (["cat", "none_of_these"], "none_of_these"),
        (["cat", "dog"], None),
        (["stop", "no_entry"], None),  # a sign of its own
        (["north", "notebook"], None),
        (["nothing", "other", "cat"], None),  # which of the two?
        (["other_mammals", "birds"], None),  # a teapot is neither
        (["猫", "犬"], None),
    ],
)
def test_a_name_says_so(classes, rest):
    assert find_rest_class(classes) == rest
    assert find_rest_class(classes[::-1]) == rest, "the order does not matter"


def test_whoever_knows_better_says_so():
    classes = ["cat", "misc", "other"]
    assert find_rest_class(classes, "misc") == "misc"
    assert find_rest_class(classes, "none") is None
    assert find_rest_class(["cat", "none"], "none") == "none", "a class of that name is meant"
    with pytest.raises(SettingsError, match="'dog'") as caught:
        find_rest_class(classes, "dog")
    assert "cat, misc, other" in caught.value.hint


@given(st.lists(st.text(max_size=12), max_size=5, unique=True))
def test_any_names_will_do(classes):
    assert find_rest_class(classes) in (None, *classes)
