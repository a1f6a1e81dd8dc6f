"""A template and values -> a page for people; names from strangers stay text in it."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pronk.text import percent, plural, visible

Row = Mapping[str, Any]  # of one of the CSV files of a run, by column


def render_page(template: str, **values: Any) -> str:
    """Fill a template from `templates/`; in those of HTML every value is escaped, in all of them made visible."""
    return _environment().get_template(template).render(values)


def mark_name(text: object) -> Markup:
    """Return a stranger's name as HTML whose direction of writing ends where the name ends."""
    return Markup("<bdi>{}</bdi>").format(visible(str(text)))


@functools.cache
def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    environment = Environment(
        loader=loader,
        autoescape=lambda name: not (name or "").endswith(".md"),
        undefined=StrictUndefined,
        finalize=_shown,
    )
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters |= {
        "percent": percent,
        "plural": plural,
        "duration": _duration,
        "name": mark_name,
        "python": repr,
    }
    return environment


def _shown(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _duration(seconds: float) -> str:
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
