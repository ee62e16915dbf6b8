"""The density of the particles as it moves from noise to data."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from everymode.plots._shared import (
    condition,
    limits,
    marked_modes,
    plane,
    shape,
    square_limits,
    states_at,
    time_name,
)
from everymode.plots.style import MASS, label, mark_modes, sheet
from everymode.regions import bandwidth, density_1d, density_2d
from everymode.tape import Motion, Tape

__all__ = ["NEEDS", "SUMMARY", "figure"]

SUMMARY = "The density of the particles moving from noise to data"
NEEDS = ("motion",)

_PANELS = 5


def figure(tape: Tape) -> Figure:
    """A row of five panels a family for y of two numbers or more, an image of t and y for y of one."""
    return _strip(tape) if len(tape.y_names) == 1 else _planes(tape)


def _planes(tape: Tape) -> Figure:
    motions = list(tape.motion.items())
    horizontal, vertical = square_limits(*(m.states for _, m in motions))
    height = 1.2 + len(motions) * (0.5 + 1.78 * shape(horizontal, vertical))
    sheet_ = sheet(height, tape.title, _caption(tape))
    panels = sheet_.subplots(len(motions), _PANELS, sharex=True, sharey=True, squeeze=False)
    edges = np.linspace(*horizontal, 161), np.linspace(*vertical, 161)
    for line, (family, motion) in zip(panels, motions, strict=True):
        for axes, time in zip(line, np.linspace(0, 1, _PANELS), strict=True):
            points = states_at(motion, float(time))[:, :2]
            mass = density_2d(points, *edges, bandwidth(points))
            _image(axes, mass / max(mass.max(), 1e-300), (*horizontal, *vertical))
            mark_modes(axes, *marked_modes(tape, motion.x)[:, :2].T)
            axes.set_title(time_name(float(time)))
            plane(axes, tape, horizontal, vertical)
        line[0].set_ylabel(f"{label(family)}\n{tape.y_names[1]}")
    return sheet_


def _caption(tape: Tape) -> str:
    rings = "; rings: the known modes" if tape.modes is not None else ""
    return f"darker: more of the particles are there at that time (each time against its own peak){rings}"


def _strip(tape: Tape) -> Figure:
    motions = list(tape.motion.items())
    sheet_ = sheet(1.1 + 4.1 * len(motions), tape.title, _caption(tape))
    panels = sheet_.subplots(len(motions), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    vertical = limits(*(m.states for _, m in motions))
    for axes, (family, motion) in zip(panels, motions, strict=True):
        _image(axes, _history(motion, np.linspace(*vertical, 361)), (0.0, 1.0, *vertical))
        for place in marked_modes(tape, motion.x)[:, 0]:
            mark_modes(axes, [1.0], [place])
        axes.set(xlim=(0, 1), ylim=vertical, ylabel=tape.y_names[0], aspect="auto")
        axes.set_title(f"{label(family)}, for {condition(tape, motion.x)}", loc="left")
    panels[-1].set_xlabel("t   (0 is noise, 1 is data)")
    return sheet_


def _history(motion: Motion, levels: np.ndarray) -> np.ndarray:
    """The density at each level of y and each of 121 times, over its peak at that time -> (levels, times)."""
    columns = [states_at(motion, float(time))[:, 0] for time in np.linspace(0, 1, 121)]
    history = np.stack([density_1d(y, levels, bandwidth(y[:, None])) for y in columns], axis=1)
    return history / np.maximum(history.max(axis=0), 1e-300)


def _image(axes: Axes, mass: np.ndarray, extent: tuple[float, float, float, float]) -> None:
    """Shades of mass against its peak: what matters is where the mass is, not how sharp it is."""
    shades = PowerNorm(0.75, 0, 1, clip=True)
    axes.imshow(mass, origin="lower", extent=extent, cmap=MASS, norm=shades, aspect="auto", interpolation="bilinear")
