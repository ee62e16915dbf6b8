"""Action tokens beside observation tokens: attention over both, the tokens of x as they are.

Where a `Transformer` knows x by one vector, here each observation keeps a token of its own (see `TokenEncoder`), and
every action looks at each of them. It is the action expert of a flow-matching vision-language-action model in small:
put the tokens of a language model in the place of the observations'.

References:
    Learning fine-grained bimanual manipulation with low-cost hardware (Zhao et al., 2023),
        https://arxiv.org/abs/2304.13705: ACT, whose encoder and decoder are the two others
    pi_0: a vision-language-action flow model for general robot control (Black et al., 2024),
        https://arxiv.org/abs/2410.24164
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from everymode.networks.embeddings import TimeEmbedding
from everymode.networks.mlp import modulate, small_init
from everymode.networks.observations import pooled
from everymode.networks.transformer import Block

__all__ = ["ActionDecoder", "ActionEncoder", "ActionTransformer"]


class _Joint(nn.Module):
    """Blocks over the tokens of x and tokens of one's own.

    Args:
        own: number of tokens of one's own.
        embedding: width of the tokens of x.
        width: width of a token.
        depth: number of blocks.
        heads: attention heads.
    """

    def __init__(self, own: int, embedding: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.width, self.depth = width, depth
        self.given = nn.Linear(embedding, width)
        self.condition = nn.Linear(embedding, width)
        self.position = nn.Parameter(0.02 * torch.randn(own, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.modulation = small_init(nn.Linear(width, 2 * width))

    def mixed(self, h: Tensor, tokens: Tensor, time: Tensor | None = None) -> Tensor:
        """Return one's own tokens (batch, own, width) after the blocks, for h of that shape.

        `tokens` are those of x, (batch, tokens, embedding), or one, (batch, embedding).
        """
        tokens = tokens[:, None] if tokens.ndim == 2 else tokens
        c = self.condition(pooled(tokens))
        c = functional.silu(c if time is None else c + time)[:, None]  # (batch, 1, width)
        own = h + self.position + c
        h = torch.cat([self.given(tokens), own], dim=1)
        for block in self.blocks:
            h = block(h, c)
        shift, scale = self.modulation(c).chunk(2, dim=-1)
        return modulate(h[:, -own.shape[1] :], shift, scale)


class ActionTransformer(_Joint):
    """`network(y_t, t, tokens)` for sequences (horizon, d) and tokens of x (batch, tokens, embedding).

    Args:
        shape: the event's shape.
        embedding: width of the tokens of x.
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
        horizon, size = shape
        super().__init__(horizon, embedding, width, depth, heads)
        self.copies = copies
        self.time = TimeEmbedding(width)
        self.enter = nn.Linear(size, width)
        self.leave = small_init(nn.Linear(width, size * (copies or 1)))

    def forward(self, y_t: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """Return (batch, horizon, d); with `copies`, (batch, copies, horizon, d)."""
        answers = self.leave(self.mixed(self.enter(y_t), tokens, self.time(t)))
        if self.copies is None:
            return answers
        return answers.unflatten(-1, (self.copies, -1)).movedim(2, 1)


class ActionEncoder(_Joint):
    """`encoder(y, tokens) -> (batch, out)`: what one token more has gathered from actions and observations."""

    def __init__(self, shape: Sequence[int], out: int, embedding: int, *, width: int, depth: int, heads: int) -> None:
        horizon, size = shape
        super().__init__(horizon + 1, embedding, width, depth, heads)
        self.enter = nn.Linear(size, width)
        self.leave = nn.Linear(width, out)

    def forward(self, y: Tensor, tokens: Tensor) -> Tensor:
        """Return (batch, out) for y (batch, horizon, d)."""
        h = functional.pad(self.enter(y), (0, 0, 0, 1))  # the last token is the one more
        return self.leave(self.mixed(h, tokens)[:, -1])


class ActionDecoder(_Joint):
    """`decoder(z, tokens) -> (batch, horizon, d)` for z (batch, size): z is one token more, ahead of the actions."""

    def __init__(self, size: int, shape: Sequence[int], embedding: int, *, width: int, depth: int, heads: int) -> None:
        horizon, values = shape
        super().__init__(horizon + 1, embedding, width, depth, heads)
        self.enter = nn.Linear(size, width)
        self.leave = nn.Linear(width, values)

    def forward(self, z: Tensor, tokens: Tensor) -> Tensor:
        """Return (batch, horizon, d)."""
        h = functional.pad(self.enter(z)[:, None], (0, 0, 0, len(self.position) - 1))
        return self.leave(self.mixed(h, tokens)[:, 1:])
