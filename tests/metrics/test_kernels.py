import numpy as np
import pytest

from everymode.metrics import kernels, mmd, mmd_values

WIDTHS = np.array([4, 2, 1, 0.5, 0.25])


@pytest.mark.parametrize("n", [2, 3, 20])
def test_equal_laws_are_zero_apart_on_average(n):
    draws, reference = np.random.default_rng(n).normal(size=(2, 4000, n, 2))
    for bandwidth in (None, 1.0):
        values = mmd_values(draws, reference, bandwidth=bandwidth)
        error = values.std() / np.sqrt(4000)
        assert abs(values.mean()) < 4 * error
        assert 4 * error < 0.5 / n  # what the pairs i = j would add, and more


@pytest.mark.parametrize("n", [2, 10, 200])
def test_gaussians_have_their_closed_form(n):
    """E k(a, b) = s / sqrt(s^2 + 2) exp(-m^2 / (2 (s^2 + 2))) for a and b normal of variance 1, with means m apart."""
    rng = np.random.default_rng(n)
    rows, s = 40_000 // n, 1.5 * WIDTHS
    values = mmd_values(rng.normal(size=(rows, n, 1)) + 1, rng.normal(size=(rows, n, 1)), bandwidth=1.5)
    exact = (2 * s / np.sqrt(s**2 + 2) * (1 - np.exp(-1 / (2 * (s**2 + 2))))).mean()
    error = values.std() / np.sqrt(rows)
    assert abs(values.mean() - exact) < 4 * error
    assert error < 0.05 * exact


def test_the_bandwidth_is_the_median_distance_of_real_draws():
    reference = np.array([[[0.0], [1.0], [3.0]], [[0.0], [2.0], [6.0]]])  # distances 1, 2, 3 and 2, 4, 6
    draws = np.random.default_rng(0).normal(size=reference.shape)
    np.testing.assert_array_equal(mmd_values(draws, reference), mmd_values(draws, reference, bandwidth=3.0))
    same = np.zeros((2, 3, 1))
    np.testing.assert_array_equal(mmd_values(draws, same), mmd_values(draws, same, bandwidth=1.0))


def test_what_a_mode_looks_like_inside_is_seen(monkeypatch):
    """The modes are right, and their width is wrong: one Gaussian as wide as the median distance is blind to it."""
    rng = np.random.default_rng(1)
    modes = rng.choice([-1.0, 1.0], size=(3, 200, 50, 1))
    draws, reference, real = modes + np.array([0.3, 0.1, 0.1])[:, None, None, None] * rng.normal(size=modes.shape)
    measure = mmd(draws, reference, real)
    assert measure.low is not None
    assert measure.floor is not None
    assert measure.low > max(measure.floor, 0.001)
    monkeypatch.setattr(kernels, "_WIDEST", 1.0)
    monkeypatch.setattr(kernels, "_WIDTHS", 1)
    one = mmd(draws, reference)
    assert one.low is not None
    assert one.high is not None
    assert one.low < 0 < one.high


def test_right_answers_for_the_wrong_x_are_not_forgiven():
    rng = np.random.default_rng(2)
    x = np.linspace(-3, 3, 50)[:, None, None]
    draws, reference = x + 0.1 * rng.normal(size=(2, 50, 40, 2))
    assert abs(mmd(draws, reference).value) < 0.02
    assert mmd(draws[::-1], reference).value > 1


def test_the_farthest_apart_are_two_apart_and_a_draw_far_out_counts_as_one():
    rng = np.random.default_rng(3)
    reference = rng.normal(size=(4, 10, 2))
    copies = np.zeros((4, 10, 2))
    assert mmd(copies + 1e30, copies).value == pytest.approx(2)
    stray = reference.copy()
    stray[:, 0] = 1e30
    assert mmd(stray, reference).value < 0.1
    assert mmd(stray, reference).value > mmd(reference, reference).value


def test_units_of_y_do_not_matter_nor_does_a_constant_column():
    rng = np.random.default_rng(4)
    draws, reference = rng.normal(size=(2, 5, 30, 2)) + 1
    value = mmd(draws, reference).value
    assert mmd(draws * [1e3, 1e-3], reference * [1e3, 1e-3]).value == pytest.approx(value)
    draws[..., 1] = reference[..., 1] = 4
    assert np.isfinite(mmd(draws, reference).value)


def test_floor_interval_and_as_many_draws_as_asked_for():
    rng = np.random.default_rng(6)
    draws, reference, real = rng.normal(size=(3, 100, 30, 2))
    measure = mmd(draws, reference, real, seed=1)
    assert measure.low is not None
    assert measure.high is not None
    assert measure.floor is not None
    assert measure.low < measure.floor < measure.high
    assert measure.low < 0 < measure.high
    assert measure.n == 100
    assert mmd(draws, reference).floor is None
    assert mmd(draws, reference, real, seed=1) == measure != mmd(draws, reference, real, seed=2)
    scale = reference.std(axis=(0, 1))
    expected = mmd_values(draws[:, :7] / scale, reference[:, :7] / scale).mean()
    assert mmd(draws, reference, at_most=7).value == pytest.approx(expected)


def test_bad_input_is_refused():
    one = np.zeros((3, 1, 2))
    with pytest.raises(ValueError, match=r"at least 2 draws a row; got draws of shape \(3, 1, 2\)"):
        mmd(one, one)
    with pytest.raises(ValueError, match=r"draws \(3, 1, 2\) and reference \(3, 2, 2\)"):
        mmd(one, np.zeros((3, 2, 2)))
    with pytest.raises(ValueError, match="bandwidth=0 is out of range"):
        mmd(np.zeros((3, 2, 2)), np.zeros((3, 2, 2)), bandwidth=0)
    with pytest.raises(ValueError, match="at_most=1"):
        mmd(np.zeros((3, 2, 2)), np.zeros((3, 2, 2)), at_most=1)
