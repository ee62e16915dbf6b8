"""Equal terms: the same seconds or steps for all, and nearly the same number of parameters."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from everymode.errors import SettingError, check_number
from everymode.estimator import OneToManyRegressor
from everymode.families import Family, get_family
from everymode.inputs import count_of, fit_condition, read_target
from everymode.networks import check_size
from everymode.training import default_width

__all__ = ["Budget", "Size", "matched_size", "reference_parameters"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_MANY_STEPS = 10_000_000
_NEVER = 1_000_000
_WIDEST = 2048


@dataclass(frozen=True)
class Budget:
    """What each fit may spend: seconds or steps.

    Nothing stops a fit early, though the held-out rows still choose its weights: a budget is equal if it is spent.
    """

    seconds: float | None = None
    steps: int | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Return the budget written as '60s', '2m', '1h', or a number of steps, '5000'.

        Raises:
            SettingError: it is written otherwise, or is not positive.
        """
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|steps)?\s*", text)
        if match is None or float(match[1]) <= 0:
            raise SettingError(f"budget {text!r}: write seconds as 60s, minutes as 2m, or steps as 5000.")
        if match[2] in _UNITS:
            return cls(seconds=float(match[1]) * _UNITS[match[2]])
        return cls(steps=check_number("budget", float(match[1]), 1, integer=True))

    def __str__(self) -> str:
        return f"{self.seconds:g} s" if self.seconds is not None else f"{self.steps} steps"

    def settings(self) -> dict[str, Any]:
        """Return it as arguments of `OneToManyRegressor`."""
        if self.seconds is not None:
            return {"max_seconds": self.seconds, "steps": _MANY_STEPS, "patience": _NEVER}
        return {"steps": self.steps, "patience": _NEVER}


@dataclass(frozen=True)
class Size:
    """A width, and how many parameters it gives; the width is None where none decides."""

    width: int | None
    parameters: int | None


def _spaces(X: Any, Y: Any) -> tuple[Any, Any]:
    x_space, _, rows = fit_condition(OneToManyRegressor(), X)
    return read_target(Y, rows)[0], x_space


def reference_parameters(X: Any, Y: Any, width: int | None, depth: int | None) -> int:
    """Return the parameters of flow matching at that width (or the one that suits the rows): what others get too."""
    y_space, x_space = _spaces(X, Y)
    width = default_width(count_of(X)) if width is None else width
    return get_family("flow_matching").build(y_space, x_space, width=width, depth=depth).parameter_count


def matched_size(family: Family, X: Any, Y: Any, parameters: int, depth: int | None) -> Size:
    """Return the width at which a family has the number of parameters nearest to `parameters`.

    Families that are not made of networks are as large as their data make them: their size is None.
    """
    if not family.abilities.gradient:
        return Size(None, None)
    y_space, x_space = _spaces(X, Y)
    check_size(None, depth)
    counts: dict[int, int] = {}

    def count(width: int) -> int:
        if width not in counts:
            counts[width] = family.build(y_space, x_space, width=width, depth=depth).parameter_count
        return counts[width]

    low, high = 2, 4  # in steps of 2
    while count(2 * high) < parameters and 2 * high < _WIDEST:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(2 * middle) < parameters else (low, middle)
    width = min(counts, key=lambda w: abs(counts[w] - parameters))
    return Size(width, counts[width])
