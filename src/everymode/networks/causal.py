"""A causal transformer: each token is answered from x and from the tokens before it.

References:
    Attention is all you need (Vaswani et al., 2017), https://arxiv.org/abs/1706.03762
    Scalable diffusion models with transformers (Peebles and Xie, 2023), https://arxiv.org/abs/2212.09748: x by
        modulation
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from everymode.networks.mlp import modulate, small_init
from everymode.networks.transformer import Block

__all__ = ["CausalTransformer"]


class CausalTransformer(nn.Module):
    """`network(inputs, x_embedding)`: hidden states from which a family reads the law of each next token.

    Args:
        tokens: how many are to be answered.
        embedding: width of the embedding of x.
        width: width of a token.
        depth: number of blocks.
        heads: attention heads.
    """

    def __init__(self, tokens: int, embedding: int, *, width: int = 128, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.tokens, self.width, self.depth = tokens, width, depth
        self.condition = nn.Linear(embedding, width)
        self.start = nn.Parameter(0.02 * torch.randn(1, width))
        self.position = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.blocks = nn.ModuleList(Block(width, heads, causal=True) for _ in range(depth))
        self.modulation = small_init(nn.Linear(width, 2 * width))

    def memory(self) -> list[list[Tensor]]:
        """Return an empty memory, for answering one token after another."""
        return [[] for _ in self.blocks]

    def forward(self, inputs: Tensor | None, x_embedding: Tensor, memory: list[list[Tensor]] | None = None) -> Tensor:
        """Return hidden states from which the next tokens are read.

        Args:
            inputs: embeddings of the tokens 0 .. k - 1 that are known, (batch, k, width), k < tokens; None is k = 0.
                With `memory`, of the latest token alone, (batch, 1, width); None at the first.
            x_embedding: (batch, embedding).
            memory: of the tokens before; it is extended.

        Returns:
            (batch, k + 1, width), for the tokens 0 .. k; with `memory`, (batch, 1, width), for the next one alone.
        """
        c = functional.silu(self.condition(x_embedding))[:, None]  # (batch, 1, width)
        if memory is not None and inputs is not None:
            h = inputs + self.position[memory[0][0].shape[2]]  # as many tokens are remembered
        else:
            start = self.start.expand(len(c), 1, -1)
            h = start if inputs is None else torch.cat([start, inputs], dim=1)
            h = h + self.position[: h.shape[1]]
        h = h + c
        for index, block in enumerate(self.blocks):
            h = block(h, c, None if memory is None else memory[index])
        shift, scale = self.modulation(c).chunk(2, dim=-1)
        return modulate(h, shift, scale)
