"""The queue of one robot: planned actions by control step, and what happens where two plans overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from everymode.errors import DataError, check_number
from everymode.policies.angles import add, difference

__all__ = ["ActionQueue"]


class ActionQueue:
    """Plans of one robot, each a chunk whose first action is for the control step at which its observation was made.

    A plan may arrive late: what it holds for steps that are over is left out. Where plans overlap the newest counts;
    or, with `decay`, an average over all of them, weighted by exp(-decay * i) with i = 0 for the oldest: temporal
    ensembling.

    Args:
        decay: of temporal ensembling; None takes the newest plan alone.
        angles: which values of an action are angles, in radians.

    Attributes:
        step: the control step that the next action is for.

    References:
        Learning fine-grained bimanual manipulation with low-cost hardware (Zhao et al., 2023),
            https://arxiv.org/abs/2304.13705: action chunking and temporal ensembling
    """

    def __init__(self, *, decay: float | None = None, angles: Sequence[int] = ()) -> None:
        self.decay = check_number("decay", decay, 0.0, optional=True)
        self.angles = tuple(angles)
        self.step = 0
        self._plans: list[tuple[int, np.ndarray]] = []  # (the step of its first action, (horizon, d)), oldest first

    def __len__(self) -> int:
        """Number of steps, from the present one on, that an action is planned for."""
        return max((made_at + len(chunk) - self.step for made_at, chunk in self._plans), default=0)

    def put(self, chunk: np.ndarray, made_at: int) -> None:
        """Add a plan (horizon, d) that answers the observation of control step `made_at`; none that is over already."""
        chunk = np.array(chunk)  # a copy: what it is of may be planned over
        if chunk.ndim != 2:
            raise DataError(f"a plan has shape {chunk.shape}; give (horizon, d).")
        if made_at + len(chunk) <= self.step:
            return
        if self.decay is None:
            self._plans.clear()
        self._plans.append((made_at, chunk))

    def ahead(self, steps: int) -> list[np.ndarray]:
        """Return what is planned for the next steps, an action (d,) each, as far as it goes."""
        return [self._at(step) for step in range(self.step, self.step + min(steps, len(self)))]

    def pop(self) -> np.ndarray | None:
        """Return the action (d,) of the present step and go on to the next; None where none is planned."""
        action = self._at(self.step) if len(self) else None
        self.step += 1
        self._plans = [(made_at, chunk) for made_at, chunk in self._plans if made_at + len(chunk) > self.step]
        return action

    def clear(self) -> None:
        """Forget all plans, and begin at step 0."""
        self.step, self._plans = 0, []

    def _at(self, step: int) -> np.ndarray:
        told = [chunk[step - made_at] for made_at, chunk in self._plans if made_at <= step < made_at + len(chunk)]
        newest = told[-1]
        if len(told) == 1 or self.decay is None:
            return newest
        weights = np.exp(-self.decay * np.arange(len(told)))
        apart = difference(np.stack(told), newest, self.angles)
        return add(newest, np.tensordot(weights / math.fsum(weights), apart, axes=1), self.angles)
