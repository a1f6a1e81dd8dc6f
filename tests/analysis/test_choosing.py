import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pronk.analysis.choosing import choose_photos, measure_worth


def test_the_least_sure_and_the_strangest_are_worth_most():
    probabilities = np.array([[0.99, 0.01], [0.5, 0.5], [0.9, 0.1], [0.98, 0.02]])
    assert measure_worth(probabilities).argmax() == 1
    distances = np.array([0.4, 0.2, 0.3, 9.0])
    both = measure_worth(probabilities, distances, distances > 1)
    assert set(np.flatnonzero(both == 1)) == {1, 3}, "a sure answer about a strange photo too"
    assert both[0] == 0, "but not about one that is only farther than others"


def test_of_photos_alike_one_is_chosen():
    rng = np.random.default_rng(0)
    kinds = np.arange(100) % 5
    features = np.eye(5)[kinds] + 0.001 * rng.normal(size=(100, 5))
    chosen = choose_photos(np.linspace(1, 0.5, 100), features, 10)
    assert chosen[0] == 0, "the most worthwhile one comes first"
    assert set(kinds[chosen[:5]]) == set(range(5)), "one of each kind before a second of any"


@given(n=st.integers(1, 60), count=st.integers(1, 20), seed=st.integers(0, 99))
def test_as_many_as_asked_and_none_twice(n, count, seed):
    rng = np.random.default_rng(seed)
    worth, features = rng.random(n), rng.normal(size=(n, 3)) * rng.integers(0, 2, (n, 1))
    chosen = choose_photos(worth, features, count)
    assert len(set(chosen.tolist())) == len(chosen) == min(n, count)
    best = set(np.argsort(-worth, kind="stable")[: 2 * count])
    assert set(chosen.tolist()) <= best
