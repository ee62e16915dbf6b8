"""The adversarial game: a critic learns to tell answers from draws, a generator to be taken for an answer.

For one x let y be its answer and d a draw. The critic D gives each a score; with softplus(s) = log(1 + e^s) the two
sides lose

    relativistic   critic  softplus(D(d) - D(y))                   generator  softplus(D(y) - D(d))
    classic        critic  softplus(-D(y)) + softplus(D(d))        generator  softplus(-D(d))

The classic critic at its best, D = log p - log q, loses 2 log 2 - 2 JSD(p, q); its generator only has to fool it
somewhere, and may do so on a few of the modes and then move on to others. The relativistic critic judges a draw
against an answer of the same x: a mode that gets no draws leaves its answers with high scores and nothing to stand
beside them, which the generator feels. Row i of y is paired with row i of d, so that a row's loss is its own.

Either critic may have both zero-centred penalties, on answers (R1) and on draws (R2), of `penalty` = gamma:

    gamma / 2 (|grad D(y)|^2 + |grad D(d)|^2),

without which the game need not come to rest even beside its equilibrium (Mescheder et al.). The critic's loss tells
how well the two sides are matched and nothing of the quality of draws: `energy_score` does.

References:
    Generative adversarial nets (Goodfellow et al., 2014), https://arxiv.org/abs/1406.2661: classic, non-saturating
    Which training methods for GANs do actually converge? (Mescheder, Geiger and Nowozin, 2018),
        https://arxiv.org/abs/1801.04406: the penalties
    The relativistic discriminator (Jolicoeur-Martineau, 2019), https://arxiv.org/abs/1807.00734
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

from everymode.networks import coder_for, encoder_for, sizes_for
from everymode.spaces import ArraySpace, Condition, Space

__all__ = ["OBJECTIVES", "Critic", "critic_loss", "energy_score", "generator_loss", "squared_slope"]

OBJECTIVES = ("relativistic", "classic")


class Critic(nn.Module):
    """`critic(y, x) -> (batch,)`: a score of y as an answer of x. It encodes x by itself.

    A constant added to every score changes no relativistic loss, so the last layer has no bias.
    """

    def __init__(self, y_space: ArraySpace, x_space: Space, *, width: int | None, depth: int | None) -> None:
        super().__init__()
        width, depth = sizes_for(y_space, width, depth)
        self.encoder = encoder_for(x_space, width)
        d, k = y_space.shape[0], 32
        B = torch.randn(d, k)
        B = B / B.norm(dim=0) * torch.logspace(0, 4, k, base=2)
        self.register_buffer("B", B)
        from everymode.spaces import VectorSpace
        n = d + 2 * k
        self.coder = coder_for(VectorSpace((n,), (0.0,) * n, (1.0,) * n), width, width, width=width, depth=depth)
        self.leave = nn.Linear(width, 1, bias=False)

    def features(self, y: Tensor, embedding: Tensor) -> Tensor:
        """Return what the score is read from, (batch, width), for the critic's own embedding of x."""
        a = y @ self.B
        return silu(self.coder(torch.cat([y, a.sin(), a.cos()], 1), embedding))

    def score(self, y: Tensor, embedding: Tensor) -> Tensor:
        """Return the score (batch,) for the critic's own embedding of x."""
        return self.leave(self.features(y, embedding)).squeeze(1)

    def forward(self, y: Tensor, x: Condition) -> Tensor:
        """Return the score (batch,) of y (batch, *event)."""
        return self.score(y, self.encoder(x))

    def both(self, y: Tensor, drawn: Tensor, x: Condition) -> tuple[Tensor, Tensor]:
        """Return the scores of answers and of draws for the same x, (batch,) each."""
        embedding = self.encoder(x)
        scores = self.score(torch.cat([y, drawn]), torch.cat([embedding, embedding]))
        return scores[: len(y)], scores[len(y) :]

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Stay as it is: the penalty's gradient is a second derivative, which compiled modules do not have."""


def critic_loss(critic: Critic, y: Tensor, drawn: Tensor, x: Condition, *, objective: str, penalty: float) -> Tensor:
    """Return what the critic loses on each row, (batch,).

    Args:
        critic: the critic.
        y: answers (batch, *event).
        drawn: draws of the same rows of x, (batch, *event), without a history.
        x: conditions, rows first.
        objective: 'relativistic' or 'classic'.
        penalty: gamma, the weight of both penalties.
    """
    events = torch.cat([y, drawn])
    if penalty:
        events.requires_grad_()
    embedding = critic.encoder(x)
    scores = critic.score(events, torch.cat([embedding, embedding]))
    real, fake = scores[: len(y)], scores[len(y) :]
    loss = softplus(fake - real) if objective == "relativistic" else softplus(-real) + softplus(fake)
    if not penalty:
        return loss
    slopes = squared_slope(scores, events)
    return loss + 0.5 * penalty * (slopes[: len(y)] + slopes[len(y) :])


def generator_loss(critic: Critic, y: Tensor, drawn: Tensor, x: Condition, *, objective: str) -> Tensor:
    """Return what the generator of `drawn` loses on each row, (batch,); arguments as for `critic_loss`."""
    if objective == "classic":
        return softplus(-critic(drawn, x))
    real, fake = critic.both(y, drawn, x)
    return softplus(real - fake)


def squared_slope(scores: Tensor, events: Tensor) -> Tensor:
    """Return |d score / d event|^2 of each row, (batch,), for scores (batch,) of events (batch, *event).

    It can be differentiated again. Row i's score must depend on row i's event alone.
    """
    (gradient,) = torch.autograd.grad(scores.sum(), events, create_graph=True)
    return gradient.flatten(1).square().sum(dim=1)


def energy_score(y: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the energy score of two draws a row, (batch,): lowest in the mean where draws are distributed as y is."""
    first_miss, second_miss, apart = (
        torch.linalg.vector_norm((a - b).flatten(1), dim=1) for a, b in ((first, y), (second, y), (first, second))
    )
    return 0.5 * (first_miss + second_miss - apart)
