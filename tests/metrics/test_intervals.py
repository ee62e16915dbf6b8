import numpy as np
import pytest

from everymode.metrics import Measure, bootstrap_interval, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "interval"),
    [(15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)), (20, 20, (0.8389, 1.0))],
)
def test_wilson_agrees_with_published_values(successes, trials, interval):
    """81/263, 15/148, 0/20 and 1/29 are the worked examples of Newcombe (1998), table I."""
    assert wilson_interval(successes, trials) == pytest.approx(interval, abs=5e-5)
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_wilson_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    seen = rng.binomial(60, 0.9, 2000)
    inside = [low <= 0.9 <= high for low, high in (wilson_interval(int(k), 60) for k in seen)]
    assert 0.93 < np.mean(inside) < 0.98


def test_bootstrap_matches_the_normal_interval_of_a_mean():
    values = np.random.default_rng(1).normal(3, 2, 2000)
    low, high = bootstrap_interval(values, seed=0)
    error = values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)
    assert bootstrap_interval(values, seed=0) == (low, high) != bootstrap_interval(values, seed=1)


def test_bootstrap_of_one_row_gives_no_interval():
    assert bootstrap_interval([2.0], seed=0) == (None, None)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="got 3/2"):
        wilson_interval(3, 2)
    with pytest.raises(ValueError, match="level"):
        wilson_interval(1, 2, level=95)
    with pytest.raises(ValueError, match=r"got \(2, 2\)"):
        bootstrap_interval(np.zeros((2, 2)), seed=0)


def test_a_measure_is_ready_for_json():
    assert Measure(0.5, float("nan"), None, float("inf"), 3).to_dict() == {
        "value": 0.5,
        "low": None,
        "high": None,
        "floor": None,
        "n": 3,
    }
