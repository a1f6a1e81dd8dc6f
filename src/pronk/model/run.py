"""A run folder -> the names of its files, the numbers of its metrics.json, and what its split.csv says of photos."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from pronk.analysis.calibration import Unknown
from pronk.analysis.metrics import AccuracyRecord, ComparisonRecord, ScoreRecord
from pronk.dataset.layout import PARTS
from pronk.dataset.loading import SPLIT, Photo, read_split_file
from pronk.errors import DataError, ModelError, RunError
from pronk.model.guards.files import check_ordinary

MODEL = "model"  # folder: the model that was kept
EXPORTS = "exports"  # folder: one of each format
PARITY = "parity.json"  # beside them
WORK = ".work"  # folder: checkpoints, while the run goes on
FOLD_ROWS = "rows.json"  # in a folder of a cross-fit in it: what the finished fold came to
SETTINGS = "settings.toml"
HISTORY = "history.csv"
PREDICTIONS = "predictions.csv"
REPORT = "report.html"
METRICS = "metrics.json"  # written last, so that it marks the run whole

FORMAT = 1
MOST_BYTES = 2**22  # of metrics.json; a thousand classes take some 200 KB


class PartRecord(TypedDict):
    """How a phase does on the photos of one part; the loss may be infinite or not a number."""

    accuracy: AccuracyRecord
    loss: float


class PhaseRecord(TypedDict):
    """How a phase does on the validation photos."""

    val: PartRecord


class ChoiceRecord(ComparisonRecord):
    """Phase 2 against phase 1 on the same photos, what was kept (frozen, fine_tuned or mixed), and why.

    What phase 2 came to may be a mean of its weights and the frozen ones, with a share of its own below 1.
    """

    kept: str
    why: str
    share: NotRequired[float]  # absent in older runs, where it is 1


class ChosenRecord(TypedDict):
    """What was chosen, or asked for: what the head reads, what views differ in, how phase 2 goes, and why."""

    features: str
    augment: str
    views: int
    fine_tune_from: str
    epochs: int
    learning_rate: float
    why: str


class CrossRecord(TypedDict):
    """Every photo was judged by the one of so many models that had not seen it."""

    models: int


class CalibrationRecord(TypedDict):
    """The temperature, and by part the calibration error `before` and `after` it; None for a part without photos."""

    temperature: float
    ece: dict[str, dict[str, float] | None]


class UnknownRecord(TypedDict):
    """The share of genuine photos that keep their class, and the threshold set for that with n photos."""

    coverage: float
    n: int
    threshold: float


class JudgedRecord(ScoreRecord):
    """How the kept model does; `coverage` is the share of photos not called unknown, None where it cannot tell."""

    coverage: AccuracyRecord | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationMetrics:
    """What is known of a model that was judged by labelled photos.

    Attributes:
        classes: in the order of the probabilities.
        counts: photos by part.
        test: how it does on the test photos; None where there are none.
        calibration: None where nothing is known.
        unknown: None where the model answers every photo with one of its classes.
        rest_class: the class of whatever belongs to no other one, if there is one.
    """

    classes: Sequence[str]
    counts: Mapping[str, int]
    test: JudgedRecord | None
    calibration: CalibrationRecord | None = None
    unknown: UnknownRecord | None = None
    rest_class: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metrics(EvaluationMetrics):
    """The numbers of a finished run: metrics.json, whose keys are the names of the fields.

    Attributes:
        seed: the run's seed.
        weights: name and sha256 of the pre-trained weights.
        chosen: what `auto` came to; None in earlier runs.
        frozen: phase 1, with its val record.
        fine_tuned: phase 2; None where it was left out.
        comparison: the two phases on the same photos, and the choice.
        cross: how the test record came about, where it is that of other models, which saw fewer photos.
        curve: the record of `pronk curve`; None where a class is too small for it.
        seconds: wall time by stage; stages overlap.
        peak_memory_mb: MiB over all processes of the run.
    """

    seed: int
    weights: Mapping[str, str]
    chosen: ChosenRecord | None = None
    frozen: PhaseRecord
    fine_tuned: PhaseRecord | None
    comparison: ChoiceRecord
    cross: CrossRecord | None = None
    curve: Mapping[str, Any] | None = None
    seconds: Mapping[str, float]
    peak_memory_mb: float

    def to_json(self) -> dict[str, Any]:
        """Return the object of metrics.json."""
        record = {name: getattr(self, name) for name in ORDER}
        return {"format": FORMAT, **record, "classes": list(self.classes)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Metrics":
        """Read the object of metrics.json; earlier runs lack what was not measured then.

        If anything in it cannot be true, it raises ValueError, KeyError, TypeError or AttributeError.
        """
        if record["format"] != FORMAT:
            raise ValueError(f"metrics.json has format {record['format']!r}")
        wanted: dict[str, Any] = {
            field.name: record[field.name] if field.default is dataclasses.MISSING else record.get(field.name)
            for field in dataclasses.fields(cls)
        }
        metrics = cls(**wanted)
        _check(metrics)
        return metrics


ORDER = (
    *("classes", "counts", "seed", "weights", "chosen", "frozen", "fine_tuned", "comparison", "calibration"),
    *("unknown", "rest_class"),
    *("test", "cross", "curve", "seconds", "peak_memory_mb"),
)


def read_metrics(folder: Path) -> Metrics:
    """Return the numbers of a finished run; RunError if they are not there or damaged."""
    try:
        check_ordinary(folder / METRICS, most=MOST_BYTES)
        return Metrics.from_json(json.loads((folder / METRICS).read_bytes()))
    except (ModelError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{folder} is not a finished run", hint="go on with pronk train ... --resume") from error


def threshold_record(unknown: Unknown | None) -> UnknownRecord | None:
    """Return what metrics.json says of how a model tells photos of other things; None where it does not."""
    return None if unknown is None else {"coverage": unknown.coverage, "n": unknown.n, "threshold": unknown.threshold}


def read_split(folder: Path) -> tuple[Photo, ...]:
    """Return the photos of a run, with parts and digests; RunError where, as beside a copied model, no split.csv is."""
    try:
        check_ordinary(folder / SPLIT)
        return read_split_file(folder / SPLIT)
    except (ModelError, DataError) as error:
        raise RunError(f"the photos of {folder} are not known: {error}", hint="name the run folder") from error


def _check(metrics: Metrics) -> None:
    """Refuse numbers that readers count on and that are none: the file may come from a stranger."""
    if not (isinstance(metrics.classes, list) and all(isinstance(name, str) for name in metrics.classes)):
        raise TypeError(f"classes must be names. Got {metrics.classes!r:.200}")
    if not all(isinstance(n, int) for n in (*map(metrics.counts.__getitem__, PARTS), *metrics.counts.values())):
        raise TypeError(f"counts must be whole numbers. Got {metrics.counts!r:.200}")
    phases = [phase["val"] for phase in (metrics.frozen, metrics.fine_tuned) if phase]
    accuracies = [part["accuracy"] for part in phases] + ([metrics.test["accuracy"]] if metrics.test else [])
    if not all(set(accuracy) == {"value", "low", "high", "n"} for accuracy in accuracies) or not all(
        map(math.isfinite, (accuracy[name] for accuracy in accuracies for name in ("value", "low", "high", "n")))
    ):
        raise ValueError(f"accuracies must be numbers. Got {accuracies!r:.200}")
    if not all(isinstance(text, str) for text in (metrics.comparison["kept"], metrics.comparison["why"])):
        raise TypeError(f"comparison must say in words what was kept. Got {metrics.comparison!r:.200}")
    if metrics.cross and not isinstance(metrics.cross["models"], int):
        raise TypeError(f"cross must tell the number of models. Got {metrics.cross!r:.200}")
    if metrics.chosen and not all(isinstance(metrics.chosen.get(name), str) for name in ("features", "why")):
        raise TypeError(f"chosen must say in words what was chosen. Got {metrics.chosen!r:.200}")
    if not all(isinstance(part["loss"], float | int) for part in phases):
        raise TypeError(f"losses must be numbers. Got {phases!r:.200}")
