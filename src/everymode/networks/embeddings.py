"""Embeddings of time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["TimeEmbedding"]


class TimeEmbedding(nn.Module):
    """Sines and cosines of a time in [0, 1], then two linear layers.

    The frequencies are few and low, spread geometrically up to `fastest`: one-step training takes derivatives in
    time, and a derivative through fast features is noise.

    Args:
        width: size of the embedding.
        features: number of frequencies.
        fastest: the highest frequency, in radians per unit of time.
        hidden: width between the two layers; that of the embedding if None.
    """

    frequencies: Tensor

    def __init__(self, width: int, *, features: int = 8, fastest: float = 8.0, hidden: int | None = None) -> None:
        super().__init__()
        slowest = 0.5
        steps = torch.arange(features) / max(1, features - 1)
        frequencies = slowest * torch.exp(steps * math.log(fastest / slowest))
        self.register_buffer("frequencies", frequencies, persistent=False)
        hidden = width if hidden is None else hidden
        self.layers = nn.Sequential(nn.Linear(2 * features, hidden), nn.SiLU(), nn.Linear(hidden, width))

    def forward(self, t: Tensor) -> Tensor:
        """Return (batch, width) for times (batch,); one time expanded over the batch is embedded once, (1, width)."""
        if t.stride(0) == 0:
            t = t[:1]
        angles = t[:, None] * self.frequencies  # (batch, features)
        return self.layers(torch.cat([angles.sin(), angles.cos()], dim=1))
