"""At how many states do the demonstrators disagree? The library's own diagnosis, on demonstrations.

x is what was seen: the present observation and how it changed since the ones before. y is what was done next: the means
of the coming actions. Of more than four numbers, the four directions are taken in which they vary most beyond what a
linear regression on x tells of them.

Steps of an episode depend on one another: on the demonstrator's habits, on one another's noise, and on actions that
several of them look ahead to. So nothing is judged by models that saw the same episode, and the contested steps of an
episode count as one (`groups` of `diagnose`): the p-value asks for independent episodes, not for independent steps.
Closer steps teach the models more, and count for no more. This is paid for with power, and below 200 episodes no
agreement is said. Steps are spread evenly over each episode, from a random first one on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from everymode.diagnosis import Diagnosis, diagnose
from everymode.errors import DataError, check_number, unknown_name
from everymode.policies.demonstrations import ACTION, STATE, Demonstrations

__all__ = ["Disagreement", "disagreement"]

_LEAST, _MOST_COMPONENTS = 20, 4
_RIDGE = 1e-6  # of the mean square of x: only against columns that say the same


@dataclass(frozen=True)
class Disagreement:
    """What was found.

    Attributes:
        diagnosis: of the steps that were looked at.
        episodes: of these steps, (rows,).
        steps: their numbers within the episode, (rows,).
        places: the first two numbers that were seen there, (rows, 2), for the figure; empty where there is one.
        place_names: of these numbers.
        looked_ahead: actions that y is made of.
        explained: share of the means of the actions beyond x that y holds; 1 where y is these means.
        source: of the demonstrations.
    """

    diagnosis: Diagnosis
    episodes: np.ndarray = field(repr=False)
    steps: np.ndarray = field(repr=False)
    places: np.ndarray = field(repr=False)
    place_names: tuple[str, ...]
    looked_ahead: int
    explained: float
    source: str

    @property
    def title(self) -> str:
        """One line."""
        return f"{self.source}: the next {self.looked_ahead} actions given what was seen"

    @property
    def several_answers(self) -> np.ndarray:
        """At which of the steps there are several answers, (rows,)."""
        return self.diagnosis.several

    @property
    def sentence(self) -> str:
        """The answer to the question."""
        found, looked = self.diagnosis, f"{len(self.steps):,} states of {len(np.unique(self.episodes)):,} episodes"
        if found.verdict == "several answers":
            return (
                f"The demonstrators disagree at {found.share:.0%} of {looked} (p = {found.p_value:.2g}): an average of "
                "what they do next is what none of them does."
            )
        if found.verdict == "not enough data":
            return f"Whether the demonstrators disagree cannot be told from {looked} (p = {found.p_value:.2g})."
        return f"No disagreement between the demonstrators is found at {looked} (p = {found.p_value:.2g})."

    def to_dict(self) -> dict[str, Any]:
        """Return what is said, JSON-ready."""
        several = self.several_answers
        return {
            "sentence": self.sentence,
            "looked_ahead": self.looked_ahead,
            "explained": self.explained,
            "states": len(self.steps),
            "episodes": len(np.unique(self.episodes)),
            "where": [
                {"episode": int(episode), "step": int(step)}
                for episode, step in zip(self.episodes[several], self.steps[several], strict=True)
            ],
            "diagnosis": self.diagnosis.to_dict(),
        }


def disagreement(
    demonstrations: Demonstrations,
    *,
    observations: Sequence[str] | None = None,
    observation_horizon: int = 2,
    prediction_horizon: int = 8,
    states: int = 2000,
    random_state: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Disagreement:
    """Return whether, at how many states and where the demonstrators do several things.

    Args:
        demonstrations: of at least 20 episodes.
        observations: which are looked at; None: `state` and all labels, or all but the pixels where there is no state.
        observation_horizon: how many of the last observations x is made of.
        prediction_horizon: how many of the next actions y is made of.
        states: most that are looked at, evenly from all episodes.
        random_state: of the states and the diagnosis.
        progress: called now and then with the share of the work that is done.

    Raises:
        DataError: there are less than 20 episodes, or nothing but pixels.
        SettingError: a setting is out of range.
    """
    check_number("observation_horizon", observation_horizon, 1, integer=True)
    check_number("prediction_horizon", prediction_horizon, 1, integer=True)
    check_number("states", states, _LEAST, integer=True)
    if demonstrations.n_episodes < _LEAST:
        raise DataError(
            f"{demonstrations.source} has {demonstrations.n_episodes} episodes: whether demonstrators disagree is "
            f"asked of {_LEAST} or more."
        )
    rng = np.random.default_rng(random_state)
    episodes, steps = _spread(demonstrations.lengths, prediction_horizon, states, rng)
    rows = demonstrations.starts[episodes] + steps
    X = _seen(demonstrations, _chosen(demonstrations, observations), rows, steps, observation_horizon)
    Y, explained = _done(demonstrations, rows, episodes, X, prediction_horizon)
    found = diagnose(X, Y, groups=episodes, random_state=random_state, max_rows=len(rows), progress=progress)
    numbers = X.select_dtypes("number")
    return Disagreement(
        found,
        episodes,
        steps,
        numbers.to_numpy()[:, :2] if numbers.shape[1] > 1 else np.empty((0, 2)),
        tuple(map(str, numbers.columns[:2])),
        prediction_horizon,
        explained,
        demonstrations.source,
    )


def _spread(lengths: np.ndarray, ahead: int, states: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return (episodes, steps in them) of evenly spread steps, with `ahead` steps from each of them on."""
    chosen = np.sort(rng.permutation(len(lengths))[:states])
    most = max(1, states // len(chosen))
    episodes, steps = [], []
    for episode in chosen.tolist():
        room = max(1, int(lengths[episode]) - ahead + 1)
        apart = math.ceil(room / most)
        taken = np.arange(rng.integers(min(apart, room)), room, apart)
        episodes.append(np.full(len(taken), episode))
        steps.append(taken)
    return np.concatenate(episodes), np.concatenate(steps)


def _is_picture(values: Any) -> bool:
    return len(values.shape) == 4


def _is_label(values: Any) -> bool:
    return len(values.shape) == 1 and values.dtype.kind not in "f"


def _chosen(demonstrations: Demonstrations, asked: Sequence[str] | None) -> list[str]:
    there = demonstrations.observations
    if asked is not None:
        for name in asked:
            if name not in there:
                raise DataError(f"{demonstrations.source}: {unknown_name('observation', name, there)}")
    names = [name for name in (asked or there) if not _is_picture(there[name])]
    if not names:
        raise DataError(
            f"{demonstrations.source}: there is nothing but pixels ({', '.join(there)}), and the diagnosis looks at "
            "numbers and labels. Read a state, too."
        )
    if asked is None and STATE in names:
        return [STATE, *(name for name in names if _is_label(there[name]) and name != STATE)]
    return names


def _seen(
    demonstrations: Demonstrations, names: Sequence[str], rows: np.ndarray, steps: np.ndarray, horizon: int
) -> pd.DataFrame:
    """Return what was seen at each row: the present, and its changes since the steps before."""
    columns: dict[str, Any] = {}
    for name in names:
        values = demonstrations.observations[name]
        if _is_label(values):
            columns[name] = np.asarray(values[rows]).astype(str)
            continue
        now = _flat(values, rows)
        told = _value_names(demonstrations, name, now.shape[1])
        angles = set(demonstrations.angles.get(name, ()))
        for index, value in enumerate(told):
            if index in angles:
                columns[f"sin of {value}"], columns[f"cos of {value}"] = np.sin(now[:, index]), np.cos(now[:, index])
            else:
                columns[value] = now[:, index]
        for back in range(1, horizon):
            change = now - _flat(values, rows - np.minimum(back, steps))
            since = "" if back == 1 else f" in {back} steps"
            for index, value in enumerate(told):
                part = change[:, index]
                turned = np.arctan2(np.sin(part), np.cos(part)) if index in angles else part
                columns[f"change of {value}{since}"] = turned
    return pd.DataFrame(columns)


def _flat(values: Any, rows: np.ndarray) -> np.ndarray:
    return np.asarray(values[rows], dtype=np.float64).reshape(len(rows), -1)


def _value_names(demonstrations: Demonstrations, name: str, size: int) -> list[str]:
    """Return a name for each number of an observation."""
    told = list(demonstrations.names.get(name, ()))
    return told if len(told) == size else [f"{name} {index}" for index in range(size)]


def _done(
    demonstrations: Demonstrations, rows: np.ndarray, episodes: np.ndarray, X: pd.DataFrame, horizon: int
) -> tuple[pd.DataFrame, float]:
    """Return the means of the coming actions, or directions in which many of them vary beyond X, and their share."""
    ends = demonstrations.episode_ends[episodes]
    upcoming = np.minimum(rows[:, None] + np.arange(horizon), ends[:, None] - 1)
    actions = np.asarray(demonstrations.actions, dtype=np.float64)[upcoming]  # (rows, horizon, d)
    angles = set(demonstrations.angles.get(ACTION, ()))
    columns = {}
    for index, name in enumerate(_value_names(demonstrations, ACTION, actions.shape[2])):
        values = actions[..., index]
        parts = (
            {f"sin of {name}": np.sin(values), f"cos of {name}": np.cos(values)} if index in angles else {name: values}
        )
        columns |= {f"mean {part} of the next {horizon}": told.mean(axis=1) for part, told in parts.items()}
    means = pd.DataFrame(columns)
    if means.shape[1] <= _MOST_COMPONENTS:
        return means, 1.0
    y = means.to_numpy()
    y = (y - y.mean(axis=0)) / np.where(y.std(axis=0) > 0, y.std(axis=0), 1.0)
    _, size, directions = np.linalg.svd(y - _linear(X, y), full_matrices=False)
    names = [f"component {index + 1} of the next {horizon} actions" for index in range(_MOST_COMPONENTS)]
    held = (size[:_MOST_COMPONENTS] ** 2).sum() / max(float((size**2).sum()), 1e-300)
    return pd.DataFrame(y @ directions[:_MOST_COMPONENTS].T, columns=names), float(held)


def _linear(X: pd.DataFrame, y: np.ndarray) -> np.ndarray:
    """Return what a linear regression on X tells of y (rows, d)."""
    x = pd.get_dummies(X).to_numpy(dtype=np.float64)
    x = x - x.mean(axis=0)
    x = x / np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
    return x @ np.linalg.solve(x.T @ x + _RIDGE * len(x) * np.eye(x.shape[1]), x.T @ y)
