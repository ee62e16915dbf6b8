"""Can a classifier tell a model's draws from real ones?"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning

from everymode.errors import DataError, check_choice, check_number
from everymode.metrics.base import Measure
from everymode.metrics.intervals import wilson_interval
from everymode.metrics.samples import on_one_scale

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.neural_network import MLPClassifier

__all__ = ["c2st"]

_FOLDS = 5
_FARTHEST = 20.0  # standard deviations; one draw at 1e100 must not press all others into one point


def c2st(
    x: ArrayLike,
    draws: ArrayLike,
    reference: ArrayLike,
    real: ArrayLike | None = None,
    *,
    classifier: str = "forest",
    points: int = 2000,
    seed: int = 0,
) -> Measure:
    """Classifier two-sample test: held-out accuracy of telling pairs (x, draw) from pairs (x, real draw).

    .5 is perfect: the classifier can only guess. 1 means that every draw is recognised. Five-fold
    cross-validation; a row is never in two folds, so what is learnt of an x cannot be looked up.
    Each x stands on both sides equally often and gives nothing away by itself. Features are standardised by the
    real side, and those more than 20 standard deviations out are put there.

    - `forest`: a random forest of 50 trees with at least 3 points a leaf.
    - `mlp`: as Lueckmann et al., two hidden layers of 10 units a feature, but no more than 100 units, and 60
      epochs of Adam at a rate of .005 in place of up to 10,000 at .001: seconds in place of minutes.

    As published: in the same folds, the share of right guesses by `sklearn.model_selection.cross_val_predict` is the
    same number. Lopez-Paz and Oquab hold out one half once. `c2st` of sbi and of sbibm puts points into folds, not
    rows, so that of several draws for one x some are trained on and others judged; it has other settings, too.

    Fails: it is as strong as its classifier. From 2000 points neither learns fine structure (25 narrow modes, or
    rings), and a value of .5 then says that nothing was noticed, not that nothing is wrong. It answers "how
    different", not "how far": draws beside the right place by a hair are recognised as surely as draws miles away.

    Args:
        x: `(rows, dx)`, at least 2 rows.
        draws: `(rows, n, dy)`, independent from row to row.
        reference: as many real draws, `(rows, n, dy)`.
        real: as many real draws again, independent of `reference`; their accuracy is the floor.
        classifier: "forest" or "mlp".
        points: at most so many pairs, half of them real: the first draws of each row, or of rows chosen by chance
            where there are more rows than half the points.
        seed: of the folds and the classifiers.

    Returns:
        The accuracy over n held-out predictions. Its interval is Wilson's, two predictions counting as one trial:
        two pairs that lie close together and in different folds vote for each other, and are right or wrong as
        one, so that the accuracy spreads more widely than n independent trials would.

    References:
        Revisiting classifier two-sample tests (Lopez-Paz and Oquab, 2017), https://arxiv.org/abs/1610.06545;
        Benchmarking simulation-based inference (Lueckmann et al., 2021), https://arxiv.org/abs/2101.04653
    """
    check_choice("classifier", classifier, ("forest", "mlp"))
    check_number("points", points, 4, integer=True)
    draws, reference, real = on_one_scale(draws, reference, real)
    x = np.asarray(x, float)
    rows, n = draws.shape[:2]
    if x.ndim != 2 or len(x) != rows or rows < 2 or not np.isfinite(x).all():
        raise DataError(
            "a classifier needs at least 2 rows, and finite x (rows, dx) beside draws (rows, n, dy); "
            f"got {x.shape} and {draws.shape}"
        )
    rng = np.random.default_rng(seed)
    kept = np.sort(rng.permutation(rows)[: points // 2])
    each = min(n, max(1, points // 2 // len(kept)))
    fold = rng.permutation(len(kept)) % min(_FOLDS, len(kept))

    def hits(one: np.ndarray) -> np.ndarray:
        return _hits(x[kept], one[kept, :each], reference[kept, :each], fold, classifier, seed)

    right = hits(draws)
    floor = None if real is None else float(hits(real).mean())
    low, high = wilson_interval(round(right.sum() / 2), len(right) // 2)
    return Measure(float(right.mean()), low, high, floor, len(right))


def _hits(
    x: np.ndarray, draws: np.ndarray, reference: np.ndarray, fold: np.ndarray, classifier: str, seed: int
) -> np.ndarray:
    """Whether each held-out pair was put on the right side, `(2 * rows * n,)`."""
    n = draws.shape[1]
    drawn, real = _pairs(x, draws), _pairs(x, reference)
    centre, scale = real.mean(axis=0), real.std(axis=0)
    scale[scale == 0] = 1.0
    features = np.clip((np.concatenate([drawn, real]) - centre) / scale, -_FARTHEST, _FARTHEST)
    is_real = np.repeat([False, True], len(real))
    held_out_in = np.tile(np.repeat(fold, n), 2)
    right = np.empty(len(features), bool)
    for number in range(fold.max() + 1):
        held_out = held_out_in == number
        model = _classifier(classifier, features.shape[1], seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the epochs are bounded on purpose
            model.fit(features[~held_out], is_real[~held_out])
        right[held_out] = model.predict(features[held_out]) == is_real[held_out]
    return right


def _pairs(x: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """x `(rows, dx)` beside each of its draws `(rows, n, dy)`: `(rows * n, dx + dy)`."""
    rows, n, dy = draws.shape
    return np.concatenate([np.repeat(x, n, axis=0), draws.reshape(rows * n, dy)], axis=1)


def _classifier(name: str, features: int, seed: int) -> RandomForestClassifier | MLPClassifier:
    # Imported here: they are slow to load, and the estimator loads this package for the energy score alone.
    if name == "forest":
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(50, min_samples_leaf=3, random_state=seed)
    from sklearn.neural_network import MLPClassifier

    units = min(10 * features, 100)
    return MLPClassifier((units, units), learning_rate_init=0.005, max_iter=60, random_state=seed)
