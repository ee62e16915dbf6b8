"""Chains that wait to change modes: their paths, their mean crossing time, and what three samplers pay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from everymode.plots.style import INK, TRUTH, colour, sheet

if TYPE_CHECKING:  # figures are drawn without torch
    from everymode.lessons import Crossing

__all__ = ["NEEDS", "SUMMARY", "figure"]

SUMMARY = "Paths of Langevin chains, their mean crossing time, and what three samplers pay, along the separation"
NEEDS = ("slope", "rows", "paths")

_CHAIN = "#d9480f"
_SAMPLERS = (
    ("langevin", "plain Langevin", _CHAIN, "o"),
    ("annealed_langevin", "annealed Langevin", "#e69f00", "s"),
    ("diffusion", "diffusion sampler", colour("diffusion"), "D"),
)


def figure(lesson: Crossing) -> Figure:
    """Three parts: paths of one chain, crossing time along the separation, network evaluations along it."""
    caption = (
        "two Gaussians of standard deviation 1, exact score; dots: measured, 95 % intervals; black: exact theory\n"
        f"draws are right when the share left of any point is within {lesson.settings['tolerance']:g} of the truth; "
        "separations are spaced by their square"
    )
    sheet_ = sheet(5.5, lesson.title, caption)
    parts: Any = sheet_.subfigures(1, 3, width_ratios=[0.82, 1, 1])
    left, middle, right = parts
    _paths(left, lesson)
    times, costs = middle.subplots(), right.subplots()
    _times(times, lesson)
    _costs(costs, lesson)
    separations = [row["separation"] for row in lesson.rows]
    for axes in (times, costs):
        _by_square(axes, separations)
        axes.set_xlabel("separation, in standard deviations")
    return sheet_


def _by_square(axes: Axes, separations: Sequence[float]) -> None:
    axes.set_xscale("function", functions=(np.square, lambda square: np.sqrt(np.maximum(square, 0))))
    low, high = min(separations), max(separations)
    room = 0.05 * (high**2 - low**2)
    axes.set_xlim(np.sqrt(max(low**2 - room, 0)), np.sqrt(high**2 + room))
    axes.set_xticks(separations, [f"{s:g}" for s in separations])
    axes.minorticks_off()


def _paths(part: SubFigure, lesson: Crossing) -> None:
    """One strip a separation: where the first chain was along its evaluations."""
    paths = lesson.paths
    strips = part.subplots(len(paths), 1, sharex=True, squeeze=False)[:, 0]
    for axes, path in zip(strips, paths, strict=True):
        half = path["separation"] / 2
        along = np.linspace(0, lesson.shown, len(path["y"]))
        for centre in (-half, half):
            axes.axhline(centre, color=TRUTH, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
        axes.plot(along, path["y"], color=_CHAIN, linewidth=0.6, zorder=2, rasterized=True)
        axes.set(ylim=(-half - 3.6, half + 3.6), yticks=[-half, half], yticklabels=["left", "right"])
        axes.set_title(f"{path['separation']:g} apart", loc="left", fontsize=11, pad=3)
        axes.margins(x=0)
    strips[-1].set_xlabel("evaluations of the score")
    strips[-1].set_xticks([0, lesson.shown // 2])
    strips[-1].xaxis.set_major_formatter("{x:,.0f}")


def _times(axes: Axes, lesson: Crossing) -> None:
    rows, slope = lesson.rows, lesson.slope
    line = np.array([row["separation"] for row in rows])
    axes.plot(line, [row["crossing_time_exact"] for row in rows], color=INK, linewidth=1.4, zorder=1)
    seen = [row for row in rows if row["crossing_time"] is not None]
    measured = np.array([row["crossing_time"] for row in seen])
    low, high = (np.array([row[f"crossing_time_{end}"] for row in seen]) for end in ("low", "high"))
    axes.errorbar(
        [row["separation"] for row in seen],
        measured,
        yerr=[measured - low, high - measured],
        linestyle="none",
        marker="o",
        markersize=7,
        color=_CHAIN,
        capsize=4,
        zorder=2,
    )
    axes.set_yscale("log")
    axes.set_title("plain Langevin: mean crossing time", loc="left")
    if slope["value"] is not None:
        names = "log crossing time on\nsquared separation: slope\nmeasured\n\nexact theory\nKramers, far apart"
        numbers = f"\n\n{slope['value']:.4f}\n±{(slope['high'] - slope['low']) / 2:.4f}\n{slope['exact']:.4f}\n0.1250"
        told = {"transform": axes.transAxes, "va": "top", "fontsize": 10, "linespacing": 1.4}
        axes.text(0.03, 0.985, names, **told)
        axes.text(0.62, 0.985, numbers, ha="right", **told)


def _costs(axes: Axes, lesson: Crossing) -> None:
    rows, budget = lesson.rows, lesson.settings["budget"]
    for key, name, tint, mark in _SAMPLERS:
        paid = [(row["separation"], row["evaluations"][key]) for row in rows]
        known = [(s, n) for s, n in paid if n is not None]
        if known:
            axes.plot(*zip(*known, strict=True), color=tint, marker=mark, markersize=6, linewidth=1.8)
            axes.annotate(
                name, known[-1], xytext=(-4, 9), textcoords="offset points", ha="right", color=tint, fontsize=11.5
            )
        for separation in (s for s, n in paid if n is None):
            axes.annotate(
                "",
                (separation, budget * 2.2),
                (separation, budget),
                arrowprops={"arrowstyle": "-|>", "color": tint, "linewidth": 1.6},
            )
    axes.set_yscale("log")
    axes.set_ylim(1, budget * 4)
    axes.axhline(budget, color="#c9ced6", linewidth=1, zorder=0)
    axes.text(
        0.02, budget * 1.15, f"budget: {budget:,}", transform=axes.get_yaxis_transform(), fontsize=10, color=TRUTH
    )
    axes.set_title("evaluations until draws are right", loc="left")
