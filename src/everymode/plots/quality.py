"""How near to the truth, and what a draw costs."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from everymode.comparison import Comparison, ModeTable
from everymode.plots.style import TRUTH, colour, label, sheet

__all__ = ["NEEDS", "SUMMARY", "figure"]

SUMMARY = "Distance from the truth against milliseconds a draw, of every family on every problem"
NEEDS = ("tables",)

_ACROSS = 3


def figure(comparison: Comparison) -> Figure:
    """One panel a problem: sliced Wasserstein distance over its floor against milliseconds a draw, both on log axes."""
    tables = {name: table for name, table in comparison.tables.items() if any(_place(row) for row in table)}
    caption = (
        "1 is the distance between two sets of real draws: no model is nearer, except by luck. Lower left is better"
    )
    across = max(1, min(_ACROSS, len(tables)))
    down = max(1, -(-len(tables) // across))
    sheet_ = sheet(
        0.9 + 3.4 * down, "Distance from the truth against the cost of a draw", caption, max(6.0, 3.9 * across)
    )
    panels = sheet_.subplots(down, across, squeeze=False).ravel()
    for axes in panels[len(tables) :]:
        axes.axis("off")
    if not tables:
        panels[0].text(0.5, 0.5, "no distance to the truth is known here", ha="center", color=TRUTH)
    for axes, (name, table) in zip(panels, tables.items(), strict=False):
        _panel(axes, table)
        axes.set_title(label(name), loc="left")
    return sheet_


def _place(row: object) -> tuple[float, float] | None:
    """Return (milliseconds a draw, distance in floors), where both are known."""
    distance, milliseconds = getattr(row, "sliced_wasserstein", None), getattr(row, "milliseconds", None)
    if distance is None or not distance.floor or not milliseconds:
        return None
    return milliseconds, distance.value / distance.floor


def _panel(axes: Axes, table: ModeTable) -> None:
    places = {row.family: place for row in table if (place := _place(row)) is not None}
    axes.set(xscale="log", yscale="log")
    axes.axhline(1, color=TRUTH, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for family, (milliseconds, distance) in places.items():
        axes.scatter(milliseconds, distance, s=34, color=colour(family), zorder=3)
    _names(axes, places)
    axes.margins(x=0.22, y=0.14)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("milliseconds a draw", fontsize=10)
    axes.set_ylabel("distance, in floors", fontsize=10)


def _names(axes: Axes, places: dict[str, tuple[float, float]]) -> None:
    """Write the names beside the points, those that would meet apart in height."""
    heights = np.log([distance for _, distance in places.values()])
    order = np.argsort(heights)
    room = max(0.07 * float(np.ptp(heights)), 0.05) if len(heights) > 1 else 0.1
    last, names = -np.inf, list(places)
    for index in order:
        family = names[index]
        height = max(float(heights[index]), last + room)
        last = height
        milliseconds, distance = places[family]
        axes.annotate(
            label(family),
            (milliseconds, distance),
            (milliseconds * 1.25, float(np.exp(height))),
            fontsize=8.5,
            color=colour(family),
            va="center",
        )
