"""What steers a draw along a flow: parts of y that are known, a temperature, and guides.

Every sampler is given the data that a model tells from a noisy state, D(y_t) = E[y | y_t, x]. So all that steers a draw
is a change of D, and works with every solver and on every path y_t = alpha y + sigma noise. With J = dD/dy_t, which
needs one backward pass a product, sigma^2 / alpha J is the covariance of y given y_t (Tweedie's formula of the second
order), and the score of anything that is told of y becomes

    D + sigma^2 / alpha J' grad log p(told | y).

References:
    Diffusion models beat GANs on image synthesis (Dhariwal and Nichol, 2021), https://arxiv.org/abs/2105.05233
    Diffusion posterior sampling for general noisy inverse problems (Chung et al., 2023),
        https://arxiv.org/abs/2209.14687: the gradient is taken at D, through the network
    Training-free linear image inverses via flows (Pokle et al., 2024), https://arxiv.org/abs/2310.04432
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from everymode.guidance import away_from, toward
from everymode.inpainting import Known, corrected, follow
from everymode.paths import Path
from everymode.randomness import Source
from everymode.solvers import Sampler, Tableau
from everymode.temperature import tempered

__all__ = ["Control", "steered"]

Predictor = Callable[[Tensor, Tensor], Tensor]
Correction = Callable[[Tensor, Callable[[Tensor], Tensor], Tensor, Tensor], Tensor]
"""(data, v -> J' v, alpha, sigma) -> data, better told."""

_FAINTEST = 0.05  # alpha / sigma


@dataclass(frozen=True)
class Control:
    """What steers the draws of one batch.

    Attributes:
        known: values of y that are known, one row a draw.
        guidance: weight of classifier-free guidance, in place of the family's own.
        weaker: the data as a weaker model tells them, and the weight of autoguidance.
        told: the logarithm of p(told | y) as a function of standardised y, and the weight of classifier guidance.
        temperature: draws are from p(y | x)^(1 / temperature); see `everymode.temperature`.
    """

    known: Known | None = None
    temperature: float = 1.0
    guidance: float | None = None
    weaker: tuple[Predictor, float] | None = None
    told: tuple[Callable[[Tensor], Tensor], float] | None = None

    def draw(
        self,
        predict: Predictor,
        start: Tensor,
        times: Tensor,
        path: Path,
        method: Tableau | Sampler,
        generator: Source,
    ) -> Tensor:
        """Return the draws, (batch, *event), that start as the noise `start`.

        Args:
            predict: D, (y_t (batch, *event), t scalar tensor) -> (batch, *event), differentiable.
            start: the state at times[0], (batch, *event).
            times: (steps + 1,), rising to 1.
            path: alpha and sigma.
            method: the solver.
            generator: where fresh noise comes from.
        """
        if self.weaker is not None:
            predict = away_from(self.weaker[0], predict, self.weaker[1])
        if self.temperature != 1:
            predict = tempered(predict, path, self.temperature)
        corrections: list[Correction] = [] if self.told is None else [toward(*self.told)]
        if self.known is not None and self.known.method == "posterior":
            corrections.append(corrected(self.known))
        predict = steered(predict, path, corrections) if corrections else predict
        return follow(predict, start, times, path, method, generator, self.known)


def steered(predict: Predictor, path: Path, corrections: Sequence[Correction]) -> Predictor:
    """Return `predict` with corrections, one after another; each may ask for products with its Jacobian.

    A state that is nearly all noise (alpha / sigma below .05) is looked at as if it were of the time when that is .05:
    the data are told as well, and the Jacobian is not yet too small to be divided by alpha.
    """
    first = path.time_at(torch.tensor([math.log(_FAINTEST)], dtype=torch.float64))[0]

    def better(y_t: Tensor, t: Tensor) -> Tensor:
        t = torch.maximum(t, first.to(t))
        with torch.enable_grad():
            y_t = y_t.detach().requires_grad_()
            told = predict(y_t, t)

        def pull(v: Tensor) -> Tensor:
            return torch.autograd.grad(told, y_t, v, retain_graph=True)[0]

        alpha, sigma = path.alpha(t), path.sigma(t)
        data = told.detach()
        for correction in corrections:
            data = correction(data, pull, alpha, sigma)
        return data

    return better
