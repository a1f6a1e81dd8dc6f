"""The page of suspicious labels as a person meets it: decided by keyboard, saved, read back, with hostile names."""

import dataclasses
import hashlib
import os

import numpy as np
import pytest
from PIL import Image

from helpers.browser import (
    DESK,
    PHONE,
    find_overhang,
    find_violations,
    look_around,
    notice,
    read_text,
    say_what_is_missing,
    visit,
)
from helpers.commands import wait_for
from helpers.pages import HIDDEN, HOSTILE, INTRUDERS, write_if_possible
from helpers.pictures import draw_picture, encode
from pronk.analysis.labels import Neighbour, Suspicion
from pronk.moving.review import Decision, read_review
from pronk.report.audit_page import MOST_ROWS, render_audit
from pronk.text import visible


def in_browser(test):
    """Mark a test that needs one, and takes its time."""
    return pytest.mark.more(pytest.mark.skipif(bool(say_what_is_missing()), reason=say_what_is_missing())(test))


CLASSES = ("cat", "dog", "=cmd()", "</script><intruder>", os.fsdecode(b"caf\xe9"), "'-quoted")


def make_suspicions(folder, names):
    """Suspicions of small pictures; a name that the file system refuses has no file."""
    suspicions = []
    for number, name in enumerate(names):
        data = encode(draw_picture("circle", number, (120, 80 + 8 * number % 90)))
        given, suggested = CLASSES[number % len(CLASSES)], CLASSES[(number + 1) % len(CLASSES)]
        path = f"{name}{number}.jpg"
        data = data if write_if_possible(folder / path, data) else b""
        neighbours = tuple(Neighbour(f"{other}{i}.jpg", CLASSES[i % 2]) for i, other in enumerate(names[:5]))
        digest = hashlib.sha256(data or name.encode("utf-8", "surrogatepass")).hexdigest()
        suspicions.append(Suspicion(path, digest, given, suggested, 0.95 - 0.4 * number / len(names), neighbours))
    return suspicions


def write_page(folder, suspicions):
    page = folder / "review.html"
    text = render_audit(suspicions, root=folder, classes=CLASSES, data="<my> photos", photos=327, accuracy=0.96)
    page.write_text(text, encoding="utf-8")
    return page


def test_the_page_is_one_file_of_bounded_size(tmp_path):
    rng = np.random.default_rng(0)
    suspicions = make_suspicions(tmp_path, [f"{'x' * 40}-" for _ in range(40)])
    for number, one in enumerate(suspicions):
        spots = encode(Image.fromarray(rng.integers(0, 256, (32, 42, 3)).astype(np.uint8)).resize((640, 480)))
        (tmp_path / one.path).write_bytes(spots)
        suspicions[number] = dataclasses.replace(one, digest=hashlib.sha256(spots).hexdigest())
    many = [suspicions[i % 40] for i in range(MOST_ROWS + 17)]
    text = render_audit(many, root=tmp_path, classes=CLASSES, data="photos", photos=900, accuracy=0.9)
    assert text.count("<article") == MOST_ROWS
    assert text.count("data:image/jpeg") == MOST_ROWS * 6
    assert "17 more are left" in text
    assert len(text) < 12_000_000
    assert "http" not in text.replace("http-equiv", "")


def test_a_photo_that_is_another_by_now_is_not_shown(tmp_path):
    suspicions = make_suspicions(tmp_path, ["a", "b"])
    (tmp_path / suspicions[0].path).write_bytes(encode(draw_picture("square", 99)))
    text = render_audit(suspicions, root=tmp_path, classes=CLASSES, data="photos", photos=9, accuracy=0.9)
    assert text.count("The photo cannot be read, or is another by now.") == 1
    assert text.count('alt="The photo ') == 1


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    return write_page(folder, make_suspicions(folder, ["plain ", "two ", "three ", "four "]))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The page's path and its suspicions."""
    folder = tmp_path_factory.mktemp("hostile")
    suspicions = make_suspicions(folder, HOSTILE)
    return write_page(folder, suspicions), suspicions


def forget(chrome, page):
    """Open a page as somebody does who never was here."""
    visit(chrome, page)
    chrome.execute_script("localStorage.clear()")
    visit(chrome, page)


def press(chrome, *keys):
    from selenium.webdriver import ActionChains

    for key in keys:
        ActionChains(chrome).send_keys(key).perform()


def focused(chrome):
    return chrome.execute_script("return document.activeElement.id")


def text_of(chrome, name):
    return chrome.execute_script("return document.getElementById(arguments[0]).textContent", name)


def save(chrome, folder):
    """Press the button that has the focus and wait for the file."""
    folder.mkdir()
    chrome.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    press(chrome, "\ue007")  # Enter
    wait_for((folder / "review.csv").exists)
    return folder / "review.csv"


def tab_to(chrome, name):
    for _ in range(200):
        if focused(chrome) == name:
            return
        press(chrome, "\ue004")
    pytest.fail(f"{name} cannot be reached by Tab")


@in_browser
def test_everything_by_keyboard(chrome, page, tmp_path):
    forget(chrome, page)
    tab_to(chrome, "start")
    press(chrome, "\ue007")
    assert focused(chrome) == "row-0"
    style = "const s = getComputedStyle(document.activeElement); return [s.outlineStyle, parseFloat(s.outlineWidth)]"
    assert chrome.execute_script(style) == ["solid", 2], "the focus can be seen"
    press(chrome, "m")
    assert focused(chrome) == "row-1"
    assert text_of(chrome, "progress") == "1 of 4 decided"
    press(chrome, "n", "p", "k", "D")
    assert focused(chrome) == "row-3"
    hidden = """
        const row = document.activeElement.getBoundingClientRect(), bar = document.querySelector(".tally");
        return row.top < 0 || row.top > bar.getBoundingClientRect().top;
    """
    assert not chrome.execute_script(hidden)
    press(chrome, "d")
    assert focused(chrome) == "save"
    press(chrome, "k")
    assert text_of(chrome, "progress") == "4 of 4 decided", "keys mean something only on a photo"
    actions = [(one.action, one.given, one.label) for one in read_review(save(chrome, tmp_path / "out"))]
    assert actions == [
        ("move", CLASSES[0], CLASSES[1]), ("keep", CLASSES[1], CLASSES[1]), ("drop", CLASSES[2], ""),
        ("drop", CLASSES[3], ""),
    ]  # fmt: skip
    assert "Saved 4 decisions as review.csv" in text_of(chrome, "saved")
    assert notice(chrome) == []


@in_browser
def test_by_radio_buttons_and_list(chrome, page, tmp_path):
    """The way of those who do not know the keys: Tab, Space and the arrows."""
    forget(chrome, page)
    tab_to(chrome, "start")
    press(chrome, "\ue004", " ")
    assert text_of(chrome, "progress") == "1 of 4 decided"
    press(chrome, "\ue004", "\ue004")
    chrome.execute_script("document.querySelector('#row-1 select').focus()")
    press(chrome, "cat")  # types ahead in the list, and is no command
    tab_to(chrome, "save")
    first, second = read_review(save(chrome, tmp_path / "out"))
    assert (first.action, second.action) == ("keep", "move")
    assert second.label == "cat"


@in_browser
def test_a_decision_can_be_taken_back_and_outlives_a_reload(chrome, page):
    forget(chrome, page)
    assert chrome.execute_script("return document.getElementById('save').disabled")
    tab_to(chrome, "start")
    press(chrome, "\ue007", "k", "m", "p", "u")
    assert text_of(chrome, "progress") == "1 of 4 decided"
    visit(chrome, page)
    assert text_of(chrome, "progress") == "1 of 4 decided"
    assert chrome.execute_script("return document.querySelector('#row-0 input:checked').value") == "keep"
    tab_to(chrome, "start")
    press(chrome, "\ue007")
    assert focused(chrome) == "row-1", "it goes on where nothing is decided yet"


@in_browser
def test_where_nothing_can_be_remembered_decisions_can_still_be_saved(chrome, page, tmp_path):
    refuse = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }})"
    added = chrome.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": refuse})
    try:
        visit(chrome, page)
        tab_to(chrome, "start")
        press(chrome, "\ue007", "k", "m", "k", "d")
        assert len(read_review(save(chrome, tmp_path / "out"))) == 4
        visit(chrome, page)
        assert text_of(chrome, "progress") == "0 of 4 decided"
    finally:
        chrome.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


@in_browser
def test_every_name_comes_back_byte_for_byte(chrome, hostile, tmp_path):
    page, suspicions = hostile
    forget(chrome, page)
    tab_to(chrome, "start")
    press(chrome, "\ue007", *"m" * len(suspicions))
    review = save(chrome, tmp_path / "out")
    wanted = [Decision(s.path, s.digest, s.given, "move", s.suggested) for s in suspicions]
    found = read_review(review)
    for one, other in zip(found, wanted, strict=True):
        if "\ud83d" in other.path:  # half a character is neither bytes of a name nor text
            assert one.path == other.path.replace("\ud83d", "\ufffd")
            assert one.digest == other.digest
        else:
            assert one == other
    cells = [line.split(b",")[-1] for line in review.read_bytes().splitlines()]
    assert not any(cell.startswith((b"=", b"+", b"-", b"@")) for cell in cells), "a spreadsheet would run these"


@in_browser
@pytest.mark.parametrize(("width", "dark"), [(DESK, False), (PHONE, True)])
def test_it_fits_and_loads_nothing_and_hostile_names_are_text(chrome, hostile, width, dark):
    page, suspicions = hostile
    forget(chrome, page)
    visit(chrome, page, width=width, dark=dark)
    chrome.execute_script("document.querySelector('#row-1 input').click()")
    look_around(chrome)
    assert find_overhang(chrome, width=width) == []
    assert notice(chrome) == []
    assert find_violations(chrome) == []
    text = read_text(chrome)
    assert [one.path for one in suspicions if visible(one.path) not in text] == []
    payload = '<script type="application/json" id="payload">'
    assert [one for one in chrome.execute_script(INTRUDERS) if not one.startswith(payload)] == []
    assert chrome.execute_script("return document.querySelectorAll('intruder').length") == 0
    assert sorted(set(HIDDEN.findall(chrome.execute_script("return document.documentElement.outerHTML")))) == []


@in_browser
def test_no_other_script_runs_and_without_scripts_everything_can_be_seen(chrome, page, tmp_path):
    changed = tmp_path / "changed.html"
    text = page.read_text(encoding="utf-8")
    changed.write_text(text.replace('"use strict";', '"use strict"; document.title = "run";'), encoding="utf-8")
    visit(chrome, changed)
    assert chrome.title != "run"
    assert any("Content Security Policy" in line for line in notice(chrome))
    visit(chrome, page, scripts=False)
    text = read_text(chrome)
    assert "this page can only be looked at" in text
    assert "Labelled cat, looks like dog" in text
