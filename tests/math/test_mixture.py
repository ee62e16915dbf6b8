"""Mixture densities: a built network tells the density of torch's distributions, and training finds the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

import everymode as em
from everymode.errors import SettingError
from everymode.families.mdn import below_diagonal, starts
from everymode.randomness import new_generator, seeded
from everymode.spaces import SequenceSpace, VectorSpace
from everymode.training import TrainingSettings, train

X_SPACE = VectorSpace((2,), (0.0, 0.0), (1.0, 1.0))


def space(*shape):
    kind = VectorSpace if len(shape) == 1 else SequenceSpace
    return kind(shape, (0.0,) * shape[-1], (1.0,) * shape[-1])


def shaken(family, *shape):
    """A built family, all of whose parameters and starts are random, in double precision where nothing hides."""
    built = family.build(space(*shape), X_SPACE, width=16, depth=1).eval()
    with seeded(1), torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
        for start in (built.logits, built.means, built.log_scales, built.factors):
            start += torch.randn(start.shape)
    return built


def reference(mixture):
    """The same numbers as torch's distributions, in double precision: the mixture and its normals."""
    scales, means = mixture["scales"].double(), mixture["means"].double()
    size = scales.shape[-1]
    unit = torch.eye(size, dtype=torch.float64)
    if "factors" in mixture:
        unit = unit + below_diagonal(mixture["factors"].double(), size)
    inverse = torch.linalg.inv(unit)
    spread = inverse @ torch.diag_embed(scales)  # a square root of the covariance
    normals = MultivariateNormal(means, covariance_matrix=spread @ spread.mT)
    return MixtureSameFamily(Categorical(logits=mixture["log_weights"].double()), normals), normals


FAMILIES = {
    "full": (em.MDN(components=4), (3,)),
    "diagonal": (em.MDN(components=4, covariance="diagonal"), (3,)),
    "full sequence": (em.MDN(components=3, covariance="full"), (4, 2)),
    "sequence": (em.MDN(components=3), (4, 2)),
    "one value": (em.MDN(components=4), (1,)),
    "one component": (em.Gaussian(), (3,)),
    "one diagonal component": (em.Gaussian(covariance="diagonal"), (3,)),
    "one component, one value": (em.Gaussian(), (1,)),
}


@pytest.mark.parametrize("which", FAMILIES)
def test_the_density_is_that_of_torch(which):
    family, shape = FAMILIES[which]
    built = shaken(family, *shape)
    with seeded(2), torch.no_grad():
        x, y = torch.randn(50, 2), 3 * torch.randn(50, *shape)
        mixture = built.encode(x)
        expected = reference(mixture)[0].log_prob(y.flatten(1).double())
        torch.testing.assert_close(built.log_prob(y, x).double(), expected, rtol=1e-4, atol=1e-3)
    full = family.covariance == "full" or (family.covariance == "auto" and len(shape) == 1)
    assert ("factors" in mixture) == (full and math.prod(shape) > 1)
    assert mixture["means"].shape == (50, family.components, math.prod(shape))


@pytest.mark.parametrize("which", ["full", "diagonal", "one component"])
def test_draws_have_the_moments_of_the_mixture(which):
    """Means and second moments of 100,000 draws, within 5 standard errors."""
    family, shape = FAMILIES[which]
    built = shaken(family, *shape)
    with torch.no_grad():
        x = torch.full((1, 2), 0.3)
        draws = built.sample(x, 100_000, generator=new_generator(0)).flatten(1).double()
        mixture, normals = reference(built.encode(x))
    weights = mixture.mixture_distribution.probs[0]
    means = normals.mean[0]
    squares = normals.covariance_matrix[0] + means[:, :, None] * means[:, None]
    for found, expected in (
        (draws, weights @ means),
        (draws[:, :, None] * draws[:, None], torch.einsum("k,kij->ij", weights, squares)),
    ):
        errors = (found.mean(dim=0) - expected) / (found.std(dim=0) / math.sqrt(len(draws)))
        assert errors.abs().max() < 5


@pytest.mark.parametrize("family", [em.MDN(), em.Gaussian()], ids=["mdn", "gaussian"])
def test_far_points_have_a_density_and_a_gradient(family):
    """Millions of deviations away exp(log p) is 0 in any precision; log p falls as the square of the distance."""
    built = shaken(family, 2)
    x = torch.zeros(3, 2)
    y = torch.tensor([[1e5, 0.0], [1e7, 0.0], [0.0, -1e7]], requires_grad=True)
    log_prob = built.log_prob(y, x)
    assert torch.isfinite(log_prob).all()
    assert float((log_prob[1] / log_prob[0]).detach()) == pytest.approx(1e4, rel=0.01)
    log_prob.sum().backward()
    assert y.grad is not None
    assert torch.isfinite(y.grad).all()
    assert (y.grad.abs().sum(dim=1) > 0).all()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in built.parameters())


def test_far_x_gives_finite_draws():
    built = shaken(em.MDN(), 2)
    with torch.no_grad():
        assert torch.isfinite(built.sample(torch.full((4, 2), 1e6), 50, generator=new_generator(0))).all()


# Starts ------------------------------------------------------------------------------------------------------------


def test_components_start_as_a_mixture_of_the_targets():
    """Three well-parted normals are told from more and from fewer: their places, covariances and shares."""
    rng = np.random.default_rng(0)
    means, sizes = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 7.0]]), [600, 300, 100]
    roots = np.array([[[0.4, 0.0], [0.3, 0.2]], [[0.5, 0.0], [-0.2, 0.3]], [[0.3, 0.0], [0.0, 0.6]]])
    y = np.concatenate([m + rng.standard_normal((n, 2)) @ r.T for m, r, n in zip(means, roots, sizes, strict=True)])
    logits, places, log_scales, factors = starts(y, 3, seed=0, full=True)
    order = np.argsort(-logits)
    np.testing.assert_allclose(np.exp(logits[order]), [0.6, 0.3, 0.1], atol=0.01)
    np.testing.assert_allclose(places[order], means, atol=0.2)
    for k, root in zip(order, roots, strict=True):
        unit = np.array([[1.0, 0.0], [factors[k, 0], 1.0]])
        found = np.linalg.inv(unit) @ np.diag(np.exp(log_scales[k]))
        np.testing.assert_allclose(found @ found.T, root @ root.T, atol=0.1)


@pytest.mark.parametrize("full", [True, False])
def test_copies_lie_in_what_they_copy(full):
    """Of sixteen components on two normals eight are each one's, with its share, within two of its deviations."""
    rng = np.random.default_rng(0)
    y = np.concatenate(
        [np.array([-5.0, 0.0]) + rng.standard_normal((400, 2)), np.array([5.0, 0.0]) + rng.standard_normal((100, 2))]
    )
    logits, places, log_scales, _ = starts(y, 16, seed=0, full=full)
    left = places[:, 0] < 0
    assert left.sum() == 8
    np.testing.assert_allclose(np.exp(logits[left]).sum(), 0.8, atol=0.01)
    assert np.abs(np.abs(places) - [5.0, 0.0]).max() < 2
    np.testing.assert_allclose(np.exp(log_scales), 1, atol=0.25)
    assert len(np.unique(places, axis=0)) == 16


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize(
    "y",
    [
        np.ones((50, 2)),
        np.arange(6.0).reshape(3, 2),
        np.repeat(np.eye(2), 30, axis=0),
        np.zeros((1, 2)),
        np.random.default_rng(0).standard_cauchy((200, 2)),
    ],
    ids=["constant", "three rows", "duplicated", "one row", "heavy tails"],
)
def test_poor_rows_still_give_a_start(y, full):
    logits, places, log_scales, factors = starts(y, 8, seed=0, full=full)
    assert places.shape == log_scales.shape == (8, 2)
    assert factors.shape == (8, 1 if full else 0)
    assert np.exp(logits).sum() == pytest.approx(1)
    assert all(np.isfinite(part).all() for part in (places, log_scales, factors))
    assert len(np.unique(places, axis=0)) == 8


# Training ----------------------------------------------------------------------------------------------------------


def fitted(family, y, x, steps, seed=0):
    """A family fitted to arrays, and its spaces."""
    y_space, x_space = VectorSpace.fit(y), VectorSpace.fit(x)
    built = family.build(y_space, x_space, width=32, depth=2, seed=seed)
    settings = TrainingSettings(steps=steps, learning_rate=4e-3, seed=seed, precision="float32")
    reports = list(train(built, y_space.encode(y), x_space.encode(x), settings=settings))
    assert reports[-1].finished == "completed"
    return built.eval(), y_space, x_space


def test_a_rotated_mixture_is_recovered():
    """Weights within .03, means within .1 and covariances within 15 % of the truth, from 4000 rows."""
    rng = np.random.default_rng(0)
    roots = np.array([[[1.0, 0.0], [0.9, 0.3]], [[0.5, 0.0], [-0.6, 0.2]]])  # of the covariances
    means, weights = np.array([[-2.0, 0.0], [2.0, 1.0]]), np.array([0.7, 0.3])
    labels = (rng.random(4000) > weights[0]).astype(int)
    y = means[labels] + np.einsum("nij,nj->ni", roots[labels], rng.standard_normal((4000, 2)))
    built, y_space, x_space = fitted(em.MDN(components=2), y, np.zeros((4000, 1)), steps=400)
    with torch.no_grad():
        mixture, normals = reference(built.encode(x_space.encode(np.zeros((1, 1)))))
    scale, shift = np.array(y_space.scale), np.array(y_space.shift)
    found = normals.mean[0].numpy() * scale + shift
    order = np.argsort(found[:, 0])
    np.testing.assert_allclose(found[order], means, atol=0.1)
    np.testing.assert_allclose(mixture.mixture_distribution.probs[0].numpy()[order], weights, atol=0.03)
    covariances = normals.covariance_matrix[0].numpy() * np.outer(scale, scale)
    for estimate, root in zip(covariances[order], roots, strict=True):
        truth = root @ root.T
        assert np.abs(estimate - truth).max() < 0.15 * np.abs(truth).max()


def test_the_likelihood_on_the_fork_is_that_of_the_truth():
    """Within .05 nats on new rows, in the units of y."""
    problem = em.problems.get("fork")
    built, y_space, x_space = fitted(em.MDN(), problem.sample(4000, seed=0)[1], problem.sample(4000, seed=0)[0], 600)
    x, y = problem.sample(4000, seed=1)
    with torch.no_grad():
        log_prob = built.log_prob(y_space.encode(y), x_space.encode(x)).double().numpy() + y_space.log_jacobian
    truth = problem.log_density(x, y[:, None])[:, 0]
    assert truth.mean() - log_prob.mean() < 0.05
    # the truth has the highest likelihood that there is, up to the chance in 4000 rows
    assert truth.mean() > log_prob.mean() - 3 * (truth - log_prob).std() / math.sqrt(len(truth))


def test_one_normal_learns_the_mean_and_the_spread():
    """On y = sin x + noise whose deviation grows with x, from .1 to .5: both within a tenth of the deviation."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (4000, 1))
    deviation = 0.3 + 0.1 * x
    y = np.sin(2 * x) + deviation * rng.standard_normal(x.shape)
    built, y_space, x_space = fitted(em.Gaussian(), y, x, steps=800)
    new = np.linspace(-1.9, 1.9, 39)[:, None]
    with torch.no_grad():
        mixture = built.encode(x_space.encode(new))
    mean = mixture["means"].numpy()[:, 0] * y_space.scale + y_space.shift
    scale = mixture["scales"].numpy()[:, 0] * y_space.scale
    truth = 0.3 + 0.1 * new
    assert np.sqrt((((mean - np.sin(2 * new)) / truth) ** 2).mean()) < 0.15
    assert np.sqrt(((scale / truth - 1) ** 2).mean()) < 0.1


HARD = {
    "constant column": lambda rng: np.stack([rng.standard_normal(200), np.ones(200)], axis=1),
    "duplicated rows": lambda rng: np.repeat(rng.standard_normal((4, 2)), 50, axis=0),
    "heavy tails": lambda rng: rng.standard_cauchy((500, 2)),
    "twenty rows": lambda rng: rng.standard_normal((20, 2)),
    "64 outputs": lambda rng: rng.standard_normal((200, 64)),
}


@pytest.mark.parametrize("hard", HARD)
@pytest.mark.parametrize("family", [em.MDN(), em.Gaussian()], ids=["mdn", "gaussian"])
def test_hard_targets_leave_no_nan(family, hard):
    y = HARD[hard](np.random.default_rng(0))
    x = np.random.default_rng(1).standard_normal((len(y), 1))
    built, y_space, x_space = fitted(family, y, x, steps=60)
    assert all(torch.isfinite(p).all() for p in built.parameters())
    with torch.no_grad():
        log_prob = built.log_prob(y_space.encode(y), x_space.encode(x))
        draws = built.sample(x_space.encode(x), 10, generator=new_generator(0))
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(draws).all()


def test_a_full_covariance_that_is_too_large_is_refused():
    family = em.MDN(covariance="full")
    assert family.build(space(64), X_SPACE, width=8, depth=1).factors.shape == (64, 64 * 63 // 2)
    with pytest.raises(SettingError, match=r"covariance='full' .* 65 .*\(65,\).*'diagonal'"):
        family.build(space(65), X_SPACE, width=8, depth=1)
    assert em.MDN().build(space(17), X_SPACE, width=8, depth=1).factors.shape == (64, 0)
