"""Couplings: pairs of least cost, of the same noise and the same targets; with a condition, independent of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import everymode as em
from everymode.couplings import (
    COUPLINGS,
    ConditionalOT,
    OptimalTransport,
    assignment,
    condition_distances,
    get_coupling,
)
from everymode.errors import SettingError
from everymode.randomness import new_generator
from everymode.spaces import VectorSpace
from everymode.training import TrainingSettings, train


def batch(rows=64, d=2, seed=0):
    generator = new_generator(seed)
    noise, y = torch.randn(2, rows, d, generator=generator)
    return noise, y, torch.rand(rows, 1, generator=generator)


def test_an_assignment_is_the_cheapest_of_all():
    cost = torch.rand(6, 6, generator=new_generator(0))
    order = assignment(cost)
    assert sorted(order.tolist()) == list(range(6))
    found = float(cost[order, torch.arange(6)].sum())
    best = min(sum(float(cost[row, column]) for column, row in enumerate(p)) for p in itertools.permutations(range(6)))
    assert found == pytest.approx(best)


@pytest.mark.parametrize("rows", [1, 7, 64, 1100])
@pytest.mark.parametrize("name", COUPLINGS)
def test_noise_and_targets_are_the_same_ones(name, rows):
    noise, y, x = batch(rows)
    paired, targets, conditions = get_coupling(name)(noise, y, x)
    assert torch.equal(targets, y)
    assert torch.equal(conditions, x)
    assert torch.equal(paired.sort(dim=0).values, noise.sort(dim=0).values)


def test_optimal_transport_makes_paths_shorter_and_straighter():
    noise, y, x = batch(256)
    paired, *_ = OptimalTransport()(noise, y, x)
    assert float((paired - y).square().sum(1).mean()) < 0.25 * float((noise - y).square().sum(1).mean())


def test_without_a_condition_both_are_one():
    noise, y, _ = batch(100)
    same = torch.ones(100, 1)
    plain, conditional = (coupling(noise, y, same)[0] for coupling in (OptimalTransport(), ConditionalOT()))
    assert torch.equal(plain, conditional)


def test_noise_of_a_class_stays_in_it():
    noise, y, _ = batch(120)
    labels = torch.arange(120) % 3
    y = y + labels[:, None]
    paired, *_ = ConditionalOT()(noise, y, labels)
    plain, *_ = OptimalTransport()(noise, y, labels)
    for label in range(3):
        own = labels == label
        assert torch.equal(paired[own].sort(dim=0).values, noise[own].sort(dim=0).values)
    assert float((plain[labels == 2] - plain[labels == 0]).mean()) > 0.5  # which it does not by itself
    assert float((paired - y).square().sum()) < 0.7 * float((noise - y).square().sum())


def test_noise_stays_independent_of_numbers_too():
    """y = x + noise: plain transport gives large noise to large x; the conditional one nearly none of that."""
    generator, tilt = new_generator(0), {"conditional_ot": [], "optimal_transport": []}
    for _ in range(20):
        x = 2 * torch.randn(256, 1, generator=generator)
        y = x + 0.5 * torch.randn(256, 1, generator=generator)
        noise = torch.randn(256, 1, generator=generator)
        for name, found in tilt.items():
            paired = get_coupling(name)(noise, y, x)[0]
            found.append(float(torch.corrcoef(torch.cat([paired, x], dim=1).T)[0, 1]))
    assert np.mean(tilt["optimal_transport"]) > 0.9
    assert abs(np.mean(tilt["conditional_ot"])) < 0.15


def test_the_weight_is_the_least_that_leaves_so_many_worth_exchanging():
    noise, y, x = batch(256)
    cost, (numbers, differs) = torch.cdist(noise, y).square(), condition_distances(x, x)
    assert not differs.any()
    for ratio in (0.005, 0.05, 0.2):
        weight = ConditionalOT(ratio).weight(cost, numbers)
        share = float((cost + weight * numbers < cost.diagonal()[:, None]).float().mean())
        assert 0.9 * ratio < share <= ratio
    assert ConditionalOT(0.9).weight(cost, numbers) == 0  # fewer than that are worth it without any weight


def test_conditions_of_several_parts_are_counted_together():
    x = {"numbers": torch.tensor([[0.0], [3.0]]), "label": torch.tensor([[1, 2], [1, 3]])}
    numbers, differs = condition_distances(x, x)
    assert numbers[0, 1] == pytest.approx(9)
    assert differs.tolist() == [[0, 1], [1, 0]]


def test_plain_optimal_transport_is_refused_with_a_condition():
    one, nothing = VectorSpace.fit(np.arange(4.0)[:, None]), VectorSpace.fit(np.zeros((4, 0)))
    family = em.FlowMatching(coupling="optimal_transport")
    with pytest.raises(SettingError, match="conditional_ot"):
        family.build(one, one, width=8, depth=1)
    family.build(one, nothing, width=8, depth=1)
    with pytest.raises(SettingError, match="ratio"):
        ConditionalOT(0)


def test_one_step_of_a_coupled_flow_is_no_average():
    """Two answers, -1 and 1, whatever x is: after conditional transport one Euler step already parts them."""
    generator = new_generator(0)
    x = torch.rand(2000, 1, generator=generator)
    y = 2.0 * torch.randint(0, 2, (2000, 1), generator=generator) - 1 + 0.1 * torch.randn(2000, 1, generator=generator)
    space, x_space = VectorSpace.fit(y.numpy()), VectorSpace.fit(x.numpy())
    middle = {}
    for name in ("independent", "conditional_ot"):
        family = em.FlowMatching(coupling=name, solver="euler", steps=1, time_sampling="uniform")
        family = family.build(space, x_space, width=32, depth=2)
        settings = TrainingSettings(steps=300, batch_size=128, learning_rate=4e-3)
        list(train(family, space.encode(y.numpy()), x_space.encode(x.numpy()), settings=settings))
        with torch.inference_mode():
            draws = family.eval().sample(x_space.encode(x.numpy()[:500]), generator=new_generator(1))
        middle[name] = float((draws.abs() < 0.5).float().mean())
    assert middle["independent"] > 0.9
    assert middle["conditional_ot"] < 0.6
