"""Are the draws where real ones are, and are there draws wherever real ones are? By nearest neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from everymode.errors import DataError, check_number
from everymode.metrics.base import Measure
from everymode.metrics.intervals import mean_over_rows
from everymode.metrics.samples import on_one_scale

__all__ = ["PRDC", "prdc"]

PRDC = ("precision", "recall", "density", "coverage")


def prdc(
    draws: ArrayLike,
    reference: ArrayLike,
    real: ArrayLike | None = None,
    *,
    neighbours: int = 5,
    at_most: int = 1000,
    seed: int = 0,
) -> dict[str, Measure]:
    """Precision, recall, density and coverage of draws against real draws of the same x, averaged over rows.

    The ball of a point reaches to its k-th nearest neighbour in its own sample.

    - precision: share of the draws that lie in the ball of some real draw. Are the draws realistic?
    - recall: share of the real draws that lie in the ball of some draw. Is every answer given?
    - density: how many real balls a draw lies in, divided by k: as precision, but one stray real draw with its
      wide ball counts for little. 1 is expected of real draws; more is possible, where draws crowd together.
    - coverage: share of the real balls that hold a draw: as recall, but a stray draw cannot feign it.

    Measured in each row by itself, on y: neighbours taken over all (x, y) would be answers for other x, and a model
    that answers for a neighbouring x would pass. Columns of y are scaled as in `sliced_wasserstein`. All four depend
    on n and k, so read them beside their floors. The intervals are bootstraps over rows.

    Draws may be exactly equal: a ball includes its surface, so copies of a real draw lie in its ball even where that
    has shrunk to a point, and density divides by the number of neighbours in the ball, which is k unless there are
    ties. Without ties these are the published definitions, and the numbers those of the package `prdc` (Naeem et
    al.), row by row; with ties its balls are without their surface, and copies of a real draw can lie in none.

    Fails: in many dimensions balls are wide and overlap little, and precision and recall fall for perfect models too;
    recall is high for a model whose draws are few and far out, since their balls are huge.

    Args:
        draws: `(rows, n, dy)`, n at least 2.
        reference: as many real draws, `(rows, n, dy)`.
        real: as many real draws again, independent of `reference`; they give the floors.
        neighbours: k; n - 1 where n is smaller than k + 1.
        at_most: of more draws a row, only so many are used: the cost is quadratic in them.
        seed: of the bootstraps.

    References:
        Improved precision and recall metric for assessing generative models (Kynkäänniemi et al., 2019),
        https://arxiv.org/abs/1904.06991; Reliable fidelity and diversity metrics for generative models
        (Naeem et al., 2020), https://arxiv.org/abs/2002.09797
    """
    check_number("neighbours", neighbours, 1, integer=True)
    check_number("at_most", at_most, 2, integer=True)
    draws, reference, real = on_one_scale(draws, reference, real)
    if draws.shape[1] < 2:
        raise DataError(f"nearest neighbours need at least 2 draws a row; got draws of shape {draws.shape}")
    values = _over_rows(draws[:, :at_most], reference[:, :at_most], neighbours)
    floors = [None] * 4
    if real is not None:
        floors = _over_rows(real[:, :at_most], reference[:, :at_most], neighbours).mean(axis=0).tolist()
    return {
        name: mean_over_rows(column, floor, seed) for name, column, floor in zip(PRDC, values.T, floors, strict=True)
    }


def _over_rows(draws: np.ndarray, reference: np.ndarray, neighbours: int) -> np.ndarray:
    """The four numbers of each row, `(rows, 4)`."""
    k = min(neighbours, draws.shape[1] - 1)
    return np.array([_of_row(drawn, real, k) for drawn, real in zip(draws, reference, strict=True)])


def _of_row(draws: np.ndarray, reference: np.ndarray, k: int) -> tuple[float, float, float, float]:
    draws_radius, _ = _balls(draws, k)
    real_radius, held = _balls(reference, k)
    distance = cdist(reference, draws)
    in_real = distance <= real_radius[:, None]
    in_drawn = distance <= draws_radius
    density = (in_real / held[:, None]).sum(axis=0).mean()
    return in_real.any(axis=0).mean(), in_drawn.any(axis=1).mean(), density, in_real.any(axis=1).mean()


def _balls(points: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each point `(n, dy)` to its k-th neighbour, and how many neighbours are no farther: `(n,)` both."""
    distance = cdist(points, points)  # a point is its own nearest
    radius = np.partition(distance, k, axis=1)[:, k]
    return radius, (distance <= radius[:, None]).sum(axis=1) - 1
