"""A diffusion transformer: the plain network for sequences (a token a step) and images (a token a patch).

References:
    Scalable diffusion models with transformers (Peebles and Xie, 2023), https://arxiv.org/abs/2212.09748
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from everymode.networks.embeddings import TimeEmbedding
from everymode.networks.mlp import modulate, small_init

__all__ = ["Block", "Transformer", "patch_for"]


def patch_for(shape: Sequence[int]) -> int:
    """Return a side of the square patches that divides the image and leaves at most 256 tokens, 2 at the least."""
    _, height, width = shape
    for patch in range(2, min(height, width) + 1):
        if height % patch == 0 and width % patch == 0 and (height // patch) * (width // patch) <= 256:
            return patch
    return 1


class Block(nn.Module):
    """Self-attention and a feed-forward layer, both modulated by the condition.

    Args:
        width: width of a token.
        heads: attention heads.
        causal: whether a token sees only itself and those before it.
    """

    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.modulation = small_init(nn.Linear(width, 6 * width))
        self.attend = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, h: Tensor, c: Tensor, memory: list[Tensor] | None = None) -> Tensor:
        """Return (batch, tokens, width) for tokens h and condition c (batch, 1, width).

        `memory` holds the keys and values of the tokens before h, and is extended by those of h: it is empty at the
        first token and belongs to one block.
        """
        shift, scale, gate, shift_2, scale_2, gate_2 = self.modulation(c).chunk(6, dim=-1)
        q, k, v = self.attend(modulate(h, shift, scale)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (batch, heads, tokens, width / heads)
        if memory is not None:
            k, v = (torch.cat(pair, dim=2) for pair in zip(memory, (k, v), strict=True)) if memory else (k, v)
            memory[:] = [k, v]
        # one token at a time sees all of the memory: the causal mask is for whole rows of tokens
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal and memory is None)
        h = h + (1 + gate) * self.merge(mixed.transpose(1, 2).flatten(2))
        hidden = functional.gelu(self.widen(modulate(h, shift_2, scale_2)), approximate="tanh")
        return h + (1 + gate_2) * self.narrow(hidden)


class Transformer(nn.Module):
    """`network(y_t, t, x_embedding)` for sequences (horizon, d) and images (channels, height, width).

    Args:
        shape: the event's shape.
        embedding: width of the embedding of x.
        width: width of a token.
        depth: number of blocks.
        heads: attention heads.
        copies: how many answers in the event's shape it gives; one, without an axis of its own, if None.
    """

    def __init__(
        self,
        shape: Sequence[int],
        embedding: int,
        *,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        copies: int | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.width, self.depth, self.copies = tuple(shape), width, depth, copies
        if len(self.shape) == 3:
            channels, height, width_ = self.shape
            self.patch = patch_for(self.shape)
            tokens, size = (height // self.patch) * (width_ // self.patch), channels * self.patch**2
        else:
            (tokens, size), self.patch = self.shape, 0
        self.time = TimeEmbedding(width)
        self.condition = nn.Linear(embedding, width)
        self.enter = nn.Linear(size, width)
        self.position = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.modulation = small_init(nn.Linear(width, 2 * width))
        self.leave = small_init(nn.Linear(width, size * (copies or 1)))

    def _to_tokens(self, y: Tensor) -> Tensor:
        if not self.patch:
            return y
        channels, height, width = self.shape
        p = self.patch
        y = y.reshape(-1, channels, height // p, p, width // p, p)
        return y.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (batch, tokens, channels * p * p)

    def _from_tokens(self, h: Tensor) -> Tensor:
        if not self.patch:
            return h
        channels, height, width = self.shape
        p = self.patch
        h = h.reshape(-1, height // p, width // p, channels, p, p)
        return h.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, height, width)

    def forward(self, y_t: Tensor, t: Tensor, x_embedding: Tensor) -> Tensor:
        """Return (batch, *event) for y_t (batch, *event), t (batch,) and x_embedding (batch, embedding).

        With `copies`, (batch, copies, *event).
        """
        c = functional.silu(self.time(t) + self.condition(x_embedding))[:, None]  # (batch, 1, width)
        h = self.enter(self._to_tokens(y_t)) + self.position + c
        for block in self.blocks:
            h = block(h, c)
        shift, scale = self.modulation(c).chunk(2, dim=-1)
        answers = self.leave(modulate(h, shift, scale))
        if self.copies is None:
            return self._from_tokens(answers)
        answers = answers.unflatten(-1, (self.copies, -1)).movedim(2, 1)  # (batch, copies, tokens, size)
        return self._from_tokens(answers.flatten(0, 1)).unflatten(0, (-1, self.copies))
