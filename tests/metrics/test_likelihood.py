import numpy as np
import pytest
from scipy.stats import norm

from everymode import problems
from everymode.metrics import log_likelihood


def test_the_truth_has_minus_its_entropy_and_a_model_its_divergence_less():
    rng = np.random.default_rng(0)
    y = rng.normal(scale=2, size=20_000)
    minus_entropy = -0.5 * np.log(2 * np.pi * np.e * 4)
    measure = log_likelihood(norm.logpdf(y, 1, 2), norm.logpdf(y, 0, 2))
    assert measure.floor == pytest.approx(minus_entropy, abs=0.02)
    assert measure.value == pytest.approx(minus_entropy - 1 / (2 * 4), abs=0.02)  # KL of means 1 apart
    assert measure.low < minus_entropy - 1 / (2 * 4) < measure.high < measure.floor
    assert measure.n == 20_000


def test_the_floor_comes_from_a_problem_of_known_density():
    problem = problems.get("fork")
    x, y = problem.sample(500, 0)
    truth = problem.log_density(x, y[:, None])[:, 0]
    measure = log_likelihood(truth - 0.25, truth)
    assert measure.floor - measure.value == pytest.approx(0.25)


def test_one_impossible_row_makes_it_minus_infinity_without_an_interval():
    measure = log_likelihood([-1.0, -np.inf, 0.0], [-1.0, -2.0, 0.0])
    assert (measure.value, measure.low, measure.high, measure.floor) == (-np.inf, None, None, -1)
    assert measure.to_dict()["value"] is None


def test_results_repeat_for_a_seed():
    values = np.random.default_rng(1).normal(size=50)
    assert log_likelihood(values, seed=3) == log_likelihood(values, seed=3) != log_likelihood(values, seed=4)
    assert log_likelihood(values).floor is None
    assert log_likelihood([-2.0]).low is None


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="in row 1 it is nan"):
        log_likelihood([0.0, np.nan])
    with pytest.raises(ValueError, match="in row 0 it is inf"):
        log_likelihood([0.0], [np.inf])
    with pytest.raises(ValueError, match=r"got \(2, 1\)"):
        log_likelihood(np.zeros((2, 1)))
    with pytest.raises(ValueError, match="got 2, 3"):
        log_likelihood(np.zeros(3), np.zeros(2))
