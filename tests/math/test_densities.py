"""Trained densities: they integrate to one, agree with their own draws, and come near the truth where it is known.

Every family that declares a density in closed form is tested, unasked; those of flows are in test_flow_density.
Integrals are sums in standardised units, over midpoints of a line or a lattice in a square, which reach far beyond the
data: mass that a model puts outside is missing.

References:
    Lattice methods for multiple integration (Sloan and Joe, 1994), Oxford University Press
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import chi2, kstwo

import everymode as em
from everymode import families
from everymode.families import get_family
from everymode.randomness import new_generator
from everymode.spaces import VectorSpace
from everymode.training import TrainingSettings, train

DENSE = [n for n in families.names() if get_family(n).abilities.density and not get_family(n).abilities.velocity]
TRUTH = {"fork": 0.2, "two_moons": 0.4}  # nats that a trained model may lie below the truth, on average over fresh rows
SLOW = {"autoregressive": 0.2}  # nats more: a transformer, for which so few steps are short
DRAWS = 20_000
RARE = 1e-3  # the probability of a false alarm of either test of agreement
LINE = 20_000  # midpoints in one dimension, over [-10, 10]
POINTS, STRIDE = 514_229, 317_811  # two Fibonacci numbers in a row, of the lattice in [-5, 5] x [-5, 5]


class Trained:
    """A family trained for some seconds on a problem, and one row of x at which its density is looked at."""

    def __init__(self, name: str, problem: str) -> None:
        self.problem = em.problems.get(problem)
        x, y = self.problem.sample(4000, seed=0)
        self.x_space, self.y_space = VectorSpace.fit(x), VectorSpace.fit(y)
        self.family = get_family(name).build(self.y_space, self.x_space, width=32, depth=2)
        settings = TrainingSettings(steps=600, learning_rate=4e-3, seed=0)
        for _ in train(self.family, self.y_space.encode(y), self.x_space.encode(x), settings=settings):
            pass
        self.family.eval()
        self.row = self.x_space.encode(self.problem.sample_x(1, seed=1))

    @torch.inference_mode()
    def density(self, points: torch.Tensor) -> np.ndarray:
        """p(y | x) at standardised points (n, d), as float64 (n,)."""
        parts = [self.family.log_prob(p, self.row.expand(len(p), -1)) for p in points.split(50_000)]
        return torch.cat(parts).double().exp().numpy()

    @torch.inference_mode()
    def draws(self) -> np.ndarray:
        """Standardised draws (DRAWS, d)."""
        return self.family.sample(self.row, DRAWS, generator=new_generator(2)).double().numpy()


trained = cache(Trained)
every_family = pytest.mark.parametrize("name", DENSE)


def midpoints(n: int, reach: float) -> np.ndarray:
    return (np.arange(n) + 0.5) * (2 * reach / n) - reach


# One dimension -----------------------------------------------------------------------------------------------------


def on_the_line(model: Trained) -> tuple[np.ndarray, np.ndarray]:
    """Upper ends of the cells of [-10, 10], and the probability of all that is below each."""
    cell = 20 / LINE
    y = midpoints(LINE, 10)
    return y + cell / 2, model.density(torch.from_numpy(y[:, None].astype(np.float32))).cumsum() * cell


def furthest(ends: np.ndarray, below: np.ndarray, draws: np.ndarray) -> float:
    """The Kolmogorov-Smirnov distance between draws (n,) and a distribution function on a fine grid.

    Draws are counted up to the ends of cells, where the function is known: nothing is interpolated.
    """
    return float(np.abs(np.searchsorted(np.sort(draws), ends, side="right") / len(draws) - below).max())


@every_family
@pytest.mark.parametrize("problem", ["branches", "sine_fold"])
def test_on_a_line(name, problem):
    """The integral is one, and draws follow the distribution function that the density sums up to."""
    model = trained(name, problem)
    ends, below = on_the_line(model)
    assert below[-1] == pytest.approx(1, abs=0.01)
    draws, limit = model.draws()[:, 0], kstwo.isf(RARE, DRAWS)
    assert furthest(ends, below / below[-1], draws) < limit
    # what it can tell: draws a tenth too wide, and one in twenty of them sent to the other side
    middle = np.median(draws)
    assert furthest(ends, below / below[-1], middle + 1.1 * (draws - middle)) > limit
    sent = np.where((np.arange(DRAWS) % 20 == 0) & (draws < middle), 2 * middle - draws, draws)
    assert furthest(ends, below / below[-1], sent) > limit


# Two dimensions ----------------------------------------------------------------------------------------------------


def on_the_square(model: Trained) -> tuple[np.ndarray, np.ndarray]:
    """Points (POINTS, 2) of a Fibonacci lattice in [-5, 5] x [-5, 5], and the probability of the cell about each.

    No two points share a coordinate: densities with steps in them, as those of bins are, are integrated well too.
    """
    index = np.arange(POINTS)
    lattice = np.stack([index / POINTS, index * STRIDE % POINTS / POINTS], axis=1) + 0.5 / POINTS
    points = 10 * lattice - 5
    return points, model.density(torch.from_numpy(points.astype(np.float32))) * 100 / POINTS


def unlikeliness(points: np.ndarray, cells: np.ndarray, draws: np.ndarray, *, blocks: int = 40) -> float:
    """Pearson's chi-square of draws (n, 2) against integrated cells, over its .999 quantile: above 1 is a misfit.

    Cells are summed to blocks x blocks; blocks in which fewer than 5 draws are expected are one class.
    """

    def block(places: np.ndarray) -> np.ndarray:
        first, second = np.clip(np.floor((places + 5) / 10 * blocks), 0, blocks - 1).astype(int).T
        return first * blocks + second

    expected = np.bincount(block(points), cells, minlength=blocks**2) * len(draws) / cells.sum()
    counts = np.bincount(block(draws), minlength=blocks**2)
    many = expected >= 5
    expected = np.append(expected[many], max(expected[~many].sum(), 1.0))
    counts = np.append(counts[many], counts[~many].sum())
    return float(((counts - expected) ** 2 / expected).sum() / chi2.isf(RARE, len(counts) - 1))


@every_family
def test_in_the_plane(name):
    """The integral is one, and draws fall into cells as often as the density integrated over them says."""
    model = trained(name, "two_moons")
    points, cells = on_the_square(model)
    assert cells.sum() == pytest.approx(1, abs=0.01)
    draws = model.draws()
    assert unlikeliness(points, cells, draws) < 1
    # what it can tell: coordinates that are right one by one and wrong together, and draws a tenth too wide
    assert unlikeliness(points, cells, np.stack([draws[:, 0], np.roll(draws[:, 1], 1)], axis=1)) > 1
    assert unlikeliness(points, cells, 1.1 * draws) > 1


# The truth ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", TRUTH)
@pytest.mark.parametrize("name", [n for n in DENSE if get_family(n).abilities.modes])
def test_the_log_likelihood_comes_near_the_truth(name, problem):
    """On fresh pairs, in the units of y. A single normal lies half a nat further below."""
    model = trained(name, problem)
    x, y = model.problem.sample(4000, seed=3)
    truth = model.problem.log_density(x, y[:, None])[:, 0]
    with torch.inference_mode():
        standardised = model.family.log_prob(model.y_space.encode(y), model.x_space.encode(x))
    found = standardised.double().numpy() + model.y_space.log_jacobian
    error = (truth - found).std() / np.sqrt(len(x))
    assert -4 * error < (truth - found).mean() < TRUTH[problem] + SLOW.get(name, 0.0)
    centred = y - y.mean(axis=0)
    covariance = np.cov(centred.T)
    squares = np.einsum("ri,ij,rj->r", centred, np.linalg.inv(covariance), centred)
    normal = -0.5 * (squares + np.log(np.linalg.det(2 * np.pi * covariance)))
    assert (truth - normal).mean() > TRUTH[problem] + 0.5, "the distance tells nothing"
