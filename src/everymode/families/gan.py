"""Conditional GAN: a generator y = G(z, x) of standard normal z, trained against a critic of (y, x).

The recipe is R3GAN's: a relativistic critic that judges a draw against an answer of the same x, both zero-centred
gradient penalties, Adam without momentum, and an average of the generator's weights. The losses stand in
`families.adversarial`. One draw is one pass through the generator: no other family of many answers is faster.

References:
    Generative adversarial nets (Goodfellow et al., 2014), https://arxiv.org/abs/1406.2661
    Conditional generative adversarial nets (Mirza and Osindero, 2014), https://arxiv.org/abs/1411.1784
    The GAN is dead; long live the GAN! A modern baseline GAN (Huang et al., 2024), https://arxiv.org/abs/2501.05441

Fails: TODO
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from everymode.errors import check_choice, check_number
from everymode.families.adversarial import OBJECTIVES, Critic, critic_loss, energy_score, generator_loss
from everymode.families.base import Abilities, Family, Part
from everymode.networks import NetworkFactory, decoder_for, encoder_for, sizes_for
from everymode.randomness import Source, normal
from everymode.spaces import ArraySpace, Condition, Space

__all__ = ["GAN"]


import os
GF = eval(os.environ.get('GF', '(0, 3)'))


class GAN(Family):
    """A conditional generative adversarial network.

    Args:
        objective: 'relativistic' (R3GAN's) or 'classic' (non-saturating, Goodfellow et al.).
        penalty: gamma, the weight of the gradient penalties on answers and on draws; 0 for none.
        latent: how many normal numbers a draw is made from.
        rate: learning rate of the generator, in learning rates of the run.
        critic_rate: learning rate of the critic, in learning rates of the run.
        beta1: decay of Adam's average of the gradient, for both.
        beta2: decay of Adam's average of its square, for both.
    """

    name: ClassVar[str] = "gan"
    abilities: ClassVar[Abilities] = Abilities(own_network=False)

    def __init__(
        self,
        *,
        objective: str = "relativistic",
        penalty: float = 0.1,
        latent: int = 16,
        rate: float = 0.5,
        critic_rate: float = 0.5,
        beta1: float = 0.0,
        beta2: float = 0.99,
    ) -> None:
        super().__init__()
        self.objective = check_choice("objective", objective, OBJECTIVES)
        self.penalty = check_number("penalty", penalty, 0.0)
        self.latent = check_number("latent", latent, 1, 65_536, integer=True)
        self.rate = check_number("rate", rate, 0.0, exclusive_low=True)
        self.critic_rate = check_number("critic_rate", critic_rate, 0.0, exclusive_low=True)
        self.beta1 = check_number("beta1", beta1, 0.0, 0.9999)
        self.beta2 = check_number("beta2", beta2, 0.0, 0.9999)

    def assemble(
        self,
        y_space: ArraySpace,
        x_space: Space,
        *,
        width: int | None,
        depth: int | None,
        network: NetworkFactory | None,
    ) -> None:
        """Make the generator, `network` and its `encoder`, and the `critic`."""
        width, depth = sizes_for(y_space, width, depth)
        self.encoder = encoder_for(x_space, width)
        k = GF[0]
        B = torch.randn(self.latent, k)
        self.register_buffer("B", B / B.norm(dim=0) * torch.logspace(0, GF[1], k, base=2))
        self.network = decoder_for(y_space, self.latent + 2 * k, width, width=width, depth=depth)
        self.critic = Critic(y_space, x_space, width=width, depth=depth)

    def parts(self) -> list[Part]:
        """Return the critic and the generator, in the order in which a batch trains them."""
        betas = (self.beta1, self.beta2)
        generator = nn.ModuleList([self.encoder, self.network])
        return [
            Part("critic", self.critic, self.critic_loss, rate=self.critic_rate, betas=betas, judged=False),
            Part("generator", generator, self.loss, rate=self.rate, betas=betas, judge=self.judge),
        ]

    def loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return the generator's loss of each row, (batch,)."""
        drawn = self.draw(self.encode(x), generator=generator)
        return generator_loss(self.critic, y, drawn, x, objective=self.objective)

    def critic_loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return the critic's loss of each row, (batch,)."""
        with torch.no_grad():
            drawn = self.draw(self.encode(x), generator=generator)
        return critic_loss(self.critic, y, drawn, x, objective=self.objective, penalty=self.penalty)

    def judge(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return the energy score of two draws of each row, (batch,)."""
        embedding = self.encode(x)
        first, second = (self.draw(embedding, generator=generator) for _ in range(2))
        return energy_score(y, first, second)

    def draw(self, embedding: Any, *, generator: Source = None) -> Tensor:
        """Return one draw a row, (batch, *event): the generator's answer to normal numbers."""
        rows, like = self._rows(embedding)
        z = normal((rows, self.latent), generator, like=like)
        a = z @ self.B
        return self.network(torch.cat([z, a.sin(), a.cos()], 1), embedding)
