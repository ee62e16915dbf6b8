"""A temporal U-Net: convolutions along the horizon of a sequence, scaled and shifted by time and condition.

Each level has two residual blocks, halves the horizon and widens the channels; the way back joins what each level had.
A block is a convolution, group norm and Mish, twice, with a scale and a shift of every channel (FiLM) between the two.
With channels (512, 1024, 2048), kernel 5, 8 groups and a step embedding of 128 it is the network of the published
Diffusion Policy, and the default of LeRobot's. Only its times differ: they are in [0, 1] here, and embedded by low
frequencies, which one-step training needs.

References:
    Diffusion policy: visuomotor policy learning via action diffusion (Chi et al., 2023),
        https://arxiv.org/abs/2303.04137
    Planning with diffusion for flexible behavior synthesis (Janner et al., 2022), https://arxiv.org/abs/2205.09991
    FiLM: visual reasoning with a general conditioning layer (Perez et al., 2018), https://arxiv.org/abs/1709.07871
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from everymode.errors import SettingError, check_number
from everymode.networks.embeddings import TimeEmbedding

__all__ = ["UNet1d"]


class UNet1d(nn.Module):
    """`network(y_t, t, x_embedding)` for sequences (horizon, d).

    A horizon that the levels do not divide is continued by its last step, and cut again.

    Args:
        shape: the event's shape, (horizon, d).
        embedding: width of the embedding of x.
        channels: of each level.
        kernel: length of the convolutions, odd.
        groups: of the group norms, at most; where they do not divide the channels, their greatest common divisor.
        step_embedding: width of the embedding of time.
        copies: how many answers in the event's shape it gives; one, without an axis of its own, if None.

    Raises:
        SettingError: the kernel is even, or a size is out of range.
    """

    def __init__(
        self,
        shape: Sequence[int],
        embedding: int,
        *,
        channels: Sequence[int] = (64, 128, 256),
        kernel: int = 5,
        groups: int = 8,
        step_embedding: int = 128,
        copies: int | None = None,
    ) -> None:
        super().__init__()
        check_number("kernel", kernel, 1, 99, integer=True)
        check_number("step_embedding", step_embedding, 2, integer=True)
        if kernel % 2 == 0:
            raise SettingError(f"kernel={kernel} is even: take an odd one, so that the horizon keeps its length.")
        self.shape, self.copies, self.width = tuple(shape), copies, max(channels)
        size = self.shape[-1]
        self.time = TimeEmbedding(step_embedding, features=step_embedding // 2, hidden=4 * step_embedding)
        given = step_embedding + embedding

        def block(into: int, out: int) -> FilmBlock:
            return FilmBlock(into, out, given, kernel=kernel, groups=groups)

        steps = list(pairwise([size, *channels]))
        self.down = nn.ModuleList(nn.ModuleList([block(a, b), block(b, b)]) for a, b in steps)
        self.shrink = nn.ModuleList(nn.Conv1d(c, c, 3, stride=2, padding=1) for c in channels[:-1])
        last = channels[-1]
        self.middle = nn.ModuleList([block(last, last), block(last, last)])
        back = list(reversed(steps[1:]))
        self.up = nn.ModuleList(nn.ModuleList([block(2 * b, a), block(a, a)]) for a, b in back)
        self.grow = nn.ModuleList(nn.ConvTranspose1d(a, a, 4, stride=2, padding=1) for a, _ in back)
        first = channels[0]
        self.leave = nn.Sequential(
            nn.Conv1d(first, first, kernel, padding=kernel // 2),
            nn.GroupNorm(math.gcd(groups, first), first),
            nn.Mish(),
            nn.Conv1d(first, size * (copies or 1), 1),
        )

    def forward(self, y_t: Tensor, t: Tensor, x_embedding: Tensor) -> Tensor:
        """Return (batch, horizon, d) for y_t (batch, horizon, d), t (batch,) and x_embedding (batch, embedding).

        With `copies`, (batch, copies, horizon, d).
        """
        time = self.time(t).expand(len(y_t), -1)
        c = functional.mish(torch.cat([time, x_embedding], dim=1))  # (batch, step_embedding + embedding)
        horizon, unit = y_t.shape[1], 2 ** len(self.shrink)
        h = y_t.transpose(1, 2)  # (batch, d, horizon)
        if horizon % unit:
            h = functional.pad(h, (0, unit - horizon % unit), mode="replicate")
        kept: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, c)
            if level:  # the first level is too near to the noise to be joined again
                kept.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
        for block in self.middle:
            h = block(h, c)
        for level, blocks in enumerate(self.up):
            h = torch.cat([h, kept.pop()], dim=1)
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, c)
            h = self.grow[level](h)
        answers = self.leave(h)[..., :horizon].transpose(1, 2)  # (batch, horizon, copies * d)
        if self.copies is None:
            return answers
        return answers.unflatten(2, (self.copies, -1)).movedim(2, 1)


class FilmBlock(nn.Module):
    """Two convolutions with group norm and Mish, the channels of the first scaled and shifted by the condition.

    Args:
        into: channels that come in.
        out: channels that go out.
        given: width of the condition.
        kernel: length of the convolutions.
        groups: of the group norms, at most.
    """

    def __init__(self, into: int, out: int, given: int, *, kernel: int, groups: int) -> None:
        super().__init__()
        groups, pad = math.gcd(groups, out), kernel // 2
        self.first = nn.Sequential(nn.Conv1d(into, out, kernel, padding=pad), nn.GroupNorm(groups, out), nn.Mish())
        self.second = nn.Sequential(nn.Conv1d(out, out, kernel, padding=pad), nn.GroupNorm(groups, out), nn.Mish())
        self.modulation = nn.Linear(given, 2 * out)
        self.around = nn.Identity() if into == out else nn.Conv1d(into, out, 1)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        """Return (batch, out, horizon) for h (batch, into, horizon) and c (batch, given)."""
        scale, shift = self.modulation(c)[..., None].chunk(2, dim=1)
        return self.around(h) + self.second(torch.addcmul(shift, self.first(h), 1 + scale))
