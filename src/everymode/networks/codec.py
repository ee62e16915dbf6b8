"""Encoders and decoders of y, given x: y to a row of numbers, and back.

A variational autoencoder and a vector-quantised one use both; a generator is a decoder of noise; a critic and an energy
are encoders with one number out. All are smooth enough for second derivatives, which gradient penalties need.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from everymode.networks.mlp import ResidualMLP, small_init, waves_for

__all__ = ["ConvDecoder", "ConvEncoder", "MLPDecoder", "MLPEncoder"]


class MLPEncoder(nn.Module):
    """`encoder(y, x_embedding) -> (batch, out)` for events of any shape, flattened."""

    def __init__(self, shape: Sequence[int], out: int, embedding: int, *, width: int, depth: int) -> None:
        super().__init__()
        self.trunk = ResidualMLP(
            shape, embedding, width=width, depth=depth, out=(out,), timed=False, waves=waves_for(shape)
        )

    def forward(self, y: Tensor, x_embedding: Tensor) -> Tensor:
        """Return (batch, out) for y (batch, *event) and x_embedding (batch, embedding)."""
        return self.trunk(y, None, x_embedding)


class MLPDecoder(nn.Module):
    """`decoder(z, x_embedding) -> (batch, *event)` for z (batch, size)."""

    def __init__(self, size: int, shape: Sequence[int], embedding: int, *, width: int, depth: int) -> None:
        super().__init__()
        self.trunk = ResidualMLP((size,), embedding, width=width, depth=depth, out=shape, timed=False)

    def forward(self, z: Tensor, x_embedding: Tensor) -> Tensor:
        """Return (batch, *event) for z (batch, size) and x_embedding (batch, embedding)."""
        return self.trunk(z, None, x_embedding)


class _ConvBlock(nn.Module):
    """A residual convolution with group norm, scaled and shifted by the condition."""

    def __init__(self, channels: int, width: int, flat: bool) -> None:
        super().__init__()
        conv = nn.Conv1d if flat else nn.Conv2d
        self.norm = nn.GroupNorm(math.gcd(8, channels), channels)
        self.modulation = small_init(nn.Linear(width, 2 * channels))
        self.first = conv(channels, channels, 3, padding=1)
        self.second = conv(channels, channels, 3, padding=1)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        """Return (batch, channels, *places) for h of that shape and c (batch, width)."""
        shift, scale = self.modulation(c).reshape(len(c), -1, *(1,) * (h.ndim - 2)).chunk(2, dim=1)
        hidden = self.first(functional.silu(torch.addcmul(shift, self.norm(h), 1 + scale)))
        return h + self.second(functional.silu(hidden))


class _Conv(nn.Module):
    """What the convolutional encoder and decoder share: the sizes and channels of their levels.

    A sequence (horizon, d) is convolved along its horizon, an image (channels, height, width) along both sides. Each
    level halves the sides and doubles the channels, until no side is above 4 or there are four levels.
    """

    def __init__(self, shape: Sequence[int], embedding: int, width: int, depth: int) -> None:
        super().__init__()
        self.shape, self.flat = tuple(shape), len(shape) == 2
        places = self.shape[:1] if self.flat else self.shape[1:]
        self.values = self.shape[1] if self.flat else self.shape[0]
        self.places = [places]
        while max(self.places[-1]) > 4 and len(self.places) < 4:
            self.places.append(tuple((side + 1) // 2 for side in self.places[-1]))
        self.channels = [max(8, min(width, width * 2**level // 2)) for level in range(len(self.places))]
        self.last = self.channels[-1] * math.prod(self.places[-1])
        self.condition = nn.Linear(embedding, width)
        per_level = max(1, depth // len(self.places))
        self.levels = nn.ModuleList(
            nn.ModuleList(_ConvBlock(channels, width, self.flat) for _ in range(per_level))
            for channels in self.channels
        )

    def conv(self, into: int, out: int, kernel: int = 3, stride: int = 1) -> nn.Module:
        """Return a convolution along the sides of the event."""
        return (nn.Conv1d if self.flat else nn.Conv2d)(into, out, kernel, stride=stride, padding=kernel // 2)


class ConvEncoder(_Conv):
    """`encoder(y, x_embedding) -> (batch, out)` for sequences and images."""

    def __init__(self, shape: Sequence[int], out: int, embedding: int, *, width: int, depth: int) -> None:
        super().__init__(shape, embedding, width, depth)
        self.enter = self.conv(self.values, self.channels[0])
        self.down = nn.ModuleList(self.conv(a, b, stride=2) for a, b in pairwise(self.channels))
        self.leave = nn.Linear(self.last, out)

    def forward(self, y: Tensor, x_embedding: Tensor) -> Tensor:
        """Return (batch, out) for y (batch, *event) and x_embedding (batch, embedding)."""
        c = functional.silu(self.condition(x_embedding))
        h = self.enter(y.transpose(1, 2) if self.flat else y)
        for level, blocks in enumerate(self.levels):
            h = self.down[level - 1](h) if level else h
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, c)
        return self.leave(functional.silu(h).flatten(1))


class ConvDecoder(_Conv):
    """`decoder(z, x_embedding) -> (batch, *event)` for z (batch, size), for sequences and images."""

    def __init__(self, size: int, shape: Sequence[int], embedding: int, *, width: int, depth: int) -> None:
        super().__init__(shape, embedding, width, depth)
        self.enter = nn.Linear(size, self.last)
        self.up = nn.ModuleList(self.conv(b, a) for a, b in pairwise(self.channels))
        self.leave = self.conv(self.channels[0], self.values)

    def forward(self, z: Tensor, x_embedding: Tensor) -> Tensor:
        """Return (batch, *event) for z (batch, size) and x_embedding (batch, embedding)."""
        c = functional.silu(self.condition(x_embedding))
        h = self.enter(z).unflatten(1, (self.channels[-1], *self.places[-1]))
        for level in reversed(range(len(self.places))):
            for block in self.levels[level]:  # type: ignore[attr-defined]
                h = block(h, c)
            if level:
                h = self.up[level - 1](functional.interpolate(h, size=self.places[level - 1], mode="nearest"))
        y = self.leave(functional.silu(h))
        return y.transpose(1, 2) if self.flat else y
