"""Where demonstrators do several things."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from everymode.plots._shared import shape, square_limits
from everymode.plots.style import FAINT, colour, sheet

if TYPE_CHECKING:
    from everymode.policies.disagreement import Disagreement

__all__ = ["NEEDS", "SUMMARY", "figure"]

SUMMARY = "The states at which the demonstrators do several things, among those where they do one"
NEEDS = ("places", "place_names", "several_answers")


def figure(found: Disagreement) -> Figure:
    """One panel, of the first two numbers that were seen."""
    several = found.several_answers
    caption = f"{several.sum():,} of {len(several):,} states that were looked at, evenly spread over the episodes"
    title = "where demonstrators disagree" if several.any() else "no disagreement is found"
    drawn = sheet(5.4, f"{found.source}: {title}", caption, width=6.6)
    axes = drawn.subplots()
    for there, tint, size, name in (
        (~several, FAINT, 10, "they do one thing"),
        (several, colour("mse"), 14, "they do several"),
    ):
        axes.scatter(*found.places[there].T, s=size, color=tint, linewidths=0, label=name)
    horizontal, vertical = square_limits(found.places)
    axes.set(xlim=horizontal, ylim=vertical, xlabel=found.place_names[0], ylabel=found.place_names[1])
    axes.set_box_aspect(shape(horizontal, vertical))
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, 1.1), ncols=2, handletextpad=0.2)
    return drawn
