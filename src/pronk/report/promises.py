"""What a model promises, and what came of it on photos that had no say -> words."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pronk.text import count, percent

MOST_PICTURES = 24
USUAL_COVERAGE = 0.95
PARTS = {"val": "validation", "test": "test"}


def describe_sureness(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Say what the temperature does, and how far certainty and hit rate lie apart; None where that is not known.

    Args:
        metrics: the object of metrics.json.

    Returns:
        A verdict in a few words, sentences, and as `rows` the calibration errors of each part.

    Example:
        >>> error = {"before": 0.08, "after": 0.03}
        >>> told = describe_sureness({"calibration": {"temperature": 2.0, "ece": {"val": None, "test": error}}})
        >>> told["sentences"][1], told["rows"]
        ('That makes every answer less sure and changes none.', [('test', {'before': 0.08, 'after': 0.03})])
    """
    calibration = metrics.get("calibration")
    rows = [(part, error) for part, error in calibration["ece"].items() if error] if calibration else []
    if not calibration or not rows:
        return None
    temperature, (part, error) = calibration["temperature"], rows[-1]
    which = f"{PARTS[part]} photos" if "frozen" in metrics else "these photos"
    verdict = f"On {which}, how sure it is and how often it is right lie about {percent(error['after'])} apart."
    effect = "less sure" if temperature > 1 else "surer"
    sentences = [
        f"Before they become probabilities, the model's scores are divided by {temperature:.2f}, its temperature.",
        f"That makes every answer {effect} and changes none." if temperature != 1 else "So they stay as they are.",
        "The number was fitted to the validation photos: being 80\u00a0% sure should mean being right 8 times in 10.",
    ]
    return {"verdict": verdict, "sentences": sentences, "rows": rows}


def describe_unknown(
    metrics: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]] = (),
    *,
    pictured: Collection[str] = (),
    asked: float = USUAL_COVERAGE,
) -> dict[str, Any] | None:
    """Say how many genuine photos kept their class, against what was promised; None where that is not known.

    Args:
        metrics: the object of metrics.json.
        rows: of predictions.csv.
        pictured: paths of photos that have a picture.
        asked: share that was to be promised.

    Returns:
        A verdict in a few words, sentences, limits, and the test photos that were called unknown, farthest first, as
        `rows` and those with a picture as `pictures`.

    Example:
        >>> print(describe_unknown({"unknown": None})["sentences"][0])
        A photo of anything gets one of the classes.
    """
    if "unknown" not in metrics:
        return None
    told: dict[str, Any] = {"verdict": "", "limits": [], "rows": [], "pictures": []}
    if metrics["unknown"] is None:
        needed = math.ceil(round(asked / (1 - asked), 9))
        why = f"Promising that {_share(asked)} of genuine photos keep theirs takes {count(needed, 'validation photo')}."
        return told | {"sentences": ["A photo of anything gets one of the classes.", why]}
    promised, coverage = metrics["unknown"]["coverage"], (metrics["test"] or {}).get("coverage")
    set_with = count(metrics["unknown"]["n"], "validation photo")
    told["sentences"] = [
        Markup("A photo that lies too far from the training photos is answered <code>unknown</code>."),
        f"The limit was set with {set_with}, so that on average at least {_share(promised)} of photos drawn like them "
        "keep their class.",
    ]
    told["limits"] = [
        "How many photos of other things it finds depends on the things, and was not measured: try some.",
        "All other numbers here count the most likely class, whether or not a photo is called unknown.",
    ]
    if coverage is None:
        return told
    kept, which = round(coverage["value"] * coverage["n"]), "test photo" if "frozen" in metrics else "photo"
    told["verdict"] = f"Of {count(coverage['n'], which)}, {kept:,} kept their class:"
    between = f"between {percent(coverage['low'])} and {percent(coverage['high'])}"
    shares = [f"{percent(coverage['value'])}, and with 95\u00a0% certainty {between}."]
    if coverage["high"] < promised:
        shares.append(
            f"That is less than was promised: the limit came out low by the luck of {set_with}, or these photos differ "
            "from those the model was made with."
        )
    strange = [row for row in rows if row["part"] == "test" and row.get("unknown")]
    strange.sort(key=lambda row: (-float(row["distance"]), row["path"]))
    pictures = [row for row in strange if row["path"] in pictured][:MOST_PICTURES]
    return told | {"sentences": [*shares, *told["sentences"]], "rows": strange, "pictures": pictures}


def _share(value: float) -> str:
    return f"{100 * value:g}\u00a0%"
