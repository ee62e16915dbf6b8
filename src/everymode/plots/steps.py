"""What each step buys."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from everymode.curve import StepsCurve, StepsPoint
from everymode.plots.style import TRUTH, colour, label, percent, sheet

__all__ = ["NEEDS", "SUMMARY", "figure"]

SUMMARY = "Valid answers and distance by the number of network evaluations, for every solver"
NEEDS = ("points",)

_COLOURS = colormaps["tab10"]


def figure(curve: StepsCurve) -> Figure:
    """One panel for the share of valid draws, where it is known, and one for the distance; a line a solver."""
    valid = curve.valid_floor is not None
    caption = f"distance: sliced Wasserstein, to {curve.reference}, in standard deviations of y; the dashed line is "
    caption += "what two sets of them are apart"
    sheet_ = sheet(4.2, f"What each step buys: {label(curve.title)}", caption, 11.0 if valid else 6.5)
    panels = sheet_.subplots(1, 1 + valid, squeeze=False)[0]
    if curve.valid_floor is not None:
        _panel(panels[0], curve, lambda point: point.valid_share)
        panels[0].axhline(curve.valid_floor, color=TRUTH, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        panels[0].set_ylim(0, 1.03)
        panels[0].yaxis.set_major_formatter(FuncFormatter(lambda share, _: percent(share)))
        panels[0].set_title("valid draws", loc="left")
    _panel(panels[-1], curve, lambda point: point.sliced_wasserstein)
    panels[-1].axhline(curve.floor, color=TRUTH, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    panels[-1].set_ylim(bottom=0)
    panels[-1].set_title("distance", loc="left")
    panels[-1].legend(frameon=False, fontsize=8, loc="upper right")
    return sheet_


def _panel(axes: Axes, curve: StepsCurve, height: Callable[[StepsPoint], float | None]) -> None:
    methods = list(dict.fromkeys(point.method for point in curve.points))
    for index, method in enumerate(methods):
        points = [point for point in curve.points if point.method == method]
        shown = colour(method) if len(methods) == 1 else _COLOURS(index % 10)
        heights = [height(point) for point in points]
        axes.plot(
            [point.nfe for point in points],
            heights,  # pyright: ignore[reportArgumentType]
            marker="o",
            markersize=4,
            linewidth=1.4,
            color=shown,
            label=label(method),
        )
    counts = sorted({point.nfe for point in curve.points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("network evaluations a draw")
