"""Mixture density networks: a network tells the weights, means and covariances of a Gaussian mixture.

    p(y | x) = sum_k w_k(x) N(y; m_k(x), C_k(x)),

a mixture over the whole of y: which answer is meant is drawn once, and not once a coordinate. The loss is -log p, in
nats, by a log-sum-exp over the components; y itself is drawn: first the component, then a normal.

Covariances are written by their modified Cholesky factors (Pourahmadi). With A_k unit lower triangular and s_k > 0,

    C_k^-1 = A_k' diag(s_k)^-2 A_k,    log N = -|A_k (y - m_k) / s_k|^2 / 2 - sum log s_k - d/2 log 2 pi:

row i of A_k holds minus the coefficients of coordinate i's regression on those before it, and s_k is what is left of
its spread. Nothing has to be inverted for the loss, every A_k and s_k make a covariance, and nothing of A_k grows where
the answers lie on a curve. A full A_k is d (d - 1) / 2 numbers a component, so beyond small vectors the components are
diagonal by default: there, what hangs together in y is told by which component it is from.

A mixture that starts at one place can stay there: components that are alike get like gradients, and answers are merged.
So it starts as an ordinary Gaussian mixture of the training targets, by expectation maximisation from k-means, with as
many components as BIC asks for; what is left over are copies, moved a little. The network learns what x changes of it.
Copies that are not needed go on alike, and cost little: with all components apart, the fork was overfitted. Scales
have a floor, for the likelihood of a component on a single point has no bound.

References:
    Mixture density networks (Bishop, 1994), https://publications.aston.ac.uk/id/eprint/373/
    Using neural networks to model conditional multivariate densities (Williams, 1996),
        https://doi.org/10.1162/neco.1996.8.4.843: Cholesky factors of the precision
    Joint mean-covariance models with applications to longitudinal data (Pourahmadi, 1999),
        https://doi.org/10.1093/biomet/86.3.677

Fails: on curved or many-dimensional sets of answers, which it covers with ellipsoids, the more the better; with fewer
components than answers, which it merges; on few rows, whose likelihood a mixture can drive up point by point.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from everymode.control import Control
from everymode.errors import SettingError, check_choice, check_number
from everymode.families.base import Abilities, Family
from everymode.networks import Sizes, default_for, pooled
from everymode.networks.mlp import small_init
from everymode.randomness import Source, categorical, normal
from everymode.spaces import FEW_VALUES, ArraySpace, Condition, Space
from everymode.temperature import resampled

__all__ = ["MDN"]

COVARIANCES = ("auto", "full", "diagonal")
_MOST_FULL = 64  # values of y up to which a covariance can be full
_START_ROWS, _START_VALUES = 5000, 1_000_000  # what a start is found on, at most
_NARROWEST_START = 0.03  # in standard deviations of y
_MOVED = 0.3  # between the starts of copies, in their own standard deviations
_LARGEST_LOG_SCALE = 15.0  # the exponential stays finite, wherever x goes


class MDN(Family):
    """A mixture of normals, all of whose numbers depend on x.

    Args:
        components: number of components; take two to three times as many as one x has answers.
        covariance: of a component: 'full', 'diagonal', or 'auto': full for vectors of up to 16 values. 'full' is
            refused above 64 values.
        least_scale: floor of the conditional standard deviations, in those of y.

    Raises:
        SettingError: a setting is out of range; from `build`, `covariance='full'` where y has more than 64 values.
    """

    name: ClassVar[str] = "mdn"
    abilities: ClassVar[Abilities] = Abilities(density=True, own_network=False, temperature=True)

    logits: Tensor  # (components,); this and what follows is the mixture at the start
    means: Tensor  # (components, *event)
    log_scales: Tensor  # (components, *event)
    factors: Tensor  # (components, entries below the diagonal)

    def __init__(self, *, components: int = 64, covariance: str = "auto", least_scale: float = 1e-3) -> None:
        super().__init__()
        self.components = check_number("components", components, 1, 4096, integer=True)
        self.covariance = check_choice("covariance", covariance, COVARIANCES)
        self.least_scale = check_number("least_scale", least_scale, 1e-6, 1)

    # Building ------------------------------------------------------------------------------------------------------

    def assemble(self, y_space: ArraySpace, x_space: Space, sizes: Sizes) -> None:
        """Make the encoder, the network of means and scales, and the head of weights and triangular factors."""
        k, d = self.components, y_space.size
        self.network, self.encoder = default_for(y_space, x_space, sizes, copies=2 * k)
        entries = d * (d - 1) // 2 if self._full(y_space) else 0
        self.register_buffer("logits", torch.zeros(k))
        self.register_buffer("means", torch.zeros(k, *y_space.shape))
        self.register_buffer("log_scales", torch.zeros(k, *y_space.shape))
        self.register_buffer("factors", torch.zeros(k, entries))
        told = k * entries + (k if k > 1 else 0)  # one component has no weight to tell
        self.head: nn.Module | None = None
        if told:
            last = small_init(nn.Linear(2 * sizes.width, told))
            self.head = nn.Sequential(nn.SiLU(), nn.Linear(sizes.width, 2 * sizes.width), nn.SiLU(), last)

    def _full(self, y_space: ArraySpace) -> bool:
        if self.covariance == "full" and y_space.size > _MOST_FULL:
            raise SettingError(
                f"covariance='full' is for up to {_MOST_FULL} values, and y has {y_space.size} (shape "
                f"{y_space.shape}): take 'diagonal' or 'auto'."
            )
        by_itself = y_space.kind == "vector" and y_space.size <= FEW_VALUES
        return self.covariance == "full" or (self.covariance == "auto" and by_itself)

    def prepare(self, y: Tensor, x: Condition, *, seed: int) -> None:
        """Let the mixture start as one of the targets alone, whatever x is."""
        found = starts(y.flatten(1).cpu().numpy(), self.components, seed, self.factors.numel() > 0)
        for start, values in zip((self.logits, self.means, self.log_scales, self.factors), found, strict=True):
            start.copy_(torch.from_numpy(values).reshape(start.shape))

    # The mixture ---------------------------------------------------------------------------------------------------

    def encode(self, x: Condition) -> dict[str, Tensor]:
        """Return the mixture for each x.

        Returns:
            `log_weights` (batch, k), `means` and `scales` (batch, k, d), and where covariances are full `factors`
            (batch, k, d (d - 1) / 2), the entries of A_k below its diagonal, row after row.
        """
        embedding = self.encoder(x)
        rows, k = len(embedding), self.components
        # ones stand for the noisy target and the time that other families show this network
        answers = self.network(embedding.new_ones(rows, *self.event), embedding.new_ones(rows), embedding).float()
        means, log_scales = answers.unflatten(1, (2, k)).unbind(1)
        log_scales = (self.log_scales + log_scales).clamp(max=_LARGEST_LOG_SCALE)
        mixture = {
            "log_weights": self.logits.expand(rows, -1),
            "means": (self.means + means).flatten(2),
            "scales": (self.least_scale + log_scales.exp()).flatten(2),
        }
        if self.head is not None:
            told = self.head(pooled(embedding)).float()
            if k > 1:
                mixture["log_weights"] = self.logits + told[:, :k]
            if self.factors.numel():
                mixture["factors"] = self.factors + told[:, -self.factors.numel() :].unflatten(1, self.factors.shape)
        mixture["log_weights"] = mixture["log_weights"].log_softmax(dim=1)
        return mixture

    def roots(self, mixture: dict[str, Tensor]) -> Tensor:
        """Return lower triangular factors L of the covariances L L' of a mixture that `encode` returned.

        Returns:
            (batch, k, d, d).
        """
        scales = mixture["scales"]
        ones = torch.eye(scales.shape[-1], device=scales.device).expand(*scales.shape, -1)
        if "factors" not in mixture:
            return ones * scales[..., None, :]
        factor = below_diagonal(mixture["factors"], scales.shape[-1])
        inverse = torch.linalg.solve_triangular(factor, ones, upper=False, unitriangular=True)
        return inverse * scales[..., None, :]

    def log_prob(self, y: Tensor, x: Condition) -> Tensor:
        """Return log p(y | x) of standardised y, (batch,), in nats."""
        return self._log_prob(y, self.encode(x))

    def _log_prob(self, y: Tensor, mixture: dict[str, Tensor]) -> Tensor:
        away = y.flatten(1)[:, None] - mixture["means"]  # (batch, k, d)
        if "factors" in mixture:
            away = away + (below_diagonal(mixture["factors"], away.shape[-1]) @ away[..., None])[..., 0]
        squares = (away / mixture["scales"]).square().sum(dim=-1)
        volumes = mixture["scales"].log().sum(dim=-1) + 0.5 * math.log(2 * math.pi) * away.shape[-1]
        return (mixture["log_weights"] - 0.5 * squares - volumes).logsumexp(dim=1)

    def loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return -log p(y | x) of each row, (batch,), in nats."""
        return -self.log_prob(y, x)

    def draw(self, embedding: Any, *, generator: Source = None) -> Tensor:
        """Return one draw a row of the mixtures that `encode` returned, (batch, *event)."""
        chosen = categorical(embedding["log_weights"], generator)
        rows = torch.arange(len(chosen), device=chosen.device)
        mean, scale = embedding["means"][rows, chosen], embedding["scales"][rows, chosen]  # (batch, d)
        away = scale * normal(tuple(scale.shape), generator, like=scale)
        if "factors" in embedding:
            factor = below_diagonal(embedding["factors"][rows, chosen], scale.shape[1])
            # the solver takes the diagonal for ones
            away = torch.linalg.solve_triangular(factor, away[..., None], upper=False, unitriangular=True)[..., 0]
        return (mean + away).unflatten(1, self.event)

    def controlled(self, embedding: Any, control: Control, *, generator: Source = None) -> Tensor:
        """Return one draw a row of the mixtures to the power 1 / temperature, (batch, *event)."""
        temperature, log_scales = control.temperature, embedding["scales"].log().sum(dim=-1)
        log_weights = embedding["log_weights"] / temperature + (1 - 1 / temperature) * log_scales
        other = {"log_weights": log_weights.log_softmax(dim=1), "scales": math.sqrt(temperature) * embedding["scales"]}
        other = {**embedding, **other}
        if self.components == 1:
            return self.draw(other, generator=generator)

        def candidate() -> tuple[Tensor, Tensor]:  # components that overlap share a power: weights mend that
            y = self.draw(other, generator=generator)
            return y, self._log_prob(y, embedding) / temperature - self._log_prob(y, other)

        return resampled(candidate, generator)


def below_diagonal(entries: Tensor, size: int) -> Tensor:
    """Return (..., size, size) with `entries` (..., size (size - 1) / 2) below the diagonal, and 0 elsewhere."""
    row, column = torch.tril_indices(size, size, -1, device=entries.device)
    matrix = entries.new_zeros(*entries.shape[:-1], size, size)
    matrix[..., row, column] = entries
    return matrix


def starts(y: np.ndarray, k: int, seed: int, full: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return k components for the marginal of y (rows, d): a Gaussian mixture of no more, copied.

    Its number of components is the one of lowest BIC among 1, 2, 4, ... and k. Copies beyond the first are moved by a
    draw from what they copy, times `_MOVED`.

    Returns:
        Logits (k,), means (k, d), log scales (k, d) and factors (k, d (d - 1) / 2), as `MDN.encode` has; no factors
        (k, 0) unless `full`.
    """
    rng = np.random.default_rng(seed)
    count, d = y.shape
    kept = min(count, max(500, _START_VALUES // d), _START_ROWS)
    rows = y[rng.permutation(count)[:kept]].astype(np.float64)
    rows = rows if kept > 1 else rows.repeat(2, axis=0)  # scikit-learn asks for two
    most = min(k, len(np.unique(rows, axis=0)), max(1, kept // (d + 1)))
    tried = sorted({2**power for power in range(most.bit_length())} | {most})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a start need not have converged
        fits = [
            GaussianMixture(
                m,
                covariance_type="full" if full else "diag",
                tol=1e-2,
                max_iter=30,
                reg_covar=_NARROWEST_START**2,
                random_state=seed % 2**32,
            ).fit(rows)
            for m in tried
        ]
        best: Any = min(fits, key=lambda fit: fit.bic(rows))
    again = np.arange(k) % len(best.weights_)
    covariances = best.covariances_ if full else best.covariances_[:, :, None] * np.eye(d)
    roots = np.linalg.cholesky(covariances)
    scales = np.diagonal(roots, axis1=1, axis2=2)
    factors = np.linalg.inv(roots / scales[:, None])[:, *np.tril_indices(d, -1)] if full else np.zeros((len(roots), 0))
    moves = np.where(np.arange(k)[:, None] < len(roots), 0.0, _MOVED * rng.standard_normal((k, d)))
    means = best.means_[again] + np.einsum("kij,kj->ki", roots[again], moves)
    logits = np.log(best.weights_ / np.bincount(again))[again]
    return logits, means, np.log(scales)[again], factors[again]
