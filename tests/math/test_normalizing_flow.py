"""Normalizing flows: the inverse inverts, the slopes are those of the map, and the density is zuko's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import zuko
from torch.nn import LeakyReLU

import everymode as em
from everymode.errors import SettingError, UnsupportedError
from everymode.families.normalizing_flow import Spline
from everymode.randomness import new_generator, seeded
from everymode.spaces import VectorSpace
from everymode.training import TrainingSettings, train

X_SPACE = VectorSpace((2,), (0.0, 0.0), (1.0, 1.0))
ROWS = 50


def unit(d):
    return VectorSpace((d,), (0.0,) * d, (1.0,) * d)


def built(d, width=16, **settings):
    """A flow whose weights are larger than at the start, so that it bends."""
    family = em.NormalizingFlow(**settings).build(unit(d), X_SPACE, width=width).eval()
    with torch.no_grad():
        for parameter in family.network.parameters():
            parameter *= 1.5
    return family


def normal(*shape, seed=0):
    return torch.randn(shape, generator=new_generator(seed))


kinds = pytest.mark.parametrize("kind", ["nsf", "maf"])


@kinds
@pytest.mark.parametrize(
    ("d", "passes"), [(1, None), (2, None), (5, None), (5, 2), (5, 3), (64, None), (64, 2), (20, 20)]
)
def test_the_inverse_inverts(kind, d, passes):
    """From noise to y in `nfe` passes, and back."""
    family = built(d, kind=kind, passes=passes)
    assert family.nfe == (passes or min(d, 16))
    embedding, z = family.encode(normal(ROWS, 2)), normal(ROWS, d, seed=1)
    with torch.no_grad():
        flow = family.network.transform(embedding)
        y = flow.inv(z)
        assert (y - z).abs().max() > 0.1  # it is not the identity
        torch.testing.assert_close(flow(y), z, rtol=1e-3, atol=2e-3)


@kinds
@pytest.mark.parametrize("d", [1, 4])
def test_the_log_density_is_that_of_a_change_of_variables(kind, d):
    """log N(z) + log |det dz/dy|, the determinant by differentiation and in float64."""
    family = built(d, kind=kind)
    x, y = normal(3, 2), normal(3, d, seed=1)
    with torch.no_grad():
        found = family.log_prob(y, x)
    for row in range(3):
        flow = family.network.transform(family.encode(x[row : row + 1]))
        jacobian = torch.autograd.functional.jacobian(lambda point, flow=flow: flow(point)[0], y[row : row + 1])
        z = flow(y[row : row + 1])[0].detach().double()
        slope = torch.linalg.slogdet(jacobian[:, 0].double()).logabsdet
        expected = slope - 0.5 * (z.square() + math.log(2 * math.pi)).sum()
        assert float(found[row]) == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("d", [1, 3])
def test_with_the_same_weights_the_density_is_zukos(d):
    with seeded(1):
        peers = {
            "nsf": zuko.flows.NSF(d, 16, transforms=2, bins=32, hidden_features=[16, 16], activation=LeakyReLU),
            "maf": zuko.flows.MAF(d, 16, transforms=5, hidden_features=[16, 16], activation=LeakyReLU),
        }
    for kind, peer in peers.items():
        family = built(d, kind=kind)
        peer.load_state_dict(family.network.state_dict())
        x, y = normal(ROWS, 2), normal(ROWS, d, seed=1)
        with torch.no_grad():
            torch.testing.assert_close(family.log_prob(y, x), peer(family.encode(x)).log_prob(y))


@pytest.mark.parametrize(("d", "passes"), [(14, None), (40, None), (40, 2), (40, 40)])
def test_every_coordinate_knows_all_groups_before_its_own(d, passes):
    """Also where there are more groups than the network is wide; and the first coordinate knows x."""
    family = built(d, width=8, transforms=1, passes=passes)
    embedding, y = family.encode(normal(1, 2)), normal(1, d, seed=1)
    jacobian = torch.autograd.functional.jacobian(lambda y: family.network.transform(embedding)(y)[0], y)[:, 0]
    assert (jacobian.diagonal() > 0).all()
    group = torch.arange(d) // math.ceil(d / family.nfe)
    assert torch.equal(jacobian != 0, (group[:, None] > group) | torch.eye(d, dtype=torch.bool))
    first = family.network.transform(family.encode(normal(20, 2)))(torch.full((20, d), 0.3))[:, 0]
    assert len(first.unique()) == 20


@kinds
def test_far_values_have_finite_densities_and_gradients(kind):
    family = built(3, kind=kind)
    y = torch.tensor([[0.0, 5.0, -5.0], [1e3, -1e3, 0.0], [-1e6, 0.0, 1e6], [4.999999, 5.000001, 30.0]])
    log_prob = family.log_prob(y, normal(4, 2))
    assert torch.isfinite(log_prob).all()
    log_prob.mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in family.parameters())


@pytest.mark.parametrize("size", [1.0, 10.0, 100.0])
def test_the_inverse_of_a_spline_stays_in_its_bin(size):
    """At the knots and between them, however steep: there zuko's own inverse may take the root of less than zero."""
    generator = new_generator(0)
    spline = Spline(*(size * torch.randn(20_000, n, generator=generator) for n in (32, 32, 31)))
    knots = torch.randint(33, (20_000, 1), generator=generator)
    for y in (spline.vertical.gather(1, knots)[:, 0], 10 * torch.rand(20_000, generator=generator) - 5):
        found = spline.inv(y)
        assert torch.isfinite(found).all()
        bins = spline.searchsorted(spline.vertical, y)[:, None].clamp(1, 32)
        low, high = (spline.horizontal.gather(1, k)[:, 0] for k in (bins - 1, bins))
        assert (found >= low - 1e-5).all()
        assert (found <= high + 1e-5).all()


def test_in_bf16_it_learns_what_it_learns_in_float32():
    """The networks answer in bf16; the maps, where slopes multiply, stay in float32."""
    x, y = em.problems.get("fork").sample(1000, seed=0)
    x_space, y_space = VectorSpace.fit(x), VectorSpace.fit(y)
    data = y_space.encode(y), x_space.encode(x)
    found = {}
    for precision in ("float32", "bf16"):
        family = em.NormalizingFlow(bins=8).build(y_space, x_space, width=16)
        settings = TrainingSettings(steps=150, batch_size=128, learning_rate=4e-3, precision=precision)
        for _ in train(family, *data, settings=settings):
            pass
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            losses = family.loss(*data)
        assert losses.dtype == torch.float32
        with torch.no_grad():
            found[precision] = float(family.log_prob(*data).mean())
    assert found["bf16"] == pytest.approx(found["float32"], abs=0.15)


def test_refusals():
    with pytest.raises(UnsupportedError, match="flow_matching"):
        em.NormalizingFlow().build(em.spaces.SequenceSpace.fit(np.zeros((2, 3, 1))), X_SPACE)
    for settings, wrong in (
        ({"kind": "nice"}, "kind='nice'"),
        ({"transforms": 0}, "transforms=0"),
        ({"bins": 1}, "bins=1"),
        ({"passes": 1}, "passes=1"),
    ):
        with pytest.raises(SettingError, match=wrong):
            em.NormalizingFlow(**settings)
