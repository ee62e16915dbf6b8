"""Scores as scikit-learn takes them: `cross_val_score(model, X, y, scoring=scorer("neg_crps"))`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.pipeline import Pipeline

from everymode.errors import UnsupportedError, check_choice, check_number
from everymode.metrics.energy import energy_scores
from everymode.metrics.likelihood import log_likelihood
from everymode.metrics.ranked import crps_values
from everymode.metrics.variogram import variogram_scores
from everymode.tables import as_numbers, read_numbers

__all__ = ["Scorer", "scorer", "scorer_names"]

_OF_DRAWS: dict[str, Callable[[ArrayLike, ArrayLike, ArrayLike | None], np.ndarray]] = {
    "neg_crps": crps_values,
    "neg_energy_score": energy_scores,
    "neg_variogram_score": variogram_scores,
}
_LIKELIHOOD = "log_likelihood"
_MOST_DRAWS = 1_000_000


def scorer_names() -> list[str]:
    """Return the names that `scorer` knows."""
    return sorted((_LIKELIHOOD, *_OF_DRAWS))


def scorer(name: str, *, n_draws: int = 64, scale: ArrayLike | None = None, random_state: int | None = None) -> Scorer:
    """Return a function of (estimator, X, y) to a number, greater is better, for `scoring=` of scikit-learn.

    - `neg_energy_score`, `neg_crps`, `neg_variogram_score`: less the mean score over rows. Fair: `n_draws` changes how
      much chance there is in the number, and not what is expected of it.
    - `log_likelihood`: the mean of log p(y | x) over rows, in nats, for models that have a density. It draws nothing,
      and takes y as it is: `n_draws`, `scale` and `random_state` are nothing to it.

    The estimator is any with `sample(X, n, random_state=...)`, to (rows, n) or (rows, n, ...), or with
    `log_prob(X, y)`, to (rows,). It may stand at the end of a pipeline, or be what a search has found. All of these
    are proper: no model is expected to score better than the truth.

    scikit-learn answers an error while it scores with a warning and nan, unless it is told `error_score="raise"`.

    Args:
        name: one of `scorer_names()`.
        n_draws: draws a row.
        scale: `(dy,)`, what to divide each column of y by, so that columns in small units count too. Give it from
            outside, once: taken from the rows that are scored, it would differ from fold to fold.
        random_state: seed of the draws; if None the estimator's own.

    Examples:
        >>> import everymode as em
        >>> from sklearn.model_selection import cross_val_score
        >>> x, y = em.problems.get("fork").sample(300, seed=0)
        >>> model = em.OneToManyRegressor("gaussian", steps=20, random_state=0)
        >>> cross_val_score(model, x, y, cv=3, scoring=em.metrics.scorer("neg_energy_score")).shape
        (3,)

    References:
        Strictly proper scoring rules, prediction, and estimation (Gneiting and Raftery, 2007),
        https://doi.org/10.1198/016214506000001437
    """
    check_choice("name", name, scorer_names())
    check_number("n_draws", n_draws, 1, _MOST_DRAWS, integer=True)
    check_number("random_state", random_state, 0, 2**63 - 1, integer=True, optional=True)
    divisors = None if scale is None else tuple(np.atleast_1d(read_numbers(scale, "scale")).tolist())
    return Scorer(name, int(n_draws), divisors, random_state)


@dataclass(frozen=True)
class Scorer:
    """What `scorer` returns: it can be copied, pickled and sent to other processes.

    Attributes:
        name: of the score.
        n_draws: draws a row.
        scale: what each column of y is divided by, or None.
        random_state: seed of the draws, or None.
    """

    name: str
    n_draws: int
    scale: tuple[float, ...] | None
    random_state: int | None

    def __call__(self, estimator: Any, X: Any, y: Any) -> float:
        """Score a fitted estimator on rows.

        Args:
            estimator: the model.
            X: rows, as the estimator takes them.
            y: their true answers: an array, tensor, series or frame, (rows,), (rows, d) or (rows, ...).

        Raises:
            UnsupportedError: the estimator has no density, or cannot draw.
            DataError: X and y differ in rows, cells are no finite numbers, or the score needs more columns.
        """
        estimator, X = _innermost(estimator, X)
        if self.name == _LIKELIHOOD:
            _refuse_without(estimator, "log_prob", "choose a scorer that needs draws alone")
            return log_likelihood(estimator.log_prob(X, y)).value
        _refuse_without(estimator, "sample", "score a model of p(y | x), such as everymode.OneToManyRegressor")
        draws = np.asarray(estimator.sample(X, self.n_draws, random_state=self.random_state))
        truth = as_numbers(y, len(draws))
        return -float(_OF_DRAWS[self.name](truth, draws.reshape(len(draws), self.n_draws, -1), self.scale).mean())


def _innermost(estimator: Any, X: Any) -> tuple[Any, Any]:
    """Return the model inside a search or a pipeline, and X as it comes to that model."""
    while True:
        if hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif isinstance(estimator, Pipeline):
            X = estimator[:-1].transform(X) if len(estimator) > 1 else X
            estimator = estimator[-1]
        else:
            return estimator, X


def _refuse_without(estimator: Any, method: str, mend: str) -> None:
    if not callable(getattr(estimator, method, None)):
        raise UnsupportedError(f"{type(estimator).__name__} has no {method}: {mend}.")
