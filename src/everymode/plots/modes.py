"""The distinct answers of a few rows, and the draws that belong to each."""

from __future__ import annotations

from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from everymode.modes import Answers, RowAnswers
from everymode.plots.style import INK, fade, mark_modes, percent, sheet

__all__ = ["NEEDS", "SUMMARY", "figure"]

SUMMARY = "The distinct answers of a few rows: the draws that belong to each, its place and its probability"
NEEDS = ("counts",)

_MOST = 6
_TINTS = ("#00607f", "#d9480f", "#8c5fb0", "#009e73", "#c2255c", "#b3a000", "#56b4e9", "#7a2048")
_NAMED = 8  # answers whose probability is written beside them


def figure(found: Answers) -> Figure:
    """One panel a row: bars where y is one number, and else dots in the plane of the first two."""
    rows = np.unique(np.linspace(0, len(found) - 1, min(_MOST, len(found))).round().astype(int))
    columns = min(3, len(rows))
    lines = ceil(len(rows) / columns)
    names = list(found.names)
    flat = len(names) == 1
    more = "" if len(names) <= 2 else f"; drawn: the first two of {len(names)} values"
    caption = f"a colour is an answer: the draws that belong to it{more}; the mark is its place"
    drawn = sheet(1.3 + lines * (2.7 if flat else 3.6), found.title, caption)
    shown = np.concatenate([found[int(row)].draws.reshape(-1) for row in rows])
    span = float(np.ptp(np.quantile(shown, [0.002, 0.998])))
    panels = drawn.subplots(lines, columns, sharex=True, sharey=not flat, squeeze=False).ravel()
    for axes, row in zip(panels, rows, strict=False):
        if flat:
            _bars(axes, found[int(row)], 0.17 * columns / 3 * span)
        else:
            _dots(axes, found[int(row)])
        count = len(found[int(row)])
        axes.set_title(f"{found.titles[row]}\n{count} answer{'s' if count > 1 else ''}")
        axes.set_xlabel(names[0])
        if flat:
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
        else:
            axes.set_ylabel(names[1])
        axes.label_outer()
    for axes in panels[len(rows) :]:
        axes.set_visible(False)
    return drawn


def _tint(answer: int) -> str:
    return _TINTS[answer % len(_TINTS)]


def _bars(axes: Axes, row: RowAnswers, room: float) -> None:
    """Draw bars; words need `room` in the units of y, and stand above others where there is none."""
    draws = row.draws.reshape(-1)
    low, high = np.quantile(draws, [0.002, 0.998])
    edges = np.linspace(low, high, 61) if high > low else np.array([low - 0.5, low + 0.5])
    heights = [np.histogram(draws[row.basin == answer], edges)[0] for answer in range(len(row))]
    below = np.zeros(len(edges) - 1)
    for answer, height in enumerate(heights):
        axes.stairs(below + height, edges, baseline=below, fill=True, color=fade(_tint(answer), 0.75))
        below = below + height
    top = float(below.max())
    places = row.locations.reshape(len(row), -1)[:_NAMED, 0]
    level, last = 0, -np.inf
    for answer in np.argsort(places):
        place = float(places[answer])
        level = level + 1 if place - last < room else 0
        last = place
        up = (1.06 + 0.15 * level) * top
        axes.plot([place, place], [0, up], color=INK, linewidth=1.2)
        _say(axes, place, up + 0.03 * top, row, int(answer))
    axes.set_ylim(0, 1.45 * top)


def _dots(axes: Axes, row: RowAnswers) -> None:
    draws = row.draws.reshape(len(row.draws), -1)[:, :2]
    for answer in range(len(row)):
        mine = draws[row.basin == answer][:600]
        axes.scatter(*mine.T, s=8, color=_tint(answer), alpha=0.5, linewidths=0, rasterized=True)
    places = row.locations.reshape(len(row), -1)[:, :2]
    mark_modes(axes, *places.T)
    step = 0.06 * float(np.ptp(draws[:, 1]))
    for answer, place in enumerate(places[:_NAMED]):
        _say(axes, float(place[0]), float(place[1]) + step, row, answer)


def _say(axes: Axes, across: float, up: float, row: RowAnswers, answer: int) -> None:
    outline = [withStroke(linewidth=3, foreground="white")]
    words = percent(float(row.probabilities[answer]))
    axes.text(across, up, words, ha="center", va="bottom", color=_tint(answer), fontweight="bold", path_effects=outline)
