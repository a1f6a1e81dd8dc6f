"""Class names -> the class of all the rest, where there is one: a photo of anything else belongs to it."""

import re
from collections.abc import Sequence

from pronk.errors import SettingsError

AUTO, NONE = "auto", "none"

_NEGATION = re.compile(r"(?:not|no|non)[^a-z0-9]+(.+)")  # `not_alpaca`, beside `alpaca`
_REST = re.compile(
    r"(?:the )?rest|others?|other (?:things?|objects?|classes)|(?:everything|anything|something) else"
    r"|none(?: of (?:these|those|them|the above))?|nothing|negatives?|backgrounds?"
)


def find_rest_class(classes: Sequence[str], wanted: str = AUTO) -> str | None:
    """Return the class that holds whatever belongs to no other one, so that no photo is `unknown` to the model.

    By `auto` the names decide: the only one like `other`, `rest`, `none`, `negative` or `background`, or the negation
    of another class. `none` says that there is no such class; any other text names it.

    Raises:
        SettingsError: if no class has that name.

    Example:
        >>> find_rest_class(["alpaca", "not_alpaca"]), find_rest_class(["stop", "no_entry"])
        ('not_alpaca', None)
    """
    if wanted in classes:
        return wanted
    if wanted == NONE or not classes:
        return None
    if wanted != AUTO:
        raise SettingsError(
            f"rest_class: no class is named {wanted!r}",
            hint=f"the classes are {', '.join(classes)}; --rest-class none says that none is the rest",
        )
    found = [name for name in classes if _is_rest(name, classes)]
    return found[0] if len(found) == 1 else None


def _is_rest(name: str, classes: Sequence[str]) -> bool:
    if _REST.fullmatch(" ".join(re.findall(r"[a-z0-9]+", name.lower()))):
        return True
    negated = _NEGATION.fullmatch(name.lower())
    others = [_squeeze(other) for other in classes if other != name]
    return negated is not None and any(other and other in _squeeze(negated[1]) for other in others)


def _squeeze(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
