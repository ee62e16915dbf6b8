"""Encoders: from a standardised x of any kind to one embedding a row, (batch, width).

References:
    Deep sets (Zaheer et al., 2017), https://arxiv.org/abs/1703.06114: points in no order, each by itself, averaged
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from everymode.errors import SettingError
from everymode.networks.resnet import PixelEncoder
from everymode.spaces import (
    ArraySpace,
    DictSpace,
    ImageSpace,
    LabelSpace,
    PixelSpace,
    SetSpace,
    Space,
    TableSpace,
)

__all__ = [
    "CategoricalEncoder",
    "DictEncoder",
    "ImageEncoder",
    "LabelEncoder",
    "SetEncoder",
    "TableEncoder",
    "VectorEncoder",
    "encoder_for",
]

_LEAST = 1e-5  # spread of a set, in standard deviations of all points: float32 leaves about as much of equal ones


class VectorEncoder(nn.Module):
    """Two linear layers on the flattened x: vectors (batch, d) and short sequences (batch, horizon, d)."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        # a column of ones keeps the layer whole where x has no columns at all
        self.layers = nn.Sequential(nn.Linear(size + 1, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, width)."""
        return self.layers(torch.cat([x.flatten(1), x.new_ones(len(x), 1)], dim=1))


class SetEncoder(nn.Module):
    """Points in no order, (batch, points, d): where they are, how wide they lie, and what they look like among them.

    What many points tell of is often their place and their spread, over orders of magnitude, which a network is slow to
    find in the points themselves. So each value's mean and the logarithm of its standard deviation stand beside the
    average of a small network of the points, standardised by the two. The order of the points changes nothing; where
    they are and how wide changes nothing in that average.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.point = nn.Sequential(nn.Linear(size, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.layers = nn.Sequential(nn.Linear(width + 2 * size, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, width)."""
        mean = x.mean(dim=1, keepdim=True)
        spread = ((x - mean).square().mean(dim=1, keepdim=True) + _LEAST**2).sqrt()
        looks = self.point((x - mean) / spread).mean(dim=1)
        return self.layers(torch.cat([looks, mean[:, 0], spread[:, 0].log()], dim=1))


class LabelEncoder(nn.Module):
    """A learned vector a label, for codes (batch,)."""

    def __init__(self, categories: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(categories, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, width)."""
        return self.table(x)


class CategoricalEncoder(nn.Module):
    """The sum of a learned vector a column, for codes (batch, columns)."""

    offsets: Tensor

    def __init__(self, sizes: tuple[int, ...], width: int) -> None:
        super().__init__()
        starts = torch.tensor([0, *sizes[:-1]]).cumsum(0)
        self.register_buffer("offsets", starts, persistent=False)
        self.table = nn.Embedding(sum(sizes), width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, width)."""
        return self.table(x + self.offsets).sum(dim=1)


class TableEncoder(nn.Module):
    """Numbers and categories of one table: the sum of both encoders, then one more layer."""

    def __init__(self, space: TableSpace, width: int) -> None:
        super().__init__()
        self.numeric = VectorEncoder(len(space.numeric), width)
        sizes = tuple(len(c.categories or ()) for c in space.categorical)
        self.categorical = CategoricalEncoder(sizes, width) if sizes else None
        self.mix = nn.Sequential(nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        """Return (batch, width)."""
        h = self.numeric(x["numeric"])
        if self.categorical is not None:
            h = h + self.categorical(x["categorical"])
        return self.mix(h)


class ImageEncoder(nn.Module):
    """Strided convolutions with group norm down to at most 4 x 4, then one linear layer."""

    def __init__(self, shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        channels, height, breadth = shape
        layers: list[nn.Module] = []
        features = 32
        while max(height, breadth) > 4:
            layers += [
                nn.Conv2d(channels, features, 3, stride=2, padding=1),
                nn.GroupNorm(8, features),
                nn.SiLU(),
            ]
            channels, features = features, min(2 * features, 256)
            height, breadth = (height + 1) // 2, (breadth + 1) // 2
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * breadth, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, width)."""
        return self.layers(x)


class DictEncoder(nn.Module):
    """One encoder a part; their embeddings side by side, then one linear layer."""

    def __init__(self, space: DictSpace, width: int) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({key: encoder_for(part, width) for key, part in space.parts.items()})
        self.merge = nn.Linear(len(self.parts) * width, width)

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        """Return (batch, width)."""
        return self.merge(torch.cat([encoder(x[key]) for key, encoder in self.parts.items()], dim=1))


def encoder_for(space: Space, width: int) -> nn.Module:
    """Return the encoder that suits `space`, with embeddings of `width`."""
    if isinstance(space, DictSpace):
        return DictEncoder(space, width)
    if isinstance(space, TableSpace):
        return TableEncoder(space, width)
    if isinstance(space, LabelSpace):
        return LabelEncoder(len(space.categories), width)
    if isinstance(space, ImageSpace):
        return ImageEncoder(space.shape, width)
    if isinstance(space, PixelSpace):
        return PixelEncoder(space.horizon, space.shape[0], width)
    if isinstance(space, SetSpace):
        return SetEncoder(space.shape[1], width)
    if isinstance(space, ArraySpace):
        return VectorEncoder(math.prod(space.shape), width)
    raise SettingError(f"no encoder suits a space of kind {space.kind!r}; give one with encoder=.")
