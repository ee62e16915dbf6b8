"""The diagnosis: one verdict, and where it holds.

Rows are split into parts. On the others, the average and the mixtures of `learners` are learned; on each part, the
evidence of `valleys` against laws of one peak is gathered. Both learners, with their mixtures as they are and blurred,
share the stake, so that the product over rows is one e-value for the whole table, and the p-value is its inverse.
What is told of rows comes from the learner with the higher likelihood on rows that it has not seen.

Rows that depend on one another, such as the steps of an episode, are told by `groups`: those of a group are in one
part, so that nothing is judged by what was learned from its own group, and those of them with a valley count as one.

Rows on whose average the fits do not agree do not count: what one average too far leaves of y looks like an answer.

What the p-value does not cover: an x that decides between answers by a rule that no learner here finds looks like a
choice. From data alone, a hidden input, a rule that nobody found, and true choice cannot be told apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.spatial import KDTree
from sklearn.base import BaseEstimator
from sklearn.tree import DecisionTreeClassifier

from everymode.diagnosis.learners import LEARNERS, Averages
from everymode.diagnosis.noise import Noise, noise_of
from everymode.diagnosis.valleys import Mixtures, Valleys, directions, log_evidence, on_a_line, one_peak, valleys
from everymode.errors import DataError, check_number
from everymode.inputs import fit_condition, read_target
from everymode.randomness import mix
from everymode.spaces import Condition, Space, TableSpace, VectorSpace
from everymode.tables import as_frame, as_numbers, is_categorical, share_of_ties

__all__ = ["VERDICTS", "Diagnosis", "Where", "diagnose"]

VERDICTS = (
    "one answer",
    "one answer, uneven noise",
    "skewed or heavy-tailed, still one answer",
    "several answers",
    "not enough data",
)
_MOST_ROWS, _MOST_TARGETS = 10_000, 16
_LEAST = 20  # rows, and groups of them
_FEW, _SOME = 200, 500  # rows below which one answer is not said; and below which parts are five
_SURE, _LEANING = math.log(20), 1.0  # log-evidence: of a false alarm in 20, and of too much to say one answer
_BLURS = (1.0, 1.6)
_HEIGHTS = np.arange(0.05, 0.75, 0.05)  # of valleys, of which one is the highest that is believed
_TIED = 0.5  # share of rows with a value that others have, too, from which on targets are taken for rounded
_JUDGED = 1000  # rows that the columns are judged by
_EXAMPLES, _NEIGHBOURS = 10, 30
_CATEGORIES = 20
_ROWS, _PARTS, _NOISE, _COLUMNS = range(4)  # streams of randomness
_GRID = np.linspace(-1.0, 2.0, 121)  # of the laid-over rows: peaks at 0 and 1


@dataclass(frozen=True)
class Where:
    """A part of the rows.

    Attributes:
        rule: what they have in common, in the user's columns.
        rows: share of all rows.
        several: share of these that have several answers.
    """

    rule: str
    rows: float
    several: float


@dataclass(frozen=True)
class Laid:
    """Rows with several answers laid over one another, their two peaks at 0 and 1.

    Attributes:
        observed: where each of them was observed.
        grid: places.
        flexible: mean density of the mixtures there.
        one_peak: mean density of the nearest laws with one peak.
    """

    observed: np.ndarray
    grid: np.ndarray
    flexible: np.ndarray
    one_peak: np.ndarray


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        verdict: one of `VERDICTS`.
        p_value: of a table with one answer a row; at most `p` in `p` of such tables, whatever their noise.
        share: of the rows that have several answers; 0 unless that is the verdict.
        gain: nats a row that the mixtures gain over the nearest laws with one peak, on rows they have not seen.
        gain_error: its standard error.
        valley_ratio: p(average | x) / p(best answer | x), the median over the rows with several answers, or over all
            where there are none: how bad the average is as an answer.
        floor: root mean square error, in the units of each target, that no single answer can get below.
        noise: what is left around the average, target by target; of use where there is one answer.
        columns: nats a row that each column of x is worth, the dearest first.
        where: parts of the rows and their shares with several answers.
        examples: twenty rows in pairs, near in x and far apart in y.
        recommended: a family.
        reason: why.
        rows: of the table.
        rows_used: those that were looked at.
        remarks: what was done to the data.
    """

    verdict: str
    p_value: float
    share: float
    gain: float
    gain_error: float
    valley_ratio: float
    floor: dict[str, float]
    noise: dict[str, Noise]
    columns: dict[str, float]
    where: tuple[Where, ...]
    examples: pd.DataFrame
    recommended: str
    reason: str
    rows: int
    rows_used: int
    remarks: tuple[str, ...]
    x: pd.DataFrame = field(repr=False)
    y: pd.DataFrame = field(repr=False)
    several: np.ndarray = field(repr=False)
    average: np.ndarray = field(repr=False)
    laid: Laid | None = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return what is said, JSON-ready."""
        left_out = ("x", "y", "several", "average", "laid", "examples", "noise", "where")
        told = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in left_out}
        return {
            **told,
            "remarks": list(self.remarks),
            "noise": {name: asdict(noise) for name, noise in self.noise.items()},
            "where": [asdict(part) for part in self.where],
            "examples": self.examples.to_dict("records"),
            "contradiction": self.contradiction,
        }

    @property
    def title(self) -> str:
        """One line."""
        return f"{', '.join(map(str, self.y.columns))} given {', '.join(map(str, self.x.columns))}: {self.verdict}"

    @property
    def contradiction(self) -> str:
        """What data alone cannot tell."""
        return (
            "Rows with near-equal x and far-apart y contradict each other for any single answer. Whether an input is "
            "missing from the table, a rule was not found, or there truly is a choice, the data alone cannot tell: "
            "look at the examples, and add a column if you know one that would decide."
        )

    def __str__(self) -> str:
        """Return the verdict with what it rests on."""
        lines = [
            f"verdict: {self.verdict}",
            f"  p-value of one answer: {self.p_value:.2g}; {self.gain:.3g} +- {self.gain_error:.2g} nats a row over "
            "the best law with one peak",
        ]
        if self.verdict == "several answers":
            lines.append(
                f"  {self.share:.0%} of the rows have several answers; there, the average is {self.valley_ratio:.2g} "
                "times as likely as the best answer"
            )
            lines += [f"  {part.several:.0%} where {part.rule} ({part.rows:.0%} of the rows)" for part in self.where]
        floors = ", ".join(f"{name} {value:.3g}" for name, value in self.floor.items())
        dear = ", ".join(f"{name} {value:.2f}" for name, value in list(self.columns.items())[:5])
        lines += [f"  no single answer is nearer, in the root mean square, than {floors}", f"  nats a column: {dear}"]
        lines += [f"  {remark}" for remark in self.remarks]
        return "\n".join([*lines, f"  take {self.recommended}: {self.reason}"])


def diagnose(
    X: Any,
    Y: Any,
    *,
    groups: Any = None,
    random_state: int = 0,
    max_rows: int = _MOST_ROWS,
    progress: Callable[[float], None] | None = None,
) -> Diagnosis:
    """Return whether one x has several answers, where, and what averaging costs.

    Args:
        X: rows: a frame, whose columns may be categorical, or an array (rows, columns).
        Y: one answer a row, 1 to 16 numbers: (rows,), (rows, d) or a frame.
        groups: (rows,), equal where rows depend on one another beyond X: the steps of an episode, the visits of a
            patient. None: every row stands for itself.
        random_state: of the parts, the learners and the rows that are looked at.
        max_rows: of more, so many are looked at, drawn at random.
        progress: called now and then with the share of the work that is done.

    Raises:
        DataError: X or Y cannot be used; the message names shapes, rows or columns.

    Examples:
        >>> import everymode as em
        >>> x, y = em.problems.get("fork").sample(500, seed=0)
        >>> em.diagnose(x, y).verdict
        'several answers'
    """
    seed = check_number("random_state", random_state, 0, 2**63 - 1, integer=True)
    check_number("max_rows", max_rows, _LEAST, integer=True)
    table = _Table.read(X, Y, groups, max_rows, seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of no use to networks so small
    try:
        looked = _look(table, _seed(seed, _PARTS), progress or (lambda done: None))
    finally:
        torch.set_num_threads(threads)
    return _told(table, looked, seed)


def _seed(seed: int, *stream: int) -> int:
    """Return a seed that scikit-learn takes, too."""
    return mix(seed, *stream) % 2**31


# The table -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    """What is looked at: a matrix of numbers for x, whose columns may belong together, and y in comparable units."""

    x: np.ndarray  # (rows, columns)
    y: np.ndarray  # (rows, d), in `scale`
    scale: np.ndarray  # (d,)
    groups: dict[str, list[int]]  # columns of x by the user's columns
    together: np.ndarray  # (rows,): number of the group of rows that depend on one another
    shown_x: pd.DataFrame
    shown_y: pd.DataFrame
    rows: int
    remarks: tuple[str, ...]

    @classmethod
    def read(cls, X: Any, Y: Any, groups: Any, most: int, seed: int) -> _Table:
        space, x, rows = fit_condition(_Columns(), X)
        if not isinstance(space, (VectorSpace, TableSpace)):
            raise DataError(f"diagnose looks at tables, and X is a {space.kind}: give one row of columns for each y.")
        y_space, _, _ = read_target(Y, rows)
        if not isinstance(y_space, VectorSpace) or y_space.size > _MOST_TARGETS:
            raise DataError(
                f"diagnose takes 1 to {_MOST_TARGETS} numbers a row, and Y has the shape {(rows, *y_space.shape)}: "
                "choose some of its columns, or the first principal components."
            )
        if rows < _LEAST:
            raise DataError(f"the table has {rows} rows: diagnose asks for {_LEAST}, and says little below {_FEW}.")
        rng = np.random.default_rng(_seed(seed, _ROWS))
        chosen = np.sort(rng.permutation(rows)[:most])
        answers = as_numbers(Y, rows)[chosen]
        names = list(y_space.value_names)
        matrix, columns = _matrix(space, x, chosen)
        together = _together(groups, rows)[chosen]
        remarks = [] if rows <= most else [f"{most:,} of {rows:,} rows, drawn at random, were looked at"]
        if groups is not None:
            together = np.unique(together, return_inverse=True)[1]
            remarks.append(f"they are of {together.max() + 1:,} groups, each of which counts as one row")
        y = answers.copy()
        for index, name in enumerate(names):
            column = answers[:, index]
            values = np.unique(column)
            if len(values) > 1 and share_of_ties(column) > _TIED:
                gap = np.median(np.diff(values))
                y[:, index] += gap * (rng.random(len(column)) - 0.5)
                remarks.append(f"{name} is rounded to {gap:.3g}, which was undone by as much noise")
        low, high = np.quantile(y, [0.16, 0.84], axis=0)
        scale = np.where(high > low, (high - low) / 2, np.maximum(y.std(axis=0), 1e-12))
        shown = as_frame(X)
        shown_x = pd.DataFrame(np.asarray(X)) if shown is None else shown
        shown_x = shown_x.set_axis(list(columns), axis=1)
        return cls(
            matrix,
            (y - y.mean(axis=0)) / scale,
            scale,
            columns,
            together,
            shown_x.iloc[chosen].reset_index(drop=True),
            pd.DataFrame(answers, columns=names),
            rows,
            tuple(remarks),
        )


def _together(groups: Any, rows: int) -> np.ndarray:
    """Return the number of each row's group, (rows,)."""
    if groups is None:
        return np.arange(rows)
    groups = np.asarray(groups)
    if groups.shape != (rows,):
        raise DataError(f"X has {rows} rows, but groups has shape {groups.shape}: give one group a row.")
    distinct, together = np.unique(groups, return_inverse=True)
    if len(distinct) < _LEAST:
        raise DataError(f"the rows are of {len(distinct)} groups: diagnose asks for {_LEAST}.")
    return together


class _Columns(BaseEstimator):
    """Where scikit-learn leaves the names of columns."""


def _matrix(space: Space, x: Condition, chosen: np.ndarray) -> tuple[np.ndarray, dict[str, list[int]]]:
    """Return standardised x as numbers (rows, columns), categories as a column each, and the columns of each name."""
    if not isinstance(x, dict):
        values = x.numpy()[chosen].astype(np.float64)
        names = getattr(space, "names", ()) or [f"x{i}" for i in range(values.shape[1])]
        return values, {str(name): [index] for index, name in enumerate(names)}
    if not isinstance(space, TableSpace):
        raise TypeError(f"{space.kind} is no table")
    numeric, codes = (x[key].numpy()[chosen] for key in ("numeric", "categorical"))
    parts, groups, width = [numeric.astype(np.float64)], {}, numeric.shape[1]
    groups |= {column.name: [index] for index, column in enumerate(space.numeric)}
    for index, column in enumerate(space.categorical):
        common = np.argsort(-np.bincount(codes[:, index]), kind="stable")[:_CATEGORIES]
        parts.append((codes[:, index, None] == common).astype(np.float64))
        groups[column.name] = list(range(width, width + len(common)))
        width += len(common)
    return np.concatenate(parts, axis=1), {name: groups[name] for name in space.names}


# Looking -------------------------------------------------------------------------------------------------------------


@dataclass
class _Looked:
    """What was found on rows that nothing was learned from."""

    evidence: float  # logarithm
    left: np.ndarray  # (rows, d): what averages leave
    average: np.ndarray  # (rows, d)
    variance: np.ndarray  # (rows, d), of the mixtures
    against: np.ndarray  # (rows,): log p(average) - log p(best)
    found: Valleys  # on the line through each y
    likely: Valleys  # on the line through the summit: of x alone
    along: np.ndarray  # (rows, d)
    place: np.ndarray  # (rows,): of y on the line through the summit
    lines: Mixtures  # those through the summits
    low_enough: float  # height of valleys that are believed
    columns: dict[str, float]


def _look(table: _Table, seed: int, progress: Callable[[float], None]) -> _Looked:
    rows = len(table.y)
    parts = 5 if rows < _SOME else 3
    groups = int(table.together.max()) + 1
    part = (np.random.default_rng(seed).permutation(groups) % parts)[table.together]
    left, average = np.empty_like(table.y), np.empty_like(table.y)
    said: dict[str, list[Mixtures]] = {name: [] for name in LEARNERS}
    ways: dict[str, list[np.ndarray]] = {name: [] for name in LEARNERS}
    bets: dict[tuple[str, float], list[Valleys]] = {(name, blur): [] for name in LEARNERS for blur in _BLURS}
    first: dict[str, tuple[Averages, Callable[[np.ndarray], Mixtures]]] = {}
    for k in range(parts):
        learn, see = part != k, part == k
        averages = Averages.of(table.x[learn], table.y[learn], table.together[learn], _seed(seed, k))
        average[see], agreed = averages(table.x[see])
        left[see] = table.y[see] - average[see]
        for name, learner in LEARNERS.items():
            mixtures = learner(table.x[learn], averages.left, _seed(seed, k))
            first.setdefault(name, (averages, mixtures))
            told = mixtures(table.x[see])
            said[name].append(told)
            ways[name].append(directions(told))
            lines = on_a_line(told, ways[name][-1], left[see])
            lines = replace(lines, counted=lines.counted & agreed)
            for blur in _BLURS:
                bets[name, blur].append(valleys(lines, blur=blur))
        progress((k + 1) / (parts + 1))  # what is told of the rows takes about as long as a part
    order = np.concatenate([np.flatnonzero(part == k) for k in range(parts)])
    back = np.argsort(order)
    joined = {bet: _joined(found, back) for bet, found in bets.items()}
    logs = [log_evidence(found, table.together) for found in joined.values()]
    whole = {name: _stacked(mixtures, back) for name, mixtures in said.items()}
    best = max(whole, key=lambda name: float(whole[name].log_density(left[:, None]).mean()))
    believed = {blur: _low_enough(joined[best, blur]) for blur in _BLURS}
    blur = max(_BLURS, key=lambda blur: believed[blur][1])
    mixtures, along = whole[best], np.concatenate(ways[best])[back]
    summits = mixtures.summits
    lines = on_a_line(mixtures, along, summits)
    heights = mixtures.log_density(np.stack([mixtures.mean, summits], axis=1))
    return _Looked(
        evidence=float(np.logaddexp.reduce(logs)) - math.log(len(logs)),
        left=left,
        average=average,
        variance=mixtures.variance,
        against=heights[:, 0] - heights[:, 1],
        found=joined[best, blur],
        likely=valleys(lines, blur=blur),
        along=along,
        place=(left * along).sum(axis=1),
        lines=lines.laws,
        low_enough=believed[blur][0],
        columns=_worth(table, part == 0, *first[best], _seed(seed, _COLUMNS)),
    )


def _joined(found: Sequence[Valleys], back: np.ndarray) -> Valleys:
    """Return the valleys of all parts in the order of `back`."""
    names = Valleys.__dataclass_fields__
    return Valleys(**{name: np.concatenate([getattr(one, name) for one in found])[back] for name in names})


def _stacked(parts: Sequence[Mixtures], back: np.ndarray) -> Mixtures:
    """Return the mixtures of all parts in the order of `back`; those of fewer components get some of no weight."""
    wide, log_weights, means, roots = max(part.log_weights.shape[1] for part in parts), [], [], []
    for part in parts:
        more = ((0, 0), (0, wide - part.log_weights.shape[1]))
        log_weights.append(np.pad(part.log_weights, more, constant_values=-1e9))
        means.append(np.pad(part.means, (*more, (0, 0)), mode="edge"))
        roots.append(np.pad(part.roots, (*more, (0, 0), (0, 0)), mode="edge"))
    return Mixtures(*(np.concatenate(values)[back] for values in (log_weights, means, roots)))


def _worth(
    table: _Table, seen: np.ndarray, averages: Averages, mixtures: Callable[[np.ndarray], Mixtures], seed: int
) -> dict[str, float]:
    """Return the nats a row that are lost when a column is shuffled, on rows that nothing was learned from."""
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(seen)[:_JUDGED]

    def log_density(x: np.ndarray) -> float:
        left = table.y[rows] - averages(x)[0]
        # a shuffled row can be as unlikely as it likes: a bound, so that no single one decides
        return float(np.maximum(mixtures(x).log_density(left[:, None])[:, 0], -50.0).mean())

    x = table.x[rows]
    whole, worth = log_density(x), {}
    for name, columns in table.groups.items():
        shuffled = x.copy()
        shuffled[:, columns] = x[rng.permutation(len(x))][:, columns]
        worth[name] = max(0.0, whole - log_density(shuffled))
    return dict(sorted(worth.items(), key=lambda pair: -pair[1]))


# Telling -------------------------------------------------------------------------------------------------------------


def _told(table: _Table, looked: _Looked, seed: int) -> Diagnosis:
    noise = dict(zip(table.shown_y.columns, noise_of(table.x, looked.left, _seed(seed, _NOISE)), strict=True))
    several = looked.likely.height < looked.low_enough
    verdict = _verdict(looked.evidence, int(table.together.max()) + 1, list(noise.values()))
    many = verdict == "several answers" and bool(several.any())
    if not many:
        several = np.zeros_like(several)
    gains = looked.found.gains[:, int(looked.found.gains.sum(axis=0).argmin())]
    asked = several if many else np.ones_like(several)
    family, reason = _recommended(verdict, *table.y.shape)
    return Diagnosis(
        verdict=verdict,
        p_value=float(min(1.0, math.exp(-min(looked.evidence, 700.0)))),
        share=float(several.mean()),
        gain=float(gains.mean()),
        gain_error=_error(gains, table.together),
        valley_ratio=float(np.exp(np.median(looked.against[asked]))),
        floor={
            name: float(value)
            for name, value in zip(
                table.shown_y.columns, table.scale * np.sqrt(looked.variance.mean(axis=0)), strict=True
            )
        },
        noise=noise,
        columns=looked.columns,
        where=_where(table, several) if many else (),
        examples=_examples(table, looked, several) if many else pd.DataFrame(),
        recommended=family,
        reason=reason,
        rows=table.rows,
        rows_used=len(several),
        remarks=table.remarks,
        x=table.shown_x,
        y=table.shown_y,
        several=several,
        average=table.shown_y.to_numpy() - table.scale * looked.left,
        laid=_laid(looked, several) if many else None,
    )


def _error(gains: np.ndarray, together: np.ndarray) -> float:
    """Return the standard error of the mean of the gains (rows,), whose groups are independent of one another."""
    sums = np.bincount(together, gains - gains.mean())
    return float(math.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / len(gains))


def _low_enough(found: Valleys) -> tuple[float, float]:
    """Return the height below which valleys are believed, where the rows that have such gain most, and that gain.

    Mixtures see small valleys between the answers that they learned from. What they were not shown falls in, and so
    rows with such valleys lose.
    """
    gains = [found.gains[found.height < height].sum(axis=0).min() for height in _HEIGHTS]
    return float(_HEIGHTS[int(np.argmax(gains))]), float(max(gains))


def _verdict(evidence: float, rows: int, noise: Sequence[Noise]) -> str:
    if evidence > _SURE:
        return "several answers"
    if rows < _FEW or evidence > _LEANING:
        return "not enough data"
    if any(one.misshapen for one in noise):
        return "skewed or heavy-tailed, still one answer"
    return "one answer, uneven noise" if any(one.uneven for one in noise) else "one answer"


def _recommended(verdict: str, rows: int, targets: int) -> tuple[str, str]:
    if verdict == "one answer":
        return "mse", "the average is the answer, and squared error finds it."
    if verdict == "one answer, uneven noise":
        return "gaussian", "the average is the answer; a normal whose spread depends on x says how far to trust it."
    if verdict == "not enough data":
        return "gaussian", "few parameters; ask again with more rows before you trust one answer or several."
    if verdict != "several answers":
        flow = "normalizing_flow" if targets > 1 else "mdn"
        return flow, "there is one answer, but its noise is no normal: a flexible density gives intervals that hold."
    if rows < 1000:
        return "mdn", "few rows; a mixture density network finds every answer with the fewest, and has a density."
    return "flow_matching", "it takes every answer, however the answers are shaped."


def _where(table: _Table, several: np.ndarray) -> tuple[Where, ...]:
    """Return up to four parts of the rows, told apart by two questions about columns."""
    if several.all():
        return (Where("anywhere", 1.0, 1.0),)
    least = max(10, len(several) // 20)
    fit = DecisionTreeClassifier(max_depth=2, min_samples_leaf=least, random_state=0).fit(table.x, several)
    leaves, tree = fit.apply(table.x), fit.tree_
    parts: list[Where] = []

    def walk(node: int, asked: _Rule) -> None:
        below, above = int(tree.children_left[node]), int(tree.children_right[node])
        if below == above:
            inside = leaves == node
            parts.append(Where(str(asked), float(inside.mean()), float(several[inside].mean())))
            return
        column, threshold = int(tree.feature[node]), float(tree.threshold[node])
        walk(below, asked.narrowed(table, column, threshold, below=True))
        walk(above, asked.narrowed(table, column, threshold, below=False))

    walk(0, _Rule())
    return tuple(sorted(parts, key=lambda part: -part.several))


@dataclass(frozen=True)
class _Rule:
    """What rows have in common: ranges of columns of numbers, and categories."""

    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    categories: tuple[str, ...] = ()

    def narrowed(self, table: _Table, column: int, threshold: float, *, below: bool) -> _Rule:
        """Return the rule with one more question, of a column of the matrix."""
        name = next(name for name, columns in table.groups.items() if column in columns)
        shown, values = table.shown_x[name], table.x[:, column]
        if is_categorical(shown):
            said = f"{name} {'is not' if below else 'is'} {shown.iloc[int(values.argmax())]}"
            return replace(self, categories=(*self.categories, said))
        numbers, under = shown.to_numpy(dtype=np.float64), values <= threshold
        edge = float(numbers[under].max() + numbers[~under].min()) / 2
        low, high = self.ranges.get(name, (-math.inf, math.inf))
        narrow = (low, min(high, edge)) if below else (max(low, edge), high)
        return replace(self, ranges={**self.ranges, name: narrow})

    def __str__(self) -> str:
        said = []
        for name, (low, high) in self.ranges.items():
            under = f"{low:.4g} < " if low > -math.inf else ""
            said.append(f"{under}{name} < {high:.4g}" if high < math.inf else f"{name} > {low:.4g}")
        return " and ".join([*said, *self.categories]) or "anywhere"


def _examples(table: _Table, looked: _Looked, several: np.ndarray) -> pd.DataFrame:
    """Return pairs of rows that are near in x and on two sides of a valley, the nearest first."""
    weight = np.zeros(table.x.shape[1])
    total = sum(looked.columns.values()) or 1.0
    for name, columns in table.groups.items():
        weight[columns] = math.sqrt(max(looked.columns[name] / total, 1e-3))
    x, rows = table.x * weight, np.flatnonzero(several)
    rng = np.random.default_rng(0)
    asked = rng.permutation(rows)[:2000]
    distance, near = KDTree(x[rows]).query(x[asked], k=min(_NEIGHBOURS, len(rows)))
    distance, near = distance.reshape(len(asked), -1), rows[near.reshape(len(asked), -1)]
    other = np.einsum("rnd,rd->rn", looked.left[near], looked.along[asked])
    floor, own = looked.likely.floor[asked, None], looked.place[asked, None]
    between = np.abs(looked.likely.peaks[asked, 0] - looked.likely.peaks[asked, 1])[:, None]
    apart = ((own < floor) != (other < floor)) & (np.abs(own - other) > 0.5 * between)
    order = np.argsort(np.where(apart, distance, np.inf), axis=None)
    taken: list[int] = []
    for flat in order:
        row, k = divmod(int(flat), near.shape[1])
        if not apart[row, k] or len(taken) >= 2 * _EXAMPLES:
            break
        pair = (int(asked[row]), int(near[row, k]))
        if not set(pair) & set(taken):
            taken += pair
    shown = pd.concat([table.shown_x, table.shown_y], axis=1).iloc[taken].reset_index(names="row")
    shown.insert(0, "pair", np.repeat(np.arange(1, len(taken) // 2 + 1), 2))
    return shown


def _laid(looked: _Looked, several: np.ndarray) -> Laid:
    """Return the rows with several answers over one another."""
    rows = np.flatnonzero(several)[:_JUDGED]
    start, end = looked.likely.peaks[rows].T
    length = end - start
    places = start[:, None] + _GRID * length[:, None]
    lines = Mixtures(*(part[rows] for part in (looked.lines.log_weights, looked.lines.means, looked.lines.roots)))
    density = np.exp(lines.log_density(places[..., None])) * np.abs(length)[:, None]
    width, high = np.ones(len(_GRID)), int(np.abs(_GRID).argmin())
    nearest = np.stack([one_peak(row, width, high) for row in density])
    observed = (looked.place[rows] - start) / length
    return Laid(observed, _GRID, density.mean(axis=0), nearest.mean(axis=0))
