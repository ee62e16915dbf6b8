"""What several figures ask of a tape."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from everymode.errors import DataError
from everymode.tape import Motion, Tape

__all__ = [
    "chosen_rows",
    "condition",
    "limits",
    "marked_modes",
    "plane",
    "shape",
    "square_limits",
    "states_at",
    "thin",
    "time_name",
    "useful_column",
]


def useful_column(tape: Tape) -> tuple[int, str]:
    """The column of x with the most distinct probes, and its name, which says so where there are others."""
    distinct = [len(np.unique(column)) for column in tape.x.T]
    if not distinct:
        raise DataError(f"the tape {tape.title!r} has no columns of x, so there is no axis to draw y along.")
    column = int(np.argmax(distinct))
    name = tape.x_names[column]
    return column, name if len(distinct) == 1 else f"{name}   (one of {len(distinct)} columns of x)"


def chosen_rows(tape: Tape, most: int) -> np.ndarray:
    """At most so many rows of x, evenly over the tape."""
    return np.unique(np.linspace(0, len(tape.x) - 1, min(most, len(tape.x))).round().astype(int))


def condition(tape: Tape, x: np.ndarray) -> str:
    """One x as a short text: "height = 0.5, age = 30"."""
    shown = [f"{name} = {value:.3g}" for name, value in zip(tape.x_names, x, strict=True)]
    return ", ".join(shown[:3]) + (", ..." if len(shown) > 3 else "")


def thin(values: np.ndarray, most: int) -> np.ndarray:
    """At most so many rows, picked evenly by position, so that the same tape gives the same figure."""
    return values if len(values) <= most else values[np.linspace(0, len(values) - 1, most).round().astype(int)]


def limits(*parts: np.ndarray, pad: float = 0.06, tail: float = 0.0005) -> tuple[float, float]:
    """Axis limits that leave out the farthest `tail` of the values at either end."""
    values = np.concatenate([part.ravel() for part in parts])
    low, high = np.quantile(values, [tail, 1 - tail])
    room = pad * (high - low) or 0.5
    return float(low - room), float(high + room)


def square_limits(*parts: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """Limits of the first two outputs of arrays (..., dy), widened so the plane is neither flat nor tall.

    Both axes then have one scale, unless their ranges differ so much that they can hardly share a unit.
    """
    both = [limits(*(part[..., axis] for part in parts)) for axis in (0, 1)]
    spans = [high - low for low, high in both]
    least = 0.72 * max(spans)
    if min(spans) < 0.15 * max(spans):
        return both[0], both[1]
    room = [max(least - span, 0) / 2 for span in spans]
    (left, right), (bottom, top) = [(low - r, high + r) for (low, high), r in zip(both, room, strict=True)]
    return (left, right), (bottom, top)


def shape(horizontal: tuple[float, float], vertical: tuple[float, float]) -> float:
    """Height over width of a panel of the plane."""
    ratio = (vertical[1] - vertical[0]) / (horizontal[1] - horizontal[0])
    return ratio if 0.7 < ratio < 1.45 else 0.8


def plane(axes: Axes, tape: Tape, horizontal: tuple[float, float], vertical: tuple[float, float]) -> None:
    """Makes the axes a plane of the first two outputs, with their names."""
    axes.set(xlim=horizontal, ylim=vertical, xlabel=tape.y_names[0], ylabel=tape.y_names[1])
    axes.set_box_aspect(shape(horizontal, vertical))
    axes.locator_params(nbins=5, steps=[1, 2, 5, 10])
    axes.label_outer()


def states_at(motion: Motion, time: float) -> np.ndarray:
    """The particles (n, dy) at a time between the recorded ones, along straight lines."""
    after = int(np.clip(np.searchsorted(motion.times, time), 1, len(motion.times) - 1))
    before = after - 1
    part = (time - motion.times[before]) / (motion.times[after] - motion.times[before])
    return (1 - part) * motion.states[before] + part * motion.states[after]


def marked_modes(tape: Tape, x: np.ndarray) -> np.ndarray:
    """The known modes (k, dy) of the probe that equals x; none where no probe does."""
    same = [row for row in range(len(tape.x)) if np.allclose(tape.x[row], x)]
    if tape.modes is None or not same:
        return np.empty((0, len(tape.y_names)))
    return tape.modes[same[0]][0]


def time_name(time: float) -> str:
    """A time as a panel's title; the ends say which is noise and which is data."""
    return f"t = {time:.2g}" + {0.0: "   noise", 1.0: "   data"}.get(round(time, 6), "")
