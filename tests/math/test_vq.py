"""Vector quantisation: a tokeniser that starts at the data, a prior that is a distribution, and all settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from everymode.families import VQ
from everymode.families.codebook import perplexity
from everymode.families.vq import Tokeniser
from everymode.randomness import new_generator, normal
from everymode.spaces import ArraySpace, VectorSpace, array_space
from everymode.training import TrainingSettings, train

SHAPES = {"vector": (3,), "sequence": (8, 2), "image": (1, 6, 6)}
ROWS = 400
SETTINGS = [
    {"codebook": "kmeans"},
    {"codebook": "kmeans", "focal": 2.0, "noise": False},
    {"levels": 1, "noise": True},
    {"noise": False, "focal": 2.0},
]


def built(kind="vector", **settings):
    """A family that has looked at the data, with the data; its layers that start near zero are moved."""
    rng = np.random.default_rng(0)
    raw = rng.choice([-2.0, 2.0], (ROWS, *[1] * len(SHAPES[kind]))) + rng.normal(size=(ROWS, *SHAPES[kind]))
    y_space, x_space = array_space(raw), VectorSpace((1,), (0.0,), (1.0,))
    y, x = y_space.encode(raw), normal((ROWS, 1), new_generator(0), like=torch.zeros(()))
    family = VQ(**{"codes": 8, **settings}).build(y_space, x_space, width=16, depth=1).eval()
    with torch.no_grad():
        for parameter in family.parameters():
            parameter += 0.05 * normal(tuple(parameter.shape), new_generator(7), like=parameter)
        family.prepare(y, x, seed=0)
    return family, y, x


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("kind", SHAPES)
def test_every_setting_trains_all_it_has_and_draws(kind, settings):
    family, y, x = built(kind, **settings)
    trained = set()
    for part in family.parts():
        family.zero_grad()
        losses = part.loss(y, x)
        assert losses.shape == (ROWS,)
        losses.mean().backward()
        for name, parameter in part.module.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
            assert id(parameter) not in trained, f"{name} is in two parts"
            trained.add(id(parameter))
    assert trained == {id(parameter) for parameter in family.parameters()}
    with torch.inference_mode():
        draws = family.sample(x[:2], 20, generator=new_generator(1))
    assert draws.shape == (40, *SHAPES[kind])
    assert torch.isfinite(draws).all()
    if settings.get("noise") is False:  # as many answers as codes
        assert len(draws[:20].flatten(1).unique(dim=0)) <= 8 ** len(family.prior.offset)


@pytest.mark.parametrize("levels", [1, 3])
def test_codes_are_drawn_with_their_probabilities(levels):
    """Of a code book of 4^levels answers, 20,000 draws against exp(log_prob) of each: a chi-squared test."""
    family, _, x = built(codes=4, levels=levels)
    words = torch.cartesian_prod(*[torch.arange(4)] * levels).reshape(-1, levels)
    with torch.inference_mode():
        probability = family.prior.log_prob(words, x[:1].expand(len(words), 1)).sum(1).double().exp()
        embedding = family.prior.encoder(x[:1]).expand(20_000, -1)
        drawn = family.prior.draw(embedding, new_generator(0))
    assert float(probability.sum()) == pytest.approx(1, abs=1e-5)
    places = (drawn * 4 ** torch.arange(levels - 1, -1, -1)).sum(1)
    found = torch.bincount(places, minlength=len(words))
    assert chisquare(found, 20_000 * probability / probability.sum()).pvalue > 1e-3


def test_the_focal_loss():
    """-(1 - p)^2 log p, and cross-entropy where the exponent is 0."""
    family, y, x = built(levels=1)
    with torch.no_grad():
        cross_entropy = family.loss(y, x)
        family.focal = 2.0
        torch.testing.assert_close(family.loss(y, x), (1 - (-cross_entropy).exp()).square() * cross_entropy)


def test_the_tokeniser_starts_at_the_principal_components():
    """With its networks shut off, it is a code book of y turned to its axes, the first of the greatest variance."""
    family, y, x = built(noise=False)
    tokeniser = family.tokeniser
    assert isinstance(tokeniser, Tokeniser)
    with torch.no_grad():
        tokeniser.gates.zero_()
        z = tokeniser.latents(y, tokeniser.encoder(x))
        torch.testing.assert_close(z.T.cov().diag().diag(), z.T.cov(), atol=1e-4, rtol=1e-4)
        assert (z.var(dim=0).diff() < 0).all()
        torch.testing.assert_close(tokeniser.answer(z, tokeniser.encoder(x)), y, atol=1e-4, rtol=1e-4)
        quantised = tokeniser.book.decode(tokeniser.codes(y, x))
        error = tokeniser.answer(quantised, tokeniser.encoder(x)) - y
        torch.testing.assert_close(error.square().sum(1), (quantised - z).square().sum(1), atol=1e-4, rtol=1e-4)


def test_centres_of_kmeans_are_those_of_y():
    """Where nothing is known of x, the answer to a class is the mean of its cell, its probability the cell's share."""
    family, y, x = built(codebook="kmeans", noise=False)
    x = torch.zeros_like(x)
    for _ in train(family, y, x, settings=TrainingSettings(steps=400, batch_size=ROWS, learning_rate=1e-2)):
        pass
    with torch.inference_mode():
        codes = family.tokeniser.codes(y, x)[:, 0]
        cells = torch.arange(8)[:, None]
        answers = family.tokeniser.answer(
            family.tokeniser.book.decode(cells), family.tokeniser.encoder(x[:1]).expand(8, -1)
        )
        shares = family.prior.log_prob(cells, x[:1].expand(8, 1))[:, 0].exp()
    means = torch.stack([y[codes == k].mean(0) for k in range(8)])
    torch.testing.assert_close(answers, means, atol=0.05, rtol=0)
    torch.testing.assert_close(shares, torch.bincount(codes, minlength=8) / ROWS, atol=0.02, rtol=0)


def test_training_keeps_the_codes_in_use():
    """After some hundred steps of the tokeniser more than half of the codes of each level still are."""
    family, y, x = built(codes=16)
    for _ in train(family, y, x, settings=TrainingSettings(steps=400, batch_size=128, learning_rate=4e-3)):
        pass
    with torch.inference_mode():
        codes = family.tokeniser.codes(y, x)
    assert all(perplexity(codes[:, level], 16) > 8 for level in range(2))


@pytest.mark.parametrize("rows", ["constant", "twenty", "Cauchy", "sixty-four columns"])
@pytest.mark.parametrize("codebook", ["learned", "kmeans"])
def test_data_of_every_kind_leave_finite_weights(rows, codebook):
    rng = np.random.default_rng(0)
    raw = {
        "constant": np.full((100, 2), 3.0),
        "twenty": rng.normal(size=(20, 2)),
        "Cauchy": rng.standard_cauchy((500, 2)),
        "sixty-four columns": rng.normal(size=(100, 64)),
    }[rows]
    y_space: ArraySpace = VectorSpace.fit(raw)
    family = VQ(codebook=codebook).build(y_space, VectorSpace((1,), (0.0,), (1.0,)), width=16, depth=1)
    y, x = y_space.encode(raw), torch.linspace(-1, 1, len(raw))[:, None]
    settings = TrainingSettings(steps=60, batch_size=64, learning_rate=4e-3)
    reports = list(train(family, y, x, settings=settings))
    assert reports[-1].finished == "completed"
    assert all(torch.isfinite(parameter).all() for parameter in family.parameters())
    with torch.inference_mode():
        assert torch.isfinite(family.eval().sample(x[:3], 50, generator=new_generator(0))).all()
