"""Bundle -> what the model is and how good, as a record for people who meet it on a page."""

import datetime
from typing import Any

from pronk.errors import RunError
from pronk.model.bundle import MODEL_FILE, Bundle
from pronk.model.run import Metrics, read_metrics


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """Return what GET /v1/model of a server answers, but for whether there are heat maps.

    Accuracy and photos are None where the model travels without its run.
    """
    metrics = _read_metrics(bundle)
    written = datetime.datetime.fromtimestamp((bundle.folder / MODEL_FILE).stat().st_mtime, datetime.UTC)
    name = bundle.run_folder.resolve().name or "model"
    return {
        "name": name if bundle.runtime == "onnx" else f"{name}-{bundle.runtime}",
        "classes": list(bundle.classes),
        "image": {"size": bundle.size, "fit": bundle.fit},
        "runtime": bundle.runtime,
        "accuracy": metrics.test["accuracy"] if metrics and metrics.test else None,
        "photos": metrics and metrics.counts,
        "trained": written.date().isoformat(),
        "weights": {"name": "", "sha256": ""} | dict(bundle.weights),
        "unknown": bundle.unknown is not None,
        "coverage": bundle.unknown.coverage if bundle.unknown else None,
        "rest_class": bundle.rest_class,
        "calibrated": bundle.sets is not None,
    }


def _read_metrics(bundle: Bundle) -> Metrics | None:
    # A model folder may travel without its run; then nobody here knows how good it is.
    try:
        metrics = read_metrics(bundle.run_folder)
    except RunError:
        return None
    return metrics if tuple(metrics.classes) == bundle.classes else None
