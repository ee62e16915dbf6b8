"""Networks know shapes and nothing of objectives: `network(y_t, t, x_embedding) -> (batch, *event)`.

`default_for` is the only place that chooses one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from everymode.errors import check_number
from everymode.networks.embeddings import TimeEmbedding
from everymode.networks.encoders import encoder_for
from everymode.networks.mlp import ResidualMLP
from everymode.networks.transformer import Transformer
from everymode.spaces import ArraySpace, ImageSpace, SequenceSpace, Space

__all__ = [
    "NetworkFactory",
    "ResidualMLP",
    "TimeEmbedding",
    "Transformer",
    "check_size",
    "default_for",
    "encoder_for",
]

NetworkFactory = Callable[[Sequence[int], int], nn.Module]
"""A user's own network: (event shape, width of the embedding of x) -> module(y_t, t, x_embedding)."""


def check_size(width: int | None, depth: int | None) -> None:
    """Raise `SettingError` unless width and depth are None or in range."""
    check_number("width", width, 4, 16384, integer=True, optional=True)
    check_number("depth", depth, 1, 256, integer=True, optional=True)


def default_for(
    y_space: ArraySpace, x_space: Space, *, width: int | None = None, depth: int | None = None
) -> tuple[nn.Module, nn.Module]:
    """Return (network, encoder) that suit the two spaces.

    Args:
        y_space: vectors get a residual MLP, sequences and images a transformer.
        x_space: any space; see `encoder_for`.
        width: hidden width; 128 if None.
        depth: number of blocks; 3 for vectors and 4 for the others if None.

    Raises:
        SettingError: width or depth is out of range.
    """
    check_size(width, depth)
    tokens = isinstance(y_space, (SequenceSpace, ImageSpace))
    width = 128 if width is None else width
    depth = (4 if tokens else 3) if depth is None else depth
    encoder = encoder_for(x_space, width)
    if tokens:
        heads = max(h for h in (1, 2, 4, 8) if (width % h == 0 and width // h >= 16) or h == 1)
        return Transformer(y_space.shape, width, width=width, depth=depth, heads=heads), encoder
    return ResidualMLP(y_space.shape, width, width=width, depth=depth), encoder
