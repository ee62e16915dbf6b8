"""Draws of every family on every problem: which answers it finds, loses and invents, at one glance."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from everymode.comparison import TRUTH, Comparison
from everymode.plots._shared import limits
from everymode.plots.style import colour, fade, label, sheet

__all__ = ["NEEDS", "SUMMARY", "figure"]

SUMMARY = "Draws of every family on every problem; what is no valid answer is red"
NEEDS = ("samples",)

_ACROSS = 9  # columns of panels before a new block begins
_INVALID = "#e03131"


def figure(comparison: Comparison) -> Figure:
    """One row of panels a problem, one column a family, the truth first; blocks of columns below one another."""
    tasks = [task for task in comparison.tables if (task, TRUTH) in comparison.samples]
    families = [
        TRUTH,
        *(f for f in comparison.settings["families"] if any((t, f) in comparison.samples for t in tasks)),
    ]
    across = -(-len(families) // -(-len(families) // _ACROSS))  # blocks of about the same width
    blocks = [families[start : start + across] for start in range(0, len(families), across)]
    caption = "red: no valid answer. y against x where both are one number; else the first two outputs for one x"
    rows = len(tasks) * len(blocks)
    sheet_ = sheet(1.0 + 1.42 * rows, "What each family answers", caption, width=max(5.0, 1.45 * across))
    panels = np.atleast_2d(sheet_.subplots(rows, across, squeeze=False))
    for block, names in enumerate(blocks):
        for line, task in enumerate(tasks):
            for column in range(across):
                axes = panels[block * len(tasks) + line, column]
                axes.set(xticks=[], yticks=[])
                if column >= len(names):
                    axes.axis("off")
                    continue
                if line == 0:
                    axes.set_title(label(names[column]), fontsize=10, color=colour(names[column]), fontweight="bold")
                if column == 0:
                    axes.set_ylabel(label(task), fontsize=10)
                for side in axes.spines.values():
                    side.set(visible=True, color="#e3e6ea")
                _panel(axes, comparison, task, names[column])
    return sheet_


def _points(samples: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return points of the plane (n, 2), and which of them are valid (n,)."""
    if samples["y"].shape[1] == 1:
        return np.hstack([samples["pairs_x"][:, :1], samples["pairs_y"]]), samples["pairs_valid"].astype(bool)
    return samples["y"][:, :2], samples["valid"].astype(bool)


def _panel(axes: Axes, comparison: Comparison, task: str, family: str) -> None:
    truth, _ = _points(comparison.samples[task, TRUTH])
    axes.set(
        xlim=limits(truth[:, 0], pad=0.15),
        ylim=limits(truth[:, 1], pad=0.15),
    )
    samples = comparison.samples.get((task, family))
    if samples is None:
        axes.text(0.5, 0.5, "failed", transform=axes.transAxes, ha="center", va="center", color="#8b919b")
        return
    points, valid = _points(samples)
    axes.scatter(*points[~valid].T, s=2.0, color=fade(_INVALID, 0.75), linewidths=0, zorder=2)
    axes.scatter(*points[valid].T, s=2.0, color=colour(family), linewidths=0, zorder=3)
