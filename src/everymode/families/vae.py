"""Conditional variational autoencoder: y is decoded from a few hidden numbers z that the training has to infer.

The model is p(y | x) = integral p(y | z, x) p(z) dz with z standard normal and y normal around the decoder's answer,
with a standard deviation that is learned. The encoder's q(z | x, y) is normal with a diagonal covariance; for each row

    -log p(y | x) <= -ELBO = KL(q(z | x, y) || p(z)) - E_q log p(y | z, x),

in nats, with equality where q is the true posterior. The first term is in closed form, the second is estimated with
one z. As the standard deviation is learned (a sigma-VAE), it weighs the two terms rightly and `beta` stays 1.

References:
    Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114
    Learning structured output representation using deep conditional generative models (Sohn, Lee and Yan, 2015),
        https://papers.nips.cc/paper/5775
    beta-VAE (Higgins et al., 2017), https://openreview.net/forum?id=Sy2fzU9gl
    Simple and effective VAE training with calibrated decoders (Rybkin, Daniilidis and Levine, 2021),
        https://arxiv.org/abs/2006.13202

Fails: TODO
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from everymode.errors import check_bool, check_choice, check_number
from everymode.families.base import Abilities, Family
from everymode.networks import NetworkFactory, coder_for, decoder_for, encoder_for, sizes_for
from everymode.randomness import Source, normal
from everymode.spaces import ArraySpace, Condition, Space

__all__ = ["VAE", "kl_of_normals", "log_normal"]

VARIANCES = ("value", "global")
PRIORS = ("standard", "conditional")
_LEAST_SCALE = 0.01  # of the decoder's noise, in standard deviations of y


class VAE(Family):
    """A conditional variational autoencoder with a normal decoder of learned variance."""

    name: ClassVar[str] = "vae"
    abilities: ClassVar[Abilities] = Abilities(own_network=False)

    def __init__(
        self,
        *,
        latent: int = 8,
        beta: float = 1.0,
        variance: str = "value",
        prior: str = "standard",
        noise: bool = True,
    ) -> None:
        super().__init__()
        self.latent = check_number("latent", latent, 1, 65_536, integer=True)
        self.beta = check_number("beta", beta, 0.0)
        self.variance = check_choice("variance", variance, VARIANCES)
        self.prior = check_choice("prior", prior, PRIORS)
        self.noise = check_bool("noise", noise)

    def assemble(
        self,
        y_space: ArraySpace,
        x_space: Space,
        *,
        width: int | None,
        depth: int | None,
        network: NetworkFactory | None,
    ) -> None:
        width, depth = sizes_for(y_space, width, depth)
        self.encoder = encoder_for(x_space, width)
        self.posterior = coder_for(y_space, 2 * self.latent, width, width=width, depth=depth)
        self.decoder = decoder_for(y_space, self.latent, width, width=width, depth=depth)
        import os
        self.log_scale = nn.Parameter(torch.full(y_space.shape if self.variance == "value" else (), math.log(float(os.environ.get("S0", ".1")))))
        self.prior_layer = nn.Linear(width, 2 * self.latent) if self.prior == "conditional" else None

    def prior_of(self, embedding):
        if self.prior_layer is None:
            z = embedding.new_zeros(len(embedding), self.latent)
            return z, z
        return self.prior_layer(silu(embedding)).chunk(2, dim=1)

    def scale_of(self, embedding: Tensor) -> Tensor:
        raw = self.log_scale.expand(len(embedding), *self.event)
        floor = math.log(_LEAST_SCALE)
        return (floor + softplus(raw - floor)).exp()

    def loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        embedding = self.encode(x)
        mean, log_scale = self.posterior(y, embedding).chunk(2, dim=1)
        z = mean + log_scale.exp() * normal(tuple(mean.shape), generator, like=mean)
        kl = kl_of_normals(mean, log_scale, *self.prior_of(embedding))
        return self.beta * kl - log_normal(y, self.decoder(z, embedding), self.scale_of(embedding))

    def draw(self, embedding: Any, *, generator: Source = None) -> Tensor:
        rows, like = self._rows(embedding)
        mean, log_scale = self.prior_of(embedding)
        z = mean + log_scale.exp() * normal((rows, self.latent), generator, like=like)
        y = self.decoder(z, embedding)
        if not self.noise:
            return y
        return y + self.scale_of(embedding) * normal(tuple(y.shape), generator, like=like)


def kl_of_normals(mean, log_scale, prior_mean, prior_log_scale):
    return (
        prior_log_scale - log_scale - 0.5
        + 0.5 * ((2 * (log_scale - prior_log_scale)).exp() + ((mean - prior_mean) * (-prior_log_scale).exp()).square())
    ).sum(dim=1)


def log_normal(y, mean, scale):
    scale = scale.expand_as(y)
    return -(0.5 * ((y - mean) / scale).square() + scale.log() + 0.5 * math.log(2 * math.pi)).flatten(1).sum(dim=1)
