"""Numbers of a run -> what they say, in sentences: how good, how sure, what fine-tuning and `unknown` brought."""

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from pronk.analysis.metrics import AccuracyRecord
from pronk.model.run import (
    ChoiceRecord,
    CrossRecord,
    EvaluationMetrics,
    JudgedRecord,
    Metrics,
    PartRecord,
    UnknownRecord,
)
from pronk.report.pages import mark_name
from pronk.text import percent, plural

WIDE = 0.12  # an interval this wide deserves a word
USUAL_COVERAGE = 0.95
PARTS = {"train": "training", "val": "validation", "test": "test"}
PHASES = {"frozen": "frozen", "fine_tuned": "fine-tuned", "mixed": "partly fine-tuned"}


def describe_result(metrics: EvaluationMetrics, *, scene: str = "") -> dict[str, Any]:
    """Say how good the model is and how sure that is; `scene` is what makes the test easier than other photos will be.

    Returns a `tone` (good, unsure, bad or none), sentences, accuracy, and as `baseline` the share of the largest class.
    """
    test, trained, baseline = metrics.test, isinstance(metrics, Metrics), None
    cross = metrics.cross if isinstance(metrics, Metrics) else None
    accuracy: AccuracyRecord | None = None
    if test is not None:
        accuracy = test["accuracy"]
        which, seen = ("test photo", " it had never seen") if trained and not cross else ("photo", "")
        tone, comparison, baseline = _against_largest_class(test)
        sentences = [_hits_in_words(accuracy, which, seen), comparison]
        if not trained:
            sentences.append("Photos the model was trained on would make this number too good.")
        elif cross:
            sentences.insert(0, describe_cross(cross))
    elif isinstance(metrics, Metrics):
        kept = (metrics.comparison["kept"] != "frozen" and metrics.fine_tuned) or metrics.frozen
        accuracy, tone = kept["val"]["accuracy"], "unsure"
        sentences = [
            "No photos were set aside as a test, so there is no fully honest number.",
            _hits_in_words(accuracy, "validation photo", ""),
            "Those photos also chose the model, so expect a little less on new ones.",
        ]
    else:
        tone, sentences = "none", ["There is nothing to judge."]
    if scene and accuracy:
        tone = "bad" if tone == "bad" else "unsure"
        sentences.insert(1, f"But {scene}. How well it does elsewhere, only photos from there can tell.")
    if accuracy and accuracy["high"] - accuracy["low"] > WIDE:
        few = f"The interval is wide because {plural(accuracy['n'], 'photo')} cannot say more"
        sentences.append(f"{few}: four times as many would about halve it.")
    return {"tone": tone, "accuracy": accuracy, "baseline": baseline, "sentences": sentences}


def describe_cross(cross: CrossRecord) -> str:
    """Say who judged, where no photos were set aside."""
    return (
        f"Every photo was a test photo once: it was judged by the one of {cross['models']} models, made in the same way"
        " as this one, that had not seen it. This one learned from more photos than any of them."
    )


def _hits_in_words(accuracy: AccuracyRecord, which: str, seen: str) -> str:
    hits = round(accuracy["value"] * accuracy["n"])
    right = "none was" if hits == 0 else f"{hits:,} {'was' if hits == 1 else 'were'}"
    share = f"{percent(accuracy['value'])}, and {_certainty(accuracy)}"
    return f"Of {plural(accuracy['n'], which)}{seen}, {right} right: {share}."


def _certainty(share: AccuracyRecord) -> str:
    return f"with 95\u00a0% certainty between {percent(share['low'])} and {percent(share['high'])}"


def _against_largest_class(test: JudgedRecord) -> tuple[str, str, float]:
    accuracy, support = test["accuracy"], {name: row["support"] for name, row in test["per_class"].items()}
    largest = max(support, key=lambda name: support[name])
    share = support[largest] / accuracy["n"]
    always = Markup("Always answering “{}” would be right for {}").format(mark_name(largest), percent(share))
    if accuracy["value"] <= share:
        return "bad", always + ": on these photos the model is no better than that.", share
    if accuracy["low"] <= share:
        doubt = ", which lies inside that interval: so few photos cannot show that the model is better."
        return "unsure", always + doubt, share
    return "good", always + ": the model is clearly better than that.", share


def describe_fine_tuning(metrics: EvaluationMetrics) -> dict[str, Any] | None:
    """Say whether phase 2 helped, by how many photos, and what was kept; None for `pronk evaluate`."""
    if not isinstance(metrics, Metrics):
        return None
    frozen, tuned, comparison = metrics.frozen, metrics.fine_tuned, metrics.comparison
    kept, why = comparison["kept"], comparison["why"]
    verdict, sentences = "Fine-tuning was not run.", list[str]()
    if tuned is not None:
        gained = comparison["gained"] - comparison["lost"]
        verdict = "Yes." if comparison["p"] < 0.05 else "It seems so, a little."
        verdict = verdict if gained >= 0 else "Not clearly."
        verdict = verdict if tuned["val"]["loss"] < frozen["val"]["loss"] else "No."
        sentences = _compare_phases(frozen["val"], tuned["val"], comparison)
    chosen = metrics.chosen["why"] if metrics.chosen else ""
    return {
        "verdict": verdict,
        "sentences": sentences,
        "kept": PHASES[kept],
        "why": why,
        "rows": list_models(metrics),
        "chosen": chosen,
    }


def list_models(metrics: Metrics) -> list[dict[str, Any]]:
    """Name the models that the phases ended with, and tell how they do on the validation photos."""
    is_whole = metrics.comparison.get("share", 1.0) == 1
    second = ("fine_tuned", "fine-tuned blocks") if is_whole else ("mixed", "partly fine-tuned blocks")
    models = [("frozen", "frozen network, new head", metrics.frozen), (*second, metrics.fine_tuned)]
    kept = metrics.comparison["kept"]
    return [{"name": text, "val": model["val"], "kept": key == kept} for key, text, model in models if model]


def _compare_phases(frozen: PartRecord, tuned: PartRecord, comparison: ChoiceRecord) -> list[str]:
    gained, lost, p = comparison["gained"], comparison["lost"], comparison["p"]
    before, after = (round(model["accuracy"]["value"] * model["accuracy"]["n"]) for model in (frozen, tuned))
    photos = plural(tuned["accuracy"]["n"], "validation photo")
    move = "fell" if tuned["loss"] < frozen["loss"] else "did not fall"
    loss = f"The validation loss {move}: {frozen['loss']:.3f} before, {tuned['loss']:.3f} after."
    if gained == lost == 0:
        return [loss, f"On the same {photos}, no answer changed sides: {before} right before and after."]
    shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    luck = "luck alone rarely does that" if p < 0.05 else "luck alone could well do that"
    return [
        loss,
        f"On the same {photos}, {gained} became right (gained) and {lost} became wrong (lost): "
        f"{before} right before, {after} after.",
        f"By this count {luck} (exact McNemar test, {shown}).",
    ]


def describe_calibration(metrics: EvaluationMetrics) -> dict[str, Any] | None:
    """Say what the temperature does, and how far certainty and hit rate lie apart; None where that is not known.

    Returns a verdict in a few words, sentences, and as `rows` the calibration errors of each part.
    """
    calibration = metrics.calibration
    rows = [(part, error) for part, error in calibration["ece"].items() if error] if calibration else []
    if not calibration or not rows:
        return None
    temperature, (part, error) = calibration["temperature"], rows[-1]
    which = f"{PARTS[part]} photos" if isinstance(metrics, Metrics) else "these photos"
    verdict = f"On {which}, how sure it is and how often it is right lie about {percent(error['after'])} apart."
    effect = "less sure" if temperature > 1 else "surer"
    sentences = [
        f"Before they become probabilities, the model's scores are divided by {temperature:.2f}, its temperature.",
        f"That makes every answer {effect} and changes none." if temperature != 1 else "So they stay as they are.",
        "The number was fitted to the validation photos: being 80\u00a0% sure should mean being right 8 times in 10.",
    ]
    return {"verdict": verdict, "sentences": sentences, "rows": rows}


def describe_unknown(metrics: EvaluationMetrics, *, asked: float = USUAL_COVERAGE) -> dict[str, Any] | None:
    """Say how many genuine photos kept their class, against what was promised (`asked`); None where that is not known.

    Returns a verdict in a few words, sentences, and limits.
    """
    unknown = metrics.unknown
    if metrics.rest_class is not None:
        said = f"A photo of anything else belongs to “{metrics.rest_class}”, the class of all the rest, so no photo is"
        open_question = "How often it gets that class depends on what else there is, and was not measured: try some."
        return {"verdict": "", "sentences": [said + " called unknown.", open_question], "limits": []}
    if unknown is None and not isinstance(metrics, Metrics):
        return None
    if unknown is None:
        needed = math.ceil(round(asked / (1 - asked), 9))
        why = (
            f"Promising that {_share(asked)} of genuine photos keep theirs takes {plural(needed, 'validation photo')}."
        )
        return {"verdict": "", "sentences": ["A photo of anything gets one of the classes.", why], "limits": []}
    verdict, shares = _describe_coverage(metrics, unknown)
    sentences = [
        *shares,
        Markup("A photo that lies too far from the training photos is answered <code>unknown</code>."),
        f"The limit was set with {plural(unknown['n'], 'validation photo')}, so that on average at least "
        f"{_share(unknown['coverage'])} of photos drawn like them keep their class.",
    ]
    limits = [
        "How many photos of other things it finds depends on the things, and was not measured: try some.",
        "All other numbers here count the most likely class, whether or not a photo is called unknown.",
    ]
    return {"verdict": verdict, "sentences": sentences, "limits": limits}


def _describe_coverage(metrics: EvaluationMetrics, unknown: UnknownRecord) -> tuple[str, Sequence[str]]:
    coverage = metrics.test["coverage"] if metrics.test else None
    if coverage is None:
        return "", ()
    which = plural(coverage["n"], "test photo" if isinstance(metrics, Metrics) else "photo")
    verdict = f"Of {which}, {round(coverage['value'] * coverage['n']):,} kept their class:"
    share = f"{percent(coverage['value'])}, and {_certainty(coverage)}."
    if coverage["high"] >= unknown["coverage"]:
        return verdict, [share]
    return verdict, [
        share,
        f"That is less than was promised: the limit came out low by the luck of "
        f"{plural(unknown['n'], 'validation photo')}, or these photos differ from those the model was made with.",
    ]


def _share(value: float) -> str:
    return f"{100 * value:g}\u00a0%"
