"""Minimal iterative policy: regress y, then clean up a slightly noisy y, and do nothing else.

One network f(y_t, t, x) is trained by squared error at two times, at 0 on nothing and at t* on a noisy target,

    loss = |f(0, 0, x) - y|^2 + |f(I, t*, x) - y|^2,    I = t* y + (1 - t*) noise,

and answers in two steps, y_0 = f(0, 0, x) and y = f(t* y_0, t*, x). The second step pulls the first answer towards
what targets look like. No distribution is fitted: that much, the authors find, is what flow policies owe their success
in behaviour cloning to, and not their several answers. Time runs as it does there, from noise to data.

What could be read of it was the abstract and the authors' code, not the paper's formulas. The code says that the paper
scales the target and the first answer by t*, as above; it leaves that out itself, and weighs the two terms by t*^-2
and (1 - t*)^-2. The default of t* is the code's.

References:
    Much ado about noising: dispelling the myths of generative robotic control (Pan et al., 2025),
        https://arxiv.org/abs/2512.01809, https://github.com/simchowitzlabpublic/much-ado-about-noising

Fails: where there are several answers, as `mse` does: the first step is their mean, and the second, which has seen such
an input only by chance, either stays there or falls to one of them.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from everymode.errors import check_number
from everymode.families.base import Abilities, Family, mean_over_event, times_like
from everymode.randomness import Source, normal
from everymode.spaces import Condition

__all__ = ["MIP"]


class MIP(Family):
    """Regression in two steps; every draw for one x is the same.

    Args:
        t_star: time of the second step: the share of the target in the noisy one.
    """

    name: ClassVar[str] = "mip"
    abilities: ClassVar[Abilities] = Abilities(several=False, modes=False)

    def __init__(self, *, t_star: float = 0.9) -> None:
        super().__init__()
        self.t_star = check_number("t_star", t_star, 0.01, 0.99)

    @property
    def nfe(self) -> int:
        """Network evaluations for one draw."""
        return 2

    def loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return the squared error of both steps of each row, averaged over the event, (batch,)."""
        noise = normal(tuple(y.shape), generator, like=y)
        noisy = self.t_star * y + (1 - self.t_star) * noise
        embedding = self.encode(x)
        first, second = self._first(embedding), self._second(noisy, embedding)
        return mean_over_event((first - y).square() + (second - y).square())

    def draw(self, embedding: Any, *, generator: Source = None) -> Tensor:
        """Return the answer of the second step to the first, (batch, *event)."""
        return self._second(self.t_star * self._first(embedding), embedding)

    def _first(self, embedding: Any) -> Tensor:
        rows, like = self._rows(embedding)
        nothing = like.new_zeros(rows, *self.event)
        return self.network(nothing, times_like(0.0, nothing), embedding)

    def _second(self, y_t: Tensor, embedding: Any) -> Tensor:
        return self.network(y_t, times_like(self.t_star, y_t), embedding)
