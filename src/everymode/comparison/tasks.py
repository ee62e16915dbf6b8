"""What families are compared on: a problem whose answers are known, or a table of data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from pandas.util import hash_pandas_object

from everymode.comparison.judging import floor_row, judge, judge_on_rows
from everymode.comparison.table import Row
from everymode.errors import DataError, check_number
from everymode.estimator import OneToManyRegressor
from everymode.inputs import count_of
from everymode.problems import get as get_problem
from everymode.randomness import mix
from everymode.tables import as_frame

__all__ = ["ProblemTask", "Samples", "TableTask", "Task"]

_TRAIN, _JUDGE, _PAIRS = range(3)  # streams of randomness
_SHOWN_X, _SHOWN_PAIRS, _SHOWN_DRAWS = 24, 1000, 500

Samples = dict[str, np.ndarray]
"""For figures: draws `y` (n, dy) for one `x` (1, dx), and `pairs_y` (m, dy), one for each of `pairs_x` (m, dx); and
which are valid, `valid` (n,) and `pairs_valid` (m,)."""


class Task(Protocol):
    """One column of the comparison: training data that depend on a seed, and a judge that does not."""

    @property
    def name(self) -> str:
        """What it is called; unique within a comparison."""
        ...

    @property
    def title(self) -> str:
        """One line."""
        ...

    @property
    def note(self) -> str:
        """What its numbers mean."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return what decides its numbers, JSON-ready."""
        ...

    def known(self, seed: int) -> tuple[Any, Any]:
        """Return the X and Y to fit on."""
        ...

    def judge(self, model: OneToManyRegressor, seed: int) -> Row:
        """Return the numbers of a model fitted on `known(seed)`."""
        ...

    def floor(self) -> Row | None:
        """Return what real draws score; None where there are none."""
        ...

    def samples(self, model: OneToManyRegressor | None) -> Samples | None:
        """Return draws to show, of a model or of the truth; None where there is nothing to show."""
        ...


@dataclass(frozen=True)
class ProblemTask:
    """A problem of `everymode.problems`: every seed draws other training rows; all models are judged on the same x.

    Args:
        name: of the problem.
        rows: training rows.
        judged: fresh x that models are judged on.
        draws: draws for each.
    """

    name: str
    rows: int = 10_000
    judged: int = 100
    draws: int = 200

    def __post_init__(self) -> None:
        get_problem(self.name)
        for field in ("rows", "judged", "draws"):
            check_number(field, getattr(self, field), 4, integer=True)

    @property
    def title(self) -> str:
        """One line."""
        return f"{self.name}: {get_problem(self.name).title}"

    @property
    def note(self) -> str:
        """What its numbers mean."""
        return f"{self.rows} training rows; {self.judged} fresh x, {self.draws} draws each."

    def identity(self) -> dict[str, Any]:
        """Return the arguments."""
        return {"problem": self.name, **{k: v for k, v in asdict(self).items() if k != "name"}}

    def known(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return X (rows, dx) and Y (rows, dy)."""
        return get_problem(self.name).sample(self.rows, mix(seed, _TRAIN) % 2**32)

    @property
    def _judge_seed(self) -> int:
        return mix(_JUDGE) % 2**31

    def judge(self, model: OneToManyRegressor, seed: int) -> Row:
        """Return the model's numbers."""
        problem = get_problem(self.name)
        table = judge(problem, {"model": model}, rows=self.judged, draws=self.draws, seed=self._judge_seed)
        return table["model"]

    def floor(self) -> Row:
        """Return what real draws score."""
        return floor_row(get_problem(self.name), rows=self.judged, draws=self.draws, seed=self._judge_seed)

    def samples(self, model: OneToManyRegressor | None) -> Samples:
        """Return draws at the x that has the most answers among some, and one draw each at many x."""
        problem = get_problem(self.name)
        candidates = problem.sample_x(_SHOWN_X, mix(_PAIRS) % 2**31)
        most = int(np.argmax([len(modes) for modes in problem.modes(candidates)]))
        x, pairs_x = candidates[most : most + 1], problem.sample_x(_SHOWN_PAIRS, mix(_PAIRS, 1) % 2**31)

        def draw(at: np.ndarray, n: int) -> np.ndarray:
            if model is None:
                return problem.sample_given(at, n, 0)
            return model.sample(at, n, random_state=0).reshape(len(at), n, -1)

        y, pairs_y = draw(x, _SHOWN_DRAWS), draw(pairs_x, 1)
        return {
            "x": x,
            "y": y[0],
            "valid": problem.valid(x, y)[0],
            "pairs_x": pairs_x,
            "pairs_y": pairs_y[:, 0],
            "pairs_valid": problem.valid(pairs_x, pairs_y)[:, 0],
        }


class TableTask:
    """A table of data: every seed holds out other rows.

    Args:
        X, Y: as for `OneToManyRegressor.fit`.
        name: what it is called.
        test_fraction: share of the rows held out.
        draws: draws a held-out row.

    Raises:
        DataError: there are too few rows to split.
    """

    def __init__(self, X: Any, Y: Any, *, name: str = "table", test_fraction: float = 0.2, draws: int = 200) -> None:
        self.X, self.Y, self.name = X, Y, name
        self.test_fraction = check_number("test_fraction", test_fraction, 0.0, 0.9, exclusive_low=True)
        self.draws = check_number("draws", draws, 1, integer=True)
        self.rows = count_of(X)
        if self.rows < 4:
            raise DataError(
                f"{self.rows} row(s) cannot be split into a part to fit and a part to judge on; give at least 4."
            )

    @property
    def title(self) -> str:
        """One line."""
        return f"{self.name}: held-out rows"

    @property
    def note(self) -> str:
        """What its numbers mean."""
        held = self._held
        return (
            f"{self.rows - held} rows to fit, {held} held-out rows, {self.draws} draws each. Which answers are valid "
            "is not known for a table of data."
        )

    @property
    def _held(self) -> int:
        return max(1, round(self.test_fraction * self.rows))

    def identity(self) -> dict[str, Any]:
        """Return the settings and a fingerprint of the data."""
        return {
            "table": self.name,
            "test_fraction": self.test_fraction,
            "draws": self.draws,
            "data": [_fingerprint(self.X), _fingerprint(self.Y)],
        }

    def _parts(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        order = np.random.default_rng(seed).permutation(self.rows)
        return order[self._held :], order[: self._held]

    def known(self, seed: int) -> tuple[Any, Any]:
        """Return the rows to fit on."""
        kept, _ = self._parts(seed)
        return _take(self.X, kept), _take(self.Y, kept)

    def judge(self, model: OneToManyRegressor, seed: int) -> Row:
        """Return the model's numbers on the rows held out."""
        _, out = self._parts(seed)
        table = judge_on_rows({"model": model}, _take(self.X, out), _take(self.Y, out), draws=self.draws, seed=seed)
        return table["model"]

    def floor(self) -> None:
        """Return None: of a table, one answer a row is known."""

    def samples(self, model: OneToManyRegressor | None) -> None:
        """Return None."""


def _take(data: Any, rows: np.ndarray) -> Any:
    if isinstance(data, Mapping):
        return {key: _take(value, rows) for key, value in data.items()}
    frame = as_frame(data)
    if frame is None:
        return data[rows] if hasattr(data, "shape") else np.asarray(data)[rows]
    return frame.iloc[rows] if frame.shape[1] != 1 or np.ndim(data) > 1 else frame.iloc[rows, 0]


def _fingerprint(data: Any) -> str:
    if isinstance(data, Mapping):
        return _digest(json.dumps({key: _fingerprint(value) for key, value in data.items()}, sort_keys=True).encode())
    frame = as_frame(data)
    if frame is not None:
        hashes = np.asarray(hash_pandas_object(frame, index=False))  # type: ignore[operator]
        return _digest("|".join(map(str, frame.columns)).encode() + hashes.tobytes())
    array = np.ascontiguousarray(data)
    return _digest(str((array.shape, array.dtype)).encode() + array.tobytes())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
