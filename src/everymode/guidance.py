"""Guidance: to lean more on x than the data do, at the price of fewer answers.

Classifier-free guidance asks one network twice, with x and with x hidden, and goes on from the second answer through
the first: f(nothing) + weight (f(x) - f(nothing)). At weight 1 that is f(x). Above it draws crowd where x is most
decisive; what they leave is lost, so coverage falls as agreement rises.

References:
    Classifier-free diffusion guidance (Ho and Salimans, 2022), https://arxiv.org/abs/2207.12598
    Guided flows for generative modeling and decision making (Zheng et al., 2023), https://arxiv.org/abs/2311.13443
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["classifier_free", "hide"]


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
    """Return the embedding (batch, width) with `nothing` in the rows where u (batch,) is below `share`."""
    return torch.where((u < share)[:, None], nothing.to(embedding), embedding)
