"""Conditional variational autoencoder: y is decoded from a few hidden numbers z that training has to infer.

The model is p(y | x) = integral p(y | z, x) p(z | x) dz, with y normal around the decoder's answer. The encoder's
q(z | x, y) is normal with a diagonal covariance; for each row

    -log p(y | x) <= -ELBO = KL(q(z | x, y) || p(z | x)) - E_q log p(y | z, x),

in nats, with equality where q is the true posterior. The KL is in closed form, the rest is estimated with one z. The
decoder's standard deviation is learned, one for each value of y or one for all (sigma-VAE): it weighs the two terms
against each other, so that `beta` stays 1. It starts at a tenth of y's, well below: from y's own, where the decoder
explains nothing yet, training ends with a z that says nothing.

References:
    Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114
    Learning structured output representation using deep conditional generative models (Sohn, Lee and Yan, 2015),
        https://papers.nips.cc/paper/5775
    beta-VAE (Higgins et al., 2017), https://openreview.net/forum?id=Sy2fzU9gl
    Simple and effective VAE training with calibrated decoders (Rybkin, Daniilidis and Levine, 2021),
        https://arxiv.org/abs/2006.13202

Fails: many answers far apart. The normal q's do not fill the prior, so that some z that are drawn were never decoded
in training, and the decoder is continuous: both put draws between the answers. On a grid of 25, most of them.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from everymode.errors import check_bool, check_choice, check_number
from everymode.families.base import Abilities, Family
from everymode.networks import Sizes, coder_for, decoder_for, embedder_for, pooled
from everymode.randomness import Source, normal
from everymode.spaces import ArraySpace, Condition, Space

__all__ = ["VAE", "kl_of_normals", "log_normal"]

VARIANCES = ("value", "global")
PRIORS = ("standard", "conditional")
_FIRST_SCALE, _LEAST_SCALE = 0.1, 0.01  # of the decoder's noise, in standard deviations of y


class Spread(nn.Module):
    """`spread()`: the decoder's standard deviation, (*shape), learned and never below .01."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.full(shape, math.log(_FIRST_SCALE)))

    def forward(self) -> Tensor:
        """Return the standard deviation."""
        least = math.log(_LEAST_SCALE)
        return (least + softplus(self.log_scale - least)).exp()


class VAE(Family):
    """A conditional variational autoencoder with a normal decoder of learned variance.

    Args:
        latent: how many hidden numbers z there are.
        beta: weight of the KL; at 1 the loss is a bound on -log p(y | x) in nats.
        variance: of the decoder's noise: one for each 'value' of y, or 'global'.
        prior: of z: 'standard' normal, or 'conditional', a diagonal normal that depends on x.
        noise: whether draws have the decoder's noise. They are draws of the model only with it, and too narrow
            without; leave it out for images, where the noise is seen and the mean is wanted.
    """

    name: ClassVar[str] = "vae"
    abilities: ClassVar[Abilities] = Abilities(own_network=False)

    def __init__(
        self,
        *,
        latent: int = 4,
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

    def assemble(self, y_space: ArraySpace, x_space: Space, sizes: Sizes) -> None:
        """Make the `encoder` of x, the `coder` that tells q(z | x, y), the `decoder`, its spread and the prior."""
        self.encoder = embedder_for(y_space, x_space, sizes)
        self.coder = coder_for(y_space, 2 * self.latent, sizes)
        self.decoder = decoder_for(y_space, self.latent, sizes)
        self.spread = Spread(y_space.shape if self.variance == "value" else ())
        if self.prior == "conditional":
            self.prior_of_x = nn.Linear(sizes.width, 2 * self.latent)

    def _prior(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and log standard deviation of p(z | x), (batch, latent) each."""
        if self.prior == "conditional":
            mean, log_scale = self.prior_of_x(silu(pooled(embedding))).chunk(2, dim=1)
            return mean, log_scale
        zeros = embedding.new_zeros(len(embedding), self.latent)
        return zeros, zeros

    def loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return -ELBO of each row in nats of standardised y, (batch,); with `beta` on the KL."""
        embedding = self.encode(x)
        mean, log_scale = self.coder(y, embedding).chunk(2, dim=1)
        z = mean + log_scale.exp() * normal(tuple(mean.shape), generator, like=mean)
        kl = kl_of_normals(mean, log_scale, *self._prior(embedding))
        return self.beta * kl - log_normal(y, self.decoder(z, embedding), self.spread())

    def draw(self, embedding: Any, *, generator: Source = None) -> Tensor:
        """Return one draw a row, (batch, *event): a z of the prior, decoded."""
        rows, like = self._rows(embedding)
        mean, log_scale = self._prior(embedding)
        y = self.decoder(mean + log_scale.exp() * normal((rows, self.latent), generator, like=like), embedding)
        return y + self.spread() * normal(tuple(y.shape), generator, like=like) if self.noise else y


def kl_of_normals(mean: Tensor, log_scale: Tensor, prior_mean: Tensor, prior_log_scale: Tensor) -> Tensor:
    """Return KL(N(mean, scale^2) || N(prior_mean, prior_scale^2)) of diagonal normals (batch, k), (batch,), in nats."""
    ratio = log_scale - prior_log_scale
    apart = (mean - prior_mean) * (-prior_log_scale).exp()
    return 0.5 * ((2 * ratio).exp() + apart.square() - 1 - 2 * ratio).sum(dim=1)


def log_normal(y: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Return log N(y; mean, scale^2) of (batch, *event), summed over the event, (batch,), in nats."""
    log_density = -0.5 * ((y - mean) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)
    return log_density.flatten(1).sum(dim=1)
