from pronk.card import render_card
from pronk.config import Settings

ACCURACY = {"value": 0.9591, "low": 0.8629, "high": 0.9887, "n": 49}
METRICS = {
    "classes": ["alpaca", "not_alpaca"],
    "counts": {"train": 229, "val": 49, "test": 49},
    "weights": {"name": "imagenet", "sha256": "ab"},
    "comparison": {"kept": "fine_tuned", "why": "validation log-loss 0.2 frozen, 0.1 fine-tuned"},
    "test": {"accuracy": ACCURACY},
}


def test_it_says_what_people_need_to_know():
    card = render_card(METRICS, Settings(fit="pad"))
    for text in (
        "alpaca, not_alpaca", "229 photos", "95.9% ", "86.3% to 98.9%", "49 test photos", "fine-tuned model", "`pad`",
        "224 x 224", "pronk predict",
    ):  # fmt: skip
        assert text in card


def test_without_a_test_it_claims_nothing():
    card = render_card(METRICS | {"test": None}, Settings())
    assert "not known" in card
    assert "%" not in card


def test_the_header_is_yaml_that_hubs_read():
    header = render_card(METRICS, Settings()).split("---\n")[1].splitlines()
    assert header[0] == "library_name: keras"
    assert header[1] == "pipeline_tag: image-classification"
    assert all(": " in line for line in header)
