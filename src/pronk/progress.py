"""A stage and two numbers -> whoever watches: what every `on_progress` is called with."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
Note = Callable[[str], None]


def no_progress(stage: str, done: int, total: int) -> None:
    """Report nothing; the default of every `on_progress`."""


def no_note(text: str) -> None:
    """Say nothing; the default of every `on_note`."""


STAGES = {
    "draw": "drawing photos",
    "check": "checking photos",
    "compare": "looking for copies",
    "judge": "judging by models that left photos out",
    "extract": "extracting features",
    "head": "phase 1: fitting the head",
    "fine_tune": "phase 2: fine-tuning",
    "export": "writing the model",
    "evaluate": "judging the model",
    "predict": "predicting",
    "explain": "drawing heat maps",
    "curve": "fitting heads",
    "audit": "judging labels",
    "bench": "timing models",
}
