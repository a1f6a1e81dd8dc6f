import threading
from typing import ClassVar

import numpy as np
import pytest

from pronk.model.agreement import Speed, compare_answers, measure_speed, run_all
from pronk.model.formats.runtimes import Outputs
from pronk.pools import available_cores


class Counting:
    """A runtime that answers with the mean of each photo and remembers how it was called."""

    shapes: ClassVar = {}

    def __init__(self):
        self.sizes, self.lock = [], threading.Lock()

    def run(self, pixels):
        with self.lock:
            self.sizes.append(len(pixels))
        mean = pixels.mean(axis=(1, 2, 3), dtype=np.float32)[:, None] / 255
        return Outputs(np.hstack([mean, 1 - mean]), mean)


def grey(*values):
    return [np.full((4, 4, 3), value, np.uint8) for value in values]


def test_photos_run_one_at_a_time_and_stay_in_order():
    runtime = Counting()
    probabilities, features = run_all(runtime, grey(*range(0, 255, 5)))
    assert set(runtime.sizes) == {1}
    np.testing.assert_allclose(probabilities[:, 0], np.arange(0, 255, 5) / 255, atol=1e-6)
    assert features.shape == (51, 1)


def test_what_is_compared():
    reference = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])
    exported = np.array([[0.8, 0.2], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
    record = compare_answers(reference, exported, np.array([0, 0, 1, 0]))
    assert record["agreement"] == 0.75
    assert record["max_difference"] == pytest.approx(0.2)
    assert record["mean_difference"] == pytest.approx((0.1 * 2 + 0.2 * 2) / 8)
    assert (record["accuracy"]["reference"]["value"], record["accuracy"]["exported"]["value"]) == (0.75, 0.5)
    assert record["accuracy"]["exported"]["n"] == 4


def test_speed_is_measured_on_as_many_runs_as_said():
    runtime = Counting()
    speed = measure_speed(runtime, grey(1, 2, 3))
    assert len(runtime.sizes) == 3 + 100 + available_cores() + 100
    assert 0 < speed.p50 <= speed.p95
    assert speed.throughput > 0
    assert isinstance(speed, Speed)
