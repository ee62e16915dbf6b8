"""Gaussian mixture: fit the joint density of x and y by a few normals, then condition each of them in closed form.

With weights w_k, means (a_k, b_k) and covariances [[A_k, C_k'], [C_k, B_k]] of (x, y),

    p(y | x) = sum_k w_k(x) N(y; b_k + C_k A_k^-1 (x - a_k),  B_k - C_k A_k^-1 C_k')
    w_k(x)   = w_k N(x; a_k, A_k) / sum_j w_j N(x; a_j, A_j).

Expectation maximisation is scikit-learn's. The number of components is the one of lowest BIC, -2 log-likelihood +
parameters log rows (Schwarz): 1, 2, 3, 4, 6, 8, 12, ... are tried until it has risen twice. A covariance is only as
good as the rows behind it: no number is tried that leaves a component fewer rows than twice the columns; where even one
component has few, its covariance is shrunk towards a multiple of the identity (Ledoit and Wolf). `reg_covar` on every
diagonal keeps constant columns, duplicated rows and the indicators of categories from becoming infinitely narrow.

References:
    The EM algorithm for mixtures (Dempster, Laird and Rubin, 1977), https://doi.org/10.1111/j.2517-6161.1977.tb01600.x
    Estimating the dimension of a model (Schwarz, 1978), https://doi.org/10.1214/aos/1176344136
    A well-conditioned estimator for large-dimensional covariance matrices (Ledoit and Wolf, 2004),
        https://doi.org/10.1016/S0047-259X(03)00096-4
    Supervised learning from incomplete data via an EM approach (Ghahramani and Jordan, 1994): the conditional

Fails: on x of many columns, since most of the components go into p(x), which nobody asked for; on curved answers, which
take many components; with too few components, where one normal spans two answers and the land between them.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.covariance import ledoit_wolf
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from everymode.control import Control
from everymode.errors import SettingError, check_choice, check_number
from everymode.families.base import Abilities, Family, Part
from everymode.families.flat import flat_condition
from everymode.networks import Sizes
from everymode.randomness import Source, categorical, mix, normal
from everymode.spaces import ArraySpace, Condition, Space
from everymode.temperature import resampled

__all__ = ["GMM"]

COVARIANCES = ("full", "diag")
_TRIED = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_SEARCH_ROWS = 20_000  # the number of components is chosen on no more rows than these
_RISES = 2  # rises of BIC after which the search is over


class GMM(Family):
    """A joint mixture of normals over (x, y), conditioned on x.

    Args:
        components: number of normals; chosen by BIC if None.
        covariance: 'full', or 'diag' (x and y then hang together through the choice of the component alone). Where
            `components` is given and has fewer rows each than columns, 'diag' is taken.
        reg_covar: what is added to every variance, in squared standard deviations of the column.
        max_iter: iterations of expectation maximisation, at most.
    """

    name: ClassVar[str] = "gmm"
    abilities: ClassVar[Abilities] = Abilities(
        spaces=("vector",),
        gradient=False,
        own_network=False,
        networks=(),
        density=True,
        temperature=True,
        why_not="Its covariances grow with the square of the number of values: take flow_matching or diffusion.",
    )
    sized_by_data: ClassVar[tuple[str, ...]] = (
        "log_weights",
        "x_means",
        "y_means",
        "x_factors",
        "gains",
        "y_factors",
    )

    log_weights: Tensor  # (k,)
    x_means: Tensor  # (k, columns of x)
    y_means: Tensor  # (k, d)
    x_factors: Tensor  # (k, columns of x, columns of x): lower Cholesky factors of the covariances of x
    gains: Tensor  # (k, d, columns of x): slopes of the conditional means
    y_factors: Tensor  # (k, d, d): lower Cholesky factors of the conditional covariances

    def __init__(
        self,
        *,
        components: int | None = None,
        covariance: str = "full",
        reg_covar: float = 1e-4,
        max_iter: int = 200,
    ) -> None:
        super().__init__()
        self.components = check_number("components", components, 1, 10_000, integer=True, optional=True)
        self.covariance = check_choice("covariance", covariance, COVARIANCES)
        self.reg_covar = check_number("reg_covar", reg_covar, 0, 1, exclusive_low=True)
        self.max_iter = check_number("max_iter", max_iter, 1, 1_000_000, integer=True)

    def assemble(self, y_space: ArraySpace, x_space: Space, sizes: Sizes) -> None:
        """Make room for the mixture; there is no network, and `sizes` mean nothing."""
        for name in self.sized_by_data:
            self.register_buffer(name, torch.zeros(0, dtype=torch.float64))

    @property
    def parameter_count(self) -> int:
        """Number of fitted numbers: weights, means and lower triangles of the joint covariances."""
        k, size = len(self.log_weights), self.x_means.shape[-1] + self.event[0]
        return k - 1 + k * size + k * size * (size + 1) // 2

    def parts(self) -> list[Part]:
        """Return nothing: it is fitted by `solve`."""
        return []

    # Fitting -------------------------------------------------------------------------------------------------------

    def solve(
        self, y: Tensor, x: Condition, *, held_out: tuple[Tensor, Condition] | None, seed: int, seconds: float | None
    ) -> Iterator[tuple[float, float, float | None]]:
        """Fit by expectation maximisation; yields (share done, -log p(y | x), the same on the held-out rows)."""
        until = math.inf if seconds is None else time.perf_counter() + seconds
        joint = torch.cat([self._flat(x), y], dim=1).cpu().double().numpy()
        rows, size = joint.shape
        if self.components is not None:
            if self.components > rows:
                raise SettingError(f"components={self.components} of {rows} rows: give at most {rows}.")
            kind = "diag" if rows < self.components * (size + 1) else self.covariance
            self._take(_fit(joint, self.components, kind, self, mix(seed, self.components)), size - self.event[0])
            yield 1.0, *self._losses(y, x, held_out)
            return
        few = joint[np.random.default_rng(seed).permutation(rows)[:_SEARCH_ROWS]]
        tried = [k for k in _TRIED if k == 1 or len(few) >= 2 * k * (size + 1)]
        best, lowest, rises, begun = None, math.inf, 0, time.perf_counter()
        for index, k in enumerate(tried):
            begun, spent = time.perf_counter(), time.perf_counter() - begun
            if best is not None and begun + 2 * spent > until:
                break
            found = _fit(few, k, self.covariance, self, mix(seed, k))
            bic = found.bic(few)
            rises = 0 if bic < lowest else rises + 1
            if bic < lowest:
                best, lowest = found, bic
                self._take(found, size - self.event[0])
            if rises == _RISES:
                break
            yield min(0.99, (index + 1) / len(tried)), *self._losses(y, x, held_out)
        if best is not None and len(few) < rows and time.perf_counter() < until:
            again = _fit(joint, best.n_components, best.covariance_type, self, seed, start=best)
            self._take(again, size - self.event[0])
        yield 1.0, *self._losses(y, x, held_out)

    def _losses(self, y: Tensor, x: Condition, held_out: tuple[Tensor, Condition] | None) -> tuple[float, float | None]:
        loss = -float(self.log_prob(y, x).double().mean())
        return loss, None if held_out is None else -float(self.log_prob(*held_out).double().mean())

    def _flat(self, x: Condition) -> Tensor:
        """Return x as (rows, columns), float64."""
        if self.x_space is None:
            raise SettingError("GMM holds settings only; build(y_space, x_space) makes room for a mixture.")
        return flat_condition(x, self.x_space, indicators=True)[0].double()

    def _take(self, found: GaussianMixture, columns: int) -> None:
        """Hold a joint mixture, conditioned on its first `columns` columns."""
        covariances = torch.from_numpy(found.covariances_)
        if covariances.ndim == 2:
            covariances = torch.diag_embed(covariances)
        means, cut = torch.from_numpy(found.means_), [columns, self.event[0]]
        a, b = means.split(cut, dim=1)
        top, bottom = covariances.split(cut, dim=1)
        x_factors = torch.linalg.cholesky(top[:, :, :columns])
        whitened = torch.linalg.solve_triangular(x_factors, top[:, :, columns:], upper=False)  # (k, columns, d)
        gains = torch.linalg.solve_triangular(x_factors.mT, whitened, upper=True).mT
        left = bottom[:, :, columns:] - whitened.mT @ whitened
        # rounding takes no more from a variance than it started with
        left.diagonal(dim1=1, dim2=2).clamp_(min=0.5 * self.reg_covar)
        taken = {
            "log_weights": torch.from_numpy(found.weights_).log(),
            "x_means": a,
            "y_means": b,
            "x_factors": x_factors,
            "gains": gains,
            "y_factors": torch.linalg.cholesky(0.5 * (left + left.mT)),
        }
        for name, value in taken.items():
            setattr(self, name, value.contiguous().to(self.log_weights.device))

    # Answers -------------------------------------------------------------------------------------------------------

    def encode(self, x: Condition) -> dict[str, Tensor]:
        """Return the mixture at each x: 'log_weights' (batch, k) and 'means' (batch, k, d), float64."""
        if not len(self.log_weights):
            raise SettingError("this mixture holds nothing yet: fit it first.")
        away = self._flat(x)[:, None, :] - self.x_means  # (batch, k, columns)
        log_weights = self.log_weights + _log_normal(away, self.x_factors)
        means = self.y_means + torch.einsum("bkc,kdc->bkd", away, self.gains)
        return {"log_weights": log_weights.log_softmax(dim=1), "means": means}

    def draw(self, embedding: Any, *, generator: Source = None) -> Tensor:
        """Return one draw a row, (batch, d): a component, then a normal."""
        return self._draw(embedding, self.y_factors, generator).float()

    def _draw(self, embedding: Any, factors: Tensor, generator: Source) -> Tensor:
        chosen = categorical(embedding["log_weights"], generator)
        means = embedding["means"]
        draws = means.gather(1, chosen[:, None, None].expand(-1, 1, means.shape[2]))[:, 0]
        noise = normal(tuple(draws.shape), generator, like=draws)
        for k, factor in enumerate(factors):
            rows = (chosen == k).nonzero()[:, 0]
            draws = draws.index_add(0, rows, noise[rows] @ factor.T)
        return draws

    def controlled(self, embedding: Any, control: Control, *, generator: Source = None) -> Tensor:
        """Return one draw a row of the mixtures to the power 1 / temperature, (batch, d)."""
        temperature = control.temperature
        log_scales = self.y_factors.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        log_weights = embedding["log_weights"] / temperature + (1 - 1 / temperature) * log_scales
        other = {**embedding, "log_weights": log_weights.log_softmax(dim=1)}
        factors = math.sqrt(temperature) * self.y_factors

        def candidate() -> tuple[Tensor, Tensor]:  # components that overlap share a power: weights mend that
            y = self._draw(other, factors, generator)
            return y, self._log_prob(y, embedding, self.y_factors) / temperature - self._log_prob(y, other, factors)

        return resampled(candidate, generator).float()

    def log_prob(self, y: Tensor, x: Condition) -> Tensor:
        """Return log p(y | x) of standardised y, (batch,), in nats."""
        return self._log_prob(y.double(), self.encode(x), self.y_factors).float()

    def _log_prob(self, y: Tensor, embedding: Any, factors: Tensor) -> Tensor:
        each = _log_normal(y[:, None, :] - embedding["means"], factors)
        return (embedding["log_weights"] + each).logsumexp(dim=1)


def _fit(
    joint: np.ndarray, k: int, kind: str, family: GMM, seed: int, start: GaussianMixture | None = None
) -> GaussianMixture:
    """Return scikit-learn's mixture of `k` normals, with a wider `reg_covar` where a component collapses.

    One component with too few rows for its covariance gets Ledoit and Wolf's.
    """
    found = GaussianMixture(
        k,
        covariance_type=kind,
        reg_covar=family.reg_covar,
        max_iter=family.max_iter,
        random_state=seed % 2**32,
    )
    if start is not None:
        found.set_params(weights_init=start.weights_, means_init=start.means_, precisions_init=start.precisions_)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than components; max_iter reached
        for _ in range(6):
            try:
                found.fit(joint)
                break
            except ValueError:  # a component of duplicates, whose covariance is no covariance any more
                found.set_params(reg_covar=10 * found.reg_covar)
    if k == 1 and kind == "full" and len(joint) < 5 * (joint.shape[1] + 1):
        covariance, _ = ledoit_wolf(joint)
        found.covariances_ = (covariance + family.reg_covar * np.eye(joint.shape[1]))[None]
    return found


def _log_normal(away: Tensor, factors: Tensor) -> Tensor:
    """Return log N(away; 0, factors factors'), (batch, k), for `away` (batch, k, n) and `factors` (k, n, n)."""
    scaled = torch.linalg.solve_triangular(factors, away.permute(1, 2, 0), upper=False)  # (k, n, batch)
    log_det = factors.diagonal(dim1=1, dim2=2).log().sum(dim=1)
    return -0.5 * scaled.square().sum(dim=1).T - log_det - 0.5 * away.shape[2] * math.log(2 * math.pi)
