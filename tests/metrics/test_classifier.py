import numpy as np
import pytest
from scipy.stats import norm

from everymode.metrics import c2st, wilson_interval

BOTH = pytest.mark.parametrize("classifier", ["forest", "mlp"])


def _normal_given_x(rng, rows=100, n=5, shift=0.0):
    x = rng.uniform(-1, 1, (rows, 1))
    return x, x[:, None] + shift + 0.5 * rng.normal(size=(rows, n, 1)), x[:, None] + 0.5 * rng.normal(size=(rows, n, 1))


@BOTH
def test_equal_laws_cannot_be_told_apart(classifier):
    rng = np.random.default_rng(0)
    x, draws, reference = _normal_given_x(rng)
    real = x[:, None] + 0.5 * rng.normal(size=draws.shape)
    measure = c2st(x, draws, reference, real, classifier=classifier)
    assert measure.low < 0.5 < measure.high
    assert abs(measure.floor - 0.5) < 0.06
    assert measure.n == 1000
    assert (measure.low, measure.high) == wilson_interval(round(measure.value * 500), 500)


@BOTH
def test_separate_laws_are_always_told_apart(classifier):
    x, draws, reference = _normal_given_x(np.random.default_rng(1), shift=9.0)
    measure = c2st(x, draws, reference, classifier=classifier)
    assert measure.value > 0.99
    assert measure.floor is None


@BOTH
def test_shifted_gaussians_are_told_apart_as_often_as_the_best_rule_can(classifier):
    """The best rule is right in Phi(|shift| / (2 sigma)) of all cases."""
    x, draws, reference = _normal_given_x(np.random.default_rng(2), n=10, shift=1.0)
    best = norm.cdf(1.0)
    value = c2st(x, draws, reference, classifier=classifier).value
    assert best - 0.05 < value < best + 3 * np.sqrt(best * (1 - best) / 2000)


@BOTH
def test_right_answers_for_the_wrong_x_are_told_apart(classifier):
    x, draws, reference = _normal_given_x(np.random.default_rng(3))
    assert c2st(x, draws[::-1], reference, classifier=classifier).value > 0.6
    assert c2st(0 * x, draws[::-1], reference, classifier=classifier).value < 0.6


def test_what_was_learnt_of_a_row_cannot_be_looked_up():
    """One answer a row on both sides, of the same law: whoever saw the row knows its answers, others guess."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(200, 1))
    draws, reference = np.repeat(rng.normal(size=(2, 200, 1, 1)), 5, axis=2)
    assert c2st(x, draws, reference).value < 0.6


def test_a_draw_far_out_does_not_hide_the_others():
    x, draws, reference = _normal_given_x(np.random.default_rng(5), shift=1.0)
    draws[0, 0] = 1e100
    assert c2st(x, draws, reference, classifier="mlp").value > 0.75
    assert c2st(x, draws, reference, classifier="forest").value > 0.75


def test_no_more_points_than_asked_for():
    rng = np.random.default_rng(6)
    x, draws, reference = _normal_given_x(rng, rows=30, n=20)
    assert c2st(x, draws, reference, points=250).n == 2 * 30 * 4
    assert c2st(x, draws, reference, points=41).n == 2 * 20
    assert c2st(x[:3], draws[:3, :1], reference[:3, :1]).n == 6


def test_many_dimensions_constants_and_one_answer_repeated():
    rng = np.random.default_rng(7)
    x, reference = np.zeros((60, 2)), rng.normal(size=(60, 4, 64))
    for classifier in ("forest", "mlp"):
        assert c2st(x, np.zeros_like(reference), reference, classifier=classifier).value > 0.95
    assert 0 <= c2st(x, np.zeros_like(reference), np.zeros_like(reference)).value <= 1


@BOTH
def test_results_repeat_for_a_seed(classifier):
    data = _normal_given_x(np.random.default_rng(8), rows=40)
    measure = c2st(*data, classifier=classifier, seed=1)
    assert c2st(*data, classifier=classifier, seed=1) == measure
    assert c2st(*data, classifier=classifier, seed=2) != measure


def test_bad_input_is_refused():
    one = np.zeros((3, 2, 1))
    with pytest.raises(ValueError, match=r"got \(2, 1\) and \(3, 2, 1\)"):
        c2st(np.zeros((2, 1)), one, one)
    with pytest.raises(ValueError, match="at least 2 rows"):
        c2st(np.zeros((1, 1)), one[:1], one[:1])
    with pytest.raises(ValueError, match="classifier='knn'"):
        c2st(np.zeros((3, 1)), one, one, classifier="knn")
    with pytest.raises(ValueError, match="points=3"):
        c2st(np.zeros((3, 1)), one, one, points=3)
