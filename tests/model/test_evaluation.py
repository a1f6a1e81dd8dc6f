import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

import pronk
from pronk.errors import DataError
from pronk.model.predictor import Predictor
from pronk.storage.files import digest_file, write_csv


def test_the_numbers_are_those_of_its_predictions(whole_bundle, photos):
    steps = []
    evaluation = pronk.evaluate(whole_bundle, photos, on_progress=lambda *step: steps.append(step))
    assert evaluation.classes == ("cold", "warm")
    assert steps[-1] == ("evaluate", 12, 12)
    truth = [row["label"] for row in evaluation.rows]
    found = [row["predicted"] for row in evaluation.rows]
    assert evaluation.result["accuracy"]["value"] == accuracy_score(truth, found)
    assert evaluation.result["macro_f1"] == pytest.approx(f1_score(truth, found, average="macro"))
    assert np.sum(evaluation.result["confusion"]) == 12
    served = Predictor.load(whole_bundle).predict([photos / row["path"] for row in evaluation.rows])
    for row, prediction in zip(evaluation.rows, served, strict=True):
        assert (row["predicted"], row["score"]) == (prediction.label, prediction.score)
        assert [row["p_cold"], row["p_warm"]] == prediction.probabilities.tolist()


def test_an_opened_model_does_as_well(whole_bundle, photos):
    assert pronk.evaluate(Predictor.load(whole_bundle), photos) == pronk.evaluate(str(whole_bundle), str(photos))


def test_only_the_test_part_is_used(whole_bundle, photos):
    lines = ["path,label,part"]
    for i in range(6):
        lines += [
            f"cold/{i}.png,cold,{'test' if i < 2 else 'train'}",
            f"warm/{i}.png,warm,{'test' if i < 1 else 'val'}",
        ]
    (photos / "list.csv").write_text("\n".join(lines))
    evaluation = pronk.evaluate(whole_bundle, photos / "list.csv")
    assert [row["path"] for row in evaluation.rows] == ["cold/0.png", "cold/1.png", "warm/0.png"]


def test_one_class_is_enough(whole_bundle, photos):
    for path in (photos / "warm").iterdir():
        path.unlink()
    (photos / "warm").rmdir()
    assert pronk.evaluate(whole_bundle, photos).result["accuracy"]["n"] == 6


def test_bad_files_are_left_out_and_named(whole_bundle, photos):
    (photos / "cold" / "0.png").write_bytes(b"")
    (photos / "warm" / "1.png").write_text("text")
    evaluation = pronk.evaluate(whole_bundle, photos)
    assert [(finding.path, finding.code) for finding in evaluation.findings] == [
        ("cold/0.png", "zero_byte"), ("warm/1.png", "not_an_image"),
    ]  # fmt: skip
    assert len(evaluation.rows) == 10


def test_a_class_that_the_model_does_not_know_is_an_error(whole_bundle, photos):
    (photos / "warm").rename(photos / "hot")
    with pytest.raises(DataError, match="does not know the class 'hot'") as caught:
        pronk.evaluate(whole_bundle, photos)
    assert "cold, warm" in caught.value.hint


def test_nothing_usable_is_an_error(whole_bundle, photos):
    for path in photos.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of 12 files"):
        pronk.evaluate(whole_bundle, photos)


def test_photos_the_model_was_trained_with_are_named(bundle_copy, photos):
    """A model judged on its own training photos looks better than it is."""
    split = bundle_copy.parent / "split.csv"
    parts = {"cold/0.png": "train", "cold/1.png": "val", "cold/2.png": "test", "warm/0.png": "train"}
    rows = [
        {"path": "elsewhere.png", "label": "cold", "part": part, "digest": digest_file(photos / path)}
        for path, part in parts.items()
    ]
    write_csv(split, ("path", "label", "part", "digest"), rows)
    evaluation = pronk.evaluate(bundle_copy, photos)
    assert [(finding.path, finding.code, finding.severity) for finding in evaluation.findings] == [
        ("cold/0.png", "leak", "warning"), ("cold/1.png", "leak", "warning"), ("warm/0.png", "leak", "warning"),
    ]  # fmt: skip
    assert "train part" in evaluation.findings[0].message
    assert evaluation.result["accuracy"]["n"] == 12, "they are judged all the same, as asked"
    for other in ("nothing,like\nit,at all\n", 'path,part,digest\n"' + "x" * 200_000):
        split.write_text(other)
        assert pronk.evaluate(bundle_copy, photos).findings == ()
