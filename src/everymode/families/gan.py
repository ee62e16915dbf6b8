"""Conditional GAN: a generator y = G(z, x) of standard normal z, trained against a critic of (y, x).

The recipe is R3GAN's: a relativistic critic that judges a draw against an answer of the same x, both zero-centred
gradient penalties, Adam without momentum, and an average of the generator's weights. A linear map of z is added to the
network's answer, so that draws begin as broad as y is: a generator that begins at one point runs to the nearest answer,
and may stay there. `objective="classic"` with
`penalty=0` is the game as it was first proposed. The losses stand in `families.adversarial`. A draw is one pass
through the generator.

References:
    Generative adversarial nets (Goodfellow et al., 2014), https://arxiv.org/abs/1406.2661
    Conditional generative adversarial nets (Mirza and Osindero, 2014), https://arxiv.org/abs/1411.1784
    The GAN is dead; long live the GAN! A modern baseline GAN (Huang et al., 2024), https://arxiv.org/abs/2501.05441

Fails: G is continuous in z, so that draws fall on the bridges between answers that lie apart; with many answers these
are a large share of the draws. Fine structure comes slowly, and no number says when it is there: the losses tell how
the two sides are matched, and the energy score of held-out rows is flat long before the draws are sharp. The classic
objective may also lose modes.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from torch import Tensor, nn

from everymode.errors import check_number
from everymode.families.adversarial import Adversarial, Critic
from everymode.families.base import Abilities
from everymode.networks import Sizes, decoder_for, encoder_for
from everymode.randomness import Source, normal
from everymode.spaces import ArraySpace, Condition, Space

__all__ = ["GAN"]


class GAN(Adversarial):
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
    batch_share: ClassVar[float] = 0.25
    abilities: ClassVar[Abilities] = Abilities(own_network=False, networks=("mlp", "transformer"))

    def __init__(
        self,
        *,
        objective: str = "relativistic",
        penalty: float = 0.1,
        latent: int = 8,
        rate: float = 1.0,
        critic_rate: float = 1.0,
        beta1: float = 0.0,
        beta2: float = 0.99,
    ) -> None:
        super().__init__()
        self._play(objective, penalty, rate, critic_rate, beta1, beta2)
        self.latent = check_number("latent", latent, 1, 65_536, integer=True)

    def assemble(self, y_space: ArraySpace, x_space: Space, sizes: Sizes) -> None:
        """Make the generator, which is `encoder`, `network` and `skip`, and the `critic`."""
        self.encoder = encoder_for(x_space, sizes.width)
        self.network = decoder_for(y_space, self.latent, sizes)
        self.skip = nn.Linear(self.latent, math.prod(y_space.shape), bias=False)
        nn.init.normal_(self.skip.weight, std=self.latent**-0.5)
        self.critic = Critic(y_space, x_space, sizes)

    def loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return what the generator loses on each row, (batch,)."""
        return self.generator_loss(y, x, generator=generator)

    def draw(self, embedding: Any, *, generator: Source = None) -> Tensor:
        """Return one draw a row, (batch, *event): the generator's answer to normal numbers."""
        rows, like = self._rows(embedding)
        z = normal((rows, self.latent), generator, like=like)
        return self.network(z, embedding) + self.skip(z).unflatten(1, self.event)
