"""y along x: the regions where a model puts most of its mass, and the line of the average."""

from __future__ import annotations

from itertools import pairwise
from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from everymode.errors import DataError
from everymode.plots._shared import limits, thin, useful_column
from everymode.plots.style import INK, colour, fade, label, sheet
from everymode.regions import highest_density_intervals
from everymode.tape import Tape

__all__ = ["NEEDS", "SUMMARY", "figure"]

SUMMARY = "y along x: regions with 50 % and 90 % of the draws, split where the answers are; the average's line"
NEEDS = ("draws",)

_SHARES = ((0.9, 0.30), (0.5, 0.72))  # (share of the draws, depth of the shade)
_BINS = 80


def figure(tape: Tape) -> Figure:
    """One panel a target. The regions are those of the first family that is not "mse".

    Raises:
        DataError: the tape has draws of "mse" only, which gives no region.
    """
    family = next((name for name in tape.draws if name != "mse"), None)
    if family is None:
        raise DataError(f"the figure 'bands' needs draws of a family that is not 'mse'; {tape.title!r} has none.")
    column, name = useful_column(tape)
    targets = len(tape.y_names)
    columns = min(targets, 2)
    lines = ceil(targets / columns)
    sheet_ = sheet(1.2 + (4.4 if columns == 1 else 3.4) * lines, tape.title)
    panels = sheet_.subplots(lines, columns, sharex=True, squeeze=False).ravel()
    centres, edges, groups = _bins(tape.x[:, column], tape.observed_x[:, column])
    for target, axes in enumerate(panels[:targets]):
        values = tape.draws[family][:, :, target]
        _regions(axes, [values[group].ravel() for group in groups], centres, edges, colour(family))
        seen = thin(np.column_stack([tape.observed_x[:, column], tape.observed_y[:, target]]), 1200)
        axes.scatter(*seen.T, s=8, color=INK, alpha=0.38, linewidths=0, zorder=3, rasterized=True)
        if "mse" in tape.draws:
            average = tape.draws["mse"][:, 0, target]
            line = [average[group].mean() for group in groups]
            halo = [withStroke(linewidth=5.5, foreground="white")]
            dot = "X" if len(centres) == 1 else ""
            axes.plot(
                centres,
                line,
                dot,
                color=colour("mse"),
                linewidth=3,
                markersize=14,
                zorder=4,
                path_effects=halo,
            )
        axes.set(
            xlabel=name,
            ylabel=tape.y_names[target],
            xlim=(edges[0], edges[-1]),
            ylim=limits(seen[:, 1], values),
        )
    for axes in panels[targets:]:
        axes.set_visible(False)
    sheet_.legend(handles=_keys(family, "mse" in tape.draws), loc="outside lower center", ncols=4)
    return sheet_


def _bins(along: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Probes with the same or nearly the same x -> centres (b,), edges (b + 1,), and the rows of each."""
    distinct = np.unique(along)
    parts = np.array_split(distinct, min(len(distinct), _BINS))
    centres = np.array([part.mean() for part in parts])
    middles = (centres[1:] + centres[:-1]) / 2
    first, last = (middles[0] - centres[0], centres[-1] - middles[-1]) if len(centres) > 1 else (0.5, 0.5)
    if len(centres) > 1 and len(observed):  # the outer bins end where the data do
        first = min(first, max(centres[0] - observed.min(), 0.0))
        last = min(last, max(observed.max() - centres[-1], 0.0))
    edges = np.concatenate([[centres[0] - first], middles, [centres[-1] + last]])
    return centres, edges, [np.flatnonzero(np.isin(along, part)) for part in parts]


def _regions(axes: Axes, answers: list[np.ndarray], centres: np.ndarray, edges: np.ndarray, tint: str) -> None:
    """One piece a bin of x and interval; where the answers split there are several, with nothing between.

    Neighbouring bins whose intervals pair off are joined by straight edges, others meet half way as boxes.
    """
    for share, depth in _SHARES:
        intervals = [highest_density_intervals(draws, share) for draws in answers]
        pieces = _boxes(edges[0], centres[0], intervals[0]) + _boxes(centres[-1], edges[-1], intervals[-1])
        for index, (here, there) in enumerate(pairwise(intervals)):
            left, middle, right = centres[index], edges[index + 1], centres[index + 1]
            if _paired(here, there):
                corners = zip(here, there, strict=True)
                pieces += [[(left, a[0]), (right, b[0]), (right, b[1]), (left, a[1])] for a, b in corners]
            else:
                pieces += _boxes(left, middle, here) + _boxes(middle, right, there)
        shade = fade(tint, depth)
        axes.add_collection(
            PolyCollection(pieces, facecolors=[shade], edgecolors=[shade], linewidths=0.4, zorder=2 - share)
        )


def _paired(here: np.ndarray, there: np.ndarray) -> bool:
    """Whether two bins have as many intervals, and each overlaps its like."""
    return len(here) == len(there) and bool(((here[:, 0] < there[:, 1]) & (there[:, 0] < here[:, 1])).all())


def _boxes(left: float, right: float, intervals: np.ndarray) -> list[list[tuple[float, float]]]:
    return [[(left, low), (right, low), (right, high), (left, high)] for low, high in intervals]


def _keys(family: str, average: bool) -> list[Patch | Line2D]:
    keys: list[Patch | Line2D] = [
        Patch(color=fade(colour(family), depth), label=f"{label(family)}, {share:.0%} of draws")
        for share, depth in reversed(_SHARES)
    ]
    keys.append(Line2D([], [], linestyle="none", marker="o", markersize=4, color=INK, alpha=0.5, label="observed"))
    if average:
        keys.append(Line2D([], [], color=colour("mse"), linewidth=3, label="squared error: the average"))
    return keys
