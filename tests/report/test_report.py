"""Numbers and names -> one page: words, sections, safety, steadiness."""

import copy
import dataclasses
import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.metrics import CURVE, make_accuracy, make_metrics, make_phase, suspicion
from helpers.pages import HOSTILE
from pronk.analysis.metrics import score
from pronk.dataset.findings import Finding
from pronk.model.run import EvaluationMetrics
from pronk.report.gallery import Explained, Gallery
from pronk.report.run_page import ReportContent, render_report
from pronk.text import visible

SECTIONS = (
    "answer fine_tuning curves confusion classes mistakes right calibration unknown growth "
    "labels left_out shortcuts views data settings use exports"
)
ERRORS = {"val": {"before": 0.05, "after": 0.02}, "test": {"before": 0.0612, "after": 0.0345}}
NUMBERS = {"loss": 0.5, "accuracy": 0.8, "val_loss": 0.6, "val_accuracy": 0.7}
HISTORY = [
    {"phase": phase, "epoch": epoch, **NUMBERS} for phase, epoch in (("frozen", 1), ("frozen", 2), ("fine_tuned", 1))
]


def judged(right, n, classes=("alpaca", "not_alpaca"), *, first=None, coverage=None):
    """A test record with `right` of n right and `first` photos of the first class."""
    first = n // 2 if first is None else first
    labels = np.repeat([0, 1], [first, n - first])
    predicted = np.where(np.arange(n) < right, labels, 1 - labels)
    return {**score(np.eye(2)[predicted] * 0.8 + 0.1, labels, classes), "coverage": coverage}


@pytest.fixture
def content():
    return ReportContent(
        title="Alpacas & friends",
        metrics=make_metrics(
            calibration={"temperature": 1.834, "ece": ERRORS},
            test=judged(47, 49, coverage=make_accuracy(46, 49)),
            curve=copy.deepcopy(CURVE),
        ),
        suspicions=[suspicion("a/first.jpg", picture=PIXEL), suspicion("a/second.jpg")],
        predictions=[
            prediction("a/sure.jpg", score=0.99),
            prediction("a/less.jpg", score="0.55") | {"distance": 0.7, "unknown": True},
            prediction("a/val.jpg", part="val", score=1.0),
            prediction("a/fine.jpg", predicted="alpaca") | {"distance": 0.9, "unknown": True},
        ],
        findings=[
            Finding("a/short.jpg", "truncated", "error", "ends at byte 9", "Copy it again."),
            Finding("a/empty.jpg", "zero_byte", "error", "has 0 bytes"),
            Finding("a/soft.jpg", "blurred", "warning", "has no sharp edge"),
            Finding("a", "imbalance", "info", "3 times as many"),
        ],
        class_counts={
            "alpaca": {"train": 100, "val": 24, "test": 24},
            "not_alpaca": {"train": 129, "val": 25, "test": 25},
        },
        settings={"views": 4, "augment": "crop,mirror", "frozen_only": False, "group_by": None, "image": {"size": 224}},
        model_path="runs/my alpacas-1",
    )


def prediction(path, *, part="test", label="alpaca", predicted="not_alpaca", score=0.9):
    return {"path": path, "part": part, "label": label, "predicted": predicted, "score": score}


PIXEL = "data:image/jpeg;base64,AAAA"


def pictured(content):
    """The content with pictures of its own predictions."""
    wrong = [row for row in content.predictions if row["label"] != row["predicted"]]
    right = [row for row in content.predictions if row["label"] == row["predicted"]]
    gallery = Gallery(
        {row["path"]: PIXEL for row in content.predictions if row["part"] == "test"},
        [Explained(row, PIXEL, PIXEL, PIXEL) for row in wrong],
        [Explained(row, PIXEL, PIXEL) for row in right],
        [PIXEL] * 10,
    )
    return dataclasses.replace(content, gallery=gallery)


@pytest.fixture
def drawn(content):
    """The content with pictures and everything that is drawn."""
    more = [prediction(f"{i}.jpg", score=0.5 + i / 100) for i in range(40)]
    return dataclasses.replace(pictured(content), history=HISTORY, predictions=[*content.predictions, *more])


def with_metrics(content, **changed):
    return dataclasses.replace(content, metrics=dataclasses.replace(content.metrics, **changed))


def words(page):
    """The page's text as read: no tags, no style, single spaces."""
    text = re.sub(r"<(style|svg).*?</\1>", " ", page, flags=re.DOTALL)
    text = re.sub(r"</?(bdi|strong|code|small|span)[^>]*>", "", text)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def section(page, name):
    return re.search(rf'<section id="{name}".*?</section>', page, flags=re.DOTALL)[0]


class Tags(HTMLParser):
    """Every tag with its attributes, and whether open tags are closed in order."""

    EMPTY = frozenset({"meta", "br", "img", "link", "input"})

    def __init__(self, page):
        super().__init__()
        self.seen, self.open = [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    ("right", "n", "first", "tone", "expected"),
    [
        (6, 10, 5, "unsure", "which lies inside that interval"),
        (5, 10, 5, "bad", "no better than that"),
        (90, 100, 95, "bad", "no better than that"),
        (98, 100, 95, "unsure", "cannot show that the model is better"),
        (99, 100, 50, "good", "clearly better"),
        (1, 1, 1, "bad", "Of 1 test photo it had never seen, 1 was right: 100.0 %"),
        (0, 3, 1, "bad", "Of 3 test photos it had never seen, none was right: 0.0 %"),
    ],
)
def test_the_answer_does_not_flatter(content, right, n, first, tone, expected):
    page = render_report(with_metrics(content, test=judged(right, n, first=first)))
    assert expected in words(page)
    assert f'data-section="answer" class="{tone}"' in page
    assert ("interval is wide" in page) == (n < 90)


@pytest.mark.parametrize(
    ("loss", "gained", "lost", "p", "verdict", "luck"),
    [
        (0.1, 20, 2, 0.0001, "Yes.", "luck alone rarely does that (exact McNemar test, p < 0.001)"),
        (0.1, 2, 20, 0.0001, "Not clearly.", "luck alone rarely"),
        (0.2, 3, 1, 0.625, "No.", "luck alone could well"),
        (0.1, 0, 0, 1.0, "It seems so, a little.", "no answer changed sides"),
    ],
)
def test_the_verdict_on_fine_tuning(content, loss, gained, lost, p, verdict, luck):
    comparison = {"gained": gained, "lost": lost, "p": p, "kept": "frozen", "why": "Asked for."}
    page = with_metrics(content, fine_tuned=make_phase(47, 49, loss), comparison=comparison)
    text = words(section(render_report(page), "fine_tuning"))
    assert f"Did fine-tuning help? {verdict}" in text
    assert luck in text
    assert "Kept: the frozen model. Asked for." in text


FROZEN = {"gained": 0, "lost": 0, "p": 1.0, "kept": "frozen", "why": "Nothing to compare."}
ANSWER = "47 were right: 95.9 %, and with 95 % certainty between 86.3 % and 98.9 %."
OF_TEST = "On test photos, how sure it is and how often it is right lie about 3.5 % apart."
OF_VAL = "On validation photos, how sure it is and how often it is right lie about 2.0 % apart."
EFFECT = "scores are divided by 1.83, its temperature. That makes every answer less sure and changes none."
VAL_ONLY = {"calibration": {"temperature": 2.0, "ece": {"val": ERRORS["val"], "test": None}}, "test": None}
HINTS = [Finding(name, "truncated", "error", "cut", f"Copy {name} again.") for name in ("x.jpg", "y.jpg")]


def warmed(temperature):
    return {"calibration": {"temperature": temperature, "ece": ERRORS}}


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("answer", {}, ["Of 49 test photos it had never seen, " + ANSWER, "the model is clearly better than that"]),
        ("answer", {"test": None}, ["No photos were set aside as a test", "expect a little less"]),
        ("answer", {"test": None}, ["Of 49 validation photos, 47 were right: 95.9 %"]),
        ("fine_tuning", {}, ["3 became right (gained) and 1 became wrong (lost): 45 right before, 47 after"]),
        ("fine_tuning", {}, ["luck alone could well do that (exact McNemar test, p = 0.625)", "Lower loss."]),
        ("fine_tuning", {"fine_tuned": None, "comparison": FROZEN}, ["Fine-tuning was not run.", "Kept: the frozen"]),
        ("data", {}, ["alpaca 100 24 24 148", "all 229 49 49 327"]),
        (
            "settings",
            {},
            ["views 4 augment crop,mirror frozen_only false group_by – image.size 224", "fine-tune 1 min 16 s"],
        ),
        ("settings", {}, ["Peak memory: 1,234 MiB"]),
        ("use", {}, ["pronk predict 'runs/my alpacas-1' photo.jpg", "pronk evaluate 'runs/my alpacas-1' "]),
        ("calibration", {}, [OF_TEST, EFFECT, "validation photos 5.0 % 2.0 % test photos 6.1 % 3.5 %"]),
        ("calibration", warmed(0.8), ["every answer surer and changes none"]),
        ("calibration", warmed(1.0), ["So they stay as they are."]),
        ("calibration", VAL_ONLY, [OF_VAL]),
        ("unknown", VAL_ONLY, ["so that on average at least 95 % of photos drawn like them keep their class"]),
        ("unknown", {"test": judged(47, 49, coverage=make_accuracy(30, 49))}, ["That is less than was promised"]),
        ("unknown", {"unknown": None}, ["A photo of anything gets one of the classes.", "95 % of genuine", "takes 19"]),
        ("left_out", {}, ["2 files were left out.", "truncated, 1 left out. Copy it again.", "blurred, 1 found."]),
        ("mistakes", {}, ["a/less.jpg alpaca not_alpaca 55.0 % test"]),
    ],
)
def test_the_words_of_a_section(content, name, changed, said):
    text = words(section(render_report(with_metrics(content, **changed)), name))
    assert [one for one in said if one not in text] == []


@pytest.mark.parametrize(
    ("name", "changed", "order"),
    [
        ("mistakes", {}, ["a/sure.jpg", "a/less.jpg", "a/val.jpg"]),
        ("left_out", {}, ["Empty files", "Images that end too early", "Blurred pictures", "Imbalance"]),
        ("left_out", {"findings": HINTS}, ["x.jpg cut Copy x.jpg again.", "y.jpg cut Copy y.jpg again."]),
        ("unknown", {"metrics": make_metrics(unknown=None), "settings": {"coverage": 0.9}}, ["takes 9 validation"]),
        ("labels", {"suspicions": [suspicion(f"{i}.jpg") for i in range(20)]}, ["And 8 more."]),
        ("labels", {"suspicions": []}, ["None."]),
    ],
)
def test_what_comes_first(content, name, changed, order):
    text = words(section(render_report(dataclasses.replace(content, **changed)), name))
    assert sorted(order, key=text.index) == order


# --- sections


def test_every_section_is_there_and_the_page_is_well_formed(drawn):
    tags = Tags(render_report(drawn))
    assert not tags.open
    found = [attrs["data-section"] for tag, attrs in tags.seen if tag == "section"]
    assert " ".join(found) == SECTIONS
    ids = [attrs["id"] for _, attrs in tags.seen if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {attrs["href"] for tag, attrs in tags.seen if tag == "a"}
    assert links <= {f"#{name}" for name in ids}


def test_evaluate_needs_classes_counts_and_test_only_and_says_more_where_it_can():
    metrics = EvaluationMetrics(classes=["a", "b"], counts={"test": 12}, test=judged(11, 12, ("a", "b")))
    page = render_report(ReportContent(title="Judged", metrics=metrics))
    found = [attrs["data-section"] for tag, attrs in Tags(page).seen if tag == "section"]
    assert found == ["answer", "confusion", "classes", "mistakes", "left_out", "data", "use"]
    assert "Of 12 photos, 11 were right" in page
    assert "never seen" not in page
    assert "<!-- exports -->" not in page
    more = dataclasses.replace(
        metrics,
        test=judged(11, 12, ("a", "b"), coverage=make_accuracy(11, 12)),
        calibration={"temperature": 1.5, "ece": {"test": ERRORS["test"]}},
        unknown={"coverage": 0.95, "n": 40, "threshold": 0.5},
    )
    page = render_report(ReportContent(title="Judged", metrics=more))
    assert "On these photos, how sure it is" in words(section(page, "calibration"))
    assert "Of 12 photos, 11 kept their class:" in words(section(page, "unknown"))


def test_what_the_other_photos_say(drawn):
    page = render_report(drawn)
    assert CURVE["advice"] in page
    assert 'aria-label="Accuracy by number of photos, and the forecast"' in page
    labels = section(page, "labels")
    assert labels.count("<img") == 1
    assert "<bdi>alpaca</bdi>; rather <bdi>not_alpaca</bdi>?" in labels


def test_null_everywhere(content):
    nulls = with_metrics(content, fine_tuned=None, test=None, curve=None, calibration=None)
    bare = ReportContent(title="Bare", metrics=nulls.metrics)
    assert not Tags(render_report(bare)).open
    assert not Tags(render_report(nulls)).open
    nothing = ReportContent(title="", metrics=EvaluationMetrics(classes=[], counts={}, test=None))
    assert "There is nothing to judge." in render_report(nothing)


def test_confusion_and_classes(content):
    page = render_report(content)
    counts = re.findall(r'<td class="[^"]*" style="--share: ([\d.]+)">(\d+)', section(page, "confusion"))
    assert [int(n) for _, n in counts] == [24, 0, 2, 23]
    assert float(counts[0][0]) == 1.0
    assert "alpaca 24 100.0 % 92.3 % 96.0 %" in words(section(page, "classes"))


def test_behind_each_number_are_its_photos(content):
    page = render_report(pictured(content))
    shown = section(page, "confusion")
    assert 'href="#cell-0-1"' in shown
    assert 'id="cell-0-1"' in shown
    text = words(shown)
    assert "alpaca taken for not_alpaca: 0 photos" in text, "the numbers are those of the matrix"
    behind = re.search(r'id="cell-0-1">.*?</ul>', shown, flags=re.DOTALL)[0]
    assert behind.index("a/less.jpg") < behind.index("a/sure.jpg"), "the least sure come first"
    assert "a/val.jpg" not in behind


def test_telling_answers_are_shown_with_heat_maps(content):
    page = render_report(pictured(content))
    text = words(section(page, "mistakes"))
    assert "Is alpaca, was taken for not_alpaca, 99.0 % sure" in text
    assert "speaks for not_alpaca speaks for alpaca" in text
    assert "a/val.jpg (validation)" in text
    assert "alpaca, 90.0 % sure a/fine.jpg" in words(section(page, "right"))
    assert section(page, "right").count("<img") == 2
    assert section(page, "views").count("<img") == 10
    assert "this run used the first 4" in words(section(page, "views"))
    assert "They differ in: crop, mirror." in words(section(page, "views"))


def test_of_many_classes_those_are_named_that_are_confused_most(content):
    names, rng = tuple(f"class {n}" for n in range(400)), np.random.default_rng(0)
    labels = rng.integers(0, 400, 1200)
    predicted = np.where(rng.random(1200) < 0.5, labels, rng.integers(0, 400, 1200))
    predicted[labels == 3] = 7
    test = score(np.eye(400)[predicted] * 0.8 + 0.2 / 400, labels, names)
    metrics = dataclasses.replace(content.metrics, classes=names, test=test | {"coverage": None})
    page = render_report(dataclasses.replace(content, metrics=metrics))
    shown = section(page, "confusion")
    assert "confused most" in shown
    assert shown.count("<tr>") == 41
    assert shown.index("class 3") < shown.index("class 7")
    assert len(page) < 1_000_000


def test_of_many_mistakes_the_rest_is_counted(content):
    many = [prediction(f"{index:04}.jpg") for index in range(1234)]
    page = render_report(dataclasses.replace(content, predictions=many))
    assert "And 1,034 more, in predictions.csv." in page
    right = [prediction("a.jpg", predicted="alpaca")]
    assert "every photo was recognised" in render_report(dataclasses.replace(content, predictions=right))


def test_what_was_promised_and_what_came_of_it(content):
    shown = section(render_report(pictured(content)), "unknown")
    text = words(shown)
    assert "Of 49 test photos, 46 kept their class: 93.9 %, and with 95 % certainty between 83.5 % and 97.9 %." in text
    assert "The limit was set with 49 validation photos" in text
    assert "Taken for something else: 2 photos" in text
    assert shown.index("a/fine.jpg") < shown.index("a/less.jpg"), "the farthest comes first"
    assert shown.count("<img") == 2
    assert "less than was promised" not in text
    bare = words(section(render_report(content), "unknown"))
    assert "2 photos, 0 of them here" in bare


# --- safety


def gallery_of(name):
    wrong, right = prediction(name, label=name, predicted="b"), prediction(name, label=name, predicted=name)
    return Gallery({name: PIXEL}, [Explained(wrong, PIXEL, PIXEL, PIXEL)], [Explained(right, PIXEL, PIXEL)], [PIXEL])


def hostile(content, name):
    """The same content with a stranger's name wherever a name can stand."""
    metrics = dataclasses.replace(copy.deepcopy(content.metrics), classes=[name, "b"], test=judged(3, 4, (name, "b")))
    metrics.comparison["why"] = metrics.curve["advice"] = name
    return dataclasses.replace(
        content,
        title=name,
        metrics=metrics,
        predictions=[prediction(name, label=name, predicted="b") | {"distance": 1.0, "unknown": True}],
        findings=[Finding(name, "truncated", "error", name, name), Finding(name, name, "info", name, name)],
        suspicions=[suspicion(name, given=name, suggested=name, picture=PIXEL)],
        class_counts={name: {"train": 1}, "b": {"val": 1}},
        settings={name: name},
        model_path=name,
        gallery=gallery_of(name),
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_only_text(content, name):
    page = render_report(hostile(content, name))
    page.encode("utf-8")
    plain = Tags(render_report(hostile(content, "name")))
    attacked = Tags(page)
    assert [tag for tag, _ in attacked.seen] == [tag for tag, _ in plain.seen]
    assert not any(key.startswith("on") for _, attrs in attacked.seen for key in attrs)
    assert f"<bdi>{html.escape(visible(name)).replace('&quot;', '&#34;').replace('&#x27;', '&#39;')}</bdi>" in page
    assert not any(character in page for character in "\u202e\x00\x1b")


@settings(max_examples=15, deadline=None)
@given(st.text(st.characters(), min_size=1, max_size=40))
def test_any_name_makes_a_page(name):
    classes = name, name + "b"
    metrics = EvaluationMetrics(classes=classes, counts={"test": 4}, test=judged(3, 4, classes))
    content = ReportContent(title=name, metrics=metrics, predictions=[prediction(name)], model_path=name)
    page = render_report(content)
    page.encode("utf-8")
    assert not Tags(page).open


def test_the_page_loads_and_runs_nothing(drawn):
    page = render_report(drawn)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in html.unescape(page)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", page)
    tags = {tag for tag, _ in Tags(page).seen}
    assert not tags & {"script", "link", "iframe", "object", "form", "base"}
    pictures = [attrs["src"] for tag, attrs in Tags(page).seen if tag == "img"]
    assert pictures
    assert all(source.startswith("data:image/jpeg;base64,") for source in pictures)
