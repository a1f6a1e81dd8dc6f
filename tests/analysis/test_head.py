import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from pronk.analysis import head as head_module
from pronk.analysis.head import MIDDLE_STRENGTH, STRENGTHS, Lesson, choose_strength, fit_head, measure_strengths


def blobs(count, classes, *, features=12, seed=0, spread=1.5):
    """Overlapping clouds whose features differ in scale and offset."""
    rng = np.random.default_rng(seed)
    targets = np.arange(count) % classes
    centres = rng.normal(0, 1, (classes, features))
    scale, offset = rng.uniform(0.01, 5, features), rng.normal(0, 3, features)
    X = (centres[targets] + rng.normal(0, spread, (count, features))) * scale + offset
    return X.astype(np.float32), targets


def sklearn_probabilities(X, targets, weights, strength, judged):
    # scikit-learn minimises C times the weighted sum of losses plus half the squared norm; for two classes it has
    # one vector where we have two that mirror each other, of which each carries half.
    classes = targets.max() + 1
    scaler = StandardScaler().fit(X.astype(np.float64))
    C = 1 / (strength * weights.sum())
    C = 2 * C if classes == 2 else C
    model = LogisticRegression(C=C, tol=1e-10, max_iter=10_000)
    model.fit(scaler.transform(X.astype(np.float64)), targets, sample_weight=weights)
    return model.predict_proba(scaler.transform(judged.astype(np.float64)))


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("strength", [0.3, 0.01, 3e-4])
def test_it_ends_where_scikit_learn_ends(classes, strength):
    X, targets = blobs(120, classes)
    judged, _ = blobs(60, classes, seed=0, spread=2)
    head = fit_head(Lesson(X, targets, (), np.ones(120), classes), strength)
    expected = sklearn_probabilities(X, targets, np.ones(120), strength, judged)
    np.testing.assert_allclose(head.predict_proba(judged), expected, atol=2e-3)


def test_fewer_rows_than_features_are_solved_as_well():
    rng = np.random.default_rng(5)
    targets = np.arange(40) % 3
    X = (rng.normal(size=(40, 200)) + 3 * np.eye(3, 200)[targets]).astype(np.float32)
    judged = rng.normal(size=(30, 200)).astype(np.float32)
    head = fit_head(Lesson(X, targets, (), np.ones(40), 3), 0.03)
    expected = sklearn_probabilities(X, targets, np.ones(40), 0.03, judged)
    np.testing.assert_allclose(head.predict_proba(judged), expected, atol=2e-3)


@pytest.mark.parametrize("classes", [2, 3])
def test_weights_of_rows_count_as_in_scikit_learn(classes):
    X, targets = blobs(90, classes)
    weights = np.random.default_rng(1).uniform(0.2, 5, 90)
    head = fit_head(Lesson(X, targets, (), weights, classes), 0.01)
    np.testing.assert_allclose(head.predict_proba(X), sklearn_probabilities(X, targets, weights, 0.01, X), atol=2e-3)
    scaled = fit_head(Lesson(X, targets, (), 7 * weights, classes), 0.01)
    np.testing.assert_allclose(scaled.predict_proba(X), head.predict_proba(X), atol=1e-4)


def test_constant_and_dead_features_do_no_harm():
    X, targets = blobs(60, 2)
    X[:, 3], X[:, 4] = 0.0, 6.0
    head = fit_head(Lesson(X, targets, (), np.ones(60), 2), 0.01)
    assert np.isfinite(head.weights).all()
    assert not head.weights[3].any()
    assert not head.weights[4].any()


def test_each_iteration_is_told_and_the_loss_falls():
    X, targets = blobs(80, 3)
    steps = []
    head = fit_head(Lesson(X, targets, (), np.ones(80), 3), 0.01, on_iteration=lambda *step: steps.append(step))
    assert [number for number, _ in steps] == list(range(1, len(steps) + 1))
    losses = [-np.log(make().predict_proba(X)[np.arange(80), targets]).mean() for _, make in steps]
    assert len(losses) > 3
    assert losses[-1] < losses[0]
    np.testing.assert_array_equal(steps[-1][1]().weights, head.weights)


def choose(X, targets, groups):
    return choose_strength(Lesson(X, targets, groups, np.ones(len(targets)), classes=2), seed=0)


def test_noise_wants_more_regularisation_than_signal(monkeypatch):
    groups = [f"g{i}" for i in range(120)]
    clear, targets = blobs(120, 2, spread=0.3)
    noise = np.random.default_rng(0).normal(size=clear.shape).astype(np.float32)
    assert choose(noise, targets, groups) == max(STRENGTHS)
    assert choose(clear, targets, groups) < max(STRENGTHS)
    assert choose(clear[:6], targets[:6], groups[:6]) == MIDDLE_STRENGTH, "too few for folds"
    found = measure_strengths(Lesson(clear, targets, groups, np.ones(120), classes=2), seed=0)
    assert found.losses[found.best].mean() == found.losses.mean(axis=1).min()
    assert found.right[found.best].mean() > 0.9
    monkeypatch.setattr(head_module, "MAX_CROSS_VALIDATED", 20)
    of_few = measure_strengths(Lesson(clear, targets, groups, np.ones(120), classes=2), seed=0)
    assert np.isfinite(of_few.losses).sum(axis=1).tolist() == [20] * len(STRENGTHS)
    least = [np.nanmean(strengths.losses, axis=1).min() for strengths in (of_few, found)]
    assert least[0] > least[1], "20 photos tell less than 120"


def test_folds_never_divide_a_group():
    """Thirty pictures, each there four times: had copies reached both sides, hardly any regularisation would win."""
    rng = np.random.default_rng(0)
    pictures = rng.normal(size=(30, 8)).astype(np.float32)
    groups = [f"g{i // 4}" for i in range(120)]
    X, targets = pictures.repeat(4, axis=0), rng.integers(0, 2, 30).repeat(4)
    assert choose(X, targets, groups) >= 0.1


def test_of_many_classes_some_are_asked_and_the_strength_is_that_of_all(monkeypatch):
    X, targets = blobs(400, 40, spread=0.3)
    lesson = Lesson(X, targets, [f"g{i}" for i in range(400)], np.ones(400), classes=40)
    monkeypatch.setattr(head_module, "MANY", 10)
    found = measure_strengths(lesson, seed=0)
    asked = np.isfinite(found.losses[0])
    assert len(set(targets[asked])) == 10
    assert asked.sum() == 100
    assert found.strength == STRENGTHS[found.best] / 4
