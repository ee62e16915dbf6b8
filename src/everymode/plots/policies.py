"""The score of policies against what a chunk costs: the upper left corner is good and cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from everymode.plots.style import INK, colour, label, sheet

if TYPE_CHECKING:  # figures are drawn without torch
    from everymode.policies.comparison import PolicyComparison

__all__ = ["NEEDS", "SUMMARY", "figure"]

SUMMARY = "The score of policies, with its interval, against the milliseconds of a chunk"
NEEDS = ("evaluations",)


def figure(comparison: PolicyComparison) -> Figure:
    """One dot a policy: its mean score with a 95 % interval, over the median milliseconds of a chunk on one core."""
    caption = (
        "dot: mean of the best reward of an episode, 95 % bootstrap interval; cost: median of one robot on one core"
    )
    drawn = sheet(5.0, comparison.title, caption, width=8.0)
    axes = drawn.subplots()
    for name, found in comparison.evaluations.items():
        score, tint = found.score, colour(comparison.family_of(name))
        if score.low is not None and score.high is not None:
            around = [[max(score.value - score.low, 0)], [max(score.high - score.value, 0)]]
            axes.errorbar(found.chunk_ms_median, score.value, yerr=around, color=tint, linewidth=1.4, capsize=3)
        axes.scatter(found.chunk_ms_median, score.value, s=52, color=tint, zorder=3)
        axes.annotate(
            label(name),
            (found.chunk_ms_median, score.value),
            (7, 5),
            textcoords="offset points",
            fontsize=10,
            color=INK,
        )
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds a chunk")
    axes.set_ylabel("mean score")
    axes.margins(x=0.18, y=0.12)
    return drawn
