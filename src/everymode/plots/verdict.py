"""Where one x has several answers, and which columns matter."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from everymode.diagnosis import Diagnosis
from everymode.plots.style import FAINT, INK, colour, sheet
from everymode.tables import is_categorical

__all__ = ["NEEDS", "SUMMARY", "figure"]

SUMMARY = "The answers over the column that tells most of them, and what each column is worth"
NEEDS = ("verdict", "columns", "average")

_MOST, _BARS = 3000, 12  # rows, columns


def figure(found: Diagnosis) -> Figure:
    """One panel for the answers, with the averages among them; one for the columns."""
    target = int(np.argmax(_spread(found)))
    title = f"{found.verdict[0].upper()}{found.verdict[1:]}"
    title += f": {found.share:.0%} of the rows" if found.verdict == "several answers" else ""
    caption = "the average is that of a regression on rows it has not seen; columns are shuffled to see what is lost"
    drawn = sheet(4.4, title, caption)
    left, right = drawn.subplots(1, 2, width_ratios=[2, 1])
    _answers(left, found, target)
    _columns(right, found)
    return drawn


def _spread(found: Diagnosis) -> np.ndarray:
    """Return how far the answers of rows with several are from their average, target by target, in their own units."""
    rows = found.several if found.several.any() else np.ones(len(found.y), dtype=bool)
    values = found.y.to_numpy(dtype=np.float64)
    return np.abs(values - found.average)[rows].mean(axis=0) / values.std(axis=0).clip(1e-300)


def _answers(axes: Axes, found: Diagnosis, target: int) -> None:
    name, shown = next(iter(found.columns)), found.y.columns[target]
    column = found.x[name]
    chosen = np.random.default_rng(0).permutation(len(column))[:_MOST]
    if is_categorical(column):
        codes, names = pd.factorize(column, sort=True)
        across = codes + np.random.default_rng(1).uniform(-0.3, 0.3, len(codes))
        axes.set_xticks(range(len(names)), [str(each) for each in names])
    else:
        across = column.to_numpy(dtype=np.float64)
    values = found.y.iloc[:, target].to_numpy(dtype=np.float64)
    size = 14 if len(chosen) < 1000 else 6
    for rows, tint, text in (
        (~found.several, FAINT, "one answer"),
        (found.several, colour("flow_matching"), "several answers"),
    ):
        among = chosen[rows[chosen]]
        if len(among):
            axes.scatter(across[among], values[among], s=size, color=tint, linewidths=0, label=text)
    average = found.average[chosen, target]
    axes.scatter(across[chosen], average, s=size / 2, color=colour("mse"), linewidths=0, label="the average")
    axes.set_xlabel(str(name))
    axes.set_ylabel(str(shown))
    axes.legend(markerscale=24 / size, loc="best", frameon=True, framealpha=0.9, edgecolor="none")


def _columns(axes: Axes, found: Diagnosis) -> None:
    named = list(found.columns.items())[:_BARS][::-1]
    axes.barh([str(name) for name, _ in named], [worth for _, worth in named], color=INK, height=0.6)
    axes.set_ylim(min(-0.6, len(named) / 2 - 3), max(len(named) - 0.4, len(named) / 2 + 2))
    axes.set_xlabel("nats a row that are lost without it")
    axes.set_title("columns of x", loc="left")
