"""Numbers of a run -> the model card, in the form that model hubs read.

Nothing in it tells the time, or a folder of the machine it was made on: the card travels with the model.
"""

import json
import platform
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pronk.analysis.metrics import show_metrics
from pronk.config import Settings
from pronk.dataset.findings import Finding
from pronk.model.bundle import installed_versions
from pronk.model.formats.example_programs import list_steps, write_decoding
from pronk.model.run import Metrics
from pronk.pools import available_cores
from pronk.report.pages import render_page
from pronk.report.words import PARTS, PHASES, WIDE, describe_cross, list_models
from pronk.text import percent, visible

IMAGENET = """\
The network started from the ImageNet weights that Keras publishes. Keras's code is under the Apache License 2.0. The
weights were learned from the photos of [ImageNet](https://www.image-net.org/download), whose terms of access allow
non-commercial research and education only. Whether such terms reach a model made from the photos is not settled; that
is for you to judge before you build on it."""
OFFLINE = """\
The network started from the `offline` weights that come with pronk under the Apache License 2.0. They were trained on
pictures drawn by a program: no photo went into them."""
OTHER = "The network started from a file of weights named by the user. What its licence is, pronk does not know."
LICENCES = {
    "imagenet": {"id": "other", "name": "see-the-section-licence", "words": IMAGENET},
    "offline": {"id": "apache-2.0", "name": "", "words": OFFLINE},
}
OTHER_LICENCE = {"id": "unknown", "name": "", "words": OTHER}


def render_card(
    metrics: Metrics,
    settings: Settings,
    *,
    class_counts: Mapping[str, Mapping[str, int]] | None = None,
    findings: Iterable[Finding] = (),
) -> str:
    """Write model/README.md: a YAML header, what the model is, how good it is, what it cannot do, and how to use it."""
    size, weights = settings.image_size, metrics.weights["name"]
    return render_page(
        "card.md",
        title=Path(settings.data).name or "photos",
        **metrics.to_json(),
        phases=list_models(metrics),
        cross_words=describe_cross(metrics.cross) if metrics.cross else "",
        kept=PHASES[metrics.comparison["kept"]],
        class_counts=class_counts or {},
        left_out=sorted(Counter(finding.code for finding in findings if finding.severity == "error").items()),
        licence=LICENCES.get(weights, OTHER_LICENCE),
        settings=settings,
        size=size,
        steps=list_steps(settings.fit, size=size),
        decoding=write_decoding(settings.fit, size=size, photo='"golden/1.jpg"'),
        golden="some of the photos" if settings.golden == "photos" else "pictures drawn by a program",
        hardware=f"{platform.system()} on {platform.machine()}, {available_cores()} CPU cores",
        versions=", ".join(f"{name} {version}" for name, version in installed_versions().items()),
        **_SHARED,
    )


def quote_yaml(text: str) -> str:
    """Return text as a YAML scalar in quotes, with nothing in it that YAML does not allow."""
    quoted = json.dumps(visible(text), ensure_ascii=False)
    # Two characters that are neither control characters nor allowed; all others beyond ASCII stay readable.
    return quoted.replace("\ufffe", "\\uFFFE").replace("\uffff", "\\uFFFF")


def quote_code(text: str) -> str:
    r"""Return a name as Markdown code, where it is neither markup nor a link; whatever would end it is spelled out.

    Example:
        >>> print(quote_code("not_alpaca"), quote_code("a|b`"))
        `not_alpaca` `a\x7cb\x60`
    """
    return "`" + visible(text).replace("|", "\\x7c").replace("`", "\\x60") + "`"


def escape_markdown(text: str) -> str:
    """Return a sentence in which nothing is markup."""
    return re.sub(r"[\\`*_\[\]<>|&#~$]", lambda found: f"&#{ord(found[0])};", visible(text))


def _percent(share: float) -> str:
    return percent(share).replace("\u00a0", " ")  # a card is also read and searched as it is


def _interval(record: Mapping[str, Any]) -> str:
    value, low, high = (_percent(record[name]) for name in ("value", "low", "high"))
    return f"{value} (95 % interval {low} to {high})"


_SHARED: dict[str, Any] = {
    "parts": PARTS,
    "show_metrics": show_metrics,
    "wide": WIDE,
    "code": quote_code,
    "plain": escape_markdown,
    "yaml": quote_yaml,
    "percent": _percent,
    "share": lambda part: f"{100 * part:g} %",
    "interval": _interval,
}
