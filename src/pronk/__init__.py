"""pronk: a folder of photos, one sub-folder per class, becomes a trained, judged and usable image classifier.

Example:
    >>> import pronk
    >>> pronk.Settings(views=2).views
    2
"""

import importlib

TYPE_CHECKING = False  # for type checkers it is True; Python's own would have to be imported
if TYPE_CHECKING:
    from typing import Any

    from pronk.batch.request import BatchRequest as BatchRequest
    from pronk.batch.request import predict_batch as predict_batch
    from pronk.config import Settings as Settings
    from pronk.dataset.checkup import Checkup as Checkup
    from pronk.dataset.checkup import check as check
    from pronk.dataset.loading import Dataset as Dataset
    from pronk.dataset.loading import load_dataset as load_dataset
    from pronk.errors import PronkError as PronkError
    from pronk.model.comparison import Comparison as Comparison
    from pronk.model.comparison import compare as compare
    from pronk.model.evaluation import Evaluation as Evaluation
    from pronk.model.evaluation import evaluate as evaluate
    from pronk.model.heat_maps import explain as explain
    from pronk.model.predictor import Prediction as Prediction
    from pronk.model.predictor import Predictor as Predictor
    from pronk.training.export import Exported as Exported
    from pronk.training.export import export_model as export_model
    from pronk.training.recipe import TrainResult as TrainResult
    from pronk.training.recipe import train as train
    from pronk.training.surveys import Audit as Audit
    from pronk.training.surveys import audit as audit
    from pronk.training.surveys import curve as curve

# Where each public name lives; it is imported when it is first asked for, so `import pronk` costs nothing.
_HOMES = {
    "Audit": "pronk.training.surveys",
    "BatchRequest": "pronk.batch.request",
    "Checkup": "pronk.dataset.checkup",
    "Comparison": "pronk.model.comparison",
    "Dataset": "pronk.dataset.loading",
    "Evaluation": "pronk.model.evaluation",
    "Exported": "pronk.training.export",
    "Prediction": "pronk.model.predictor",
    "Predictor": "pronk.model.predictor",
    "PronkError": "pronk.errors",
    "Settings": "pronk.config",
    "TrainResult": "pronk.training.recipe",
    "audit": "pronk.training.surveys",
    "check": "pronk.dataset.checkup",
    "compare": "pronk.model.comparison",
    "curve": "pronk.training.surveys",
    "evaluate": "pronk.model.evaluation",
    "explain": "pronk.model.heat_maps",
    "export_model": "pronk.training.export",
    "load_dataset": "pronk.dataset.loading",
    "predict_batch": "pronk.batch.request",
    "train": "pronk.training.recipe",
}

__all__ = [
    "Audit",
    "BatchRequest",
    "Checkup",
    "Comparison",
    "Dataset",
    "Evaluation",
    "Exported",
    "Prediction",
    "Predictor",
    "PronkError",
    "Settings",
    "TrainResult",
    "audit",
    "check",
    "compare",
    "curve",
    "evaluate",
    "explain",
    "export_model",
    "load_dataset",
    "predict_batch",
    "train",
]


def __getattr__(name: str) -> "Any":
    if name not in _HOMES:
        raise AttributeError(f"module 'pronk' has no attribute {name!r}")
    from pronk.errors import need_extra

    with need_extra("train", f"pronk.{name}"):
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
