"""The page of `pronk serve` as a person meets it: photos in, answers out; classes in, a model out."""

import base64
import csv
import io
import json
import re
import shutil
import signal
import time
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from helpers.browser import (
    DESK,
    PHONE,
    find_overhang,
    find_violations,
    notice,
    photograph,
    read_text,
    say_what_is_missing,
    visit,
)
from helpers.commands import wait_for
from helpers.metrics import make_metrics
from helpers.pages import HIDDEN, NAMES
from helpers.pictures import encode
from helpers.servers import start_server
from helpers.training import change_record, draw_tiny
from pronk.model.predictor import Predictor
from pronk.photos.drawing import DEMO_KINDS, draw_photo, draw_photos
from pronk.text import percent, visible

pytestmark = [pytest.mark.more, pytest.mark.skipif(bool(say_what_is_missing()), reason=say_what_is_missing())]

TOKEN = "open-sesame"
IMAGENET_FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"

FORMULAS = ("=HYPERLINK(1)", "+1", "@sum, really", "-2", "\u001b[31m")
HOSTILE_NAMES = [f"{name}.jpg" for name in (*NAMES, *FORMULAS) if name.isascii() or "\udce9" not in name]
HOSTILE_CLASSES = ("<img src=x onerror=alert(1)>", "=1+1,\"'\u202e\nb")
INTRUDERS = """
return [...document.querySelectorAll("*")].filter(element =>
    /^(intruder|iframe|object|embed|base)$/.test(element.localName)
    || [...element.attributes].some(one => /^on|^srcdoc$/.test(one.name)
        || (/^(src|href|action)$/.test(one.name) && !/^(blob:|data:image|[#/]|page\\/|docs$|$)/.test(one.value)))
).map(element => element.outerHTML.slice(0, 200));
"""

# Files as a browser hands them over: real ones come from the file input, these from a script.
TRANSFER = """
const transfer = new DataTransfer();
for (const [name, type, data] of arguments[0])
    transfer.items.add(new File([Uint8Array.from(atob(data), one => one.charCodeAt(0))], name, {type}));
const target = document.querySelector(arguments[1]), how = {bubbles: true, cancelable: true};
"""
DROP = TRANSFER + "target.dispatchEvent(new DragEvent('drop', {dataTransfer: transfer, ...how}));"
PASTE = TRANSFER + "target.dispatchEvent(new ClipboardEvent('paste', {clipboardData: transfer, ...how}));"
CARDS = """
return [...document.querySelectorAll(".card")].map(card => {
    const text = selector => card.querySelector(selector).innerText.trim(), heat = card.querySelector(".heat");
    return {
        state: card.dataset.state, verdict: text(".verdict").replace(/\\s+/g, " "), words: text(".words"),
        path: text(".path"), took: text(".took"), picture: card.querySelector(".picture").naturalWidth,
        bars: [...card.querySelectorAll(".bars li")].map(one => one.innerText.replace(/\\s+/g, " ").trim()),
        heat: heat.hidden ? null : [heat.naturalWidth, getComputedStyle(heat).opacity],
    };
});
"""
IDLE = "return !document.querySelector('.card[data-state=waiting], .card[data-state=asking]')"


@pytest.fixture(scope="module")
def server(served_model):
    with start_server(served_model) as running:
        yield running


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    """A server without a model, where one can be taught, but not from ImageNet's weights."""
    folder = tmp_path_factory.mktemp("school")
    (folder / "models").mkdir()
    (folder / "models" / IMAGENET_FILE).write_bytes(b"what a failed download left")
    env = {"KERAS_HOME": str(folder)}
    with start_server(None, "--work", folder / "work", "--weights", "offline", env=env) as running:
        running.work = folder / "work"
        yield running


@pytest.fixture
def page(chrome, server):
    """The page on a desk, which must ask for nothing from elsewhere and leave the console silent."""
    open_page(chrome, server)
    yield chrome
    assert notice(chrome, host=server.address) == []


@pytest.fixture(scope="module")
def tiny():
    """Six photos of the two classes that the model knows, as bytes."""
    rng = np.random.default_rng(3)
    return [encode(draw_tiny(rng, label, size=(112, 88)), quality=90) for label in ("cold", "warm") * 3]


def open_page(chrome, server, *, tab="predict", fragment="", width=DESK, dark=False):
    visit(chrome, f"{server.address}#{fragment or f'tab={tab}'}", width=width, dark=dark)
    until(chrome, "return document.documentElement.dataset.ready")


def until(chrome, script, *arguments, seconds=60):
    """Wait until a script returns something, and return that."""
    end = time.monotonic() + seconds
    while not (found := chrome.execute_script(script, *arguments)):
        assert time.monotonic() < end, f"it did not come: {script}; the page says: {read_text(chrome)}"
        time.sleep(0.05)
    return found


def find(chrome, selector):
    return chrome.find_element("css selector", selector)


def press(chrome, selector):
    """Press a button, also while the page scrolls."""
    chrome.execute_script("arguments[0].click()", find(chrome, selector))


def hand_over(chrome, how, files, target="body"):
    """Let a script drop or paste files, (name, bytes)."""
    kinds = {".jpg": "image/jpeg", ".png": "image/png", ".tif": "image/tiff"}
    packed = [[name, kinds.get(name[-4:], ""), base64.b64encode(data).decode()] for name, data in files]
    chrome.execute_script(how, packed, target)


def download(chrome, selector, folder, name):
    """Press a button and return the file that it saves."""
    chrome.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    press(chrome, selector)
    wait_for((folder / name).exists)
    return (folder / name).read_bytes()


def choose(chrome, selector, paths):
    find(chrome, selector).send_keys("\n".join(map(str, paths)))


def answers(chrome, n):
    """Wait for n answers, and read all cards."""
    until(chrome, "return document.querySelectorAll('.card').length >= arguments[0]", n)
    until(chrome, IDLE)
    return chrome.execute_script(CARDS)


def drop_files(chrome, paths, selector):
    """Drop files or folders from the disk, as the system does it."""
    spot = chrome.execute_script(
        "const e = document.querySelector(arguments[0]); e.scrollIntoView({block: 'center', behavior: 'instant'});"
        "const box = e.getBoundingClientRect(); return [box.left + box.width / 2, box.top + box.height / 2];",
        selector,
    )
    data = {"items": [], "files": list(map(str, paths)), "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        place = {"type": kind, "x": spot[0], "y": spot[1], "data": data}
        chrome.execute_cdp_cmd("Input.dispatchDragEvent", place)


def said(prediction):
    """What a card says about a prediction."""
    return "None of these" if prediction.unknown else f"{prediction.top} {plain(percent(prediction.score))}"


def plain(text):
    return text.replace("\xa0", " ")


# --- Predict


def test_a_dropped_or_pasted_photo_gets_its_answer(page, served_model, tiny):
    hand_over(page, DROP, [("tiny.jpg", tiny[0])])
    (card,) = answers(page, 1)
    expected = Predictor.load(served_model).predict_one(tiny[0])
    assert card["verdict"] == said(expected)
    scores = {score["label"]: percent(score["score"]) for score in expected.record()["scores"]}
    assert card["bars"] == [f"{label} {plain(share)}" for label, share in scores.items()]
    assert card["path"] == "tiny.jpg"
    assert card["took"].endswith("ms")
    assert card["heat"][0] > 0
    text = read_text(page)
    assert "Is it cold or warm?" in text
    assert "Photos never leave this machine." in text
    hand_over(page, PASTE, [("image.png", encode(Image.open(io.BytesIO(tiny[0])), "PNG"))])
    assert [card["path"] for card in answers(page, 2)] == ["image.png", "tiny.jpg"], "the newest first"


def test_files_from_the_disk_can_be_dropped_anywhere(page, served_model, tiny, tmp_path):
    folder = tmp_path / "holiday"
    (folder / "day 2").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(tiny[0])
    (folder / "day 2" / "b.jpg").write_bytes(tiny[1])
    (folder / "notes.txt").write_text("not sent")
    (folder / ".hidden.jpg").write_bytes(tiny[1])
    (tmp_path / "c.jpg").write_bytes(tiny[2])
    drop_files(page, [folder, tmp_path / "c.jpg"], "footer")
    assert [card["path"] for card in answers(page, 3)] == ["holiday/a.jpg", "holiday/day 2/b.jpg", "c.jpg"]


def test_several_are_chosen_and_asked_two_at_a_time(page, served_model, tiny, tmp_path):
    paths = []
    for number, data in enumerate(tiny * 2):
        paths.append(tmp_path / f"{number}.jpg")
        paths[-1].write_bytes(data)
    page.execute_script(
        "window.most = 0; let open = 0; const plain = fetch;"
        "window.fetch = async (...asked) => {"
        "  window.most = Math.max(window.most, ++open); try { return await plain(...asked); } finally { open--; } };"
    )
    choose(page, "#files", paths)
    cards = answers(page, len(paths))
    assert [card["path"] for card in cards] == [path.name for path in paths]
    assert [card["verdict"] for card in cards] == [said(one) for one in Predictor.load(served_model).predict(paths)]
    assert page.execute_script("return window.most") == 2
    assert until(page, "return document.getElementById('live').textContent").startswith("12 photos answered")
    find(page, "#as-table").click()
    rows = page.execute_script("return [...document.querySelectorAll('#rows tr')].map(row => row.innerText)")
    assert len(rows) == len(paths)
    assert rows[0].startswith("0.jpg")


def test_the_heat_map_lies_where_the_network_looked_and_follows_its_slider(page, tiny):
    wide = Image.new("RGB", (300, 100), "white")
    wide.paste(Image.open(io.BytesIO(tiny[1])).resize((100, 100)), (100, 0))
    hand_over(page, DROP, [("wide.jpg", encode(wide))])
    answers(page, 1)
    until(page, "return document.querySelector('.photo.shaped')")
    photo, heat = page.execute_script(
        "return ['.photo', '.heat'].map(name => {const box = document.querySelector(name).getBoundingClientRect();"
        "return [box.left, box.top, box.width, box.height]})"
    )
    assert photo[2] / photo[3] == pytest.approx(3, rel=0.02)
    assert heat[0] - photo[0] == pytest.approx(photo[2] / 3, abs=2)
    assert heat[2:] == pytest.approx([photo[3], photo[3]], abs=2)
    for value in ("0", "1"):
        page.execute_script("const one = document.getElementById('heat'); one.value = 100 * arguments[0];"
                            "one.dispatchEvent(new Event('input'));", value)  # fmt: skip
        until(page, "return getComputedStyle(document.querySelector('.heat')).opacity === arguments[0]", value)


def test_bad_photos_say_what_is_wrong_and_what_to_do(page, tiny, tmp_path):
    picture = Image.open(io.BytesIO(tiny[0]))
    files = [
        ("empty.jpg", b""),
        ("notes.jpg", b"hello" * 99),
        ("scan.tif", encode(picture, "TIFF")),
        ("ok.jpg", tiny[0]),
        ("cut.jpg", tiny[0][:900]),
    ]
    hand_over(page, DROP, files)
    (tmp_path / "heavy.jpg").write_bytes(tiny[0] + bytes(11_000_000))
    choose(page, "#files", [tmp_path / "heavy.jpg"])
    cards = {card["path"]: card for card in answers(page, len(files) + 1)}
    assert re.match(r"The \w+ has 0 bytes\.\nHint: ", cards["empty.jpg"]["words"])
    assert "not a picture" in cards["notes.jpg"]["words"]
    assert "cut off" in cards["cut.jpg"]["words"]
    assert "11.0 MB, and 10.0 MB are allowed" in cards["heavy.jpg"]["words"]
    assert cards["scan.tif"]["verdict"] == cards["ok.jpg"]["verdict"]
    assert "This browser cannot show the picture." in read_text(page)
    assert {name for name, card in cards.items() if card["state"] == "done"} == {"scan.tif", "ok.jpg"}
    assert {card["state"] for card in cards.values()} == {"done", "failed"}


def test_a_busy_server_is_asked_again(page, tiny):
    page.execute_script(
        "let times = 0; const plain = fetch; window.fetch = async (...asked) => ++times > 2 ? plain(...asked)"
        ": new Response('{}', {status: 503, headers: {'Retry-After': '1'}});"
    )
    hand_over(page, DROP, [("tiny.jpg", tiny[0])])
    until(page, "return document.querySelector('.verdict')?.innerText.startsWith('The server is busy')")
    assert answers(page, 1)[0]["state"] == "done"
    feature = {"name": "prefers-reduced-motion", "value": "reduce"}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    assert page.execute_script("return document.getAnimations().length") == 0


def test_a_lost_server_can_come_back(chrome, served_model, tiny, tmp_path):
    with start_server(served_model, "--work", tmp_path / "work") as first:
        open_page(chrome, first, tab="teach")
        first.stop(signal.SIGINT)
        find(chrome, "#class-name").send_keys("cats\n")
        problem = until(chrome, "return document.getElementById('class-problem').innerText")
        assert "The server does not answer." in problem
        find(chrome, "#tab-predict").click()
        hand_over(chrome, DROP, [("tiny.jpg", tiny[0])])
        assert "The server does not answer." in answers(chrome, 1)[0]["words"]
    with start_server(served_model, "--port", str(first.port)):
        find(chrome, ".retry button").click()
        until(chrome, "return document.querySelector('.card').dataset.state === 'done'")


# --- the camera


def test_the_camera_answers_live_and_shoots(page):
    find(page, "#use-camera").click()
    until(page, "return document.querySelector('video')?.videoWidth")
    read = "return document.querySelector('.reading .value')?.textContent"
    assert until(page, read).endswith("%")
    page.execute_script("window.asked = 0; const plain = fetch; window.fetch = (...all) => (asked++, plain(...all))")
    begun = time.monotonic()
    until(page, "return asked >= 4")
    assert time.monotonic() - begun > 1  # about twice a second
    assert page.execute_script("return document.activeElement.className") == "primary shoot"
    find(page, ".shoot").click()
    (card,) = answers(page, 1)
    assert re.fullmatch(r"camera \d\d-\d\d-\d\d\.jpg", card["path"])
    assert card["state"] == "done"
    find(page, ".live").click()
    asked = page.execute_script("return asked")
    time.sleep(1)
    assert page.execute_script("return asked") == asked
    page.execute_script("window.track = document.querySelector('video').srcObject.getTracks()[0]")
    find(page, "#tab-teach").click()
    assert page.execute_script("return [track.readyState, document.querySelector('video')]") == ["ended", None]


def test_without_a_camera_it_says_why_and_the_camera_app_takes_the_photo(page, tiny, tmp_path):
    page.execute_script(
        "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotAllowedError'))"
    )
    find(page, "#use-camera").click()
    until(page, "return document.querySelector('#predict-camera [role=alert]')")
    assert "The browser may not use the camera." in find(page, "#predict-camera").text
    page.execute_script("Object.defineProperty(navigator, 'mediaDevices', {value: undefined})")
    find(page, "#use-camera").click()
    assert "only to pages at https:// or at localhost" in find(page, "#predict-camera").text
    (tmp_path / "shot.jpg").write_bytes(tiny[0])
    choose(page, "#predict-camera input[capture]", [tmp_path / "shot.jpg"])
    assert answers(page, 1)[0]["path"] == "shot.jpg"


# --- names from strangers


@pytest.fixture(scope="module")
def hostile_server(served_model, tmp_path_factory):
    """A server of a model whose classes have hostile names."""
    folder = Path(shutil.copytree(served_model, tmp_path_factory.mktemp("hostile") / HOSTILE_CLASSES[0]))
    change_record(folder, classes=HOSTILE_CLASSES)
    with start_server(folder) as running:
        running.model = folder
        yield running


def test_hostile_names_are_text_and_no_formula_in_the_csv(chrome, hostile_server, tiny, tmp_path):
    files = [*((name, tiny[n % len(tiny)]) for n, name in enumerate(HOSTILE_NAMES)), ("empty.jpg", b"")]
    open_page(chrome, hostile_server, width=PHONE)
    hand_over(chrome, DROP, files)
    cards = answers(chrome, len(files))
    assert [card["path"].replace("\n", "") for card in cards] == [visible(name) for name, _ in files]
    find(chrome, ".model details").click()
    for form in ("as-photos", "as-table"):
        find(chrome, f"#{form}").click()
        text = read_text(chrome)
        assert all(visible(name) in text for name in HOSTILE_CLASSES)
        assert "photo\\u202egnp.exe.jpg" in text
        assert chrome.execute_script(INTRUDERS) == []
        assert find_overhang(chrome, width=PHONE) == []
        assert find_violations(chrome) == []
    shown = chrome.execute_script("return document.body.innerText + document.title")
    assert sorted(set(HIDDEN.findall(shown))) == []
    assert notice(chrome, host=hostile_server.address) == []

    text = download(chrome, "#download", tmp_path, "pronk-answers.csv").decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    shares = [f"p_{name}" for name in HOSTILE_CLASSES]
    assert list(rows[0]) == ["path", "label", "score", "unknown", "distance", "error", *shares]
    assert [row["path"] for row in rows] == [defuse(name) for name, _ in files]
    expected = Predictor.load(hostile_server.model).predict([data for _, data in files])
    for row, one in zip(rows[:-1], expected, strict=False):
        assert (row["label"], row["unknown"], row["error"]) == (defuse(one.label), str(one.unknown), "")
        numbers = [float(row[name]) for name in ("score", "distance", *shares)]
        assert numbers == pytest.approx([one.score, one.distance, *one.probabilities], abs=1e-5)
    assert f"'{HOSTILE_CLASSES[1]}" in {row["label"] for row in rows}
    assert rows[-1]["error"].startswith("zero_byte: ")
    assert {rows[-1][name] for name in ("label", "score", "unknown", "distance", *shares)} == {""}


def defuse(text):
    """Return how a spreadsheet gets a text that it would take for a formula."""
    return f"'{text}" if re.match(r"[=+\-@\x00-\x1f\x7f]", text) else text


# --- looks, keyboard, token


@pytest.mark.parametrize(("width", "dark"), [(DESK, False), (PHONE, True)])
def test_both_tabs_are_sound(chrome, server, school, tiny, width, dark):
    without = [] if dark else [(server, "teach"), (school, "predict")]
    for running, tab in [(server, "predict"), (school, "teach"), *without]:
        open_page(chrome, running, tab=tab, width=width, dark=dark)
        if running is server and tab == "predict":
            hand_over(chrome, DROP, [(f"{n}.jpg", data) for n, data in enumerate(tiny)])
            answers(chrome, len(tiny))
        assert find_violations(chrome) == []
        assert find_overhang(chrome, width=width) == []
        assert notice(chrome, host=running.address) == []
        corner = Image.open(io.BytesIO(photograph(chrome))).convert("L").getpixel((0, 0))
        assert corner < 64 if dark else corner > 192


def test_the_keyboard_is_enough(page, tiny):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    def type_keys(*keys):
        ActionChains(page).send_keys(*keys).perform()
        return page.execute_script("const e = document.activeElement; return e.id || e.className || e.localName")

    assert type_keys(Keys.TAB) == "tab-predict"
    assert page.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert type_keys(Keys.ARROW_RIGHT) == "tab-teach"
    assert page.execute_script("return document.getElementById('teach').hidden || location.hash") == "#tab=teach"
    assert type_keys(Keys.ARROW_RIGHT) == "tab-predict"
    assert type_keys(Keys.END) == "tab-teach"
    assert type_keys(Keys.HOME) == "tab-predict"
    assert [type_keys(Keys.TAB) for _ in range(3)] == ["choose", "use-camera", "choose-folder"]
    hand_over(page, DROP, [("tiny.jpg", tiny[0]), ("other.jpg", tiny[1])])
    answers(page, 2)
    assert [type_keys(Keys.TAB) for _ in range(4)] == ["summary", "heat", "as-photos", "as-table"]
    type_keys(Keys.SPACE)
    assert not page.execute_script("return document.getElementById('list').hidden")
    assert [type_keys(Keys.TAB) for _ in range(4)] == ["download", "clear", "list", "link path"]
    type_keys(Keys.ENTER)
    assert page.execute_script("return document.activeElement.getAttribute('aria-label')") == "Remove tiny.jpg"
    type_keys(Keys.ENTER)
    assert [card["path"] for card in page.execute_script(CARDS)] == ["other.jpg"]
    assert page.execute_script("return document.activeElement.getAttribute('aria-label')") == "Remove other.jpg"
    find(page, "#clear").click()
    assert page.execute_script(CARDS) == []
    assert page.execute_script("return document.getElementById('results').hidden")


def test_the_token_is_asked_for_or_taken_from_the_address(chrome, served_model, tiny, tmp_path):
    with start_server(served_model, "--token", TOKEN, "--work", tmp_path / "work") as running:
        visit(chrome, running.address)
        until(chrome, "return document.getElementById('token-dialog').open")
        find(chrome, "#token").send_keys("wrong\n")
        until(chrome, "return !document.getElementById('token-problem').hidden")
        assert find_violations(chrome) == []
        find(chrome, "#token").send_keys(TOKEN + "\n")
        until(chrome, "return document.documentElement.dataset.ready")
        hand_over(chrome, DROP, [("tiny.jpg", tiny[0])])
        assert answers(chrome, 1)[0]["state"] == "done"
        find(chrome, "#tab-teach").click()
        make_class(chrome, "cats")
        hand_over(chrome, DROP, [("tiny.jpg", tiny[0])])
        until(chrome, "return document.querySelector('.thumbnails img')?.naturalWidth")
        chrome.execute_script("sessionStorage.clear()")
        open_page(chrome, running, fragment=f"token={TOKEN}&tab=predict")
        assert TOKEN not in chrome.current_url
        assert not chrome.execute_script("return document.getElementById('token-dialog').open")
        assert "Is it cold or warm?" in read_text(chrome)
        assert notice(chrome, host=running.address) == []


# --- Teach


def class_names(chrome):
    return chrome.execute_script("return [...document.querySelectorAll('.class .name')].map(one => one.value)")


def wait_for_class(chrome, name):
    until(chrome, "return [...document.querySelectorAll('.class .name')].some(one => one.value === arguments[0])", name)


def make_class(chrome, name):
    find(chrome, "#class-name").send_keys(name + "\n")
    wait_for_class(chrome, name)


def fill_class(chrome, name, folder):
    """Make a class of a folder's photos."""
    paths = sorted(folder.iterdir())
    make_class(chrome, name)
    in_class(chrome, name, "input[type=file]").send_keys("\n".join(map(str, paths)))
    number_in(chrome, name, f"{len(paths)} photos")


def look_up(school):
    """What the server knows of classes, training and runs."""
    return school.ask("GET", "/v1/teach").json()


def in_class(chrome, name, selector):
    """An element within the card of a class."""
    return chrome.execute_script(
        "return [...document.querySelectorAll('.class')].find(one => one.querySelector('.name').value === arguments[0])"
        ".querySelector(arguments[1])",
        name,
        selector,
    )


def number_in(chrome, name, expected):
    until(chrome, "return arguments[0].textContent === arguments[1]", in_class(chrome, name, ".number"), expected)


@pytest.fixture
def desk(chrome, school):
    """The Teach tab with an empty work folder."""
    for one in look_up(school)["classes"]:
        school.ask("DELETE", f"/v1/teach/classes/{quote(one['name'])}")
    visit(chrome, school.address)
    until(chrome, "return document.documentElement.dataset.ready")
    return chrome


def test_classes_are_made_filled_renamed_and_deleted(desk, school, tiny, tmp_path):
    from selenium.webdriver.common.keys import Keys

    assert not desk.execute_script("return document.getElementById('teach').hidden")  # there is no model yet
    make_class(desk, "cats")
    make_class(desk, "it's & fine")
    assert "cats needs 5 more, it's & fine needs 5 more" in find(desk, "#reason").text
    assert not find(desk, "#start").is_enabled()
    rng = np.random.default_rng(1)
    paths = []
    for number in range(6):
        paths.append(tmp_path / f"{number}.jpg")
        paths[-1].write_bytes(encode(draw_tiny(rng, "warm", size=(96, 72))))
    in_class(desk, "cats", "input[type=file]").send_keys("\n".join(map(str, paths)))
    number_in(desk, "cats", "6 photos")
    hand_over(desk, PASTE, [("pasted.jpg", tiny[0]), ("broken.jpg", b"broken")])  # goes to the class at hand
    number_in(desk, "cats", "7 photos")
    assert "broken.jpg" in until(desk, "return arguments[0].innerText", in_class(desk, "cats", ".refused"))
    until(desk, "return [...document.querySelectorAll('.thumbnails img')].every(one => one.naturalWidth)")
    assert find_violations(desk) == []

    in_class(desk, "cats", ".thumbnails .remove").click()
    number_in(desk, "cats", "6 photos")
    find(desk, ".toast button").click()
    number_in(desk, "cats", "7 photos")
    desk.execute_script("const plain = setTimeout; window.setTimeout = (task, pause) => plain(task, pause / 20);")
    in_class(desk, "cats", ".thumbnails .remove").click()
    wait_for(lambda: len(look_up(school)["classes"][0]["photos"]) < 7)

    in_class(desk, "cats", ".name").send_keys(Keys.CONTROL, "a")
    in_class(desk, "cats", ".name").send_keys("tigers\n")
    wait_for(lambda: {one["name"] for one in look_up(school)["classes"]} == {"it's & fine", "tigers"})
    wait_for_class(desk, "tigers")
    in_class(desk, "tigers", ".delete").click()
    assert "Its 6 photos will be removed" in find(desk, "#question").text
    find(desk, "#question-no").click()
    assert "tigers" in class_names(desk)
    in_class(desk, "tigers", ".delete").click()
    find(desk, "#question-yes").click()
    until(desk, "return document.querySelectorAll('.class').length === 1")
    assert notice(desk, host=school.address) == []


def test_dropped_folders_become_classes(desk, tiny, tmp_path):
    for folder, n in (("pets/cats", 3), ("pets/dogs", 2), ("birds", 1)):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(n):
            (tmp_path / folder / f"{number}.jpg").write_bytes(tiny[number])
    find(desk, "#class-name").send_keys("<img src=x onerror=alert(1)>\n")
    assert "A class cannot be called" in until(desk, "return document.getElementById('class-problem').innerText")
    assert class_names(desk) == desk.execute_script(INTRUDERS) == []
    drop_files(desk, [tmp_path / "pets", tmp_path / "birds"], "#collect-title")
    for name, expected in (("cats", "3 of 5"), ("dogs", "2 of 5"), ("birds", "1 of 5")):
        wait_for_class(desk, name)
        number_in(desk, name, expected)


def test_photos_that_are_there_already_are_not_called_added(desk, tiny):
    photos = [(f"{number}.jpg", data) for number, data in enumerate(tiny[:3])]
    make_class(desk, "cats")
    hand_over(desk, DROP, photos[:2], ".class")
    number_in(desk, "cats", "2 of 5")
    until(desk, "return document.getElementById('live').textContent === '2 photos added to cats.'")
    assert desk.execute_script("return document.querySelector('.toast')") is None
    hand_over(desk, DROP, photos, ".class")
    until(desk, "return document.getElementById('live').textContent === '1 photo added to cats, 2 there already.'")
    number_in(desk, "cats", "3 of 5")
    assert "2 photos were in cats already." in find(desk, "#toasts").text
    in_class(desk, "cats", ".thumbnails .remove").click()  # the newest, which is wanted again while it can be undone
    number_in(desk, "cats", "2 of 5")
    hand_over(desk, DROP, photos[2:], ".class")
    number_in(desk, "cats", "3 of 5")
    until(desk, "return document.getElementById('live').textContent === '1 photo added to cats.'")


def test_the_camera_fills_a_class(desk):
    make_class(desk, "screens")
    in_class(desk, "screens", ".shoot").click()
    until(desk, "return document.querySelector('video')?.videoWidth")
    for n in (1, 2):
        in_class(desk, "screens", ".camera .shoot").click()
        number_in(desk, "screens", f"{n} of 5")
    find(desk, "#tab-predict").click()
    assert desk.execute_script("return document.querySelector('video')") is None


def test_a_held_button_shoots_on_though_the_page_moves(desk):
    """Each shot adds a picture above the button, so that it moves away from under the finger."""
    from selenium.webdriver.common.action_chains import ActionChains

    make_class(desk, "screens")
    in_class(desk, "screens", ".shoot").click()
    until(desk, "return document.querySelector('video')?.videoWidth")
    button = in_class(desk, "screens", ".camera .shoot")
    desk.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    ActionChains(desk).move_to_element(button).click_and_hold().perform()
    number = in_class(desk, "screens", ".number")
    until(desk, "return parseInt(arguments[0].textContent) >= 1", number)
    desk.execute_script("document.getElementById('teaching').style.paddingTop = '600px'")
    before = int(number.text.split()[0])
    until(desk, "return parseInt(arguments[0].textContent) >= arguments[1]", number, before + 4, seconds=20)
    ActionChains(desk).release().perform()


def test_a_training_fails_is_stopped_or_becomes_a_model_to_try_and_take_along(desk, school, tmp_path):
    photos = draw_photos(tmp_path / "photos", photos_per_class=6, size=(320, 240))
    for kind in DEMO_KINDS:
        fill_class(desk, kind, photos / kind)
    assert re.match(
        r"Ready: \d+ photos in 3 classes\.", until(desk, "return document.getElementById('reason').innerText")
    )
    desk.execute_script("document.querySelector('[value=imagenet]').checked = true")
    assert not desk.execute_script("return document.getElementById('options').open")
    find(desk, "#start").click()
    assert "choose Offline above" in until(desk, "return document.getElementById('way-out')?.innerText")
    assert desk.execute_script("return document.getElementById('options').open")
    find(desk, "[value=offline]").click()
    find(desk, "#start").click()
    wait_for(lambda: b'"stage":"extract"' in school.ask("GET", "/v1/teach").body, seconds=200, pause=0.2)
    find(desk, "#stop").click()
    until(desk, "return document.getElementById('progress').innerText.startsWith('Training was stopped')")
    assert list((school.work / "runs").iterdir()) == []
    stages = watch_training(desk)
    assert len(stages) >= 3, stages
    assert find_violations(desk) == []
    run, training = look_up(school)["runs"][-1], look_up(school)["training"]
    assert [stage["stage"] for stage in training["stages"]] == [
        "check", "compare", "extract", "head", "fine_tune", "export", "evaluate",
    ]  # fmt: skip
    assert all(stage["done"] == stage["total"] > 0 for stage in training["stages"])
    text = find(desk, "#outcome").text
    assert f"{plain(percent(run['accuracy']['value']))} right" in text
    assert re.search(r"Kept: the network of phase .* after \(validation log-loss .*; lower is better\)\.$", text, re.M)
    assert re.search(r"% of \d+ test photos right \(.*\); \d+ photos of ", find(desk, "#run-list").text)
    assert desk.execute_script("return document.activeElement.id") == "outcome-title"

    archive = download(desk, "#outcome [download]", tmp_path, f"pronk-run-{run['name']}.zip")
    assert archive[:2] == b"PK"
    report = find(desk, "#outcome [target=_blank]").get_attribute("href")
    assert b"How good is it?" in school.ask("GET", report.removeprefix(school.address[:-1])).body

    press(desk, "#outcome .primary")
    until(desk, "return !document.getElementById('predict').hidden")
    assert "Is it alpaca, bird or mushroom?" in read_text(desk)
    drawn = [(f"{kind}.jpg", encode(draw_photo(kind, np.random.default_rng(n)))) for n, kind in enumerate(DEMO_KINDS)]
    hand_over(desk, DROP, drawn)
    assert [card["state"] for card in answers(desk, len(drawn))] == ["done"] * len(drawn)
    change_model(desk, school, run["name"])
    assert notice(desk, host=school.address) == []


def watch_training(chrome):
    """Press Train and wait for the outcome; return the stages that were seen under way."""
    find(chrome, "#start").click()
    seen, end = set(), time.monotonic() + 240
    while chrome.execute_script("return document.getElementById('outcome').hidden"):
        assert time.monotonic() < end, read_text(chrome)
        script = "return [...document.querySelectorAll('.stages .now .label')].map(one => one.innerText)"
        seen.update(chrome.execute_script(script))
        time.sleep(0.2)
    return seen


def change_model(chrome, school, name):
    """Answers of a former model say so, and can be asked for again."""
    work = school.work / "runs"
    shutil.copytree(work / name, work / str(int(name) + 1))
    find(chrome, "#tab-teach").click()
    until(chrome, "return document.querySelectorAll('#run-list li').length === 2")
    assert "in use" in chrome.execute_script("return document.querySelectorAll('#run-list li')[1].innerText")
    find(chrome, "#run-list button").click()
    until(chrome, "return !document.getElementById('predict').hidden")
    assert f"Answered by the model {name}" in read_text(chrome)
    find(chrome, "#again button").click()
    answers(chrome, len(DEMO_KINDS))
    assert "Answered by the model" not in read_text(chrome)


def test_photos_worth_labelling_are_chosen_and_get_their_class(desk, school, served_model, tiny, tmp_path):
    run = school.work / "runs" / "90"
    shutil.copytree(served_model, run / "model")
    accuracy = {"value": 0.9, "low": 0.7, "high": 0.97, "n": 20}
    (run / "metrics.json").write_text(json.dumps(make_metrics(("cold", "warm"), test={"accuracy": accuracy}).to_json()))
    try:
        school.ask("POST", "/v1/teach/runs/90/use")
        open_page(desk, school, tab="teach")
        for name in ("cold", "warm"):
            make_class(desk, name)
        until(desk, "return !document.getElementById('worth').hidden")
        photos = {f"{number}.jpg": data for number, data in enumerate(tiny[:4])}
        for name, data in (photos | {"broken.jpg": b"broken"}).items():
            (tmp_path / name).write_bytes(data)
        find(desk, "#worth-files").send_keys("\n".join(str(path) for path in sorted(tmp_path.glob("*.jpg"))))
        until(desk, "return document.querySelectorAll('#worth-photos li').length === 4")
        assert "4 photos without a label." in find(desk, "#worth-state").text
        assert "broken.jpg" in find(desk, "#toasts").text
        until(desk, "return [...document.querySelectorAll('#worth-photos img')].every(one => one.naturalWidth)")
        assert find_violations(desk) == []
        assert re.match("(cold or warm|warm or cold)", find(desk, "#worth-photos .doubt").text)
        desk.execute_script("document.querySelector('#worth-photos button').click()")
        until(desk, "return document.querySelectorAll('#worth-photos li').length === 3")
        wait_for(lambda: sum(len(one["photos"]) for one in look_up(school)["classes"]) == 1)
        assert desk.execute_script("return document.activeElement.closest('#worth-photos') !== null"), "the next one"
        desk.execute_script("document.querySelector('#worth-photos .quiet').click()")
        until(desk, "return document.querySelectorAll('#worth-photos li').length === 2")
        find(desk, "#worth-clear").click()
        until(desk, "return document.querySelectorAll('#worth-photos li').length === 0")
        assert school.ask("GET", "/v1/teach/unlabelled").json()["waiting"] == 0
        assert notice(desk, host=school.address) == []
    finally:
        shutil.rmtree(run)


def test_without_scripts_or_a_work_folder_it_says_what_it_needs(chrome, server):
    visit(chrome, server.address, scripts=False)
    assert "needs JavaScript" in read_text(chrome)
    open_page(chrome, server, tab="teach")
    assert "pronk serve MODEL --work DIR" in find(chrome, "#teach").text
