"""What every problem promises, tested on every problem."""

import numpy as np
import pytest

from everymode import problems

ALL = problems.names()
EXACT = [name for name in ALL if problems.get(name).exact]
SEVERAL = [name for name in ALL if problems.get(name).answers == "several"]


def grid_for(problem, x):
    """Cells covering nearly all of p(y | x) for one row of x: centres (1, cells, dy), and the size of one."""
    draws = problem.sample_given(x, 4000, 0)[0]
    low, high = draws.min(axis=0), draws.max(axis=0)
    margin = 1.5 * (high - low) if problem.name == "heavy_tailed" else 0.15 * (high - low)
    low, high = low - margin, high + margin
    if problem.name == "sine_fold":
        low, high = np.zeros(1), np.ones(1)
    cells = 20_000 if len(low) == 1 else 180
    size = (high - low) / cells
    axes = [a + (np.arange(cells) + 0.5) * s for a, s in zip(low, size, strict=True)]
    centres = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(1, -1, len(low))
    return centres, float(np.prod(size))


@pytest.fixture(params=ALL)
def problem(request):
    return problems.get(request.param)


@pytest.fixture(params=EXACT)
def exact(request):
    return problems.get(request.param)


def test_attributes_and_shapes(problem):
    x, y = problem.sample(50, 0)
    dx, dy = len(problem.x_names), len(problem.y_names)
    assert problem.title
    assert problem.answers in ("one", "several")
    assert x.shape == (50, dx)
    assert y.shape == (50, dy)
    assert x.dtype == y.dtype == np.float64
    assert problem.sample_x(50, 0).shape == (50, dx)
    draws = problem.sample_given(x, 7, 0)
    assert draws.shape == (50, 7, dy)
    assert problem.valid(x, draws).shape == (50, 7)
    for modes in problem.modes(x):
        assert modes.locations.shape == (len(modes), dy)
        assert modes.spreads.shape == modes.probabilities.shape == modes.labels.shape
        assert np.isclose(modes.probabilities.sum(), 1)
        assert np.all(np.diff(modes.probabilities) <= 0)
        assert np.all(modes.spreads > 0)
        assert set(modes.labels) <= set(range(len(problem.mode_names)))
        if problem.answers == "one":
            assert len(modes) == 1


def test_the_seed_decides_and_global_state_stays(problem):
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - it is the global state that is tested
    x, y = problem.sample(20, 3)
    again = problem.sample(20, 3)
    np.testing.assert_array_equal(x, again[0])
    np.testing.assert_array_equal(y, again[1])
    assert not np.array_equal(y, problem.sample(20, 4)[1])
    np.testing.assert_array_equal(problem.sample_x(20, 3), problem.sample_x(20, 3))
    np.testing.assert_array_equal(problem.sample_given(x, 5, 3), problem.sample_given(x, 5, 3))
    assert not np.array_equal(problem.sample_given(x, 5, 3), problem.sample_given(x, 5, 4))
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_the_truth_is_valid(problem):
    x, y = problem.sample(2000, 1)
    # Geyser's rule is a smoothed count, which 98 % of the real rows pass.
    least = 0.95 if problem.name == "geyser" else 0.99
    assert problem.valid(x, y[:, None]).mean() >= least
    assert problem.valid(x[:200], problem.sample_given(x[:200], 50, 2)).mean() >= least


def test_assigned_draws_are_the_valid_ones(problem):
    x, y = problem.sample(100, 2)
    far = np.concatenate([y[:, None], y[:, None] + 30.0], axis=1)
    labels = problem.assign(x, far)
    np.testing.assert_array_equal(problem.valid(x, far), labels >= 0)
    if problem.name != "inverse_kinematics":  # there an angle of 30 radians is only a few turns
        assert np.all(labels[:, 1] == -1)


def test_mode_locations_are_valid_and_belong_to_their_mode(problem):
    x = problem.sample_x(60, 5)
    for row, modes in zip(x, problem.modes(x), strict=True):
        np.testing.assert_array_equal(problem.assign(row[None], modes.locations[None])[0], modes.labels)


def test_draws_share_out_over_modes_as_stated(problem):
    x, n = problem.sample_x(8, 6), 4000
    labels = problem.assign(x, problem.sample_given(x, n, 7))
    for row, modes in zip(labels, problem.modes(x), strict=True):
        valid = row[row >= 0]
        shares = np.array([(valid == label).mean() for label in modes.labels])
        error = np.sqrt(modes.probabilities * (1 - modes.probabilities) / n)
        # Dropped modes, and draws left out as invalid, move shares by up to .02 there.
        slack = 0.02 if problem.name in ("sine_fold", "geyser", "branches") else 0.003
        assert np.all(np.abs(shares - modes.probabilities) < 4.5 * error + slack)


@pytest.mark.parametrize("name", [n for n in ALL if n not in ("two_moons", "rings", "inverse_kinematics")])
def test_spreads_are_distances_from_the_location(name):
    problem = problems.get(name)
    x = problem.sample_x(5, 8)
    draws = problem.sample_given(x, 4000, 9)
    labels = problem.assign(x, draws)
    for row, label, modes in zip(draws, labels, problem.modes(x), strict=True):
        for mode, location, spread, p in zip(
            modes.labels, modes.locations, modes.spreads, modes.probabilities, strict=True
        ):
            if p < 0.1:
                continue
            seen = np.sqrt(((row[label == mode] - location) ** 2).sum(axis=1).mean())
            # Valid draws leave out the tails, which hold a good part of the variance of two problems.
            assert seen == pytest.approx(spread, rel=0.25 if name in ("heavy_tailed", "geyser") else 0.1)


def test_densities_integrate_to_one(exact):
    for x in exact.sample_x(3, 10)[:, None]:
        cells, size = grid_for(exact, x)
        assert np.exp(exact.log_density(x, cells)).sum() * size == pytest.approx(1, abs=0.005)


def test_samples_follow_the_density(exact):
    """The mean log density of draws is minus the entropy, found by quadrature, within its standard error."""
    x = exact.sample_x(1, 11)
    cells, size = grid_for(exact, x)
    log_p = exact.log_density(x, cells)
    p = np.exp(log_p) * size
    expected = np.sum(p * np.where(p > 0, log_p, 0))
    seen = exact.log_density(x, exact.sample_given(x, 20_000, 12))[0]
    assert abs(seen.mean() - expected) < 4 * seen.std() / np.sqrt(seen.size) + 1e-3


def test_the_density_of_pairs_is_the_density_given_x(exact):
    """`sample` and `sample_given` draw from one law: their log densities agree in the mean."""
    x, y = exact.sample(10_000, 13)
    pairs = exact.log_density(x, y[:, None])[:, 0]
    given = exact.log_density(x, exact.sample_given(x, 1, 14))[:, 0]
    error = np.sqrt((pairs.var() + given.var()) / len(x))
    assert abs(pairs.mean() - given.mean()) < 4 * error


@pytest.mark.parametrize("name", [n for n in ALL if n != "geyser"])
def test_mean_is_the_mean_of_draws(name):
    problem = problems.get(name)
    x = problem.sample_x(6, 15)
    draws = problem.sample_given(x, 20_000, 16)
    error = draws.std(axis=1) / np.sqrt(draws.shape[1])
    assert np.all(np.abs(draws.mean(axis=1) - problem.mean(x)) < 4.5 * error + 1e-6)


# The modes of rings and moons are curves, whose ridges the noise shifts inwards.
@pytest.mark.parametrize("name", [n for n in EXACT if n not in ("rings", "two_moons")])
def test_modes_are_local_maxima_of_the_density(name):
    exact = problems.get(name)
    x = exact.sample_x(20, 17)
    for row, modes in zip(x[:, None], exact.modes(x), strict=True):
        # The ends of sine_fold's range can be modes: steps out of it meet density 0.
        steps = 0.1 * modes.spreads.min() * np.vstack([np.eye(modes.locations.shape[1])] * 2)
        steps[: len(steps) // 2] *= -1
        here = exact.log_density(row, modes.locations[None])[0]
        for location, peak in zip(modes.locations, here, strict=True):
            assert np.all(exact.log_density(row, (location + steps)[None])[0] < peak + 1e-3)


@pytest.mark.parametrize("name", [n for n in SEVERAL if n not in ("geyser", "sine_fold")])
def test_the_mean_is_no_answer_where_modes_are_separated(name):
    problem = problems.get(name)
    x = problem.sample_x(300, 18)
    if name != "imbalanced":  # a second mode of .08 is enough there, by design
        by_row = [modes.probabilities for modes in problem.modes(x)]
        x = x[[len(p) > 1 and p[1] > p[0] / 2 for p in by_row]]
    assert len(x) > 100
    assert not problem.valid(x, problem.mean(x)[:, None]).any()


@pytest.mark.parametrize("name", [n for n in ALL if problems.get(n).answers == "one"])
def test_the_mean_is_an_answer_where_there_is_one(name):
    problem = problems.get(name)
    x = problem.sample_x(300, 18)
    assert problem.valid(x, problem.mean(x)[:, None]).all()


def test_wrong_shapes_and_numbers_are_refused_with_both_named(problem):
    x, y = problem.sample(4, 19)
    dx, dy = x.shape[1], y.shape[1]
    with pytest.raises(ValueError, match=rf"\(rows, {dx}\).*got \(4, {dx + 1}\)"):
        problem.modes(np.zeros((4, dx + 1)))
    with pytest.raises(ValueError, match=rf"\(4, n, {dy}\).*got \(4, {dy}\)"):
        problem.valid(x, y)
    with pytest.raises(ValueError, match=r"rows 2 and columns 0"):
        problem.sample_given(np.where(np.arange(4)[:, None] == 2, np.nan, x)[:, :1].repeat(dx, 1), 3, 0)
    with pytest.raises(ValueError, match="n=0 is out of range"):
        problem.sample(0, 0)


def test_blocks_of_rows_change_nothing(problem):
    x, y = problem.sample(1500, 20)
    labels = problem.assign(x, y[:, None])
    np.testing.assert_array_equal(labels[1400:], problem.assign(x[1400:], y[1400:, None]))
    assert len(problem.modes(x[:1100])) == 1100
