"""Numbers of a run -> the model card: a header that parses, words that claim no more than is known, code that runs."""

import re
import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as rules
from hypothesis import strategies as st

from helpers.metrics import make_metrics, make_phase
from helpers.training import CLASSES
from pronk.config import Settings
from pronk.dataset.findings import find
from pronk.model.formats.example_programs import list_steps, write_decoding
from pronk.model.predictor import Predictor
from pronk.report.card import escape_markdown, quote_code, quote_yaml, render_card
from pronk.text import visible

HOSTILE = (
    "yes", "null", "1e3", "- a", "#", "!!python/object:os.system", "*anchor", "a: b", "---", "...", "'\"", "🦙", " ",
    "{{ 7 * 7 }}", "<script>alert(1)</script>", "[a](javascript:alert(1))", "![a](x)", "a|b", "`code`", "\\", "\\`",
    "фото", "two\nlines\n---\n", "photo\u202egpj.exe", "caf\udce9", "\ufffe\uffff", "\x85\u2028\x7f", "@all",
    "http://a.b",
)  # fmt: skip
FROZEN = {"gained": 0, "lost": 0, "p": 1.0, "kept": "frozen", "why": "fine-tuning was left out"}
CLASS = st.text(st.characters(), min_size=1, max_size=30)


def card_metrics(names=("alpaca", "not_alpaca"), **changes):
    why = {"gained": 1, "lost": 0, "p": 1.0, "kept": "fine_tuned", "why": "validation log-loss 0.2 frozen"}
    return make_metrics(names, **{"comparison": why, "frozen": make_phase(46, 49, 0.2)} | changes)


def make_card(metrics=None, left_out=("truncated", "truncated", "leak", "near_duplicate"), **settings):
    metrics = metrics or card_metrics()
    counts = {name: {"train": 100, "val": 21, "test": 21} for name in metrics.classes}
    return render_card(
        metrics, Settings(**settings), class_counts=counts, findings=[find("", code, "") for code in left_out]
    )


def header(card):
    assert card.startswith("---\n")
    return yaml.safe_load(card.split("---\n")[1])


def words(card):
    return " ".join(card.split())


def test_the_header_is_that_of_model_hubs():
    found = header(make_card(data="/home/somebody/alpaca"))
    assert found["license"] == "other"
    assert found["library_name"] == "keras"
    assert found["pipeline_tag"] == "image-classification"
    assert {"image-classification", "onnx", "pronk"} <= set(found["tags"])
    [index] = found["model-index"]
    [result] = index["results"]
    assert index["name"] == "alpaca"
    assert result["task"]["type"] == "image-classification"
    assert result["dataset"] == {"name": "alpaca", "type": "imagefolder", "split": "test"}
    numbers = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert numbers == {"accuracy": 0.9592, "f1": 0.9591, "log_loss": 0.1235, "ece": 0.03}


@pytest.mark.parametrize(
    ("weights", "licence", "said"),
    [
        ("imagenet", "other", "non-commercial research and education only"),
        ("offline", "apache-2.0", "no photo went into them"),
        ("mine.h5", "unknown", "pronk does not know"),
    ],
)
def test_the_licence_is_what_is_known(weights, licence, said):
    card = make_card(card_metrics(weights={"name": weights, "sha256": ""}))
    assert header(card)["license"] == licence
    assert said in words(card.split("## Licence")[1])


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_only_text(name):
    check_name(name)


@rules(max_examples=60, deadline=None)
@given(CLASS)
def test_any_name_makes_a_card(name):
    check_name(name)


def check_name(name):
    metrics = card_metrics((name, name + "b"), weights={"name": f"x{name}", "sha256": ""})  # `imagenet` says more
    metrics.comparison["why"] = name
    folder = "x" + name.replace("/", "")
    card, plain = make_card(metrics, data=folder), make_card(card_metrics(weights={"name": "b", "sha256": ""}))
    card.encode()
    [index] = header(card)["model-index"]
    assert index["name"] == visible(folder)
    assert card.count("\n") == plain.count("\n"), "no name makes a line"
    rows = [line for line in card.splitlines() if line.startswith("| `")]
    assert len(rows) == 4 + 2
    assert all(line.count("|") in (3, 6) for line in rows), "no name makes a cell"


@given(st.text(st.characters(), max_size=30))
def test_what_is_quoted_stays_what_it_was(text):
    assert yaml.safe_load(quote_yaml(text)) == visible(text)
    assert re.fullmatch(r"`[^`|\n]*`", quote_code(text))
    assert not re.search(r"[`*_\[\]<>|]", escape_markdown(text))


def test_views_are_told_of_the_phase_that_saw_them():
    card = words(make_card(views=6, epochs=1))
    assert "makes of each photo, as it is and augmented" in card
    assert "for 1 epoch, in steps of at most auto of the weights, on 6 views of each photo" in card
    plain = words(make_card(views=1, augment="none"))
    assert "makes of each photo as it is." in plain
    assert "views of each photo" not in plain


def test_a_cross_fit_says_who_judged():
    card = words(make_card(card_metrics(cross={"models": 5})))
    assert "judged by the one of 5 models, made in the same way as this one, that had not seen it" in card
    assert "it never saw" not in card


def test_it_says_what_people_need_to_know():
    card = words(make_card(fit="pad", fine_tune_from="block_15_add", epochs=8, learning_rate=0.005))
    for text in (
        "`alpaca`, `not_alpaca`.",
        "Accuracy on 49 test photos it never saw: 95.9 % (95 % interval 86.3 % to 98.9 %)",
        "The blocks after `block_15_add` were fine-tuned together with that head for 8 epochs",
        "Kept: the **fine-tuned** model (validation log-loss 0.2 frozen)",
        "| `alpaca` | 100 | 21 | 21 | 142 |",
        "seed 42",
        "15 % for validation and 15 % for the test",
        "no group straddles two parts",
        "| `leak` | 1 | | `truncated` | 2 |",
        "| `alpaca` | 24 | 95.0 % | 100.0 % | 97.0 % |",
        "a temperature of 1.83",
        "| test photos | 6.0 % | 3.0 % |",
        "The limit was set with 49 validation photos, so that on average at least 95 % of photos",
        "Of 49 test photos, 93.9 % (95 % interval 83.5 % to 97.9 %) kept it",
        "at most 5 % of genuine photos, on average, are taken for something else",
        "Nothing is claimed about fairness",
        "transparency over white, 16-bit grey scaled down; resize the long side to 224 and fill up to a square with",
        "pronk predict . PHOTO...",
        "keras 3",
    ):
        assert text in card, text
    assert "near_duplicate" not in card, "that is no reason to leave a file out"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"unknown": None}, "a photo of anything gets one of its classes"),
        ({"unknown": None, "rest_class": "not_alpaca"}, "A photo of anything else belongs to `not_alpaca`"),
        ({}, "No file was left out."),
        ({"fine_tuned": None, "comparison": FROZEN}, "Fine-tuning, the second phase, was left out."),
        ({"calibration": None, "unknown": None}, "The probabilities were not calibrated."),
    ],
)
def test_what_was_not_done_is_said(changed, said):
    assert said in words(make_card(card_metrics(**changed), left_out=()))


def test_without_a_test_it_claims_nothing():
    metrics = card_metrics(test=None, counts={"train": 229, "val": 49, "test": 0})
    metrics.calibration["ece"]["test"] = None
    card = make_card(metrics)
    [index] = header(card)["model-index"]
    assert index["results"] == []
    card = words(card)
    assert "its accuracy on new photos is not known" in card
    assert "pronk evaluate . PHOTOS" in card
    for claim in ("it never saw: ", "Macro F1", "Of 49 test photos", "| test photos |"):
        assert claim not in card


def test_a_metric_that_was_added_since_is_left_out():
    metrics = card_metrics()
    assert "Calibration error" in make_card(metrics)
    metrics.test.pop("ece")
    assert "Calibration error" not in make_card(metrics)


def test_it_tells_no_folder_and_no_time():
    card = make_card(data="/home/somebody/private/alpaca", split="/home/somebody/old.csv", group_by="secret_(.*)")
    assert not re.search(r"somebody|private|old\.csv|secret|90\.0|1234|20\d\d-\d\d", card)
    assert "or from a former split" in words(card)
    assert card == make_card(data="/media/alpaca", split="other.csv", group_by="(.*)")


def test_its_lines_are_those_of_the_example():
    card = make_card(image_size=32, fit="pad")
    for line in write_decoding("pad", size=32, photo='"golden/1.jpg"'):
        assert f"\n{line}\n" in card
    assert "; ".join(list_steps("pad", size=32)) in card


def test_its_lines_run_with_onnx_runtime_alone(bundle_copy):
    fits = ("crop", "pad", "squash")
    codes = [re.search(r"```python\n(.*?)```", make_card(image_size=32, fit=fit), re.DOTALL)[1] for fit in fits]
    assert max(len(code.strip().splitlines()) for code in codes) <= 16
    command = [sys.executable, "-I", "-c", "\n".join(["import sys; sys.modules['pronk'] = None", *codes])]
    done = subprocess.run(command, cwd=bundle_copy, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    answers = [line.split() for line in done.stdout.splitlines()]
    assert [label in CLASSES for label, _ in answers] == [True] * 3
    expected = Predictor.load(bundle_copy).predict_one(bundle_copy / "golden" / "1.jpg")
    assert answers[0][0] == expected.top
    assert float(answers[0][1]) == pytest.approx(expected.score, abs=1e-4)


def test_a_run_writes_it(tiny_run):
    card = (tiny_run.folder / "model" / "README.md").read_text()
    assert header(card)["model-index"][0]["results"][0]["metrics"][0]["value"] == pytest.approx(
        tiny_run.metrics.test["accuracy"]["value"], abs=1e-4
    )
    assert str(tiny_run.folder) not in card
    assert "| `cold` | 10 | 2 | 2 | 14 |" in card
