"""How many answers of each family are valid, and how many of the modes it finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from everymode.plots.style import TRUTH, colour, fade, label, percent, sheet
from everymode.tape import Tape

__all__ = ["NEEDS", "SUMMARY", "figure"]

SUMMARY = "The share of valid answers, with its interval, and the modes found, a bar a family"
NEEDS = ("scores",)


def figure(tape: Tape) -> Figure:
    """Two panels side by side, one line a family; a share comes with its interval if the scores have it."""
    scores = list(tape.scores or ())
    caption = "bars: the estimate; whiskers: its interval; the pale length is what could be reached"
    sheet_ = sheet(1.9 + 0.55 * len(scores), tape.title, caption)
    shares, found = sheet_.subplots(1, 2, sharey=True, width_ratios=[1.25, 1])
    _shares(shares, scores)
    _found(found, scores)
    shares.set_yticks(range(len(scores)), [label(row["family"]) for row in scores], fontsize=12)
    shares.set_ylim(len(scores) - 0.4, -0.6)
    for axes in (shares, found):
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    return sheet_


def _shares(axes: Axes, scores: Sequence[Mapping[str, Any]]) -> None:
    for line, row in enumerate(scores):
        share, low, high = (row.get(key) for key in ("valid_share", "valid_share_low", "valid_share_high"))
        axes.barh(line, 1, height=0.56, color="#f1f3f6", zorder=1)
        if share is None:
            axes.text(0.02, line, "not known", va="center", color=TRUTH, fontsize=11)
            continue
        tint = colour(row["family"])
        axes.barh(line, share, height=0.56, color=fade(tint, 0.7), zorder=2)
        if low is not None and high is not None:
            around = [[max(share - low, 0)], [max(high - share, 0)]]
            axes.errorbar(share, line, xerr=around, color="#22262e", linewidth=1.6, capsize=5, capthick=1.6, zorder=3)
        axes.text(1.03, line, percent(share), va="center", fontsize=12, fontweight="bold", color=tint)
    axes.set_xlim(0, 1.16)
    axes.set_xlabel("share of draws that are valid answers", loc="left")
    axes.set_xticks(np.linspace(0, 1, 5), [f"{share:.0%}" for share in np.linspace(0, 1, 5)])
    axes.spines["bottom"].set_bounds(0, 1)


def _found(axes: Axes, scores: Sequence[Mapping[str, Any]]) -> None:
    totals = [row.get("modes_total") or 0 for row in scores]
    most = max([*totals, 1])
    for line, (row, total) in enumerate(zip(scores, totals, strict=True)):
        found = row.get("modes_found")
        axes.barh(line, total, height=0.56, color="#f1f3f6", zorder=1)
        if found is None or not total:
            axes.text(0.02 * most, line, "not known", va="center", color=TRUTH, fontsize=11)
            continue
        tint = colour(row["family"])
        axes.barh(line, found, height=0.56, color=fade(tint, 0.7), zorder=2)
        axes.text(
            most * 1.04,
            line,
            f"{found:.3g} of {total:.3g}",
            va="center",
            fontsize=12,
            fontweight="bold",
            color=tint,
        )
    axes.set_xlim(0, 1.32 * most)
    axes.set_xlabel("modes found, of those that exist", loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines["bottom"].set_bounds(0, most)
