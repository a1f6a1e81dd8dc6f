"""A run folder -> what its files say."""

import json
from pathlib import Path
from typing import Any

from pronk.errors import RunError

METRICS = "metrics.json"
SETTINGS = "settings.toml"


def read_metrics(folder: Path) -> dict[str, Any]:
    """Return metrics.json of a finished run.

    Raises:
        RunError: if it is not there or damaged.

    Example:
        >>> read_metrics(Path("no such run"))
        Traceback (most recent call last):
        pronk.errors.RunError: no such run is no finished run
    """
    try:
        return dict(json.loads((folder / METRICS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{folder} is no finished run", hint="go on with pronk train ... --resume") from error
