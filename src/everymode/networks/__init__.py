"""Networks know shapes and nothing of objectives: `network(y_t, t, x_embedding) -> (batch, *event)`.

The functions ending in `_for` here are the only place that chooses one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from everymode.errors import SettingError, check_choice, check_number
from everymode.networks.action_transformer import ActionDecoder, ActionEncoder, ActionTransformer
from everymode.networks.causal import CausalTransformer
from everymode.networks.codec import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from everymode.networks.embeddings import TimeEmbedding
from everymode.networks.encoders import encoder_for
from everymode.networks.mlp import ResidualMLP, waves_for
from everymode.networks.observations import RecurrentEncoder, TokenEncoder, pooled
from everymode.networks.transformer import Transformer
from everymode.networks.unet1d import UNet1d
from everymode.spaces import ArraySpace, Space

__all__ = [
    "ActionTransformer",
    "CausalTransformer",
    "NetworkFactory",
    "ResidualMLP",
    "Sizes",
    "TimeEmbedding",
    "Transformer",
    "UNet1d",
    "causal_for",
    "check_size",
    "coder_for",
    "decoder_for",
    "default_for",
    "embedder_for",
    "encoder_for",
    "names",
    "network_name",
    "pooled",
    "sizes_for",
]

NetworkFactory = Callable[[Sequence[int], int], nn.Module]
"""A user's own network: (event shape, width of the embedding of x) -> module(y_t, t, x_embedding)."""

_KINDS: dict[str, tuple[str, ...]] = {
    "mlp": ("vector", "sequence", "image"),
    "transformer": ("sequence", "image"),
    "unet": ("sequence",),
    "action_transformer": ("sequence",),
    "lstm": ("vector", "sequence", "image"),
}
"""The networks that have a name, and the kinds of y that each is for: a residual MLP; a transformer over the steps of
y or its patches; a temporal U-Net; a transformer over the steps of y and of x; and a residual MLP that knows x by an
LSTM over its steps."""
_USUAL_DEPTH = {"transformer": 4, "action_transformer": 4}  # else 3


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
    return replace(sizes, depth=_USUAL_DEPTH.get(name, 3) if depth is None else depth)


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
    encoder = embedder_for(y_space, x_space, sizes)
    if callable(sizes.network):
        return sizes.network(shape, width), encoder
    name = sizes.name_for(y_space)
    if name in ("transformer", "action_transformer"):
        kind = Transformer if name == "transformer" else ActionTransformer
        return kind(shape, width, width=width, depth=depth, heads=heads_for(width), copies=copies), encoder
    if name == "unet":
        return UNet1d(shape, width, channels=[width * 2**level for level in range(depth)], copies=copies), encoder
    out = shape if copies is None else (copies, *shape)
    return ResidualMLP(shape, width, width=width, depth=depth, out=out, waves=waves_for(shape)), encoder


def embedder_for(y_space: ArraySpace, x_space: Space, sizes: Sizes) -> nn.Module:
    """Return the encoder of x that the network of these sizes asks for.

    Its embedding is (batch, width); for 'action_transformer' it is (batch, tokens, width), a token for each step of
    each part of x.
    """
    kinds = {"action_transformer": TokenEncoder, "lstm": RecurrentEncoder}
    kind = kinds.get(sizes.name_for(y_space))
    return encoder_for(x_space, sizes.width) if kind is None else kind(x_space, sizes.width)


def causal_for(tokens: int, sizes: Sizes) -> CausalTransformer:
    """Return a causal transformer over so many tokens."""
    return CausalTransformer(tokens, sizes.width, width=sizes.width, depth=sizes.depth, heads=heads_for(sizes.width))


def coder_for(y_space: ArraySpace, out: int, sizes: Sizes) -> nn.Module:
    """Return `coder(y, x_embedding) -> (batch, out)` that goes with the network.

    An MLP with 'mlp' and 'lstm', a transformer with 'action_transformer', and else convolutions.
    """
    name, size = sizes.name_for(y_space), {"width": sizes.width, "depth": sizes.depth}
    if name == "action_transformer":
        return ActionEncoder(y_space.shape, out, sizes.width, heads=heads_for(sizes.width), **size)
    kind = MLPEncoder if name in ("mlp", "lstm") else ConvEncoder
    return kind(y_space.shape, out, sizes.width, **size)


def decoder_for(y_space: ArraySpace, latent: int, sizes: Sizes) -> nn.Module:
    """Return `decoder(z (batch, latent), x_embedding) -> (batch, *event)`, the counterpart of `coder_for`."""
    name, size = sizes.name_for(y_space), {"width": sizes.width, "depth": sizes.depth}
    if name == "action_transformer":
        return ActionDecoder(latent, y_space.shape, sizes.width, heads=heads_for(sizes.width), **size)
    kind = MLPDecoder if name in ("mlp", "lstm") else ConvDecoder
    return kind(latent, y_space.shape, sizes.width, **size)
