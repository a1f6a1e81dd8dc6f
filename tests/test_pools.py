"""Tasks -> results, in order or as they come; a few at a time, whatever fails."""

import os
import time

import pytest

from pronk.errors import DataError
from pronk.pools import TASKS_AHEAD, count_workers, run_in_order, run_unordered, start_beside, start_threads


def test_results_keep_the_order_of_the_tasks():
    assert list(run_in_order(lambda wait: time.sleep(wait) or wait, [0.02, 0, 0.01])) == [0.02, 0, 0.01]


def test_what_fails_beside_fails_where_it_is_asked_for():
    with pytest.raises(ZeroDivisionError):
        start_beside(lambda: 1 / 0).result()


@pytest.mark.parametrize("run", [run_in_order, run_unordered])
def test_each_task_has_one_result(run):
    assert sorted(run(abs, range(-500, 0))) == list(range(1, 501))
    assert list(run(abs, [])) == []


@pytest.mark.parametrize("run", [run_in_order, run_unordered])
def test_few_tasks_are_taken_ahead(run):
    taken = []
    with start_threads() as pool:
        pool.workers = 2
        results = run(abs, (taken.append(n) or n for n in range(1000)), pool=pool)
        next(results)
        assert len(taken) <= 2 * TASKS_AHEAD + 1
        results.close()


@pytest.mark.parametrize("run", [run_in_order, run_unordered])
def test_an_error_ends_the_results_and_drops_what_waits(run):
    done = []

    def work(number):
        if number == 3:
            raise DataError("three")
        time.sleep(0.01)
        done.append(number)

    with pytest.raises(DataError, match="three"):
        list(run(work, range(1000)))
    assert len(done) < 100


def test_workers_may_go_while_tasks_run():
    """More tasks then run than would be started now; none is lost."""
    with start_threads() as pool:
        pool.workers = 5
        results = run_unordered(abs, range(100), pool=pool)
        found = [next(results)]
        pool.workers = 1
        assert count_workers(pool) == 1
        found += results
        pool.workers = 0
        assert count_workers(pool) == 1
    assert sorted(found) == list(range(100))


def test_threads_are_as_many_as_cores():
    with start_threads() as pool:
        assert 1 <= count_workers(pool) <= os.cpu_count()
