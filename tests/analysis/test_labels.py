"""Labels that look wrong: planted ones are found, copies are no witnesses, no class is blamed for being small."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.tables import make_table
from pronk.analysis import labels
from pronk.analysis.folds import cross_validate
from pronk.analysis.labels import (
    STRENGTH,
    find_neighbours,
    find_suspicious,
    weigh_answers,
)

CLOUDS = {"features": 24, "distance": 5.0}


def plant(table, share, *, seed=0):
    """Give some photos another label; return the table and their paths."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(table), round(share * len(table)), replace=False)
    targets = table.targets.copy()
    targets[chosen] = (targets[chosen] + rng.integers(1, len(table.classes), len(chosen))) % len(table.classes)
    return dataclasses.replace(table, targets=targets), {table.paths[i] for i in chosen}


def audit(table, **options):
    return find_suspicious(table, cross_validate(table, seed=0, strength=STRENGTH), **options)


@pytest.mark.parametrize("sizes", [(60, 60), (30, 30, 30, 30), (120, 25)])
def test_planted_labels_come_first_with_the_true_class(sizes):
    clean = make_table(sizes, **CLOUDS)
    table, planted = plant(clean, 0.1)
    found = audit(table)
    assert {one.path for one in found[: len(planted)]} == planted
    truth = dict(zip(clean.paths, clean.targets, strict=True))
    assert all(one.suggested == clean.classes[truth[one.path]] for one in found[: len(planted)])
    assert all(one.given != one.suggested for one in found)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_right_labels_are_not_suspected():
    assert audit(make_table(120, 3, **CLOUDS)) == ()
    assert audit(make_table((100, 4), **CLOUDS)) == (), "of a class of four no ten neighbours can agree"


def test_a_suspicion_names_its_photo_and_its_neighbours():
    table, planted = plant(make_table(40, **CLOUDS), 0.05)
    found = audit(table)[0]
    row = table.paths.index(found.path)
    assert found.path in planted
    assert (found.digest, found.given) == (table.digests[row], table.classes[table.targets[row]])
    assert len(found.neighbours) == 5
    assert found.path not in {one.path for one in found.neighbours}
    labelled = dict(zip(table.paths, (table.classes[i] for i in table.targets), strict=True))
    assert all(labelled[one.path] == one.label for one in found.neighbours)


def test_copies_do_not_vouch_for_each_other():
    """Five copies of one photo, all with the same wrong label, are all found: each would call the others to witness."""
    table = make_table((30, 30), **CLOUDS)
    features = table.features.copy()
    features[:5] = features[0]
    groups = ("copies",) * 5 + table.groups[5:]
    targets = table.targets.copy()
    targets[:5] = 1
    found = audit(dataclasses.replace(table, features=features, groups=groups, targets=targets))
    assert {one.path for one in found[:5]} == set(table.paths[:5])
    assert all(one.path not in table.paths[:5] for suspicion in found[:5] for one in suspicion.neighbours)


# --- the two witnesses


def test_heads_are_measured_by_what_the_class_usually_reaches():
    """A class that heads are never sure of is not suspected as a whole."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.9, 0.1]])
    shares, other = weigh_answers(probabilities, np.array([0, 0, 1, 1, 1]))
    assert (shares[2:4] < 0.5).all()
    assert shares[4] > 0.7
    assert other.tolist() == [1, 1, 0, 0, 0]


@given(st.integers(0, 10_000), st.integers(3, 14), st.integers(1, 5), st.sampled_from([2, 30, 2**20]))
@settings(max_examples=60, deadline=None)
def test_neighbours_are_those_of_a_plain_search(seed, n, k, block):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 4)).astype(np.float32)
    groups = [str(number) for number in rng.integers(0, n, n)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labels, "BLOCK_VALUES", block)
        found = find_neighbours(features, groups, k=k)
    unit = features.astype(np.float64) / np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    for i in range(n):
        order = sorted((j for j in range(n) if groups[j] != groups[i]), key=lambda j, i=i: -unit[i] @ unit[j])
        expected = list({groups[j]: j for j in reversed(order)}.values())
        expected.sort(key=order.index)
        assert found[i].tolist() == expected[: found.shape[1]]
    assert found.shape[1] == min(k, len(set(groups)) - 1)


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_where_labels_are_luck_planted_ones_do_not_stand_out(share):
    """Or the tests above would pass whatever the features are."""
    table, planted = plant(make_table(100, features=24, distance=0.0, seed=1), share)
    found = audit(table)
    assert len(found) < 75
    assert len(planted & {one.path for one in found[: len(planted)]}) <= len(planted) / 2
