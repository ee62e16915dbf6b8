"""Couplings: which noise meets which target while a flow is trained.

A coupling takes the noise, the targets and the conditions of one batch and returns them re-paired. It is called on the
whole batch, outside the network, and must leave the marginal of the noise and the joint of (y, x) as they were.

With a condition it must leave more: noise has to stay independent of x, or a flow is trained on noise that it never
sees when it is asked about one x. Plain optimal transport does not, and is refused there.

References:
    Improving and generalizing flow-based generative models with minibatch optimal transport (Tong et al., 2024),
        https://arxiv.org/abs/2302.00482
    The curse of conditions: analyzing and improving optimal transport for conditional flow-based generation (Cheng and
        Schwing, 2025), https://arxiv.org/abs/2503.10636
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from everymode.errors import SettingError, check_choice, check_number
from everymode.spaces import count_rows, take_rows

__all__ = ["COUPLINGS", "ConditionalOT", "Coupling", "Independent", "OptimalTransport", "get_coupling"]

_APART = 1e6  # costs: further than any noise is from any target
_ROWS = 512  # that are paired at once, at most


class Coupling(Protocol):
    """Pairs noise (batch, *event) with targets (batch, *event) and their conditions."""

    name: str

    def __call__(self, noise: Tensor, y: Tensor, x: Any) -> tuple[Tensor, Tensor, Any]:
        """Return (noise, y, x), row by row the pairs to train on."""
        ...


class Independent:
    """Noise and target are drawn independently (Lipman et al., 2023). Right for every condition."""

    name = "independent"

    def __call__(self, noise: Tensor, y: Tensor, x: Any) -> tuple[Tensor, Tensor, Any]:
        """Return what was given."""
        return noise, y, x


class OptimalTransport:
    """Noise and targets of a batch are paired so that the squared distances add up to the least (Tong et al., 2024).

    Paths cross less, so that fewer steps do. Right only without a condition.
    """

    name = "optimal_transport"

    def __call__(self, noise: Tensor, y: Tensor, x: Any) -> tuple[Tensor, Tensor, Any]:
        """Return the noise in the order of its targets."""
        return _in_order(noise, y, lambda rows: _squared_distances(noise[rows], y[rows])), y, x


class ConditionalOT:
    """Optimal transport whose cost also counts how far apart the conditions are (Cheng and Schwing, 2025).

    Noise i comes with the condition of row i, of which it is independent; pairing it with target j costs

        |noise_i - y_j|^2 + w f(x_i, x_j),

    f being the squared distance of numbers, and out of reach where a label differs: then noise is exchanged among rows
    of nearly the same condition only, and stays independent of it. The weight w is found for each batch by bisection:
    it is the least at which, for a share `ratio` of all pairs, the exchange would be cheaper than to stay.

    Args:
        ratio: of a batch that is near enough to exchange noise with; larger ones straighten more and bias more.
    """

    name = "conditional_ot"

    def __init__(self, ratio: float = 0.01) -> None:
        self.ratio = check_number("ratio", ratio, 0, 1, exclusive_low=True)

    def __call__(self, noise: Tensor, y: Tensor, x: Any) -> tuple[Tensor, Tensor, Any]:
        """Return the noise in the order of its targets."""

        def cost(rows: slice) -> Tensor:
            squares = _squared_distances(noise[rows], y[rows])
            numbers, differs = condition_distances(take_rows(x, rows), take_rows(x, rows))
            squares = squares + _APART * differs * (1 + squares.amax())
            return squares + self.weight(squares, numbers) * numbers

        return _in_order(noise, y, cost), y, x

    def weight(self, cost: Tensor, apart: Tensor) -> float:
        """Return w for costs and distances between conditions, both (batch, batch)."""
        stay = cost.diagonal()[:, None]

        def share(weight: float) -> float:
            """Of the pairs of two rows, those whose exchange is cheaper for the noise."""
            cheaper = cost + weight * apart < stay
            return float(cheaper.float().mean())

        if not bool(apart.any()) or share(0.0) <= self.ratio:
            return 0.0
        low, high = 0.0, 1.0
        while share(high) > self.ratio and high < 1e9:
            low, high = high, 4 * high
        for _ in range(12):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if share(middle) > self.ratio else (low, middle)
        return high


def assignment(cost: Tensor) -> Tensor:
    """Return, for every column, the row that is paired with it, (batch,): the pairs' costs add up to the least."""
    import ot  # it takes a while to load

    weights = np.full(len(cost), 1 / len(cost))
    plan = ot.emd(weights, weights, cost.detach().double().cpu().numpy(), numItermax=1_000_000)
    return torch.from_numpy(np.asarray(plan).argmax(axis=0)).to(cost.device)


def condition_distances(x: Any, others: Any) -> tuple[Tensor, Tensor]:
    """Return how far x is from other conditions, squared, and in how many labels they differ, (rows, others) each."""
    numbers = torch.zeros(count_rows(x), count_rows(others), device=_parts(x)[0].device)
    differs = torch.zeros_like(numbers)
    for part, other in zip(_parts(x), _parts(others), strict=True):
        if part.is_floating_point():
            numbers = numbers + _squared_distances(part, other)
        elif part.dtype == torch.uint8:  # pictures
            numbers = numbers + _squared_distances(part, other) / 127.5**2
        else:
            labels, theirs = part.reshape(len(part), -1), other.reshape(len(other), -1)
            differs = differs + (labels[:, None] != theirs).sum(dim=2)
    return numbers, differs


def _parts(x: Any) -> list[Tensor]:
    return list(x.values()) if isinstance(x, dict) else [x]


def _in_order(noise: Tensor, y: Tensor, cost: Callable[[slice], Tensor]) -> Tensor:
    """Return the noise in the order of its targets, paired part by part: the time to pair grows as rows cubed.

    Args:
        noise: (batch, *event).
        y: targets (batch, *event).
        cost: of the pairs of some rows, (rows, rows).
    """
    size, orders = -(-len(y) // max(1, -(-len(y) // _ROWS))), []
    for start in range(0, len(y), size):
        orders.append(start + assignment(cost(slice(start, min(start + size, len(y))))))
    return noise[torch.cat(orders)]


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a.flatten(1).float(), b.flatten(1).float()).square()


COUPLINGS: dict[str, type[Coupling]] = {kind.name: kind for kind in (Independent, OptimalTransport, ConditionalOT)}


def get_coupling(coupling: str | Coupling) -> Coupling:
    """Return the coupling of that name, or the coupling itself; `SettingError` where there is none."""
    if callable(coupling) and isinstance(getattr(coupling, "name", None), str):
        return coupling
    if not isinstance(coupling, str):
        raise SettingError(f"coupling={coupling!r}: give a name ({', '.join(COUPLINGS)}) or a callable with a `name`.")
    return COUPLINGS[check_choice("coupling", coupling, COUPLINGS)]()
