"""The paths that particles take from noise to data."""

from __future__ import annotations

from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from everymode.plots._shared import condition, limits, marked_modes, plane, shape, square_limits, thin
from everymode.plots.style import TIME, WIDTH, label, mark_modes, sheet
from everymode.tape import Motion, Tape

__all__ = ["NEEDS", "SUMMARY", "figure"]

SUMMARY = "The paths of particles from noise to data, coloured by time"
NEEDS = ("motion",)


def figure(tape: Tape) -> Figure:
    """One panel a family: the plane of y, or t along and y up where y is one number."""
    flat = len(tape.y_names) == 1
    motions = list(tape.motion.items())
    columns = 1 if flat else min(len(motions), 2)
    lines = ceil(len(motions) / columns)
    states = [motion.states for _, motion in motions]
    width = WIDTH if flat or columns == 2 else 8.5
    ends = ((-0.02, 1.02), limits(*states)) if flat else square_limits(*states)
    panel = 4.0 if flat else (width - 1.6 - 0.5 * columns) / columns * shape(*ends)
    rings = "; rings: the known modes" if tape.modes is not None else ""
    caption = f"a line: one particle, from noise (pale) to data (deep){rings}"
    sheet_ = sheet(1.2 + lines * (0.6 + panel), tape.title, caption, width)
    panels = sheet_.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (family, motion) in zip(panels, motions, strict=False):
        _paths(axes, tape, motion, flat)
        if flat:
            axes.set(xlim=ends[0], ylim=ends[1], ylabel=tape.y_names[0], xlabel="t   (0 is noise, 1 is data)")
            axes.label_outer()
        else:
            plane(axes, tape, *ends)
        axes.set_title(f"{label(family)}, for {condition(tape, motion.x)}", loc="left")
    for axes in panels[len(motions) :]:
        axes.set_visible(False)
    if not flat:
        clock = ScalarMappable(Normalize(0, 1), TIME)
        sheet_.colorbar(clock, ax=list(panels), label="t   (0 is noise, 1 is data)", shrink=0.8, aspect=30)
    return sheet_


def _paths(axes: Axes, tape: Tape, motion: Motion, flat: bool) -> None:
    """The paths of a few hundred particles as pieces coloured by time, and a dot at either end."""
    paths = thin(np.swapaxes(motion.states, 0, 1), 250)  # (n, T, dy)
    clock = np.broadcast_to(motion.times[None, :, None], (*paths.shape[:2], 1))
    points = np.concatenate([clock, paths], axis=2) if flat else paths[:, :, :2]  # (n, T, 2)
    pieces = np.stack([points[:, :-1], points[:, 1:]], axis=2)  # (n, T - 1, 2, 2)
    middle = np.broadcast_to((motion.times[1:] + motion.times[:-1]) / 2, pieces.shape[:2])
    late_on_top = list(np.swapaxes(pieces, 0, 1).reshape(-1, 2, 2))
    lines = LineCollection(late_on_top, cmap=TIME, norm=Normalize(0, 1), linewidths=0.7, zorder=2)
    lines.set(array=middle.T.ravel(), rasterized=True, capstyle="round")
    axes.add_collection(lines)
    start, end = points[:, 0], points[:, -1]
    axes.scatter(*start.T, s=12, color=TIME(0.0), edgecolors="white", linewidths=0.3, zorder=3)
    axes.scatter(*end.T, s=20, color=TIME(1.0), edgecolors="white", linewidths=0.5, zorder=4)
    modes = marked_modes(tape, motion.x)
    mark_modes(axes, *(np.column_stack([np.ones(len(modes)), modes[:, 0]]) if flat else modes[:, :2]).T)
