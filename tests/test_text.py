"""Names and numbers -> text that is safe to show."""

import re

from hypothesis import given
from hypothesis import strategies as st

from pronk.text import percent, quote, visible


@given(st.text(st.characters(), max_size=40))
def test_visible_text_is_safe_and_settled(text):
    shown = visible(text)
    shown.encode("utf-8")
    assert visible(shown) == shown
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]", shown)


def test_visible_keeps_what_people_write():
    for name in ("Größe 1.jpg", "фото.png", "فيل.jpg", "写真.jpg", "🦙.jpg", "👩\u200d🌾.jpg"):
        assert visible(name) == name
    assert visible("a\u202eb\nc\udcffd\x7f") == "a\\u202eb\\nc\\xffd\\x7f"


def test_percent_never_rounds_a_mistake_away():
    shown = ["0.0 %", "0.1 %", "50.0 %", "99.9 %", "100.0 %"]
    assert [percent(share).replace("\u00a0", " ") for share in (0, 1e-9, 0.5, 1 - 1e-9, 1)] == shown


def test_commands_to_repeat_are_written_for_the_shell(monkeypatch):
    assert quote("my photos") == "'my photos'"
    with monkeypatch.context() as patch:
        patch.setattr("os.name", "nt")
        assert quote("my photos") == '"my photos"'
