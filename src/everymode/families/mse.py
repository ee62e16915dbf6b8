"""Direct regression by squared error: the answer that averages.

The minimiser of E |f(x) - y|^2 is f(x) = E[y | x]. Where one x has several valid y, that average is often none of them.
The network is the one that a flow gets, with a constant in the place of the noisy target and of the time, so that the
two can be compared at an equal number of parameters (as in Much Ado About Noising, Pan et al., 2025,
https://arxiv.org/abs/2512.01809).

Fails: whenever the mean is not an answer. Best: whenever there is one answer and its mean is wanted.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from everymode.families.base import Abilities, Family, mean_over_event
from everymode.randomness import Source
from everymode.spaces import Condition

__all__ = ["MSE"]


class MSE(Family):
    """Regression by squared error; every draw for one x is the same."""

    name: ClassVar[str] = "mse"
    abilities: ClassVar[Abilities] = Abilities(several=False, modes=False)

    def __init__(self) -> None:
        super().__init__()

    def loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return the squared error of each row, averaged over the event, (batch,)."""
        return mean_over_event((self.draw(self.encode(x)) - y).square())

    def draw(self, embedding: Any, *, generator: Source = None) -> Tensor:
        """Return the estimate of E[y | x], (batch, *event)."""
        rows, like = self._rows(embedding)
        # ones, not zeros: every weight of the network then takes part
        return self.network(like.new_ones(rows, *self.event), like.new_ones(rows), embedding)
