"""How near to the truth, and what a draw costs."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from everymode.comparison import Comparison, ModeTable
from everymode.plots.style import TRUTH, colour, fade, label, sheet

__all__ = ["NEEDS", "SUMMARY", "figure"]

SUMMARY = "Distance from the truth against milliseconds a draw, of every family on every problem"
NEEDS = ("tables",)

_ACROSS = 2


def figure(comparison: Comparison) -> Figure:
    """One panel a problem: sliced Wasserstein distance over its floor against milliseconds a draw, both on log axes."""
    tables = {name: table for name, table in comparison.tables.items() if any(_place(row) for row in table)}
    caption = (
        "1 is the distance between two sets of real draws: no model is nearer, except by luck. Lower left is better"
    )
    across = max(1, min(_ACROSS, len(tables)))
    down = max(1, -(-len(tables) // across))
    sheet_ = sheet(
        0.9 + 3.4 * down, "Distance from the truth against the cost of a draw", caption, max(6.0, 5.2 * across)
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
    axes.margins(x=0.08, y=0.1)
    axes.autoscale_view()
    _names(axes, places)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("milliseconds a draw", fontsize=10)
    axes.set_ylabel("distance, in floors", fontsize=10)


def _names(axes: Axes, places: dict[str, tuple[float, float]]) -> None:
    """Write the names in a column beside the panel, in the order of the points, each with a line to its own."""
    names = sorted(places, key=lambda family: places[family][1])
    heights = np.array([axes.transAxes.inverted().transform(axes.transData.transform(places[f]))[1] for f in names])
    room = min(0.07, 1 / max(1, len(names) - 1))
    for index in range(1, len(heights)):  # apart, from below
        heights[index] = max(heights[index], heights[index - 1] + room)
    heights -= max(0.0, heights[-1] - 1) if len(heights) else 0.0
    for index in range(len(heights) - 2, -1, -1):  # and within the panel, from above
        heights[index] = min(heights[index], heights[index + 1] - room)
    for family, height in zip(names, heights, strict=True):
        axes.annotate(
            label(family),
            places[family],
            (1.04, height),
            textcoords="axes fraction",
            fontsize=8.5,
            color=colour(family),
            va="center",
            arrowprops={"arrowstyle": "-", "color": fade(colour(family), 0.35), "linewidth": 0.6, "shrinkB": 3},
            annotation_clip=False,
        )
