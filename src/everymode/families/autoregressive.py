"""Autoregression: one coordinate of y after another, each given x and those before it.

By the chain rule p(y | x) = prod_i p(y_i | y_1 .. y_(i-1), x), in any order; here it is that of the flattened y (an
image row by row from the top, a sequence step by step). One causal transformer gives all the factors in one pass for a
density, and one after another for a draw. A factor is the law of one number, and any such law can be told:

    bins        a softmax over K bins: p(y_i) = mass of its bin / width of its bin. Edges follow from the data, half of
                them spread evenly and half by rank; beyond the outermost ones the density falls exponentially. The
                network tells ratios to the masses of a logistic distribution, and they are sums of hats of 1, 2, 4 ..
                bins: neighbouring bins learn from each other's rows.
    logistics   sum_k w_k logistic((y_i - m_k) / s_k), as in PixelCNN++, but as a density, since y is continuous

References:
    Pixel recurrent neural networks (van den Oord et al., 2016), https://arxiv.org/abs/1601.06759: a softmax a value
    MADE: masked autoencoder for distribution estimation (Germain et al., 2015), https://arxiv.org/abs/1502.03509
    PixelCNN++ (Salimans et al., 2017), https://arxiv.org/abs/1701.05517: a mixture of logistics

Fails: on events of many coordinates. A draw takes one pass a coordinate, an error in an early one is never mended, and
attention costs the square of their number: from some hundred on, take another family. `bins` cannot tell apart what
lies within one bin; `logistics` has few components for answers that are many or exact.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from everymode.errors import check_choice, check_number
from everymode.families.base import Abilities, Family, Part
from everymode.networks import Sizes, causal_for, encoder_for
from everymode.networks.mlp import small_init
from everymode.randomness import Source, categorical, uniform
from everymode.spaces import ArraySpace, Condition, Space, take_rows

__all__ = ["Autoregressive"]

_RATE = 0.5  # transformers bear lower learning rates than multilayer perceptrons
_START = 4e-3  # the first densities are smooth: what the network adds to the logistic distribution is small
_LEAST_LOG_BASE = -20.0  # far values are not ruled out from the start
_LEAST_SPAN = 1e-2  # of the bins, in standard deviations of y
_START_LOG_SCALE, _LOG_SCALES = math.log(0.3), (-7.0, 7.0)
_BLOCK = 1 << 24  # numbers that a head may answer at once where no gradient is wanted


class Bins(nn.Module):
    """The law of one number as masses of bins, with exponential tails beyond the outermost edges.

    Bin 0 lies below the first edge and the last one above the last.

    Args:
        coordinates: how many numbers, each with edges of its own.
        bins: number of bins, both tails included.
        width: of the hidden states that the masses are read from.
    """

    edges: Tensor
    tails: Tensor
    log_base: Tensor
    hats: Tensor

    def __init__(self, coordinates: int, bins: int, width: int) -> None:
        super().__init__()
        self.register_buffer("edges", torch.linspace(-3, 3, bins - 1).repeat(coordinates, 1))
        self.register_buffer("tails", torch.ones(coordinates, 2))
        self.register_buffer("log_base", torch.zeros(coordinates, bins))
        self.register_buffer("hats", torch.from_numpy(hat_functions(bins)).float(), persistent=False)
        functions = self.hats.shape[1]
        self.weight = nn.Parameter(_START * torch.randn(functions, width))
        self.offset = nn.Parameter(torch.zeros(coordinates, functions))

    def prepare(self, y: np.ndarray) -> None:
        """Choose edges, tails and the distribution to start from, for y (rows, coordinates)."""
        for index, column in enumerate(y.T):
            edges = bin_edges(column, self.edges.shape[1])
            spread = max(float(column.std()), (edges[-1] - edges[0]) / 8)
            scale = spread * math.sqrt(3) / math.pi  # of the logistic distribution, which is also that of its tails
            beyond = [edges[0] - column[column < edges[0]], column[column >= edges[-1]] - edges[-1]]
            self.edges[index] = torch.from_numpy(edges)
            # the mean distance of the rows beyond an edge, and of one more: few rows say little of a tail
            self.tails[index] = torch.tensor([(b.sum() + scale) / (len(b) + 1) for b in beyond])
            at = torch.from_numpy((edges - column.mean()) / scale)
            # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)), without cancellation
            inner = functional.logsigmoid(at[1:]) + functional.logsigmoid(-at[:-1])
            inner = inner + torch.log(-torch.expm1(at[:-1] - at[1:]))
            ends = functional.logsigmoid(at[:1]), functional.logsigmoid(-at[-1:])
            self.log_base[index] = torch.cat([ends[0], inner, ends[1]]).clamp_min(_LEAST_LOG_BASE)

    def forward(self, hidden: Tensor, index: int | slice = slice(None)) -> Tensor:
        """Return the log masses (batch, ..., bins) for hidden states (batch, ..., width) of coordinates `index`."""
        ratios = functional.linear(hidden, self.hats @ self.weight) + functional.linear(self.offset[index], self.hats)
        return (ratios.float() + self.log_base[index]).log_softmax(-1)

    def log_prob(self, log_masses: Tensor, y: Tensor) -> Tensor:
        """Return log p (batch, coordinates) of y (batch, coordinates), for log masses (batch, coordinates, bins)."""
        bins = torch.searchsorted(self.edges, y.T.contiguous(), right=True)  # (coordinates, batch)
        last = self.edges.shape[1]
        low, high = self.edges.gather(1, (bins - 1).clamp_min(0)).T, self.edges.gather(1, bins.clamp_max(last - 1)).T
        bins, (below, above) = bins.T, self.tails.T
        log_width = torch.where(bins == last, above.log() + (y - low) / above, (high - low).log())
        log_width = torch.where(bins == 0, below.log() + (high - y) / below, log_width)
        return log_masses.gather(-1, bins[..., None])[..., 0] - log_width

    def draw(self, log_masses: Tensor, index: int, generator: Source) -> Tensor:
        """Return draws (batch,) of coordinate `index` for its log masses (batch, bins)."""
        bins = categorical(log_masses, generator)
        u = uniform((len(bins),), generator, like=log_masses)
        edges, (below, above) = self.edges[index], self.tails[index]
        low, high = edges[(bins - 1).clamp_min(0)], edges[bins.clamp_max(len(edges) - 1)]
        beyond = -torch.log1p(-u)
        y = torch.where(bins == len(edges), low + above * beyond, torch.lerp(low, high, u))
        return torch.where(bins == 0, high - below * beyond, y)


class Logistics(nn.Module):
    """The law of one number as a mixture of logistic distributions.

    Args:
        coordinates: how many numbers.
        components: of each mixture.
        width: of the hidden states that the mixtures are read from.
    """

    centres: Tensor
    spreads: Tensor

    def __init__(self, coordinates: int, components: int, width: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(coordinates, components))
        self.register_buffer("spreads", torch.ones(coordinates, 1))
        self.leave = small_init(nn.Linear(width, 3 * components))
        self.offset = nn.Parameter(torch.zeros(coordinates, 3 * components))

    def prepare(self, y: np.ndarray) -> None:
        """Choose the components to start from, for y (rows, coordinates): even shares of the data."""
        components = self.centres.shape[1]
        self.centres.copy_(torch.from_numpy(np.quantile(y, (np.arange(components) + 0.5) / components, axis=0).T))
        self.spreads.copy_(torch.from_numpy(np.maximum(y.std(axis=0), 0.01)[:, None]))

    def forward(self, hidden: Tensor, index: int | slice = slice(None)) -> Tensor:
        """Return log weights, means and log scales, (batch, ..., 3, components), for coordinates `index`."""
        answers = (self.leave(hidden) + self.offset[index]).float().unflatten(-1, (3, -1))
        log_weights, shifts, log_scales = answers.unbind(-2)
        means = self.centres[index] + self.spreads[index] * shifts
        log_scales = self.spreads[index].log() + (_START_LOG_SCALE + log_scales).clamp(*_LOG_SCALES)
        return torch.stack([log_weights.log_softmax(-1), means, log_scales], dim=-2)

    def log_prob(self, mixtures: Tensor, y: Tensor) -> Tensor:
        """Return log p (batch, coordinates) of y (batch, coordinates), for their mixtures."""
        log_weights, means, log_scales = mixtures.unbind(-2)
        z = (y[..., None] - means) * torch.exp(-log_scales)
        log_densities = functional.logsigmoid(z) + functional.logsigmoid(-z) - log_scales
        return torch.logsumexp(log_weights + log_densities, dim=-1)

    def draw(self, mixtures: Tensor, index: int, generator: Source) -> Tensor:
        """Return draws (batch,) of a coordinate for its mixtures (batch, 3, components)."""
        log_weights, means, log_scales = mixtures.unbind(-2)
        chosen = categorical(log_weights, generator)[:, None]
        u = uniform((len(chosen),), generator, like=means).clamp(1e-7, 1 - 1e-7)  # keeps the logit finite
        return means.gather(1, chosen)[:, 0] + log_scales.gather(1, chosen)[:, 0].exp() * torch.logit(u)


def bin_edges(column: np.ndarray, count: int) -> np.ndarray:
    """Return `count` strictly increasing edges for a column of numbers: half spread evenly, half by rank.

    The edges have equal steps of G = (F + U) / 2: U is the uniform distribution function between the outermost edges,
    and F that of the distinct values (repeated ones would draw all edges to one place), smoothed to 64 pieces. The
    outermost edges leave half a bin's share of the rows beyond either, so that far values do not stretch the bins.
    """
    low, high = np.quantile(column, [0.5 / count, 1 - 0.5 / count])
    if high - low < _LEAST_SPAN:  # a constant column gets bins too
        low, high = (low + high - _LEAST_SPAN) / 2, (low + high + _LEAST_SPAN) / 2
    distinct = np.unique(column)
    knots = np.quantile(distinct, np.linspace(0, 1, 65))
    line = np.linspace(low, high, 16 * count)
    by_rank = np.interp(line, knots, np.linspace(0, 1, 65))
    share = (by_rank - by_rank[0]) / max(by_rank[-1] - by_rank[0], 1e-12) + np.linspace(0, 1, len(line))
    edges = np.interp(np.linspace(0, share[-1], count), share, line)
    gap = max(1e-3 * (high - low) / count, 1e-6 * np.abs(edges).max()) * np.arange(count)  # what float32 can tell apart
    return np.maximum.accumulate(edges - gap) + gap


def hat_functions(bins: int) -> np.ndarray:
    """Return hats of 1, 2, 4 .. bins, (bins, functions): one for each bin, then wider ones, piecewise linear.

    Log masses that are sums of them learn broad shapes from all rows under a hat, and fine ones from those of a bin.
    """
    places, functions, count = np.arange(bins) + 0.5, [np.eye(bins)], bins // 2
    while count >= 4:
        spacing = bins / (count - 1)
        functions.append(np.maximum(0, 1 - np.abs(places[:, None] / spacing - np.arange(count))))
        count //= 2
    return np.concatenate(functions, axis=1)


class Values(nn.Module):
    """Embeddings of numbers, fine enough that the next number can follow from this one: sines and cosines.

    Args:
        width: size of an embedding.
        features: number of frequencies, spread geometrically.
        slowest, fastest: the ends, in radians per standard deviation.
    """

    frequencies: Tensor

    def __init__(self, width: int, *, features: int = 12, slowest: float = 0.5, fastest: float = 40.0) -> None:
        super().__init__()
        steps = torch.arange(features) / (features - 1)
        frequencies = slowest * torch.exp(steps * math.log(fastest / slowest))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * features + 1, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, y: Tensor) -> Tensor:
        """Return (..., width) for numbers y (...)."""
        y = y[..., None]
        angles = y * self.frequencies
        return self.layers(torch.cat([torch.asinh(y), angles.sin(), angles.cos()], dim=-1))


HEADS = {"bins": Bins, "logistics": Logistics}


class Autoregressive(Family):
    """One coordinate after another, each with any law.

    Args:
        head: 'bins' (a discretised softmax) or 'logistics' (a mixture).
        bins: bins a coordinate, both tails included; at most 1024.
        components: logistics a coordinate.
    """

    name: ClassVar[str] = "autoregressive"
    abilities: ClassVar[Abilities] = Abilities(own_network=False, networks=(), density=True)

    def __init__(self, *, head: str = "bins", bins: int = 256, components: int = 10) -> None:
        super().__init__()
        self.head = check_choice("head", head, HEADS)
        self.bins = check_number("bins", bins, 4, 1024, integer=True)
        self.components = check_number("components", components, 1, 1024, integer=True)

    def assemble(self, y_space: ArraySpace, x_space: Space, sizes: Sizes) -> None:
        """Make the encoder of x, the embedding of earlier values, the causal transformer and the head."""
        self.encoder = encoder_for(x_space, sizes.width)
        several = y_space.size > 1  # nothing follows a single number
        self.values: Values | None = Values(sizes.width) if several else None
        self.network = causal_for(y_space.size, sizes)
        size = self.bins if self.head == "bins" else self.components
        self.law: Bins | Logistics = HEADS[self.head](y_space.size, size, sizes.width)

    def prepare(self, y: Tensor, x: Condition, *, seed: int) -> None:
        """Choose the bins (or the components to start from) of each coordinate by the data."""
        self.law.prepare(y.flatten(1).cpu().numpy().astype(np.float64))

    def parts(self) -> list[Part]:
        """Return the one part."""
        return [Part("model", self, self.loss, rate=_RATE, judge=self._held_out_loss)]

    @property
    def nfe(self) -> int:
        """Network evaluations for one draw: the number of coordinates."""
        return math.prod(self.event)

    def loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return -log p(y | x) a coordinate, (batch,), in nats."""
        return -self.log_factors(y, x).mean(1)

    def log_factors(self, y: Tensor, x: Condition) -> Tensor:
        """Return log p(y_i | y_1 .. y_(i-1), x) of standardised y (batch, *event), (batch, coordinates), in nats."""
        y = y.flatten(1)
        known = None if self.values is None else self.values(y[:, :-1])
        return self.law.log_prob(self.law(self.network(known, self.encode(x))), y)

    def log_prob(self, y: Tensor, x: Condition) -> Tensor:
        """Return log p(y | x) of standardised y, (batch,), in nats."""
        rows = max(1, _BLOCK // self.law.offset.numel())
        blocks = [slice(start, start + rows) for start in range(0, max(1, len(y)), rows)]
        return torch.cat([self.log_factors(y[block], take_rows(x, block)).sum(1) for block in blocks])

    def _held_out_loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        return -self.log_prob(y, x) / self.nfe  # `loss`, of thousands of rows at once

    def draw(self, embedding: Any, *, generator: Source = None) -> Tensor:
        """Return one draw a row, (batch, *event): one pass of the network a coordinate."""
        memory, known = self.network.memory(), None  # type: ignore[operator]
        drawn: list[Tensor] = []
        for index in range(self.nfe):
            if self.values is not None and drawn:
                known = self.values(drawn[-1])[:, None]
            answers = self.law(self.network(known, embedding, memory)[:, 0], index)
            drawn.append(self.law.draw(answers, index, generator))
        return torch.stack(drawn, dim=1).unflatten(1, self.event)
