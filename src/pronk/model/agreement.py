"""Two runtimes of one model -> how far they agree, and how fast each of them is."""

import dataclasses
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pronk.analysis.metrics import AccuracyRecord, accuracy_record
from pronk.model.formats.runtimes import Runtime
from pronk.pools import available_cores, run_in_order, start_threads

WARM_UP_RUNS = 3
TIMED_RUNS = 100


@dataclasses.dataclass(frozen=True)
class Speed:
    """How fast a model is on this machine, pixels to probabilities, without decoding.

    Attributes:
        p50: median time for one photo alone, in milliseconds.
        p95: time that 95 % of the photos keep to.
        throughput: photos a second on all cores.
    """

    p50: float
    p95: float
    throughput: float


def run_all(runtime: Runtime, photos: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Run photos one at a time on all cores, as they are served: probabilities [n, C] and features [n, d], float32."""
    outputs = list(run_in_order(lambda pixels: runtime.run(pixels[None]), photos))
    return np.concatenate([one.probabilities for one in outputs]), np.concatenate([one.features for one in outputs])


def compare_answers(reference: np.ndarray, exported: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    """Compare the probabilities, float [n, C], that model and export give the same photos, whose classes are int [n].

    Returns:
        Share of equal top classes, the largest and the mean difference of a probability, and both accuracies with
        their intervals.
    """
    answers, exported_answers = reference.argmax(axis=1), exported.argmax(axis=1)
    difference = np.abs(reference.astype(np.float64) - exported)
    accuracy: dict[str, AccuracyRecord] = {
        "reference": accuracy_record(answers == targets),
        "exported": accuracy_record(exported_answers == targets),
    }
    return {
        "agreement": float((answers == exported_answers).mean()),
        "max_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
        "accuracy": accuracy,
    }


def measure_speed(runtime: Runtime, photos: Sequence[np.ndarray]) -> Speed:
    """Time one photo after the other, then all cores at once.

    The photos, uint8 [size, size, 3] each, are taken again from the start until 100 are timed.
    """
    pixels = [photos[i % len(photos)][None] for i in range(TIMED_RUNS)]
    for photo in pixels[:WARM_UP_RUNS]:
        runtime.run(photo)
    times = []
    for photo in pixels:
        started = time.perf_counter()
        runtime.run(photo)
        times.append(1000 * (time.perf_counter() - started))
    with start_threads() as pool:
        together = threading.Barrier(available_cores())
        # Each thread runs once before time counts: some runtimes open the model anew for each.
        list(pool.map(lambda photo: (runtime.run(photo), together.wait()), pixels[: available_cores()]))
        started = time.perf_counter()
        for _ in pool.map(runtime.run, pixels):
            pass
        seconds = time.perf_counter() - started
    p50, p95 = np.percentile(times, [50, 95])
    return Speed(round(float(p50), 3), round(float(p95), 3), round(TIMED_RUNS / seconds, 1))


def count_bytes(model: Path) -> int:
    """Return the size of a model file, or of all files of a model folder."""
    files = model.rglob("*") if model.is_dir() else [model]
    return sum(file.stat().st_size for file in files if file.is_file())
