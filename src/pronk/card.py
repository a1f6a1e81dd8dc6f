"""Numbers of a run -> the model card, in the form that model hubs read."""

from collections.abc import Mapping
from typing import Any

from pronk.config import Settings
from pronk.text import visible


def render_card(metrics: Mapping[str, Any], settings: Settings) -> str:
    """Write model/README.md: a YAML header, what the model is, how good it is, and how to use it.

    Example:
        >>> metrics = {"classes": ["a", "b"], "counts": {"train": 4, "val": 2, "test": 0}, "test": None,
        ...            "weights": {"name": "offline", "sha256": ""}, "comparison": {"kept": "frozen", "why": "."}}
        >>> render_card(metrics, Settings()).splitlines()[1]
        'library_name: keras'
    """
    classes = ", ".join(map(visible, metrics["classes"]))
    counts, comparison = metrics["counts"], metrics["comparison"]
    return f"""---
library_name: keras
pipeline_tag: image-classification
tags: [image-classification, mobilenet-v2, transfer-learning, onnx, pronk]
---

# An image classifier for {len(metrics["classes"])} classes

Classes, in the order of the probabilities: {classes}.

A MobileNetV2 (weights: {metrics["weights"]["name"]}) trained by transfer learning on {counts["train"]} photos, with
{counts["val"]} for validation and {counts["test"]} for the test. Kept: the {comparison["kept"].replace("_", "-")} model
({comparison["why"]}).

{_accuracy(metrics["test"])}

Input: uint8 RGB photos, upright, {settings.image_size} x {settings.image_size} pixels, fit by `{settings.fit}`.
Output: one probability per class. Photos of anything else get a class all the same.

    pronk predict . photo.jpg
"""


def _accuracy(test: Mapping[str, Any] | None) -> str:
    if test is None:
        return "No photos were kept for a test, so its accuracy on new photos is not known."
    accuracy = test["accuracy"]
    return (
        f"Accuracy on {accuracy['n']} test photos it never saw: {accuracy['value']:.1%} "
        f"(95 % interval {accuracy['low']:.1%} to {accuracy['high']:.1%})."
    )
