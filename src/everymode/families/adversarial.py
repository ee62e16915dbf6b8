"""The adversarial game: a critic learns to tell answers from draws, a generator to be taken for an answer.

For one x let y be its answer and d a draw. The critic D gives each a score; with softplus(s) = log(1 + e^s) the two
sides lose

    relativistic   critic  softplus(D(d) - D(y))                   generator  softplus(D(y) - D(d))
    classic        critic  softplus(-D(y)) + softplus(D(d))        generator  softplus(-D(d))

The classic critic at its best, D = log p - log q, loses 2 log 2 - 2 JSD(p, q); its generator only has to fool it
somewhere, which a few of the modes are enough for. The relativistic critic judges a draw against an answer of the same
x: a mode without draws leaves answers that score high with nothing beside them. Row i of y is paired with row i of d,
so that a row's loss is its own.

The critic also pays both zero-centred penalties, on answers (R1) and on draws (R2), with weight `penalty` = gamma,

    gamma / 2 (|grad D(y)|^2 + |grad D(d)|^2),

without which the game need not come to rest even beside its equilibrium (Mescheder et al.). What either side loses
tells how well the two are matched and nothing of the quality of draws: held-out rows are judged by the energy score.
That is flat long before draws are sharp, so it stops no run and chooses no weights: the last average is kept.

Of vectors the critic also sees sines and cosines along fixed random directions, at wavelengths from 6 standard
deviations of y down to .4. A small network is slow to see fine structure; without them the generator is chased round
its mean and variance, and the critic ends flat, on a grid of 25 answers at every learning rate that was tried.

References:
    Generative adversarial nets (Goodfellow et al., 2014), https://arxiv.org/abs/1406.2661: classic, non-saturating
    Which training methods for GANs do actually converge? (Mescheder, Geiger and Nowozin, 2018),
        https://arxiv.org/abs/1801.04406: the penalties
    cGANs with projection discriminator (Miyato and Koyama, 2018), https://arxiv.org/abs/1802.05637: the inner product
    The relativistic discriminator (Jolicoeur-Martineau, 2019), https://arxiv.org/abs/1807.00734
    Fourier features let networks learn high frequency functions in low dimensional domains (Tancik et al., 2020),
        https://arxiv.org/abs/2006.10739
    The GAN is dead; long live the GAN! A modern baseline GAN (Huang et al., 2024), https://arxiv.org/abs/2501.05441:
        relativistic pairing with both penalties
    Strictly proper scoring rules, prediction, and estimation (Gneiting and Raftery, 2007),
        https://doi.org/10.1198/016214506000001437: the energy score
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from everymode.errors import check_choice, check_number
from everymode.families.base import Family, Part
from everymode.networks import Sizes, coder_for, encoder_for
from everymode.randomness import Source
from everymode.spaces import ArraySpace, Condition, Space, VectorSpace

__all__ = ["Adversarial", "Critic", "critic_loss", "energy_score", "generator_loss", "squared_slope"]

OBJECTIVES = ("relativistic", "classic")
_WAVES = 32
_HIGHEST_OCTAVE = 4  # frequencies run from 1 to 2^4 radians a standard deviation of y


class Waves(nn.Module):
    """(batch, d) -> (batch, d + 64): the values, and sines and cosines of them along fixed random directions."""

    frequencies: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        directions = nn.functional.normalize(torch.randn(size, _WAVES), dim=0)
        self.register_buffer("frequencies", directions * torch.logspace(0, _HIGHEST_OCTAVE, _WAVES, base=2))

    def forward(self, y: Tensor) -> Tensor:
        """Return the features of each row."""
        angles = y @ self.frequencies
        return torch.cat([y, angles.sin(), angles.cos()], dim=1)


class Critic(nn.Module):
    """`critic(y, x) -> (batch,)`: a score of y as an answer of x. It encodes x by itself.

    The score is the inner product of features of (y, x) with a direction that depends on x. It has no bias: what is
    added to every score of one x changes no relativistic loss.
    """

    def __init__(self, y_space: ArraySpace, x_space: Space, sizes: Sizes) -> None:
        super().__init__()
        self.encoder = encoder_for(x_space, sizes.width)
        self.waves = None
        if isinstance(y_space, VectorSpace):
            self.waves = Waves(y_space.shape[0])
            seen = y_space.shape[0] + 2 * _WAVES
            y_space = VectorSpace((seen,), (0.0,) * seen, (1.0,) * seen)
        self.coder = coder_for(y_space, sizes.width, sizes)
        self.direction = nn.Linear(sizes.width, sizes.width)

    def forward(self, y: Tensor, x: Condition) -> Tensor:
        """Return the score (batch,) of y (batch, *event)."""
        return self._score(y, self.encoder(x))

    def both(self, events: Tensor, x: Condition) -> Tensor:
        """Return the scores (2 batch,) of answers and then draws (2 batch, *event) for the same x."""
        embedding = self.encoder(x)
        return self._score(events, torch.cat([embedding, embedding]))

    def _score(self, y: Tensor, embedding: Tensor) -> Tensor:
        seen = y if self.waves is None else self.waves(y)
        return (silu(self.coder(seen, embedding)) * self.direction(embedding)).sum(dim=1)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Stay as it is: the penalty's gradient is a second derivative, which compiled modules do not have."""


def critic_loss(critic: Critic, y: Tensor, drawn: Tensor, x: Condition, *, objective: str, penalty: float) -> Tensor:
    """Return what the critic loses on each row, (batch,).

    Args:
        critic: the critic.
        y: answers (batch, *event).
        drawn: draws for the same rows of x, (batch, *event), without a history.
        x: conditions, rows first.
        objective: 'relativistic' or 'classic'.
        penalty: gamma, the weight of both penalties.
    """
    events = torch.cat([y, drawn]).requires_grad_(penalty > 0)
    scores = critic.both(events, x)
    real, fake = scores.chunk(2)
    loss = softplus(fake - real) if objective == "relativistic" else softplus(-real) + softplus(fake)
    if not penalty:
        return loss
    on_answers, on_draws = squared_slope(scores, events).chunk(2)
    return loss + 0.5 * penalty * (on_answers + on_draws)


def generator_loss(critic: Critic, y: Tensor, drawn: Tensor, x: Condition, *, objective: str) -> Tensor:
    """Return what the generator of `drawn` loses on each row, (batch,); arguments as for `critic_loss`."""
    if objective == "classic":
        return softplus(-critic(drawn, x))
    real, fake = critic.both(torch.cat([y, drawn]), x).chunk(2)
    return softplus(real - fake)


def squared_slope(scores: Tensor, events: Tensor) -> Tensor:
    """Return |d score / d event|^2 of each row, (batch,), for scores (batch,) of events (batch, *event).

    It can be differentiated again. Row i's score must depend on row i's event alone.
    """
    (gradient,) = torch.autograd.grad(scores.sum(), events, create_graph=True)
    return gradient.flatten(1).square().sum(dim=1)


def energy_score(y: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the energy score of two draws a row, (batch,): lowest in the mean where draws are distributed as y is."""
    to_first, to_second, apart = (
        torch.linalg.vector_norm((a - b).flatten(1), dim=1) for a, b in ((first, y), (second, y), (first, second))
    )
    return 0.5 * (to_first + to_second - apart)


class Adversarial(Family):
    """A family whose draws play against a critic: all its other modules are the generator's."""

    critic: Critic

    def _play(
        self, objective: str, penalty: float, rate: float, critic_rate: float, beta1: float, beta2: float
    ) -> None:
        """Check and keep the settings of the game."""
        self.objective = check_choice("objective", objective, OBJECTIVES)
        self.penalty = check_number("penalty", penalty, 0.0)
        self.rate = check_number("rate", rate, 0.0, exclusive_low=True)
        self.critic_rate = check_number("critic_rate", critic_rate, 0.0, exclusive_low=True)
        self.beta1 = check_number("beta1", beta1, 0.0, 0.9999)
        self.beta2 = check_number("beta2", beta2, 0.0, 0.9999)

    def parts(self) -> list[Part]:
        """Return the critic and the generator, in the order in which they take their steps on a batch."""
        betas = (self.beta1, self.beta2)
        generator = nn.ModuleList(child for child in self.children() if child is not self.critic)
        return [
            Part("critic", self.critic, self.critic_loss, rate=self.critic_rate, betas=betas, judged=False),
            Part("generator", generator, self.loss, rate=self.rate, betas=betas, judge=self.judge, chosen=False),
        ]

    def critic_loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return what the critic loses on each row, (batch,)."""
        with torch.no_grad():
            drawn = self.draw(self.encode(x), generator=generator)
        return critic_loss(self.critic, y, drawn, x, objective=self.objective, penalty=self.penalty)

    def generator_loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return what the generator loses to the critic on each row, (batch,)."""
        drawn = self.draw(self.encode(x), generator=generator)
        return generator_loss(self.critic, y, drawn, x, objective=self.objective)

    def judge(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return the energy score of two draws of each row, (batch,), by which held-out rows are judged."""
        embedding = self.encode(x)
        first, second = (self.draw(embedding, generator=generator) for _ in range(2))
        return energy_score(y, first, second)
