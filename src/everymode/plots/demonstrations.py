"""The episodes of demonstrations: where they went, and how long they took."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from everymode.plots._shared import shape, square_limits
from everymode.plots.style import FAINT, INK, TIME, sheet

if TYPE_CHECKING:
    from everymode.policies.overview import Overview

__all__ = ["NEEDS", "SUMMARY", "figure"]

SUMMARY = "The paths of the episodes, by their way where it is known, and how long they took"
NEEDS = ("paths", "path_names", "lengths")

_MOST, _WAYS = 80, 12  # paths, and ways with a colour of their own
_COLOURS = (
    "#00607f",
    "#d9480f",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#8c5fb0",
    "#56b4e9",
    "#3d5a1f",
    "#7a2048",
    "#b3a000",
)


def figure(found: Overview) -> Figure:
    """One panel for the paths, one for the lengths."""
    by_way = found.path_ways is not None and 1 < len(found.ways) <= _WAYS
    caption = "dots are where episodes begin; "
    caption += "colours are ways" if by_way else "pale episodes are the first ones, deep ones the last"
    drawn = sheet(5.0, found.title, caption)
    left, right = drawn.subplots(1, 2, width_ratios=(1.25, 1.0))
    _draw_paths(left, found, by_way)
    _draw_lengths(right, found)
    return drawn


def _draw_paths(axes: Axes, found: Overview, by_way: bool) -> None:
    episodes = np.unique(np.linspace(0, len(found.paths) - 1, min(_MOST, len(found.paths))).round().astype(int))
    horizontal, vertical = square_limits(np.concatenate(found.paths))
    told = [int(way) for way in np.unique(found.path_ways)] if by_way and found.path_ways is not None else []
    for episode in episodes.tolist():
        path = found.paths[episode]
        if told and found.path_ways is not None:
            tint = _COLOURS[told.index(int(found.path_ways[episode])) % len(_COLOURS)]
        else:
            tint = to_hex(TIME(0.15 + 0.85 * episode / max(1, len(found.paths) - 1)))
        axes.plot(*path.T, color=tint, linewidth=0.7, alpha=0.55)
        axes.scatter(*path[0], color=tint, s=9, zorder=3)
    for index, name in enumerate(found.ways if told else ()):
        axes.plot([], [], color=_COLOURS[index % len(_COLOURS)], label=f"{name} ({found.ways[name]:,})")
    if told:
        axes.legend(loc="best", fontsize=10)
    axes.set(xlim=horizontal, ylim=vertical, xlabel=found.path_names[0], ylabel=found.path_names[1])
    axes.set_box_aspect(shape(horizontal, vertical))
    shown = "" if len(episodes) == len(found.paths) else f"   ({len(episodes)} of {len(found.paths):,})"
    axes.set_title(f"where they went{shown}", loc="left")


def _draw_lengths(axes: Axes, found: Overview) -> None:
    axes.hist(found.lengths, bins=min(30, max(5, len(np.unique(found.lengths)))), color=FAINT, edgecolor="white")
    middle = float(np.median(found.lengths))
    seconds = f", {middle / found.rate:.3g} s" if found.rate else ""
    axes.axvline(middle, color=INK, linewidth=1.2)
    axes.set_title(f"how long they took   (median {middle:g} steps{seconds})", loc="left")
    axes.set(xlabel="steps", ylabel="episodes", xlim=(0, None))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
