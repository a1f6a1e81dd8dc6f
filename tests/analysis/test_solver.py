"""The solver ends where scikit-learn ends, on as many cores as there are, whatever the numbers of rows and classes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from pronk.analysis import solver as solver_module
from pronk.analysis.solver import Problem, find_axes, softmax
from pronk.pools import Stopped, start_threads


def make_rows(n, d, classes, *, seed=0):
    """Return standardised rows whose features depend on each other, as those of a network do, and their classes."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % classes
    hidden = rng.normal(0, 1, (classes, 8))[targets] + rng.normal(0, 0.7, (n, 8))
    X = np.tanh(hidden @ rng.normal(0, 1, (8, d))) + rng.normal(0, 0.3, (n, d))
    return ((X - X.mean(axis=0)) / X.std(axis=0)).astype(np.float32), targets


def loss_of(weights, bias, X, targets, strength):
    chances = softmax(X.astype(np.float64) @ weights + bias)[np.arange(len(X)), targets]
    return -np.log(chances).mean() + strength / 2 * (weights**2).sum()


# Rows and features decide whether axes are sought at all, classes how many.
@pytest.mark.parametrize(("n", "d", "classes"), [(90, 30, 3), (60, 200, 4), (1300, 40, 5), (600, 60, 40)])
@pytest.mark.parametrize("strength", [0.3, 0.003])
def test_it_ends_where_scikit_learn_ends(n, d, classes, strength):
    X, targets = make_rows(n, d, classes)
    problem = Problem.pose(X, targets, np.ones(n), classes)
    solution = problem.unfold(problem.solve(strength))
    model = LogisticRegression(C=1 / (strength * n), tol=1e-8, max_iter=20_000).fit(X, targets)
    best = loss_of(model.coef_.T, model.intercept_, X, targets, strength)
    assert loss_of(solution[:-1], solution[-1], X, targets, strength) <= best * 1.002 + 1e-5


@pytest.mark.parametrize(("n", "d", "classes"), [(700, 900, 3), (1300, 40, 2), (1300, 40, 35)])
def test_any_number_of_threads_gives_the_same_weights(n, d, classes):
    X, targets = make_rows(n, d, classes)
    problem = Problem.pose(X, targets, np.ones(n), classes)
    alone = problem.solve(0.01)
    for threads in (1, 3):
        with ThreadPoolExecutor(threads) as pool:
            np.testing.assert_array_equal(problem.solve(0.01, pool=pool), alone)


@given(st.integers(2, 40), st.integers(1, 40), st.integers(0, 99))
@settings(max_examples=30)
def test_rows_are_the_same_along_their_axes(n, d, seed):
    X = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    axes = find_axes(X)
    np.testing.assert_allclose(axes.T @ axes, np.eye(axes.shape[1]), atol=1e-3)
    np.testing.assert_allclose(X @ axes @ axes.T, X, atol=1e-2)


def test_of_many_classes_the_strongest_axes_do(monkeypatch):
    X, targets = make_rows(240, 60, 120)
    whole = Problem.pose(X, targets, np.ones(240), 120)
    monkeypatch.setattr(solver_module, "MOST_AXES", 40)
    part = Problem.pose(X, targets, np.ones(240), 120)
    assert (whole.X.shape[1], part.X.shape[1]) == (60, 40)
    assert part.spread.min() >= np.sort(whole.spread)[-41]
    answers = [problem.predict_proba(problem.solve(0.001), X) for problem in (whole, part)]
    right = [(answer.argmax(axis=1) == targets).mean() for answer in answers]
    assert right[1] > right[0] - 0.1


def test_it_stops_when_nobody_waits_for_it_any_more(monkeypatch):
    """As on Ctrl-C while folds are worked out side by side, each of which may take half a minute."""
    X, targets = make_rows(300, 40, 3)
    problem, begun, ended = Problem.pose(X, targets, np.ones(300), 3), threading.Event(), []
    monkeypatch.setattr(solver_module, "MAX_ITERATIONS", 10**9)

    def solve():
        try:
            while True:
                problem.solve(0.01, on_solution=lambda step: begun.set())
        except BaseException as error:
            ended.append(type(error))
            raise

    def interrupt():
        with start_threads() as pool:
            pool.submit(solve)
            begun.wait()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert ended == [Stopped]


def test_each_step_lowers_the_loss():
    X, targets = make_rows(200, 50, 4)
    problem, losses = Problem.pose(X, targets, np.ones(200), 4), []
    problem.solve(0.01, on_solution=lambda step: losses.append(loss_of(step[:-1], step[-1], problem.X, targets, 0.01)))
    assert len(losses) > 5
    assert (np.diff(losses) <= 1e-6).all()
