"""Normalizing flows: an invertible map from y to noise, whose Jacobian makes the density exact.

A flow z = f(y; x) is invertible in y for every x, and z is standard normal. By the change of variables

    log p(y | x) = log N(f(y; x); 0, I) + log |det df/dy|,

and the loss is -log p, in nats. Each of the `transforms` that f is made of is autoregressive: coordinate i goes through
an increasing function, whose parameters are what a masked network makes of the coordinates before it and of the
embedding of x. The Jacobian is then triangular, and its determinant the product of the slopes. A masked autoregressive
flow shifts and scales a coordinate; a neural spline flow bends it by a monotonic rational-quadratic spline of `bins`
pieces. A draw inverts the map: z is drawn, and the coordinates follow one after another.

The networks and the maps are zuko's. Its splines bend the cube [-5, 5]^d of standardised values and leave what is
outside as it is.

References:
    Masked autoregressive flow for density estimation (Papamakarios et al., 2017), https://arxiv.org/abs/1705.07057
    Neural spline flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032
    Zuko: normalizing flows in PyTorch (Rozet et al., 2022), https://github.com/probabilists/zuko

Fails: the map is continuous, so answers that lie apart stay joined by thin bridges, on which some draws fall; a masked
autoregressive flow hardly parts them at all. Tails are those of a normal, however heavy those of the data are. On few
rows it learns them by heart sooner than a mixture does: keep early stopping.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from zuko.flows import MAF
from zuko.transforms import MonotonicAffineTransform, MonotonicRQSTransform

from everymode.control import Control
from everymode.errors import check_choice, check_number
from everymode.families.base import Abilities, Family
from everymode.networks import Sizes, encoder_for
from everymode.randomness import Source, normal
from everymode.spaces import ArraySpace, Condition, Space
from everymode.temperature import resampled

__all__ = ["NormalizingFlow"]

KINDS = ("nsf", "maf")
MOST_PASSES = 16  # unless more are asked for: on 64 coordinates, 64 passes bought nothing measurable
UNITS = 4  # hidden units a group of coordinates, at least: those of the first group see x alone, those of the last all


class Flow(MAF):
    """zuko's flow, with the width that the training loop chooses the precision for: that of the hidden layers."""

    def __init__(self, features: int, *, hidden_features: list[int], **settings: Any) -> None:
        super().__init__(features, hidden_features=hidden_features, **settings)
        self.width = hidden_features[0]


class NormalizingFlow(Family):
    """A neural spline flow or a masked autoregressive flow, on vectors.

    `width` is the width of the hidden layers and of the embedding of x, and `depth` the number of hidden layers of each
    transform, 2 if None. The layers are at least four units wide for every group of coordinates.

    Args:
        kind: 'nsf', a neural spline flow, or 'maf', a masked autoregressive flow.
        transforms: number of autoregressive maps, in turn from the first coordinate on and from the last on; None for 2
            of splines or 5 of 'maf'.
        bins: pieces of a spline; of no effect for 'maf'.
        passes: into how many groups the coordinates are split, those of a group being transformed at once. A draw
            takes as many passes through the networks. None for one coordinate a group, but at most 16 groups; 2 is the
            coupling of real NVP, quick to draw from and less able.
    """

    name: ClassVar[str] = "normalizing_flow"
    usual_depth: ClassVar[int | None] = 2
    abilities: ClassVar[Abilities] = Abilities(
        spaces=("vector",),
        own_network=False,
        networks=(),
        density=True,
        temperature=True,
        why_not=(
            "Coordinates are drawn one after another, by layers that know nothing of neighbours in time or space: use "
            "flow_matching."
        ),
    )

    def __init__(
        self, *, kind: str = "nsf", transforms: int | None = None, bins: int = 32, passes: int | None = None
    ) -> None:
        super().__init__()
        self.kind = check_choice("kind", kind, KINDS)
        self.transforms = check_number("transforms", transforms, 1, 64, integer=True, optional=True)
        self.bins = check_number("bins", bins, 2, 256, integer=True)
        self.passes = check_number("passes", passes, 2, integer=True, optional=True)

    def assemble(self, y_space: ArraySpace, x_space: Space, sizes: Sizes) -> None:
        """Make the encoder of x and zuko's flow, whose context is the embedding."""
        groups = self.nfe
        self.encoder = encoder_for(x_space, sizes.width)
        splines = self.kind == "nsf"
        self.network = Flow(
            y_space.size,
            context=sizes.width,
            transforms=self.transforms or (2 if splines else 5),
            passes=groups,
            univariate=Spline if splines else Affine,
            shapes=[(self.bins,), (self.bins,), (self.bins - 1,)] if splines else [(), ()],
            hidden_features=[max(sizes.width, UNITS * groups)] * sizes.depth,
            # few units belong to the first group: plain rectifiers that are off everywhere would hide x from it
            activation=nn.LeakyReLU,
        )

    def log_prob(self, y: Tensor, x: Condition) -> Tensor:
        """Return log p(y | x) of standardised y, (batch,), in nats."""
        z, log_slope = self.network(self.encode(x)).transform.call_and_ladj(y)
        return log_slope - 0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=1)

    def loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return -log p(y | x) of each row, (batch,), in nats."""
        return -self.log_prob(y, x)

    @property
    def nfe(self) -> int:
        """Passes through the networks for one draw: one a group of coordinates."""
        return min(self.passes or MOST_PASSES, self.event[0])

    def draw(self, embedding: Any, *, generator: Source = None) -> Tensor:
        """Return one draw a row, (batch, d): noise through the inverse of the flow."""
        rows, like = self._rows(embedding)
        noise = normal((rows, *self.event), generator, like=like)
        return self.network(embedding).transform.inv(noise)

    def controlled(self, embedding: Any, control: Control, *, generator: Source = None) -> Tensor:
        """Return one draw a row of p^(1 / temperature), (batch, d): the map of wider or narrower noise, reweighted."""
        (rows, like), temperature = self._rows(embedding), control.temperature
        back = self.network(embedding).transform.inv

        def candidate() -> tuple[Tensor, Tensor]:
            noise = math.sqrt(temperature) * normal((rows, *self.event), generator, like=like)
            y, log_slope = back.call_and_ladj(noise)
            return y, (1 - 1 / temperature) * log_slope

        return resampled(candidate, generator)


class Affine(MonotonicAffineTransform):
    """zuko's shift and scale, in float32 also where the networks answer in bf16."""

    def __init__(self, shift: Tensor, scale: Tensor) -> None:
        super().__init__(shift.float(), scale.float())


class Spline(MonotonicRQSTransform):
    """zuko's monotonic rational-quadratic spline, in float32 also where the networks answer in bf16.

    Its inverse solves a quadratic equation for the place in a bin, in [0, 1] (equation 8 of the paper); in steep bins
    rounding makes the discriminant negative or the place lie outside, which is mended here.
    """

    def __init__(self, widths: Tensor, heights: Tensor, derivatives: Tensor) -> None:
        super().__init__(widths.float(), heights.float(), derivatives.float())

    def _inverse(self, y: Tensor) -> Tensor:
        k = self.searchsorted(self.vertical, y) - 1
        inside, x0, x1, y0, y1, d0, d1, slope = self.bin(k)  # pyright: ignore[reportArgumentType]
        height, bend = inside * (y - y0), d0 + d1 - 2 * slope
        a = (y1 - y0) * (slope - d0) + height * bend
        b = (y1 - y0) * d0 - height * bend
        c = -slope * height
        place = 2 * c / (-b - (b.square() - 4 * a * c).clamp(min=0).sqrt())
        return torch.where(inside, x0 + place.clamp(0, 1) * (x1 - x0), y)
