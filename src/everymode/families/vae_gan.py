"""A conditional variational autoencoder whose draws also play against a critic.

The loss of a row is

    -ELBO(y, x) + weight * (what a generator loses by a draw d of the prior, decoded),

the first from `families.vae`, the second from `families.adversarial`. The ELBO keeps every answer; the critic works
where the ELBO is silent, on the z that the prior draws and no q(z | x, y) covers.

Larsen et al. measure the error of a reconstruction in the critic's features, and show the critic reconstructions too.
Here the error stays in y, so that the first term remains a bound on -log p(y | x) in nats.

References:
    Autoencoding beyond pixels using a learned similarity metric (Larsen et al., 2016),
        https://arxiv.org/abs/1512.09300

Fails: as `vae` does, on many answers far apart. The two terms disagree where the decoder's noise is too wide, and
`weight` settles it by hand. A step costs as much as one of `vae` and one of `gan`.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from everymode.errors import check_number
from everymode.families.adversarial import Adversarial, Critic
from everymode.families.base import Abilities
from everymode.families.vae import VAE
from everymode.networks import Sizes
from everymode.randomness import Source
from everymode.spaces import ArraySpace, Condition, Space

__all__ = ["VAEGAN"]


class VAEGAN(Adversarial, VAE):
    """A conditional variational autoencoder with an adversarial term.

    Args:
        weight: of the adversarial term, in nats.
        latent, beta, variance, prior: see `VAE`.
        noise: whether draws have the decoder's noise, as the ELBO takes them to have. The critic takes noise that is
            too wide for a mistake, which leaves the means to match the answers: they need none.
        objective, penalty, rate, critic_rate, beta1, beta2: see `GAN`.
    """

    name: ClassVar[str] = "vae_gan"
    batch_share: ClassVar[float] = 0.25
    abilities: ClassVar[Abilities] = Abilities(own_network=False, networks=("mlp", "transformer"))

    def __init__(
        self,
        *,
        weight: float = 1.0,
        latent: int = 4,
        beta: float = 1.0,
        variance: str = "value",
        prior: str = "standard",
        noise: bool = False,
        objective: str = "relativistic",
        penalty: float = 0.1,
        rate: float = 1.0,
        critic_rate: float = 1.0,
        beta1: float = 0.0,
        beta2: float = 0.99,
    ) -> None:
        VAE.__init__(self, latent=latent, beta=beta, variance=variance, prior=prior, noise=noise)
        self._play(objective, penalty, rate, critic_rate, beta1, beta2)
        self.weight = check_number("weight", weight, 0.0)

    def assemble(self, y_space: ArraySpace, x_space: Space, sizes: Sizes) -> None:
        """Make the autoencoder and the `critic`."""
        super().assemble(y_space, x_space, sizes)
        self.critic = Critic(y_space, x_space, sizes)

    def loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return -ELBO and the weighted adversarial term of each row, (batch,)."""
        bound = VAE.loss(self, y, x, generator=generator)
        return bound + self.weight * self.generator_loss(y, x, generator=generator)

    def judge(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return -ELBO of each row in nats, (batch,), by which held-out rows are judged."""
        return VAE.loss(self, y, x, generator=generator)
