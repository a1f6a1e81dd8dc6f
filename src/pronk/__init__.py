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

# Where the public names live; a module is imported when one is first asked for, so `import pronk` costs nothing.
_HOMES = {
    "pronk.batch.request": ("BatchRequest", "predict_batch"),
    "pronk.config": ("Settings",),
    "pronk.dataset.checkup": ("Checkup", "check"),
    "pronk.dataset.loading": ("Dataset", "load_dataset"),
    "pronk.errors": ("PronkError",),
    "pronk.model.comparison": ("Comparison", "compare"),
    "pronk.model.evaluation": ("Evaluation", "evaluate"),
    "pronk.model.heat_maps": ("explain",),
    "pronk.model.predictor": ("Prediction", "Predictor"),
    "pronk.training.export": ("Exported", "export_model"),
    "pronk.training.recipe": ("TrainResult", "train"),
    "pronk.training.surveys": ("Audit", "audit", "curve"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> "Any":
    if name not in _HOME_OF:
        raise AttributeError(f"module 'pronk' has no attribute {name!r}")
    from pronk.errors import need_extra

    with need_extra("train", f"pronk.{name}"):
        return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
