"""Labels, groups and given parts -> parts: nothing leaks, nothing depends on names or order."""

import hashlib
from collections import Counter, defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from pronk.dataset.split import RANK, assign_parts

SHARES = {"val": 0.15, "test": 0.15}


def digest(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


@st.composite
def data_sets(draw, with_given=True):
    count = draw(st.integers(1, 40))
    parts = [None, None, None, "train", "val", "test"] if with_given else [None]
    return {
        "labels": draw(st.lists(st.sampled_from("abc"), min_size=count, max_size=count)),
        "groups": draw(st.lists(st.integers(0, count), min_size=count, max_size=count)),
        "digests": [digest(n) for n in range(count)],
        "given": draw(st.lists(st.sampled_from(parts), min_size=count, max_size=count)),
    }


shares = st.fixed_dictionaries({"val": st.floats(0.01, 0.5), "test": st.sampled_from([0.0, 0.1, 0.3])})


def members(groups):
    by_group = defaultdict(list)
    for index, group in enumerate(groups):
        by_group[group].append(index)
    return by_group.values()


@given(data_sets(), shares, st.integers(0, 5))
def test_no_group_straddles_given_parts_win_and_only_what_would_leak_is_left_out(data, shares, seed):
    parts = assign_parts(**data, shares=shares, seed=seed)
    for group in members(data["groups"]):
        assert len({parts[i] for i in group} - {None}) == 1
    for part, wanted in zip(parts, data["given"], strict=True):
        assert part in ("train", "val", "test", None)
        assert wanted in (None, part) or part is None
    for group in members(data["groups"]):
        highest = max(RANK[data["given"][i]] for i in group)
        for i in group:
            leaks = data["given"][i] is not None and RANK[data["given"][i]] < highest
            assert (parts[i] is None) == leaks


@given(data_sets(), shares, st.integers(0, 5), st.randoms())
def test_the_order_of_the_photos_does_not_matter(data, shares, seed, rng):
    expected = dict(zip(data["digests"], assign_parts(**data, shares=shares, seed=seed), strict=True))
    order = list(range(len(data["labels"])))
    rng.shuffle(order)
    shuffled = {name: [values[i] for i in order] for name, values in data.items()}
    renamed = dict(zip(set(shuffled["groups"]), rng.sample(range(1000), len(set(shuffled["groups"]))), strict=True))
    shuffled["groups"] = [renamed[group] for group in shuffled["groups"]]
    parts = assign_parts(**shuffled, shares=shares, seed=seed)
    assert dict(zip(shuffled["digests"], parts, strict=True)) == expected


@given(data_sets(with_given=False), shares, st.integers(0, 5))
def test_every_class_with_groups_of_its_own_is_in_train_and_val(data, shares, seed):
    parts = assign_parts(**data, shares=shares, seed=seed)
    own = Counter(
        data["labels"][group[0]] for group in members(data["groups"]) if len({data["labels"][i] for i in group}) == 1
    )
    mixed = {data["labels"][i] for g in members(data["groups"]) if len({data["labels"][i] for i in g}) > 1 for i in g}
    counts = Counter(zip(data["labels"], parts, strict=True))
    for label, groups in own.items():
        if label not in mixed and groups >= 2:
            assert counts[label, "train"] > 0
            assert counts[label, "val"] > 0
            assert counts[label, "test"] > 0 or groups < 3 or not shares["test"] or counts[label, "val"] >= groups - 1


@given(st.integers(3, 60), st.integers(3, 60), shares, st.integers(0, 3))
@settings(max_examples=50)
def test_shares_are_kept_in_each_class(first, second, shares, seed):
    labels = ["a"] * first + ["b"] * second
    count = len(labels)
    digests = list(map(digest, range(count)))
    parts = assign_parts(labels, range(count), digests, [None] * count, shares=shares, seed=seed)
    for label, total in (("a", first), ("b", second)):
        counts = Counter(part for name, part in zip(labels, parts, strict=True) if name == label)
        assert counts["val"] == min(max(round(shares["val"] * total), 1), total - 1)
        left = total - counts["val"] - 1
        assert counts["test"] == (min(max(round(shares["test"] * total), 1), left) if shares["test"] else 0)


def test_another_seed_is_another_split_and_the_same_seed_the_same():
    def split(seed):
        return assign_parts(["a"] * 60, range(60), list(map(digest, range(60))), [None] * 60, shares=SHARES, seed=seed)

    assert split(1) == split(1)
    assert len({tuple(split(seed)) for seed in range(20)}) == 20


def test_new_photos_fill_up_what_former_ones_left_free():
    digests = list(map(digest, range(200)))
    former = assign_parts(["a"] * 100, range(100), digests[:100], [None] * 100, shares=SHARES, seed=1)
    parts = assign_parts(["a"] * 200, range(200), digests, former + [None] * 100, shares=SHARES, seed=1)
    assert parts[:100] == former
    assert Counter(parts) == {"train": 140, "val": 30, "test": 30}


def test_a_large_group_does_not_swallow_a_part():
    groups = [0] * 30 + list(range(1, 31))
    parts = assign_parts(["a"] * 60, groups, list(map(digest, range(60))), [None] * 60, shares=SHARES, seed=3)
    assert set(parts[:30]) == {"train"}
    assert Counter(parts) == {"train": 42, "val": 9, "test": 9}
