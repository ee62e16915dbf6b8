"""Highest-density regions split where the draws do, and hold the share that they promise."""

import numpy as np
import pytest

from everymode.regions import bandwidth, density_1d, density_2d, highest_density_intervals


def inside(values, intervals):
    return ((values[:, None] >= intervals[:, 0]) & (values[:, None] <= intervals[:, 1])).any(axis=1).mean()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("centres", [[0.0], [-3.0, 3.0], [-4.0, 0.0, 4.0]])
def test_as_many_intervals_as_modes_and_the_share_within(centres, seed):
    random = np.random.default_rng(seed)

    def draw(n):
        return random.choice(centres, n) + 0.4 * random.standard_normal(n)

    intervals = highest_density_intervals(draw(2000), 0.9)
    assert len(intervals) == len(centres)
    assert (np.diff(intervals.ravel()) > 0).all()
    assert inside(draw(20_000), intervals) == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 2000))


def test_the_region_of_a_gaussian_is_the_central_interval():
    draws = np.random.default_rng(0).standard_normal(20_000)
    [[low, high]] = highest_density_intervals(draws, 0.9)
    assert [low, high] == pytest.approx([-1.645, 1.645], abs=0.12)


def test_few_draws_still_split():
    random = np.random.default_rng(0)
    draws = random.choice([-3.0, 3.0], 100) + 0.4 * random.standard_normal(100)
    intervals = highest_density_intervals(draws, 0.9)
    assert intervals[:, 0].min() < -3 < 3 < intervals[:, 1].max()
    assert inside(np.linspace(-1, 1, 100), intervals) == 0


def test_one_answer_is_one_point_and_no_answer_is_an_error():
    assert highest_density_intervals(np.full(20, 1.5), 0.5).tolist() == [[1.5, 1.5]]
    with pytest.raises(ValueError, match="0 draws"):
        highest_density_intervals(np.zeros(0), 0.5)


def test_densities_integrate_to_one():
    draws = np.random.default_rng(0).standard_normal((3000, 2))
    grid = np.linspace(-7, 7, 701)
    assert density_1d(draws[:, 0], grid, bandwidth(draws[:, :1])).sum() * 0.02 == pytest.approx(1, abs=1e-3)
    edges = np.linspace(-7, 7, 281)
    mass = density_2d(draws, edges, edges, bandwidth(draws))
    assert mass.sum() * 0.05**2 == pytest.approx(1, abs=1e-3)
    assert mass[140, 140] == pytest.approx(1 / (2 * np.pi), rel=0.2)


def test_the_toy_particles_end_in_their_mixture(fork):
    """The particles end in the mixture they were sent to: the tapes that figures are tested on are right."""
    end = fork.motion["flow_matching"].states[-1]
    sides = np.sign(end[:, 0])
    assert (sides > 0).mean() == pytest.approx(0.5, abs=0.08)
    assert np.abs(end - np.stack([3 * sides, 0 * sides], axis=1)).mean() < 0.35
