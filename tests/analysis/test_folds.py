import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.tables import make_table
from pronk.analysis.dealing import assign_folds
from pronk.analysis.folds import cross_validate, possible_folds, thin_out
from pronk.analysis.head import predict_left_out
from pronk.errors import DataError


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=8, max_size=80),
    st.integers(2, 6),
    st.integers(0, 5),
)
def test_folds_divide_no_group_and_spread_each_class(rows, k, seed):
    targets = np.array([label for label, _ in rows])
    groups = [f"{label}-{group}" for label, group in rows]  # a group has one class here
    folds = assign_folds(targets, groups, k=k, seed=seed)
    np.testing.assert_array_equal(folds, assign_folds(targets, groups, k=k, seed=seed))
    assert set(folds) <= set(range(k))
    for group in set(groups):
        assert len({fold for fold, name in zip(folds, groups, strict=True) if name == group}) == 1
    largest = max(groups.count(group) for group in set(groups))
    for label in set(targets):
        held = np.bincount(folds[targets == label], minlength=k)
        assert held.max() - held.min() <= largest


def test_a_photo_is_judged_by_heads_that_never_saw_it_nor_its_copies():
    # Labels are chance, so whoever saw a copy of a photo would know its label, and nobody else can.
    rng = np.random.default_rng(3)
    table = make_table(120, distance=0.0, features=200, copies=[(i, i - 60) for i in range(60, 120)])
    table = dataclasses.replace(table, targets=np.tile(rng.permutation(60) % 2, 2))
    honest = cross_validate(table, seed=0, strength=1e-3)
    assert 0.3 < (honest.argmax(axis=2) == table.targets).mean() < 0.7
    seen = cross_validate(dataclasses.replace(table, groups=table.paths), seed=0, strength=1e-3)
    assert (seen.argmax(axis=2) == table.targets).mean() > 0.75


@pytest.mark.parametrize("strength", [None, 0.01])
def test_the_answers_are_those_of_heads_fitted_one_by_one(strength):
    table = make_table(36, 3, distance=2.0)
    answers = cross_validate(table, k=3, repeats=2, seed=5, strength=strength)
    assert answers.shape == (2, 36, 3)
    np.testing.assert_allclose(answers.sum(axis=2), 1, atol=1e-9)
    np.testing.assert_array_equal(answers, cross_validate(table, k=3, repeats=2, seed=5, strength=strength))
    if strength:
        folds = assign_folds(table.targets, table.groups, k=3, seed=6)
        left = folds == 1
        seen, options = table.choose(np.flatnonzero(~left)), {"classes": 3, "strengths": [strength]}
        weights = np.ones((~left).sum())
        alone = predict_left_out(seen.features, seen.targets, table.features[left], weights=weights, **options)
        np.testing.assert_allclose(answers[1, left], alone[0], atol=1e-9)


def test_progress_counts_every_fold():
    steps = []
    cross_validate(make_table(20), k=4, repeats=2, seed=0, strength=0.1, on_fold=lambda *step: steps.append(step))
    assert steps == [(i, 8) for i in range(1, 9)]


def test_a_small_class_makes_fewer_folds_and_a_single_photo_is_refused():
    table = make_table(20)
    few = dataclasses.replace(table, targets=np.r_[[1] * 3, [0] * 17])
    assert possible_folds(few, 5) == 3
    one = dataclasses.replace(table, targets=np.r_[1, [0] * 19])
    copies = dataclasses.replace(few, groups=("x",) * 3 + few.groups[3:])
    for refused in (one, copies):
        with pytest.raises(DataError, match="'b' has 1 photo apart from copies"):
            cross_validate(refused, seed=0)


def test_thinning_keeps_classes_in_proportion_and_groups_whole():
    table = make_table(300, 3, copies=[(i, i - 3) for i in range(3, 300, 6)])
    thin = thin_out(table, seed=0, most=100)
    assert 80 <= len(thin) <= 105
    counts = np.bincount(thin.targets)
    assert counts.max() - counts.min() <= 4
    for group in set(thin.groups):
        assert thin.groups.count(group) == table.groups.count(group)
    assert thin_out(table, seed=0, most=300) is table
