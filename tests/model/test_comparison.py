import dataclasses
import json
import shutil

import numpy as np
import pytest

import pronk
from helpers.commands import run_inside
from helpers.training import CLASSES, change_record
from pronk.analysis.metrics import accuracy_record, mcnemar_exact, paired_difference
from pronk.errors import DataError, ModelError
from pronk.model.bundle import write_bundle
from pronk.model.comparison import FEWEST, Comparison, Side
from pronk.model.predictor import Predictor
from pronk.storage.files import digest_file, write_csv

SPLIT = ("path", "label", "part", "digest", "group")


@pytest.fixture
def make_run(whole_bundle, tmp_path):
    """Make a run folder of photos given as {name: (label, part, probability of cold)}; the name is the content too."""

    def make(name, photos, *, classes=CLASSES, moved=""):
        folder = tmp_path / name
        shutil.copytree(whole_bundle, folder / "model")
        if classes != CLASSES:
            write_bundle(
                folder / "model", {"model.onnx": b"never opened"}, classes=classes, size=32, fit="crop", weights={}
            )
        split = [
            {"path": f"{moved}{label}/{photo}", "label": label, "part": part, "digest": photo}
            for photo, (label, part, _) in photos.items()
        ]
        rows = [
            {"path": row["path"], "part": row["part"], "label": row["label"], "p_cold": cold, "p_warm": 1 - cold}
            for row, (_, _, cold) in zip(split, photos.values(), strict=True)
            if row["part"] != "train"
        ]
        write_csv(folder / "split.csv", SPLIT, split)
        write_csv(folder / "predictions.csv", ("path", "part", "label", "p_cold", "p_warm"), rows)
        return folder

    return make


def set_aside(answers, *, start=0):
    """Test photos of the class cold with these probabilities of it."""
    return {f"{start + i}.jpg": ("cold", "test", cold) for i, cold in enumerate(answers)}


def test_the_numbers_are_those_of_the_common_test_photos(make_run):
    a = make_run("a", set_aside([0.9, 0.8, 0.2, 0.3, 0.6, 0.7, 0.9]))
    b = make_run("b", set_aside([0.9, 0.4, 0.8, 0.7, 0.8, 0.9, 0.1]))
    comparison = pronk.compare(a, str(b))
    record = json.loads(json.dumps(comparison.record()))
    assert record["a"]["name"] == str(a)
    assert record["a"]["accuracy"] == accuracy_record([1, 1, 0, 0, 1, 1, 1])
    assert record["b"]["accuracy"] == accuracy_record([1, 0, 1, 1, 1, 1, 0])
    assert record["a"]["log_loss"] == pytest.approx(-np.log([0.9, 0.8, 0.2, 0.3, 0.6, 0.7, 0.9]).mean())
    assert record["b"]["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.8, 0.7, 0.8, 0.9, 0.1]).mean())
    assert (record["gained"], record["lost"], record["p"], record["n"], record["left_out"]) == (2, 2, 1.0, 7, 0)
    assert record["difference"]["value"] == 0
    assert record["changed"] == [
        {"path": "cold/1.jpg", "label": "cold", "a": "cold", "b": "warm"},
        {"path": "cold/2.jpg", "label": "cold", "a": "warm", "b": "cold"},
        {"path": "cold/3.jpg", "label": "cold", "a": "warm", "b": "cold"},
        {"path": "cold/6.jpg", "label": "cold", "a": "cold", "b": "warm"},
    ]


def test_photos_are_recognised_by_their_content_wherever_they_lie(make_run):
    a = make_run("a", set_aside([0.9] * 8))
    b = make_run("b", dict(reversed(set_aside([0.9] * 7 + [0.1]).items())), moved="moved/")
    comparison = pronk.compare(a, b)
    assert comparison.n == 8
    assert [change.path for change in comparison.changed] == ["cold/7.jpg"]


def test_only_photos_that_are_test_in_both_count(make_run):
    """What one was trained or chosen with says nothing; what only one has seen cannot be paired."""
    photos = set_aside([0.9] * 11)
    a = make_run("a", photos | {"8.jpg": ("cold", "train", 0), "both.jpg": ("cold", "train", 0)})
    b_photos = photos | {
        "7.jpg": ("cold", "val", 0.1),
        "both.jpg": ("cold", "val", 0.1),
        "new.jpg": ("warm", "test", 0),
    }
    del b_photos["9.jpg"]
    comparison = pronk.compare(a, make_run("b", b_photos))
    assert comparison.n == 8
    assert [(finding.path, finding.code, finding.message) for finding in comparison.left_out] == [
        ("cold/7.jpg", "leak", "B was trained or chosen with it"),
        ("cold/8.jpg", "leak", "A was trained or chosen with it"),
        ("cold/9.jpg", "untested", "B was not tested with it"),
        ("warm/new.jpg", "untested", "A was not tested with it"),
    ]
    assert {finding.severity for finding in comparison.left_out} == {"error"}
    assert comparison.record()["left_out"] == 4


def test_a_photo_with_two_labels_says_nothing(make_run):
    a = make_run("a", set_aside([0.9] * 7))
    b = make_run("b", set_aside([0.9] * 7) | {"2.jpg": ("warm", "test", 0.9)})
    comparison = pronk.compare(a, b)
    assert comparison.n == 6
    (finding,) = comparison.left_out
    assert (finding.path, finding.code) == ("cold/2.jpg", "label_conflict")
    assert "'cold' and 'warm'" in finding.message


def test_too_few_common_photos_are_an_error_that_asks_for_data(make_run):
    a, b = make_run("a", set_aside([0.9] * 8)), make_run("b", set_aside([0.9] * 8, start=3))
    with pytest.raises(DataError, match=r"5 photos would be fair to both models.*\(6 left out\)") as caught:
        pronk.compare(a, b)
    assert "RUN_B DATA" in caught.value.hint
    assert mcnemar_exact([False] * FEWEST, [True] * FEWEST)["p"] < 0.05 < mcnemar_exact([False] * 5, [True] * 5)["p"]
    without = {f"{i}.jpg": ("cold", "train", 0) for i in range(9)}
    with pytest.raises(DataError, match="0 photos would be fair"):
        pronk.compare(a, make_run("untested", without))


def test_the_order_of_classes_is_each_models_own(make_run):
    a, b = make_run("a", set_aside([0.9] * 8)), make_run("b", set_aside([0.9] * 8), classes=("warm", "cold"))
    assert pronk.compare(a, b).b == dataclasses.replace(pronk.compare(a, a).a, name=str(b))


def test_other_classes_are_an_error_that_names_them(make_run):
    a = make_run("a", set_aside([0.9] * 8))
    b = make_run("b", {}, classes=("cold", "hot", *(f"{i:02}" for i in range(8))))
    with pytest.raises(DataError) as caught:
        pronk.compare(a, b)
    assert "only A knows 'warm'; only B knows 'hot', '00', '01', '02', '03' and 4 more" in str(caught.value)


@pytest.mark.parametrize("text", [None, "", "nothing,like\nit,at all\n", 'path,part\n"' + "x" * 200_000])
@pytest.mark.parametrize("name", ["split.csv", "predictions.csv"])
def test_without_what_the_run_wrote_down_data_is_needed(make_run, name, text):
    a, b = make_run("a", set_aside([0.9] * 8)), make_run("b", set_aside([0.9] * 8))
    (b / name).unlink() if text is None else (b / name).write_text(text)
    with pytest.raises((ModelError, DataError), match=f"b has no {name}" if text is None else "") as caught:
        pronk.compare(a, b)
    assert "RUN_B DATA" in caught.value.hint


@pytest.mark.parametrize(
    "line",
    [
        "cold/0.jpg,test,cold,nan,0.1",
        "cold/0.jpg,test,cold,-3,1",
        "cold/0.jpg,test,cold,much,little",
        "cold/0.jpg,test,hot,0.5,0.5",
        "cold/gone.jpg,test,cold,0.5,0.5",
        "cold/0.jpg,test",
    ],
)
def test_answers_that_cannot_be_true_are_refused(make_run, line):
    a = make_run("a", set_aside([0.9] * 8))
    with (a / "predictions.csv").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ModelError, match=r"predictions\.csv does not fit the run"):
        pronk.compare(a, a)


def test_an_export_has_no_answers_of_its_own_written_down(make_run):
    a = make_run("a", set_aside([0.9] * 8))
    export = a / "exports" / "onnx-int8"
    shutil.copytree(a / "model", export)
    change_record(export, runtime="onnx-int8")
    with pytest.raises(ModelError, match="is an export") as caught:
        pronk.compare(a, export)
    assert "DATA" in caught.value.hint


@pytest.fixture
def other_bundle(whole_bundle, bundle_copy):
    """The same model with its classes swapped, which is wrong where the first is right."""
    change_record(bundle_copy, classes=["warm", "cold"])
    return bundle_copy


def test_both_models_predict_the_photos(whole_bundle, other_bundle, photos):
    steps = []
    comparison = pronk.compare(whole_bundle, other_bundle, photos, on_progress=lambda *step: steps.append(step))
    assert steps[0] == ("evaluate", 1, 24)
    assert steps[-1] == ("evaluate", 24, 24)
    for side, bundle in ((comparison.a, whole_bundle), (comparison.b, other_bundle)):
        evaluation = pronk.evaluate(bundle, photos)
        assert side == Side(str(bundle), evaluation.result["accuracy"], evaluation.result["log_loss"])
    served = Predictor.load(whole_bundle).predict([photos / change.path for change in comparison.changed])
    assert [change.a for change in comparison.changed] == [prediction.top for prediction in served]
    assert comparison.n == len(comparison.changed) == comparison.gained + comparison.lost == 12


def test_photos_that_either_run_knows_are_left_out(whole_bundle, other_bundle, photos):
    parts = {"cold/0.png": "train", "cold/1.png": "val", "cold/2.png": "test"}
    rows = [
        {"path": "x", "label": "cold", "part": part, "digest": digest_file(photos / path)}
        for path, part in parts.items()
    ]
    write_csv(other_bundle.parent / "split.csv", ("path", "label", "part", "digest"), rows)
    comparison = pronk.compare(whole_bundle, other_bundle, photos)
    assert comparison.n == 10
    assert [(finding.path, finding.code, finding.message) for finding in comparison.left_out] == [
        ("cold/0.png", "leak", "B was trained or chosen with it"),
        ("cold/1.png", "leak", "B was trained or chosen with it"),
    ]
    both = pronk.compare(other_bundle, other_bundle, photos)
    assert "A and B were trained or chosen with it" in both.left_out[0].message


def test_unusable_photos_and_copies_are_named_once(whole_bundle, other_bundle, photos):
    (photos / "cold" / "0.png").write_bytes(b"")
    shutil.copy(photos / "warm" / "1.png", photos / "warm" / "copy.png")
    shutil.copy(photos / "warm" / "2.png", photos / "cold" / "wrong.png")
    comparison = pronk.compare(whole_bundle, other_bundle, photos)
    assert [(finding.path, finding.code) for finding in comparison.left_out] == [
        ("cold/0.png", "zero_byte"), ("cold/wrong.png", "label_conflict"), ("warm/2.png", "label_conflict"),
        ("warm/copy.png", "exact_duplicate"),
    ]  # fmt: skip
    assert comparison.n == 10


def judged(low, value, high, p, n=327):
    side = Side("run", accuracy_record([True] * n), 0.1)
    return Comparison(side, side, {"value": value, "low": low, "high": high}, 3, 1, p, (), ())


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((0.004, 0.031, 0.059, 0.01), "B is better by 3.1 points (0.4 to 5.9) on photos like these 327."),
        ((-0.059, -0.031, -0.004, 0.01), "A is better by 3.1 points (0.4 to 5.9) on photos like these 327."),
        ((-0.051, 0.02, 0.091, 1.0), "327 photos cannot tell which is better: B may be up to 9.1 points better or"),
        ((0.001, 0.1, 0.2, 0.0625), "hint that B is better, by 10.0 points (0.1 to 20.0), but do not show it"),
        ((0.0, 0.1, 0.2, 0.03), "cannot tell which is better"),
    ],
)
def test_the_verdict_in_words(numbers, words):
    assert words in judged(*numbers).verdict


def test_no_verdict_from_equal_models():
    """Two models that are equally good are hardly ever told apart: less than 5 times in 100."""
    rng = np.random.default_rng(0)
    claims = 0
    for _ in range(400):
        before, after = rng.random((2, 60)) < 0.85
        test = mcnemar_exact(before, after)
        difference = paired_difference(before, after)
        sides = [Side("run", accuracy_record(right), 0.1) for right in (before, after)]
        claims += "is better by" in Comparison(*sides, difference, **test, changed=(), left_out=()).verdict
    assert claims <= 20


def test_the_command_tells_the_numbers(make_run):
    a, b = make_run("a", set_aside([0.9, 0.8] * 15)), make_run("b", set_aside([0.9, 0.2] * 15))
    result = run_inside("compare", a, b)
    assert result.returncode == 0, "whatever wins"
    lines = result.stdout.decode().splitlines()
    assert lines[0].startswith(f"A  {a}: 100.0 % of 30 photos right (95 % interval 88.6 % to 100.0 %), log-loss 0.16")
    assert lines[2].startswith("B - A: -50.0 points (95 % interval -6")
    assert lines[2].endswith("0 gained, 15 lost (exact McNemar p = 6.1e-05)")
    assert lines[3].startswith("A is better by 50.0 points (")
    shown = result.stderr.decode()
    assert "only A gets right" in shown
    assert "only B gets right" not in shown
    assert shown.count("cold/") == 10
    assert "and 5 more; --json lists them all" in shown
    record = json.loads(run_inside("compare", a, b, "--json", "--quiet").stdout)
    assert list(record) == [
        "a", "b", "difference", "gained", "lost", "p", "n", "left_out", "verdict", "changed",
    ]  # fmt: skip
    assert record == pronk.compare(a, b).record()


def test_hostile_names_stay_text(make_run):
    names = ("[red]1.jpg", "2\n3.jpg", "4\u202egpj.exe", "caf\udce9.jpg", "\x1b[31m5.jpg", "plain.jpg")
    photos = dict.fromkeys(names, ("cold", "test", 0.9))
    a = make_run("a\u202e", photos)
    b = make_run("b", dict.fromkeys(names, ("cold", "test", 0.1)))
    result = run_inside("compare", a, b)
    assert result.returncode == 0
    text = result.stderr.decode() + result.stdout.decode()
    for shown in ("[red]1.jpg", r"2\n3.jpg", r"4\u202egpj.exe", r"caf\xe9.jpg", r"\x1b[31m5.jpg", r"a\u202e:"):
        assert shown in text
    assert not {"\x1b", "\u202e"} & set(text)
    record = json.loads(run_inside("compare", a, b, "--json").stdout)
    assert {change["path"] for change in record["changed"]} == {f"cold/{name}" for name in names}


def test_the_command_says_what_to_do(make_run, photos, tmp_path):
    a, b = make_run("a", set_aside([0.9] * 3)), make_run("b", set_aside([0.9] * 3))
    result = run_inside("compare", a, b)
    assert (result.returncode, result.stdout) == (1, b"")
    assert b"hint: name labelled photos that neither was trained with: pronk compare RUN_A RUN_B DATA" in result.stderr
    assert b"of 12 photos right" in run_inside("compare", a, b, photos).stdout
    assert run_inside("compare", a).returncode == 2
    assert b"no model at" in run_inside("compare", a, tmp_path / "gone").stderr


def test_a_real_run_against_itself(tiny_run):
    with pytest.raises(DataError, match="4 photos would be fair"):
        pronk.compare(tiny_run.folder, tiny_run.folder / "model")
