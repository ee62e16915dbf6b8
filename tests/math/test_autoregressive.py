"""Autoregression: its density is one, its draws follow it, and its bins fit whatever the data are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

import everymode as em
from everymode.families import Autoregressive
from everymode.families.autoregressive import bin_edges, hat_functions
from everymode.randomness import Common, new_generator
from everymode.spaces import SequenceSpace, VectorSpace
from everymode.training import TrainingSettings, train

HEADS = ("bins", "logistics")
X = torch.tensor([[0.4]])
PANELS = torch.linspace(-13.5, 13.5, 271, dtype=torch.double)


def data(d, rows=600, seed=0):
    """y of d columns that lean on each other and on x, in two clouds."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 1))
    side = rng.choice([-1.0, 1.0], size=(rows, 1))
    return x, side + 0.3 * rng.normal(size=(rows, d)).cumsum(1) + 0.2 * x


def built(d, head, steps, **settings):
    """A family that has looked at the data and is trained for some steps; layers that start near zero are moved."""
    x, y = data(d)
    x_space, y_space = VectorSpace.fit(x), VectorSpace.fit(y)
    family = Autoregressive(head=head, **settings).build(y_space, x_space, width=16, depth=1)
    y, x = y_space.encode(y), x_space.encode(x)
    if steps:
        for _ in train(family, y, x, settings=TrainingSettings(steps=steps, learning_rate=0.01, precision="float32")):
            pass
    else:
        with torch.no_grad():
            family.prepare(y, x, seed=0)
            for parameter in family.parameters():
                parameter += 0.02 * torch.randn(parameter.shape, generator=new_generator(7))
    return family.eval()


@pytest.fixture(scope="module")
def family():
    kept = {}

    def get(d, head, steps, **settings):
        key = (d, head, steps, *settings.items())
        if key not in kept:
            kept[key] = built(d, head, steps, **settings)
        return kept[key]

    return get


def nodes(family, index, panels=PANELS):
    """Places and weights that integrate the law of coordinate `index`: Gauss-Legendre between breaks."""
    if family.head == "bins":
        edges, tails = family.law.edges[index].double(), family.law.tails[index].double()
        far = torch.linspace(0, 30, 31, dtype=torch.double)
        breaks = torch.cat([edges[0] - tails[0] * far.flip(0)[:-1], edges, edges[-1] + tails[1] * far[1:]])
    else:
        breaks = panels
    place, weight = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(4))
    half = breaks.diff()[:, None] / 2
    return (breaks[:-1, None] + half * (1 + place)).flatten(), (half * weight).flatten()


def density(family, y):
    """p(y | x = X) of y (n, d), in blocks."""
    with torch.inference_mode():
        return torch.cat([family.log_prob(part, X.expand(len(part), 1)) for part in y.float().split(50_000)]).exp()


@pytest.mark.parametrize("steps", [0, 120])
@pytest.mark.parametrize("head", HEADS)
def test_a_density_of_one_number_integrates_to_one(family, head, steps):
    model = family(1, head, steps)
    place, weight = nodes(model, 0)
    assert float(density(model, place[:, None]).double() @ weight) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("steps", [0, 120])
@pytest.mark.parametrize("head", HEADS)
def test_a_density_of_two_numbers_integrates_to_one(family, head, steps):
    model = family(2, head, steps, bins=24)
    (first, weight), (second, weight_2) = nodes(model, 0, PANELS[::3]), nodes(model, 1, PANELS[::3])
    mass = density(model, torch.cartesian_prod(first, second)).double().reshape(len(first), len(second))
    assert float(weight @ mass @ weight_2) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("head", HEADS)
def test_draws_follow_the_density(family, head):
    """Counts of 40,000 draws in 24 cells, tails included, against the integral of exp(log_prob): a chi-squared test."""
    model = family(1, head, 120)
    with torch.inference_mode():
        draws = model.sample(X, 40_000, generator=new_generator(0))[:, 0].double()
    place, weight = nodes(model, 0)
    mass = density(model, place[:, None]).double() * weight
    borders = torch.quantile(draws, torch.linspace(0.02, 0.98, 23, dtype=torch.double))
    whole = model.law.edges[0].double() if head == "bins" else PANELS  # what the nodes integrate between
    borders = whole[torch.searchsorted(whole, borders).unique()]
    expected = torch.zeros(len(borders) + 1, dtype=torch.double).index_add_(0, torch.bucketize(place, borders), mass)
    found = torch.bincount(torch.bucketize(draws, borders), minlength=len(expected))
    assert len(expected) > 8
    assert chisquare(found, 40_000 * expected / expected.sum()).pvalue > 1e-3


@pytest.mark.parametrize("head", HEADS)
def test_the_joint_density_is_the_product_of_the_conditionals(family, head):
    """Factor i is a density of y_i, that knows of the coordinates before it and not of those after."""
    model = family(3, head, 120, bins=24)
    y = torch.tensor([[0.3, -0.2, 0.5]])
    with torch.inference_mode():
        factors = model.log_factors(y, X)
        torch.testing.assert_close(model.log_prob(y, X), factors.sum(1))
        for index in range(3):
            place, weight = nodes(model, index)
            moved = y.repeat(len(place), 1)
            moved[:, index] = place.float()
            conditional = model.log_factors(moved, X.expand(len(place), 1))
            assert float(conditional[:, index].double().exp() @ weight) == pytest.approx(1, abs=1e-3)
            before, after = conditional[:, :index], conditional[:, index + 1 :]
            torch.testing.assert_close(before, factors[:, :index].expand_as(before))
            assert (after.amax(dim=0) - after.amin(dim=0) > 1e-3).all()


@pytest.mark.parametrize("head", HEADS)
def test_draws_one_by_one_and_densities_all_at_once_are_of_one_law(family, head):
    """What a draw is drawn from, coordinate by coordinate with a memory, is what log_prob then says of it."""
    model = family(3, head, 120)
    seen, draw = [], model.law.draw

    def watched(answers, index, generator):
        y = draw(answers, index, generator)
        alone = type(model.law).log_prob
        spread = torch.zeros(len(y), 3)
        spread[:, index] = y
        seen.append(alone(model.law, answers[:, None].expand(-1, 3, *answers.shape[1:]), spread)[:, index])
        return y

    model.law.draw = watched
    try:
        with torch.inference_mode():
            y = model.sample(X.expand(5, 1), 4, generator=new_generator(1))
            torch.testing.assert_close(
                model.log_factors(y, X.expand(20, 1)), torch.stack(seen, 1), atol=1e-4, rtol=1e-4
            )
    finally:
        del model.law.draw


def test_the_order_is_that_of_the_flattened_event():
    y_space = SequenceSpace.fit(np.random.default_rng(0).normal(size=(50, 3, 2)))
    model = Autoregressive().build(y_space, VectorSpace.fit(np.eye(2)[:, :1]), width=16, depth=1)
    assert model.nfe == 6
    y = y_space.encode(np.random.default_rng(1).normal(size=(1, 3, 2)))
    x = torch.zeros(1, 1)
    moved = y.clone()
    moved[0, 1, 0] += 0.5  # coordinate 2 of 6
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=new_generator(7))
        changed = (model.log_factors(moved, x) - model.log_factors(y, x)).abs()[0] > 1e-6
    assert changed.tolist() == [False, False, True, True, True, True]


# Bins ----------------------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
COLUMNS = {
    "normal": RNG.normal(size=5000),
    "twenty rows": RNG.normal(size=20),
    "one row": np.array([0.3]),
    "constant": np.full(300, 2.5),
    "whole numbers": RNG.integers(0, 17, 2000) / 5.0 - 1.6,
    "zeros and a normal": np.where(RNG.random(3000) < 0.7, -0.5, RNG.normal(size=3000)),
    "nearly alike": 1.0 + 1e-7 * RNG.normal(size=500),
    "Cauchy": RNG.standard_cauchy(5000) / 50,
    "one far value": np.append(0.01 * RNG.normal(size=999), 31.0),
    "two answers": RNG.choice([-1.0, 1.0], 1000) + 1e-3 * RNG.normal(size=1000),
}


@pytest.mark.parametrize("count", [3, 63, 255])
@pytest.mark.parametrize("column", COLUMNS.values(), ids=COLUMNS)
def test_edges_strictly_increase(column, count):
    edges = bin_edges(column, count).astype(np.float32)
    assert edges.shape == (count,)
    assert np.isfinite(edges).all()
    assert (np.diff(edges) > 0).all()


def test_edges_halve_between_even_spacing_and_ranks():
    """Of normal data: no bin is wider than twice the even width, and those in the middle are as narrow as G says."""
    column = RNG.normal(size=200_000)
    edges = bin_edges(column, 255)
    even = (edges[-1] - edges[0]) / 254
    widths = np.diff(edges)
    assert widths.max() <= 2.01 * even
    # G' = (f + u) / 2, with f = .399 at 0 and u = 1 / (254 even)
    assert even / widths[120:135].mean() == pytest.approx((0.399 * (edges[-1] - edges[0]) + 1) / 2, rel=0.1)
    assert np.mean((column < edges[0]) | (column > edges[-1])) == pytest.approx(1 / 255, rel=0.1)


@pytest.mark.parametrize("column", COLUMNS.values(), ids=COLUMNS)
def test_any_column_leaves_a_density_that_is_finite_anywhere(column):
    y = torch.from_numpy(np.stack([column, column[::-1]], axis=1)).float()
    space = VectorSpace((2,), (0.0, 0.0), (1.0, 1.0))
    model = Autoregressive(bins=64).build(space, VectorSpace((1,), (0.0,), (1.0,)), width=16, depth=1)
    x = torch.zeros(len(y), 1)
    with torch.no_grad():
        model.prepare(y, x, seed=0)
        for far in (torch.tensor([[-1e6, 1e6]]), torch.tensor([[0.0, -50.0]]), y[:1]):
            assert torch.isfinite(model.log_prob(far, torch.zeros(1, 1))).all()
        first = model.law.log_prob(model.law(torch.zeros(1, 2, 16)), y[:1])
        assert torch.isfinite(first).all()
        place, weight = nodes(model, 0)
        pair = torch.stack([place, place], 1).float()
        law = model.law.log_prob(model.law(torch.zeros(len(pair), 2, 16)), pair)
        assert float(law[:, 0].double().exp() @ weight) == pytest.approx(1, abs=1e-3)
        draws = model.sample(x[:1], 500, generator=new_generator(0))
    assert torch.isfinite(draws).all()


@pytest.mark.parametrize("name", ["grid", "imbalanced", "inverse_kinematics"])
def test_bins_are_narrow_enough_for_valid_answers(name):
    """Answers that are moved about within their bins stay valid: at most .5 % are lost."""
    problem = em.problems.get(name)
    x, y = problem.sample(9000, seed=0)
    space = VectorSpace.fit(y)
    coded = space.encode(y).numpy()
    moved = np.empty_like(coded)
    rng = np.random.default_rng(1)
    for index, column in enumerate(coded.T):
        edges = bin_edges(column.astype(np.float64), 255)
        inner = np.clip(np.searchsorted(edges, column, side="right"), 1, len(edges) - 1)
        moved[:, index] = rng.uniform(edges[inner - 1], edges[inner])
    valid = problem.valid(x, space.decode(torch.from_numpy(moved))[:, None])
    assert valid.mean() > problem.valid(x, y[:, None]).mean() - 0.005


def test_hats_of_one_bin_to_the_whole_width():
    """Every bin has a hat of its own, and at each wider size the hats of the inner bins add up to one."""
    hats = hat_functions(64)
    assert np.array_equal(hats[:, :64], np.eye(64))
    start = 64
    for count in (32, 16, 8, 4):
        assert (hats[:, start : start + count] >= 0).all()
        np.testing.assert_allclose(hats[:-2, start : start + count].sum(1)[: -64 // count], 1)
        start += count
    assert start == hats.shape[1]


def test_common_draws_have_common_bins(family):
    """With the uniform numbers in common, two rows of one x have one answer."""
    model = family(2, "bins", 120, bins=24)
    with torch.inference_mode():
        draws = model.sample(X.expand(2, 1), 8, generator=Common(new_generator(2), 8)).reshape(2, 8, 2)
    torch.testing.assert_close(draws[0], draws[1])
