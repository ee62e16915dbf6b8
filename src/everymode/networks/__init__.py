"""Networks know shapes and nothing of objectives: `network(y_t, t, x_embedding) -> (batch, *event)`.

The functions ending in `_for` here are the only place that chooses one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from everymode.errors import SettingError, check_choice, check_number
from everymode.networks.causal import CausalTransformer
from everymode.networks.codec import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from everymode.networks.embeddings import TimeEmbedding
from everymode.networks.encoders import encoder_for
from everymode.networks.mlp import ResidualMLP, waves_for
from everymode.networks.transformer import Transformer
from everymode.spaces import ArraySpace, Space

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
    "names",
    "network_name",
    "sizes_for",
]

NetworkFactory = Callable[[Sequence[int], int], nn.Module]
"""A user's own network: (event shape, width of the embedding of x) -> module(y_t, t, x_embedding)."""

_KINDS: dict[str, tuple[str, ...]] = {
    "mlp": ("vector", "sequence", "image"),
    "transformer": ("sequence", "image"),
}
"""The networks that have a name, and the kinds of y that each is for."""
_USUAL_DEPTH = {"mlp": 3, "transformer": 4}


@dataclass(frozen=True)
class Sizes:
    """How large a model's networks are, and of what kind.

    Attributes:
        width: hidden width, and the size of the embedding of x.
        depth: number of blocks.
        network: the name of a network, or what makes the user's own; None for the usual one.
    """

    width: int
    depth: int
    network: str | NetworkFactory | None = None

    def name_for(self, y_space: ArraySpace) -> str:
        """Return the name of the network for a space of y."""
        return network_name(self.network, y_space.kind)


def names() -> list[str]:
    """Return the names of all networks."""
    return list(_KINDS)


def network_name(network: str | NetworkFactory | None, kind: str) -> str:
    """Return the name of the network for a kind of y: where none is given a residual MLP for vectors, else a
    transformer.
    """
    if isinstance(network, str):
        return network
    return "mlp" if kind == "vector" else "transformer"


def check_size(width: int | None, depth: int | None) -> None:
    """Raise `SettingError` unless width and depth are None or in range."""
    check_number("width", width, 4, 16384, integer=True, optional=True)
    check_number("depth", depth, 1, 256, integer=True, optional=True)


def heads_for(width: int) -> int:
    """Return the number of attention heads that suits a width: at least 16 numbers a head, where that divides."""
    return max(h for h in (1, 2, 4, 8) if (width % h == 0 and width // h >= 16) or h == 1)


def sizes_for(
    y_space: ArraySpace, width: int | None, depth: int | None, network: str | NetworkFactory | None = None
) -> Sizes:
    """Return the sizes, with what suits the space of y in the place of None.

    Raises:
        SettingError: width or depth is out of range, no network has this name, or it is not for this kind of y.
    """
    check_size(width, depth)
    sizes = Sizes(128 if width is None else width, 1, network)
    name = sizes.name_for(y_space)
    if y_space.kind not in _KINDS[check_choice("network", name, _KINDS)]:
        able = ", ".join(other for other, kinds in _KINDS.items() if y_space.kind in kinds)
        raise SettingError(f"network={name!r} is not for a {y_space.kind}; these are: {able}.")
    return replace(sizes, depth=_USUAL_DEPTH[name] if depth is None else depth)


def default_for(
    y_space: ArraySpace, x_space: Space, sizes: Sizes, *, copies: int | None = None
) -> tuple[nn.Module, nn.Module]:
    """Return (network, encoder) for the two spaces.

    Args:
        y_space: vectors get a residual MLP, sequences and images a transformer, unless `sizes` names a network.
        x_space: any space; see `encoder_for`.
        sizes: of both.
        copies: the network answers (batch, copies, *event); (batch, *event) if None.
    """
    width, depth, shape = sizes.width, sizes.depth, y_space.shape
    encoder = encoder_for(x_space, width)
    if callable(sizes.network):
        return sizes.network(shape, width), encoder
    if sizes.name_for(y_space) == "transformer":
        return Transformer(shape, width, width=width, depth=depth, heads=heads_for(width), copies=copies), encoder
    out = shape if copies is None else (copies, *shape)
    return ResidualMLP(shape, width, width=width, depth=depth, out=out, waves=waves_for(shape)), encoder


def causal_for(tokens: int, sizes: Sizes) -> CausalTransformer:
    """Return a causal transformer over so many tokens."""
    return CausalTransformer(tokens, sizes.width, width=sizes.width, depth=sizes.depth, heads=heads_for(sizes.width))


def coder_for(y_space: ArraySpace, out: int, sizes: Sizes) -> nn.Module:
    """Return `coder(y, x_embedding) -> (batch, out)`: an MLP where that is the network, else convolutions."""
    kind = MLPEncoder if sizes.name_for(y_space) == "mlp" else ConvEncoder
    return kind(y_space.shape, out, sizes.width, width=sizes.width, depth=sizes.depth)


def decoder_for(y_space: ArraySpace, size: int, sizes: Sizes) -> nn.Module:
    """Return `decoder(z (batch, size), x_embedding) -> (batch, *event)`, the counterpart of `coder_for`."""
    kind = MLPDecoder if sizes.name_for(y_space) == "mlp" else ConvDecoder
    return kind(size, y_space.shape, sizes.width, width=sizes.width, depth=sizes.depth)
