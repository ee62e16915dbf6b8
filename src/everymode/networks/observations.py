"""Encoders of windows of observations, step by step: as tokens, or through an LSTM.

References:
    What matters in learning from offline human demonstrations for robot manipulation (Mandlekar et al., 2021),
        https://arxiv.org/abs/2108.03298: the LSTM
    Learning fine-grained bimanual manipulation with low-cost hardware (Zhao et al., 2023),
        https://arxiv.org/abs/2304.13705: observations as tokens
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from everymode.errors import SettingError
from everymode.networks.resnet import ResNet
from everymode.spaces import ArraySpace, Condition, DictSpace, LabelSpace, PixelSpace, SequenceSpace, Space

__all__ = ["RecurrentEncoder", "TokenEncoder", "pooled"]


def pooled(embedding: Tensor) -> Tensor:
    """Return an embedding as one vector a row, (batch, width): of tokens (batch, tokens, width), their mean."""
    return embedding.mean(dim=1) if embedding.ndim == 3 else embedding


class _Numbers(nn.Module):
    """Numbers (batch, steps, ...) as (batch, steps, width)."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(size, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(2))


class _Pictures(nn.Module):
    """Pictures (batch, steps, channels, height, width) as (batch, steps, width)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.network = ResNet(channels, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _each(space: Space, width: int) -> tuple[nn.Module, int]:
    """Return what makes features of each step of a space, and the number of its steps; 0 where it has no axis of steps.

    Raises:
        SettingError: it is a table.
    """
    if isinstance(space, SequenceSpace):
        return _Numbers(space.shape[1], width), space.shape[0]
    if isinstance(space, PixelSpace):
        return _Pictures(space.shape[0], width), space.horizon
    if isinstance(space, LabelSpace):
        return nn.Embedding(len(space.categories), width), 0
    if isinstance(space, ArraySpace):
        return _Numbers(space.size, width), 0
    raise SettingError(f"a {space.kind} has no steps: give its parts by name, or take network='mlp'.")


class _Steps(nn.Module):
    """Features of every step of every part of x."""

    def __init__(self, space: Space, width: int) -> None:
        super().__init__()
        parts = space.parts if isinstance(space, DictSpace) else {"x": space}
        made = {name: _each(part, width) for name, part in parts.items()}
        self.parts = nn.ModuleDict({name: module for name, (module, _) in made.items()})
        self.counts = {name: count for name, (_, count) in made.items()}

    def features(self, x: Condition) -> list[Tensor]:
        """Return (batch, steps, width) of each part."""
        by_name = x if isinstance(x, dict) else {"x": x}
        return [
            module(by_name[name] if self.counts[name] else by_name[name][:, None])
            for name, module in self.parts.items()
        ]


class TokenEncoder(_Steps):
    """A token for every step of every part of x: (batch, tokens, width)."""

    def __init__(self, space: Space, width: int) -> None:
        super().__init__(space, width)
        self.position = nn.Parameter(0.02 * torch.randn(sum(max(1, count) for count in self.counts.values()), width))

    def forward(self, x: Condition) -> Tensor:
        """Return (batch, tokens, width)."""
        return torch.cat(self.features(x), dim=1) + self.position


class RecurrentEncoder(_Steps):
    """What an LSTM of two layers knows after the last step: (batch, width).

    What has one step alone, as a label, is there at every step.
    """

    def __init__(self, space: Space, width: int) -> None:
        super().__init__(space, width)
        self.memory = nn.LSTM(width, width, num_layers=2, batch_first=True)

    def forward(self, x: Condition) -> Tensor:
        """Return (batch, width)."""
        first, *others = self.features(x)
        with (
            warnings.catch_warnings()
        ):  # a GPU would have its weights in a tensor of their own; training has all in one
            warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous")
            return self.memory(sum(others, first))[0][:, -1]
