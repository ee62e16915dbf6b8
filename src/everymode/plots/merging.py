"""Draws of mixtures with few and enough components, and their numbers along the number of components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from everymode.plots._shared import square_limits
from everymode.plots.style import TRUTH, colour, label, percent, sheet

if TYPE_CHECKING:  # figures are drawn without torch
    from everymode.lessons import Merging

__all__ = ["NEEDS", "SUMMARY", "figure"]

SUMMARY = "Draws of Gaussian mixtures beside a model's, and their numbers along the number of components"
NEEDS = ("mixtures", "model", "panels")

_INVALID = colour("mse")
_MIXTURE = colour("gmm")
_CURVES = (
    ("valid_share", "valid answers"),
    ("modes_apart", "modes kept apart"),
    ("log_likelihood", "log-likelihood, held out (nats)"),
)


def figure(lesson: Merging) -> Figure:
    """Draws on top: the truth, some mixtures, the model. Below: three numbers along the components."""
    panels = lesson.panels
    sheet_ = sheet(6.5, lesson.title)
    parts: Any = sheet_.subfigures(2, 1, height_ratios=[1, 1.28])
    upper, lower = parts
    places = [np.asarray(panel["y"]) for panel in panels]
    ends = square_limits(places[0])  # of the truth: what a mixture draws far from it is left out
    reach = 0.66 * max(high - low for low, high in ends)
    for axes, panel, y in zip(upper.subplots(1, len(panels)), panels, places, strict=True):
        _draws(axes, panel, y)
        for end, set_limits in zip(ends, (axes.set_xlim, axes.set_ylim), strict=True):  # one scale on both axes
            set_limits(sum(end) / 2 - reach, sum(end) / 2 + reach)
        axes.set(xticks=[], yticks=[], box_aspect=1)
        axes.set_title(_name(panel), fontsize=12, pad=2)
        axes.spines[:].set_visible(False)
    model = lesson.model["family"]
    for axes, (key, title) in zip(lower.subplots(1, 3), _CURVES, strict=True):
        _curve(axes, lesson, key)
        axes.set_title(title, loc="left")
        axes.set_xlabel("components of the mixture")
    keys = [
        Line2D([], [], color=_MIXTURE, marker="o", markersize=5, label="Gaussian mixture"),
        Line2D([], [], color=colour(model), linewidth=2.5, label=f"{label(model)}: no such number to choose"),
        Line2D([], [], color=TRUTH, linestyle=(0, (4, 2)), label="real draws"),
        Line2D([], [], color=_INVALID, linestyle="none", marker="o", markersize=5, label="a draw that is no answer"),
    ]
    lower.legend(handles=keys, loc="outside lower center", ncols=4)
    return sheet_


def _name(panel: Mapping[str, Any]) -> str:
    name = f"mixture of {panel['components']}" if "components" in panel else label(panel["name"])
    return f"{name}\n{percent(panel['valid_share'])} valid"


def _draws(axes: Axes, panel: Mapping[str, Any], y: np.ndarray) -> None:
    tint = _MIXTURE if "components" in panel else colour(panel["name"])
    valid = np.asarray(panel["valid"], bool)
    for chosen, shade in ((valid, tint), (~valid, _INVALID)):
        axes.scatter(*y[chosen].T, s=5, color=shade, linewidths=0, alpha=0.8, rasterized=True)


def _curve(axes: Axes, lesson: Merging, key: str) -> None:
    along = [row["components"] for row in lesson.mixtures]
    axes.axvline(lesson.modes, color="#e3e6eb", linewidth=7, zorder=0)
    axes.text(
        lesson.modes,
        0.02,
        f"{lesson.modes} modes",
        transform=axes.get_xaxis_transform(),
        rotation=90,
        ha="center",
        va="bottom",
        fontsize=9.5,
        color="#596270",
    )
    if lesson.floor.get(key) is not None:
        axes.axhline(lesson.floor[key], color=TRUTH, linestyle=(0, (4, 2)), linewidth=1.6, zorder=1)
    if lesson.model[key] is not None:
        axes.axhline(lesson.model[key], color=colour(lesson.model["family"]), linewidth=2.5, zorder=2)
    axes.plot(along, [row[key] for row in lesson.mixtures], color=_MIXTURE, marker="o", markersize=5, zorder=3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 4, 5, 10]))
    if key.endswith("share"):
        axes.set_ylim(0, 1.04)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    elif key.startswith("modes"):
        axes.set_ylim(-0.02 * lesson.modes, 1.04 * lesson.modes)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
