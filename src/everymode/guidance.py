"""Guidance: to lean more on x than the data do, at the price of fewer answers.

Classifier-free guidance asks one network twice, with x and with x hidden, and goes on from the second answer through
the first: f(nothing) + weight (f(x) - f(nothing)). At weight 1 that is f(x). Above it draws crowd where x is most
decisive; what they leave is lost, so coverage falls as agreement rises.

Classifier guidance asks for y of which something else is told as well: it adds weight grad log p(told | y) to the
score, so that draws are from p(y | x) p(told | y)^weight, about. Autoguidance goes on from a weaker model's answer
through the model's own, weaker + weight (own - weaker): away from where the weaker one errs, and so from where both
do.

References:
    Diffusion models beat GANs on image synthesis (Dhariwal and Nichol, 2021), https://arxiv.org/abs/2105.05233:
        classifier guidance
    Guiding a diffusion model with a bad version of itself (Karras et al., 2024), https://arxiv.org/abs/2406.02507:
        autoguidance
    Classifier-free diffusion guidance (Ho and Salimans, 2022), https://arxiv.org/abs/2207.12598
    Guided flows for generative modeling and decision making (Zheng et al., 2023), https://arxiv.org/abs/2311.13443
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from everymode.errors import SettingError, check_number

__all__ = ["Autoguidance", "Classifier", "ClassifierFree", "away_from", "classifier_free", "hide", "toward"]


@dataclass(frozen=True)
class ClassifierFree:
    """Guidance by the model itself with x hidden, for a family that was trained with `drop`.

    Attributes:
        weight: 1 is no guidance, 0 forgets x; it takes the place of the family's own `guidance`.
    """

    weight: float = 2.0
    neutral: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        check_number("weight", self.weight, 0.0)


@dataclass(frozen=True)
class Classifier:
    """Guidance by what else is told of y.

    For a normal p(y | x) and a linear `log_prob` draws are from p(y | x) p(told | y)^weight exactly.

    Attributes:
        log_prob: log p(told | y), up to a constant: (y (batch, *event) in the units of Y, row (batch,)) -> (batch,),
            differentiable in y; `row` says which row of X each y answers. It is asked about the clean y that a noisy
            state leads to expect, and need not have been trained on noise (Chung et al., 2023: Diffusion posterior
            sampling for general noisy inverse problems).
        weight: 1 is Bayes' rule, 0 is no guidance.
    """

    log_prob: Callable[[Tensor, Tensor], Tensor]
    weight: float = 1.0
    neutral: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        check_number("weight", self.weight)


@dataclass(frozen=True)
class Autoguidance:
    """Guidance away from a weaker model.

    Attributes:
        weaker: a fitted model of the same X, Y and path: smaller, or trained for fewer steps.
        weight: 1 is no guidance.
    """

    weaker: Any
    weight: float = 2.0
    neutral: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        check_number("weight", self.weight, 0.0)


def classifier_free(
    predict: Callable[[Tensor, Any, Tensor], Tensor], embedding: Tensor, nothing: Tensor, weight: float
) -> Callable[[Tensor, Any], Tensor]:
    """Return the guided prediction, (y_t (batch, *event), t) -> (batch, *event), at one call of twice the rows.

    Args:
        predict: (y_t, t, embedding) -> a velocity, or data.
        embedding: of x, (batch, width).
        nothing: the embedding of a hidden x, (width,).
        weight: 1 is no guidance, 0 forgets x.
    """
    both = torch.cat([embedding, nothing.to(embedding).expand_as(embedding)])

    def guided(y_t: Tensor, t: Any) -> Tensor:
        known, unknown = predict(torch.cat([y_t, y_t]), t, both).chunk(2)
        return unknown + weight * (known - unknown)

    return guided


def hide(embedding: Tensor, nothing: Tensor, u: Tensor, share: float) -> Tensor:
    """Return the embedding (batch, ..., width) with `nothing` in the rows where u (batch,) is below `share`."""
    return torch.where((u < share).reshape(-1, *(1,) * (embedding.ndim - 1)), nothing.to(embedding), embedding)


def away_from(
    weaker: Callable[[Tensor, Tensor], Tensor], own: Callable[[Tensor, Tensor], Tensor], weight: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the autoguided prediction of the data, (y_t (batch, *event), t) -> (batch, *event)."""

    def guided(y_t: Tensor, t: Tensor) -> Tensor:
        less = weaker(y_t, t)
        return less + weight * (own(y_t, t) - less)

    return guided


def toward(
    log_prob: Callable[[Tensor], Tensor], weight: float
) -> Callable[[Tensor, Callable[[Tensor], Tensor], Tensor, Tensor], Tensor]:
    """Return the correction of the data by `weight` times the slope of `log_prob`; see `everymode.control.steered`.

    Raises (when it is called):
        SettingError: `log_prob` does not give one number a row that depends on y.
    """

    def correct(data: Tensor, pull: Callable[[Tensor], Tensor], alpha: Tensor, sigma: Tensor) -> Tensor:
        with torch.enable_grad():
            y = data.detach().requires_grad_()
            told = log_prob(y)
        if not isinstance(told, Tensor) or told.shape != data.shape[:1] or not told.requires_grad:
            shape = tuple(told.shape) if isinstance(told, Tensor) else type(told).__name__
            raise SettingError(
                f"Classifier: log_prob gave {shape}: it must give a tensor ({len(data)},), one number a row, computed "
                "from y by torch."
            )
        (slope,) = torch.autograd.grad(told, y, torch.ones_like(told))
        return data + weight * sigma.square() / alpha * pull(slope)

    return correct
