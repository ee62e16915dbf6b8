"""A residual multilayer perceptron with adaptive layer norm: the plain network for vectors and short sequences.

References:
    Scalable diffusion models with transformers (Peebles and Xie, 2023), https://arxiv.org/abs/2212.09748: the
        modulation of normalised activations by shift and scale (a gate a block bought nothing measurable here)
    Fourier features let networks learn high frequency functions in low dimensional domains (Tancik et al., 2020),
        https://arxiv.org/abs/2006.10739: the waves
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from everymode.networks.embeddings import TimeEmbedding
from everymode.spaces import FEW_VALUES

__all__ = ["ResidualMLP", "modulate", "small_init", "waves_for"]


def modulate(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return layer-normalised `h` (..., width), scaled and shifted by the condition."""
    if shift.numel() == h.shape[-1]:  # one condition for all rows: the norm scales and shifts in its own pass
        return functional.layer_norm(h, h.shape[-1:], (1 + scale).flatten(), shift.flatten())
    return torch.addcmul(shift, functional.layer_norm(h, h.shape[-1:]), 1 + scale)


def small_init(layer: nn.Linear, std: float = 0.02) -> nn.Linear:
    """Start a layer near zero, so that what follows it starts near the identity while gradients still pass."""
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer


def waves_for(shape: Sequence[int]) -> tuple[float, ...]:
    """Return the frequencies that suit standardised events: with few values, the modes may be sharp and many."""
    return (1.0, 2.0, 4.0, 8.0) if math.prod(shape) <= FEW_VALUES else ()


class ResidualMLP(nn.Module):
    """`network(y_t, t, x_embedding)` for events of any shape, flattened.

    Args:
        shape: the event's shape.
        embedding: width of the embedding of x.
        width: width of the hidden layers.
        depth: number of residual blocks, of two linear layers each.
        expansion: hidden width of a block, in widths.
        out: shape of one answer; the event's if None.
        timed: whether it looks at t.
        waves: frequencies of sines and cosines of each value that stand beside it, in radians per unit. A network is
            slow to learn what changes fast with its input, and sharp modes do.
    """

    waves: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        embedding: int,
        *,
        width: int = 128,
        depth: int = 3,
        expansion: int = 2,
        out: Sequence[int] | None = None,
        timed: bool = True,
        waves: Sequence[float] = (),
    ) -> None:
        super().__init__()
        self.shape, self.width, self.depth = tuple(shape), width, depth
        self.out = self.shape if out is None else tuple(out)
        size = math.prod(shape)
        self.time = TimeEmbedding(width) if timed else None
        self.condition = nn.Linear(embedding, width)
        self.register_buffer("waves", torch.tensor([float(wave) for wave in waves]), persistent=False)
        self.enter = nn.Linear(size * (1 + 2 * len(waves)), width)
        self.modulation = small_init(nn.Linear(width, (2 * depth + 2) * width))
        self.widen = nn.ModuleList(nn.Linear(width, expansion * width) for _ in range(depth))
        self.narrow = nn.ModuleList(nn.Linear(expansion * width, width) for _ in range(depth))
        self.leave = small_init(nn.Linear(width, math.prod(self.out)))

    def forward(self, y_t: Tensor, t: Tensor | None, x_embedding: Tensor) -> Tensor:
        """Return (batch, *out) for y_t (batch, *event), t (batch,) and x_embedding (batch, embedding).

        An embedding that is one row expanded, as `repeat_rows` makes it, is worked on once; so is all that modulates
        the blocks where t is one time expanded too.
        """
        c = self.condition(x_embedding[:1] if x_embedding.stride(0) == 0 else x_embedding)
        if self.time is not None and t is not None:
            c = c + self.time(t)
        c = functional.silu(c)  # (batch, width)
        h = y_t.flatten(1)
        if len(self.waves):
            angles = (h[..., None] * self.waves).flatten(1)  # (batch, size * waves)
            h = torch.cat([h, angles.sin(), angles.cos()], dim=1)
        h = self.enter(h) + c
        parts = self.modulation(c).chunk(2 * self.depth + 2, dim=1)
        for block, (widen, narrow) in enumerate(zip(self.widen, self.narrow, strict=True)):
            hidden = modulate(h, *parts[2 * block : 2 * block + 2])
            h = h + narrow(functional.silu(widen(hidden)))
        return self.leave(modulate(h, *parts[-2:])).unflatten(1, self.out)
