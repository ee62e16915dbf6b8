"""The rows that could go either way, laid over one another."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from everymode.diagnosis import Diagnosis
from everymode.plots.style import FAINT, INK, colour, sheet

__all__ = ["NEEDS", "SUMMARY", "figure"]

SUMMARY = "Rows with several answers over one another, their two likeliest answers at 0 and 1"
NEEDS = ("laid",)


def figure(found: Diagnosis) -> Figure:
    """What was observed, the flexible density, and the nearest one with a single peak."""
    laid = found.laid
    if laid is None:
        raise ValueError("there are no rows with several answers")
    caption = "each row is stretched so that its likeliest answer is at 0 and the next one across a valley at 1"
    drawn = sheet(4.2, "Rows with several answers, laid over one another", caption, 8.0)
    axes = drawn.subplots()
    low, high = laid.grid[[0, -1]]
    inside = laid.observed[(laid.observed >= low) & (laid.observed <= high)]
    share = len(inside) / max(1, len(laid.observed))
    counts, edges = np.histogram(inside, bins=45, range=(low, high), density=True)
    axes.stairs(share * counts, edges, fill=True, color=FAINT, label=f"observed, {len(laid.observed):,} rows")
    axes.plot(laid.grid, laid.one_peak, color=colour("mse"), linewidth=2, label="the nearest with one peak")
    axes.plot(laid.grid, laid.flexible, color=colour("flow_matching"), linewidth=2, label="flexible density")
    for place in (0.0, 1.0):
        axes.axvline(place, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_xlim(low, high)
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.set_xticks([0, 0.5, 1], ["one answer", "halfway", "another"])
    axes.legend(loc="upper right")
    return drawn
