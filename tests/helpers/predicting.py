"""Batches of predictions, in this process."""

from pathlib import Path
from typing import Any

from pronk.batch.request import BatchRequest, BatchResult, predict_batch


def predict(model: Path, *paths: Path | str, **options: Any) -> tuple[BatchResult, str, list[str]]:
    """Give the result, the rows that went to no file, and the remarks."""
    written: list[str] = []
    remarks: list[str] = []
    request = BatchRequest(model=model, paths=list(map(str, paths)), **{"top": 2} | options)
    return predict_batch(request, write=written.append, tell=remarks.append), "".join(written), remarks
