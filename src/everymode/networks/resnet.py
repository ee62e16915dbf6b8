"""A small residual network for pictures: group norm in place of batch norm, and where its features are.

Batch norm does not go with an average of the weights; a spatial softmax keeps *where* a feature is, which an average
over the picture forgets. Spatial softmax: with p the softmax of one channel over the places (u, v) in [-1, 1]^2, the
channel says E_p[u] and E_p[v].

References:
    Deep residual learning for image recognition (He et al., 2016), https://arxiv.org/abs/1512.03385
    Group normalization (Wu and He, 2018), https://arxiv.org/abs/1803.08494
    End-to-end training of deep visuomotor policies (Levine et al., 2016), https://arxiv.org/abs/1504.00702: spatial
        softmax
    Diffusion policy: visuomotor policy learning via action diffusion (Chi et al., 2023),
        https://arxiv.org/abs/2303.04137: the three together
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["PixelEncoder", "ResNet", "SpatialSoftmax"]

_GROUP = 16  # channels of a group


class SpatialSoftmax(nn.Module):
    """Where each channel of (batch, channels, height, width) is: (batch, 2 channels), all u, then all v, in [-1, 1]."""

    def forward(self, h: Tensor) -> Tensor:
        """Return the expected places."""
        height, width = h.shape[-2:]
        p = h.float().flatten(2).softmax(dim=2).unflatten(2, (height, width))
        u, v = (torch.linspace(-1, 1, side, device=h.device) for side in (width, height))
        return torch.cat([p.sum(dim=2) @ u, p.sum(dim=3) @ v], dim=1)


class _Block(nn.Module):
    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(into, out, 3, stride=stride, padding=1, bias=False)
        self.second = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(_norm(out) for _ in range(2))
        plain = into == out and stride == 1
        self.around = nn.Identity() if plain else nn.Sequential(nn.Conv2d(into, out, 1, stride=stride), _norm(out))

    def forward(self, h: Tensor) -> Tensor:
        hidden = functional.relu(self.norms[0](self.first(h)))
        return functional.relu(self.around(h) + self.norms[1](self.second(hidden)))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, math.gcd(channels, channels // _GROUP)), channels)


class ResNet(nn.Module):
    """Pictures of bytes (batch, channels, height, width) to (batch, width).

    Args:
        channels: of a picture.
        width: of the answer.
        stages: channels of each stage, of two blocks each; the first halves the sides twice, before it, and every
            further one but the last halves them again.
        points: channels whose places are told.
    """

    def __init__(self, channels: int, width: int, *, stages: Sequence[int] = (32, 64, 128), points: int = 32) -> None:
        super().__init__()
        first = stages[0]
        self.enter = nn.Sequential(
            nn.Conv2d(channels, first, 7, stride=2, padding=3), _norm(first), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)
        )
        blocks = [_Block(first, first, 1), _Block(first, first, 1)]
        for index, (a, b) in enumerate(pairwise(stages), start=2):
            blocks += [_Block(a, b, 1 if index == len(stages) else 2), _Block(b, b, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.points = nn.Conv2d(stages[-1], points, 1)
        self.places = SpatialSoftmax()
        self.leave = nn.Linear(2 * points, width)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return (batch, width)."""
        h = pictures.to(self.leave.weight.dtype) / 127.5 - 1
        places = self.places(self.points(self.blocks(self.enter(h))))
        return self.leave(places.to(self.leave.weight.dtype))


class PixelEncoder(nn.Module):
    """Windows of pictures (batch, horizon, channels, height, width) to (batch, width): one network for all of them."""

    def __init__(self, horizon: int, channels: int, width: int) -> None:
        super().__init__()
        self.each = ResNet(channels, width)
        self.merge = nn.Linear(horizon * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, width)."""
        features = self.each(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.merge(functional.silu(features.flatten(1)))
