"""The calibration: tests of whether y could be one of the draws, and what is wrong where it could not.

Every test ranks a score of y among those of the draws. What differs is the score, and so what it sees:

- `PIT of ...`: the target itself; draws that are shifted, or too narrow or too wide along it (Gneiting, Balabdaoui and
  Raftery, 2007: Probabilistic forecasts, calibration and sharpness).
- `average rank`, `energy rank`: of several targets, what is high in all at once, and what is at the rim.
- `density rank`, and the share of y in the highest-density regions of 50, 80, 90 and 95 %: by the model's log-density,
  or by that of nearest neighbours; draws that are too narrow or too wide around each answer.
- `reference rank`: the distance to another row's y (TARP); with x, also a model that does not look at x.
- `gap rank`: the distance to the nearest draw; answers that the draws lack.

No test sees all, however many rows there are:

- a PIT: what leaves the law of its own target as it is, such as a fault of another, or of how targets hang together;
- the average rank: what moves one target up and another down by as much;
- the energy rank: what moves answers to places as far out; the density rank: to places as dense;
- a region's share: what stays on its side of the region's border;
- the gap rank: wrong probabilities of answers that are all there, for gaps are measured in what draws are apart;
- all but the reference rank, whose references are near in x: what cancels over the rows, such as the right law of y
  without a look at x. The reference rank in its turn has little power for what is small beside the distances.

The verdict rests on all together, 5 % of false alarms in all (Holm). What it calls wrong is what explains the most of
the ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from everymode.calibration.scores import FAR, Halves, average_rank, energy, references, to_references
from everymode.calibration.uniform import (
    LEVEL,
    band_of,
    ecdf_p_value,
    holm,
    least_tail,
    ranks,
    share_band,
    share_p,
)
from everymode.errors import DataError, SettingError, check_number
from everymode.estimator import OneToManyRegressor
from everymode.inputs import count_of, encode_condition, encode_target, take_given
from everymode.metrics import energy_scores
from everymode.metrics.samples import beside_answers
from everymode.randomness import mix
from everymode.spaces import Condition, default_names
from everymode.tables import as_numbers, share_of_ties

__all__ = ["LEVELS", "VERDICTS", "Calibration", "Check", "Sharpness", "calibrate", "calibrate_draws"]

VERDICTS = (
    "calibrated: nothing found",
    "answers are missing",
    "shifted",
    "too narrow",
    "too wide",
    "of another shape",
)
LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Of the highest-density regions."""

_LEAST_ROWS, _FEW, _LEAST_DRAWS = 20, 200, 20
_MOST_ROWS, _MOST_TARGETS = 5000, 16
_MOST_NAMED = 5  # targets
_TIED = 0.25  # share of values that other rows share
_MOST_SIZED = 8  # targets of which a region's size is told
_SURE = 3.0  # standard errors of what is called wrong
_ROWS, _DRAWS, _TIES = range(3)  # streams of randomness
_MEANING = {
    "answers are missing": "answers lie where there are no draws",
    "shifted": "answers lie to one side of the draws",
    "too narrow": "answers lie at the rim of the draws, or beside them, more often than draws do",
    "too wide": "answers lie in the midst of the draws more often than draws do",
    "of another shape": "the tests say where answers and draws differ; no simple change would mend it",
}


@dataclass(frozen=True)
class Check:
    """One test.

    Attributes:
        name: what is ranked, or which share is told.
        statistic: of ranks, the least two-sided tail probability of their ECDF over the places where it is looked at;
            of a region, the share of y in it.
        low, high: between which it lies in 95 % of cases if the draws are right.
        p_value: of so far out a statistic, by itself.
        p_value_of_all: the same, heeding that there are several tests (Holm).
        inside: whether the statistic is within its band.
    """

    name: str
    statistic: float
    low: float
    high: float
    p_value: float
    p_value_of_all: float
    inside: bool


@dataclass(frozen=True)
class Sharpness:
    """How narrow the draws are: of two calibrated models, the sharper says more.

    Attributes:
        width: mean over the rows of the central 90 % interval, by target, in its units.
        region: size of the 90 % highest-density region, the geometric mean over the rows, in the units of all targets
            multiplied; None for more than 8 targets, or where a density is infinite.
        energy_score: of y, with every column in standard deviations; lower is better.
        energy_score_if_right: what a draw scores in y's place.
    """

    width: dict[str, float]
    region: float | None
    energy_score: float
    energy_score_if_right: float


@dataclass(frozen=True)
class Calibration:
    """What was found.

    Attributes:
        verdict: one of `VERDICTS`.
        checks: the tests.
        sharpness: how narrow the draws are.
        ranks: by name, of each row, uniform on [0, 1] if the draws are right; those of `reference rank` leave out one
            row, those of `density rank` are low where y is likely.
        far: share of the rows whose y is farther from the draws than the draws are from each other.
        targets: names.
        rows: that were judged.
        n_draws: of each row.
        density: 'log-density', or 'nearest neighbours' of one half of the draws.
        remarks: what was done to the data.
    """

    verdict: str
    checks: tuple[Check, ...]
    sharpness: Sharpness
    ranks: dict[str, np.ndarray] = field(repr=False)
    far: float
    targets: tuple[str, ...]
    rows: int
    n_draws: int
    density: str
    remarks: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what is said, JSON-ready."""
        told = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "ranks"}
        return {
            **told,
            "checks": [asdict(check) for check in self.checks],
            "sharpness": asdict(self.sharpness),
            "targets": list(self.targets),
            "remarks": list(self.remarks),
        }

    @property
    def title(self) -> str:
        """One line."""
        more = ", ..." if len(self.targets) > _MOST_NAMED else ""
        return f"{', '.join(self.targets[:_MOST_NAMED])}{more}: {self.verdict}"

    @property
    def calibrated(self) -> bool:
        """Whether nothing was found."""
        return self.verdict == VERDICTS[0]

    @property
    def meaning(self) -> str:
        """What the verdict says, in a sentence."""
        if self.calibrated:
            return f"no test of {len(self.checks)} tells answers from draws, at 5 % of false alarms in all."
        least = min(self.checks, key=lambda check: check.p_value)
        return f"{_MEANING[self.verdict]}; the surest is the {least.name}, p = {least.p_value_of_all:.2g}."

    def __str__(self) -> str:
        """Return the verdict with what it rests on."""
        wide = max(len(check.name) for check in self.checks)
        lines = [f"verdict: {self.verdict}", f"  {self.meaning}"]
        lines += [
            f"  {check.name:{wide}}  {check.statistic:<7.3g} in {check.low:.3g} to {check.high:.3g}"
            f"   p = {check.p_value:.2g}{'' if check.inside else '   outside'}"
            for check in self.checks
        ]
        sharp = self.sharpness
        widths = ", ".join(f"{name} {width:.3g}" for name, width in list(sharp.width.items())[:_MOST_NAMED])
        region = "" if sharp.region is None else f"; size of the 90 % region: {sharp.region:.3g}"
        lines += [
            f"  width of the central 90 %: {widths}{region}",
            f"  energy score {sharp.energy_score:.3g}; {sharp.energy_score_if_right:.3g} if the draws were right",
            f"  {self.rows:,} rows, {self.n_draws} draws each, density by {self.density}",
        ]
        return "\n".join([*lines, *(f"  {remark}" for remark in self.remarks)])


def calibrate(
    model: OneToManyRegressor,
    X: Any,
    Y: Any,
    *,
    n_draws: int = 200,
    density: bool | None = None,
    max_rows: int = _MOST_ROWS,
    random_state: int = 0,
) -> Calibration:
    """Return whether the draws of a model spread as the answers do, on rows that it has not seen.

    Args:
        model: fitted.
        X: rows, as in `fit`, that it was not fitted on: on those that it was, it looks better than it is.
        Y: one answer a row.
        n_draws: draws a row, 20 or more; more see smaller gaps.
        density: whether regions are those of the model's log-density; if None they are where it takes one evaluation
            of the network, and else those of the nearest neighbours of draws.
        max_rows: of more, so many are judged, drawn at random.
        random_state: of the draws, the ties and the rows.

    Raises:
        DataError: X or Y cannot be used; the message names shapes, rows or columns.
        SettingError: a setting is out of range.
        UnsupportedError: `density` is asked of a family that has none.

    Examples:
        >>> import everymode as em
        >>> x, y = em.problems.get("line").sample(2000, seed=0)
        >>> model = em.OneToManyRegressor("mse", steps=100, random_state=0).fit(x[:1000], y[:1000])
        >>> em.calibrate(model, x[1000:], y[1000:]).verdict  # one answer, and no spread
        'too narrow'
    """
    if not isinstance(model, OneToManyRegressor):
        raise SettingError(f"model={model!r}: give a fitted OneToManyRegressor, or its draws to calibrate_draws.")
    check_is_fitted(model, "family_")
    seed = check_number("random_state", random_state, 0, 2**63 - 1, integer=True)
    n = check_number("n_draws", n_draws, _LEAST_DRAWS, integer=True)
    most = check_number("max_rows", max_rows, _LEAST_ROWS, integer=True)
    given = count_of(X)
    encode_target(Y, model.y_space_, given)  # what cannot be used is refused here
    y, chosen = as_numbers(Y, given), np.arange(given)
    if given > most:
        chosen = np.sort(np.random.default_rng(mix(seed, _ROWS)).permutation(given)[:most])
        X, y = take_given(X, chosen), y[chosen]
    rows = len(y)
    drawn = model.sample(X, n, random_state=mix(seed, _DRAWS))
    logs: dict[str, Any] = {}
    if (model.has_density and model.nfe == 1) if density is None else density:
        event = (rows, *model.y_space_.shape)
        logs["log_density"] = model.log_prob(X, y.reshape(event))
        each, per = max(1, 2**18 // rows), []
        for start in range(0, n, each):  # a block of draws of all rows at a time
            block = drawn[:, start : start + each]
            repeated = take_given(X, np.repeat(np.arange(rows), block.shape[1]))
            found = model.log_prob(repeated, block.reshape(-1, *model.y_space_.shape))
            per.append(found.reshape(rows, -1))
        logs["draws_log_density"] = np.concatenate(per, axis=1)
    remarks = () if given <= most else (f"{most:,} of {given:,} rows, drawn at random, were judged",)
    return calibrate_draws(
        y,
        drawn.reshape(rows, n, -1),
        x=_as_matrix(encode_condition(model, X, model.x_space_)),
        **logs,
        names=model.y_space_.value_names,
        random_state=seed,
        remarks=remarks,
    )


def calibrate_draws(
    y: ArrayLike,
    draws: ArrayLike,
    *,
    x: ArrayLike | None = None,
    log_density: ArrayLike | None = None,
    draws_log_density: ArrayLike | None = None,
    names: Sequence[str] | None = None,
    random_state: int = 0,
    remarks: Sequence[str] = (),
) -> Calibration:
    """Return whether draws spread as the answers do, wherever both are from.

    Args:
        y: what happened, (rows, d), or (rows,).
        draws: (rows, n, d), or (rows, n) where y is (rows,); the draws of a row are exchangeable.
        x: (rows, columns): distances are then to y of rows near in x, which sees draws that do not heed it.
        log_density: log p(y | x) as the model has it, (rows,), if there is one.
        draws_log_density: that of the draws, (rows, n).
        names: of the targets.
        random_state: of the ties and the references.
        remarks: what the result is to say besides.

    Raises:
        DataError: the shapes differ, numbers are not finite, or there are too few rows or draws.

    Examples:
        >>> import everymode as em
        >>> fork = em.problems.get("fork")
        >>> x, y = fork.sample(500, seed=0)
        >>> em.calibrate_draws(y, fork.sample_given(x, 100, seed=1), x=x).verdict
        'calibrated: nothing found'
        >>> em.calibrate_draws(y, 0.5 + fork.sample_given(x, 100, seed=1), x=x).verdict
        'shifted'
    """
    seed = check_number("random_state", random_state, 0, 2**63 - 1, integer=True)
    y, draws = _checked(y, draws)
    rows, n, size = draws.shape
    matrix = None if x is None else _checked_x(x, rows)
    logs = _checked_logs(log_density, draws_log_density, rows, n)
    targets = default_names(size) if names is None else tuple(map(str, names))
    if len(targets) != size:
        raise DataError(f"names={list(targets)}: give {size}, one a column of y.")
    rng = np.random.default_rng(mix(seed, _TIES))
    # y and the draws of a row are treated alike here, too: what follows is exact
    scale = np.concatenate([y[:, None], draws], axis=1).std(axis=(0, 1))
    scale = np.where(scale > 0, scale, 1.0)
    even_y, even = y / scale, draws / scale
    halves = Halves(even_y, even)
    of_y, of_draws = halves.log_density if logs is None else logs

    found: dict[str, np.ndarray] = {}
    told = list(remarks)
    if size <= _MOST_TARGETS:
        found |= {f"PIT of {name}": ranks(y[:, j], draws[..., j], rng) for j, name in enumerate(targets)}
    else:
        told.append(f"the {size} targets are ranked together; each by itself only where there are {_MOST_TARGETS}")
    if size > 1:
        found["average rank"] = ranks(*average_rank(y, draws), rng)
        found["energy rank"] = ranks(*energy(even_y, even), rng)
    found["density rank"] = ranks(-of_y, -of_draws, rng)
    other = references(rows, matrix, rng)
    has = other >= 0
    found["reference rank"] = ranks(*to_references(even_y[has], even[has], even_y[other[has]]), rng)
    found["gap rank"] = ranks(*halves.gap, rng)
    told += [f"{name} has values that many rows share: draws in between count as wrong" for name in _shared(y, targets)]
    if rows < _FEW:
        told.append(f"{rows} rows: only what is far wrong is seen below {_FEW}")
    checks = _checks(found)
    # beside draws that are all equal every gap is infinite: they are too narrow, whatever else they lack
    far, far_draws = ((gap > FAR) & np.isfinite(gap) for gap in halves.gap)
    return Calibration(
        verdict=_verdict(checks, found, far, far_draws),
        checks=checks,
        sharpness=_sharpness(y, draws, targets, scale, of_draws, 1.0 if logs else float(np.prod(scale))),
        ranks=found,
        far=float(far.mean()),
        targets=targets,
        rows=rows,
        n_draws=n,
        density="nearest neighbours" if logs is None else "log-density",
        remarks=tuple(told),
    )


# What is handed in ---------------------------------------------------------------------------------------------------


def _checked(y: ArrayLike, draws: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    y, draws = np.asarray(y, float), np.asarray(draws, float)
    if y.ndim == 1 and draws.ndim == 2:
        y, draws = y[:, None], draws[..., None]
    y, draws = beside_answers(y, draws)
    if len(y) < _LEAST_ROWS or draws.shape[1] < _LEAST_DRAWS:
        raise DataError(
            f"calibration asks for {_LEAST_ROWS} rows and {_LEAST_DRAWS} draws of each, and says little below {_FEW} "
            f"rows; got {len(y)} rows and {draws.shape[1]} draws."
        )
    return y, draws


def _checked_x(x: ArrayLike, rows: int) -> np.ndarray:
    x = np.asarray(x, float)
    if x.ndim != 2 or len(x) != rows or not np.isfinite(x).all():
        raise DataError(f"x must be finite numbers ({rows}, columns), a row for each of y; got {x.shape}.")
    return x


def _checked_logs(of_y: ArrayLike | None, of_draws: ArrayLike | None, rows: int, n: int) -> Any:
    """Return (log-density of y, of the draws), or None where there are none."""
    if (of_y is None) != (of_draws is None):
        raise DataError("give log_density and draws_log_density both, or neither.")
    if of_y is None or of_draws is None:
        return None
    of_y, of_draws = np.asarray(of_y, float), np.asarray(of_draws, float)
    if of_y.shape != (rows,) or of_draws.shape != (rows, n):
        raise DataError(
            f"log_density must be ({rows},) and draws_log_density ({rows}, {n}); got {of_y.shape} and {of_draws.shape}."
        )
    for name, values in {"log_density": of_y, "draws_log_density": of_draws}.items():
        if np.isnan(values).any():
            raise DataError(f"{name} must be numbers, or infinite; {np.isnan(values).sum()} are NaN.")
    return of_y, of_draws


def _as_matrix(x: Condition) -> np.ndarray:
    """Return a standardised x as numbers (rows, columns), a column for each category."""
    parts: Sequence[Tensor] = list(x.values()) if isinstance(x, dict) else [x]
    columns = []
    for part in parts:
        values = part.cpu().numpy().reshape(len(part), -1)
        if part.is_floating_point():
            columns.append(values.astype(np.float64))
        else:
            columns += [(codes[:, None] == np.unique(codes)).astype(np.float64) for codes in values.T]
    return np.concatenate(columns, axis=1)


def _shared(y: np.ndarray, targets: Sequence[str]) -> list[str]:
    """Return the targets a quarter of whose values or more occur in other rows, too: they are rounded, or counted."""
    return [name for name, column in zip(targets, y.T, strict=True) if share_of_ties(column) >= _TIED]


# Telling -------------------------------------------------------------------------------------------------------------


def _checks(found: dict[str, np.ndarray]) -> tuple[Check, ...]:
    told: list[tuple[str, float, float, float, float]] = []
    for name, values in found.items():
        least = least_tail(values)
        told.append((name, least, band_of(len(values)).bound, 1.0, ecdf_p_value(least, len(values))))
        if name == "density rank":
            for level in LEVELS:
                share = float((values <= level).mean())
                band = share_band(level, len(values))
                told.append((f"share in the {level:.0%} region", share, *band, share_p(share, level, len(values))))
    of_all = holm([one[-1] for one in told])
    return tuple(
        Check(name, statistic, low, high, p, float(together), low <= statistic <= high)
        for (name, statistic, low, high, p), together in zip(told, of_all, strict=True)
    )


def _verdict(checks: Sequence[Check], found: dict[str, np.ndarray], far: np.ndarray, far_draws: np.ndarray) -> str:
    """Return what explains the most of the ranks: shares of rows, all of them."""
    if min(check.p_value_of_all for check in checks) > LEVEL:
        return VERDICTS[0]
    near = ~far
    usual = float(far_draws.mean())
    missing = float(far.mean()) - usual
    sizes = {"answers are missing": missing if missing > _SURE * np.sqrt(max(usual, 1 / len(far)) / len(far)) else 0.0}
    if near.any():
        least = _SURE / np.sqrt(3 * near.sum())  # standard errors of twice a mean of uniform numbers

        def off(values: np.ndarray) -> float:
            away = float(2 * values[near].mean() - 1)
            return away if abs(away) > least else 0.0

        spread = max(off(found["density rank"]), off(found["gap rank"]), key=abs)
        shifts = [abs(off(values)) for name, values in found.items() if name.startswith("PIT")]
        sizes |= {"shifted": max(shifts, default=0.0), "too narrow": spread, "too wide": -spread}
    largest = max(sizes, key=lambda name: sizes[name])
    return largest if sizes[largest] > 0 else "of another shape"


def _sharpness(
    y: np.ndarray, draws: np.ndarray, targets: Sequence[str], scale: np.ndarray, log_density: np.ndarray, unit: float
) -> Sharpness:
    low, high = np.quantile(draws, [0.05, 0.95], axis=1)
    return Sharpness(
        width=dict(zip(targets, (high - low).mean(axis=0).tolist(), strict=True)),
        region=_region(log_density - np.log(unit)) if len(targets) <= _MOST_SIZED else None,
        energy_score=float(energy_scores(y, draws, scale).mean()),
        energy_score_if_right=float(energy_scores(draws[:, 0], draws[:, 1:], scale).mean()),
    )


def _region(log_density: np.ndarray) -> float | None:
    """Return the size of the 90 % region, the mean of 1 / density over the draws in it."""
    if not np.isfinite(log_density).all():
        return None
    least = np.quantile(log_density, 0.1, axis=1, keepdims=True)
    inside = np.where(log_density >= least, -log_density, -np.inf)
    sizes = logsumexp(inside, axis=1) - np.log(log_density.shape[1])
    mean = np.exp(sizes.mean())
    return float(mean) if np.isfinite(mean) and mean > 0 else None
