"""Networks know shapes and nothing of objectives: `network(y_t, t, x_embedding) -> (batch, *event)`.

The functions ending in `_for` here are the only place that chooses one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from everymode.errors import check_number
from everymode.networks.causal import CausalTransformer
from everymode.networks.codec import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from everymode.networks.embeddings import TimeEmbedding
from everymode.networks.encoders import encoder_for
from everymode.networks.mlp import ResidualMLP, waves_for
from everymode.networks.transformer import Transformer
from everymode.spaces import ArraySpace, ImageSpace, SequenceSpace, Space

__all__ = [
    "CausalTransformer",
    "NetworkFactory",
    "ResidualMLP",
    "Sizes",
    "TimeEmbedding",
    "Transformer",
    "causal_for",
    "check_size",
    "coder_for",
    "decoder_for",
    "default_for",
    "encoder_for",
    "sizes_for",
]

NetworkFactory = Callable[[Sequence[int], int], nn.Module]
"""A user's own network: (event shape, width of the embedding of x) -> module(y_t, t, x_embedding)."""


@dataclass(frozen=True)
class Sizes:
    """How large a model's networks are.

    Attributes:
        width: hidden width, and the size of the embedding of x.
        depth: number of blocks.
        network: makes the user's own network in the place of the default one.
    """

    width: int
    depth: int
    network: NetworkFactory | None = None


def check_size(width: int | None, depth: int | None) -> None:
    """Raise `SettingError` unless width and depth are None or in range."""
    check_number("width", width, 4, 16384, integer=True, optional=True)
    check_number("depth", depth, 1, 256, integer=True, optional=True)


def heads_for(width: int) -> int:
    """Return the number of attention heads that suits a width: at least 16 numbers a head, where that divides."""
    return max(h for h in (1, 2, 4, 8) if (width % h == 0 and width // h >= 16) or h == 1)


def sizes_for(
    y_space: ArraySpace, width: int | None, depth: int | None, network: NetworkFactory | None = None
) -> Sizes:
    """Return the sizes, with what suits the space of y in the place of None.

    Raises:
        SettingError: width or depth is out of range.
    """
    check_size(width, depth)
    usual = 4 if isinstance(y_space, (SequenceSpace, ImageSpace)) else 3
    return Sizes(128 if width is None else width, usual if depth is None else depth, network)


def default_for(
    y_space: ArraySpace, x_space: Space, sizes: Sizes, *, copies: int | None = None
) -> tuple[nn.Module, nn.Module]:
    """Return (network, encoder) that suit the two spaces.

    Args:
        y_space: vectors get a residual MLP, sequences and images a transformer.
        x_space: any space; see `encoder_for`.
        sizes: of both.
        copies: the network answers (batch, copies, *event); (batch, *event) if None.
    """
    width, depth = sizes.width, sizes.depth
    encoder = encoder_for(x_space, width)
    if isinstance(y_space, (SequenceSpace, ImageSpace)):
        heads = heads_for(width)
        return Transformer(y_space.shape, width, width=width, depth=depth, heads=heads, copies=copies), encoder
    out = y_space.shape if copies is None else (copies, *y_space.shape)
    return ResidualMLP(y_space.shape, width, width=width, depth=depth, out=out, waves=waves_for(y_space.shape)), encoder


def causal_for(tokens: int, sizes: Sizes) -> CausalTransformer:
    """Return a causal transformer over so many tokens."""
    return CausalTransformer(tokens, sizes.width, width=sizes.width, depth=sizes.depth, heads=heads_for(sizes.width))


def coder_for(y_space: ArraySpace, out: int, sizes: Sizes) -> nn.Module:
    """Return `coder(y, x_embedding) -> (batch, out)`: convolutions for sequences and images, else an MLP."""
    kind = ConvEncoder if isinstance(y_space, (SequenceSpace, ImageSpace)) else MLPEncoder
    return kind(y_space.shape, out, sizes.width, width=sizes.width, depth=sizes.depth)


def decoder_for(y_space: ArraySpace, size: int, sizes: Sizes) -> nn.Module:
    """Return `decoder(z (batch, size), x_embedding) -> (batch, *event)`, the counterpart of `coder_for`."""
    kind = ConvDecoder if isinstance(y_space, (SequenceSpace, ImageSpace)) else MLPDecoder
    return kind(size, y_space.shape, sizes.width, width=sizes.width, depth=sizes.depth)
