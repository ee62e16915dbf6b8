"""The learned velocity field, with the particles that it carries."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from everymode.errors import DataError
from everymode.plots._shared import (
    condition,
    limits,
    marked_modes,
    plane,
    shape,
    square_limits,
    states_at,
    thin,
    time_name,
)
from everymode.plots.style import TIME, WIDTH, label, mark_modes, sheet
from everymode.tape import Motion, Tape

__all__ = ["NEEDS", "SUMMARY", "figure"]

SUMMARY = "The learned velocity field at five times from noise to data, with particles on top"
NEEDS = ("motion",)

_ARROW = "#5f6b7c"
_PANELS = 5


def figure(tape: Tape) -> Figure:
    """A row of five panels a family for y of two numbers, one wide panel a family for y of one.

    Raises:
        DataError: y has more than two numbers, or no motion has a field.
    """
    outputs = len(tape.y_names)
    if outputs > 2:
        raise DataError(f"the figure 'field' draws y of one or two numbers; {tape.title!r} has {outputs}.")
    motions = [(family, motion) for family, motion in tape.motion.items() if motion.field.size]
    if not motions:
        raise DataError(f"the figure 'field' needs a motion with a field; {tape.title!r} has particles only.")
    return (_strip if outputs == 1 else _planes)(tape, motions)


def _planes(tape: Tape, motions: list[tuple[str, Motion]]) -> Figure:
    horizontal, vertical = square_limits(*(m.states for _, m in motions))
    height = 1.2 + len(motions) * (0.5 + 1.78 * shape(horizontal, vertical))
    rings = "; rings: the known modes" if tape.modes is not None else ""
    sheet_ = sheet(
        height,
        tape.title,
        f"arrows: the learned velocity, longer and darker where greater; dots: particles{rings}",
    )
    panels = sheet_.subplots(len(motions), _PANELS, sharex=True, sharey=True, squeeze=False)
    for line, (family, motion) in zip(panels, motions, strict=True):
        chosen = np.linspace(0, len(motion.field_times) - 1, _PANELS).round().astype(int)
        longest = float(np.quantile(np.linalg.norm(motion.field[chosen], axis=2), 0.95)) or 1.0
        cell = (horizontal[1] - horizontal[0]) / max(np.sqrt(len(motion.grid)), 2)
        for axes, index in zip(line, chosen, strict=True):
            time = float(motion.field_times[index])
            _arrows(axes, motion.grid, motion.field[index], longest, cell)
            points = thin(states_at(motion, time), 150)
            axes.scatter(*points.T, s=10, color=TIME(time), edgecolors="white", linewidths=0.3, zorder=4)
            mark_modes(axes, *marked_modes(tape, motion.x).T)
            axes.set_title(time_name(time))
            plane(axes, tape, horizontal, vertical)
        line[0].set_ylabel(f"{label(family)}\n{tape.y_names[1]}")
    return sheet_


def _arrows(axes: Axes, grid: np.ndarray, velocity: np.ndarray, longest: float, cell: float) -> None:
    """An arrow a lattice point: long and dark where the velocity is great."""
    speed = np.minimum(np.linalg.norm(velocity, axis=1) / longest, 1.0)
    length = cell * (0.35 + 0.75 * np.sqrt(speed))
    step = velocity * (length / np.maximum(np.linalg.norm(velocity, axis=1), 1e-12))[:, None]
    tint = np.tile(to_rgba(_ARROW), (len(grid), 1))
    tint[:, 3] = 0.3 + 0.65 * speed
    shape = {"width": 0.008, "headwidth": 3.4, "headlength": 3.2, "headaxislength": 2.9, "pivot": "mid"}
    axes.quiver(*grid.T, *step.T, color=tint, angles="xy", scale_units="xy", scale=1.0, zorder=2, **shape)


def _strip(tape: Tape, motions: list[tuple[str, Motion]]) -> Figure:
    rings = "; rings: the known modes" if tape.modes is not None else ""
    caption = f"arrows: the learned velocity, darker where greater; lines and dots: particles{rings}"
    sheet_ = sheet(1.1 + 4.3 * len(motions), tape.title, caption)
    panels = sheet_.subplots(len(motions), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    vertical = limits(*(m.states for _, m in motions))
    for axes, (family, motion) in zip(panels, motions, strict=True):
        paths = thin(motion.states[:, :, 0].T, 120)  # (n, T)
        lines = np.stack([np.broadcast_to(motion.times, paths.shape), paths], axis=2)
        axes.add_collection(LineCollection(list(lines), colors="#b9aed2", linewidths=0.7, alpha=0.55, zorder=1))
        for time in np.linspace(0, 1, _PANELS):
            points = thin(states_at(motion, time)[:, 0], 120)
            dots = {"s": 16, "color": TIME(time), "edgecolors": "white", "linewidths": 0.4}
            axes.scatter(np.full(len(points), time), points, zorder=4, **dots)
        _slopes(axes, motion, vertical)
        for place in marked_modes(tape, motion.x)[:, 0]:
            mark_modes(axes, [1.0], [place])
        axes.set(xlim=(-0.02, 1.02), ylim=vertical, ylabel=tape.y_names[0])
        axes.set_title(f"{label(family)}, for {condition(tape, motion.x)}", loc="left")
    panels[-1].set_xlabel("t   (0 is noise, 1 is data)")
    return sheet_


def _slopes(axes: Axes, motion: Motion, vertical: tuple[float, float]) -> None:
    """Arrows in the plane of t and y, along the paths that the field gives: all about as long on the page."""
    picked = np.linspace(0, len(motion.field_times) - 1, min(len(motion.field_times), 17)).round().astype(int)
    inside = (motion.grid[:, 0] > vertical[0]) & (motion.grid[:, 0] < vertical[1])
    every = max(1, round(inside.sum() / 15))
    time, level = np.meshgrid(motion.field_times[picked], motion.grid[inside, 0][::every], indexing="ij")
    velocity = motion.field[picked][:, inside, 0][:, ::every]
    speed = np.minimum(np.abs(velocity) / (np.quantile(np.abs(velocity), 0.95) or 1.0), 1.0)
    tint = np.tile(to_rgba(_ARROW), (velocity.size, 1))
    tint[:, 3] = 0.3 + 0.65 * speed.ravel()
    high = 4.0 / (vertical[1] - vertical[0])  # inches for one unit of y; one unit of t has about WIDTH inches
    step = 0.36 / np.hypot(0.9 * WIDTH, velocity * high)
    axes.quiver(
        time,
        level,
        step,
        step * velocity,
        color=tint,
        angles="xy",
        scale_units="xy",
        scale=1.0,
        width=0.0018,
        pivot="mid",
        zorder=3,
    )
