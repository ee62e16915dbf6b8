"""What each family answers, beside the data."""

from __future__ import annotations

from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from everymode.plots._shared import (
    chosen_rows,
    condition,
    limits,
    plane,
    shape,
    square_limits,
    thin,
    useful_column,
)
from everymode.plots.style import FAINT, TRUTH, colour, label, mark_modes, percent, sheet
from everymode.tape import Tape

__all__ = ["NEEDS", "SUMMARY", "figure"]

SUMMARY = "The observed data, then what each family answers: a regressor's dot lies between the valid answers"
NEEDS = ("observed_y", "draws")

_CAPTION = "grey: the observed data; colour: what each family answers"


def figure(tape: Tape) -> Figure:
    """One panel for the data and one a family; for y of two numbers, up to three rows, one a probe."""
    return _lines(tape) if len(tape.y_names) == 1 else _planes(tape)


def _lines(tape: Tape) -> Figure:
    """y of one number: x along, y up."""
    column, name = useful_column(tape)
    columns = min(len(tape.draws) + 1, 3)
    lines = ceil((len(tape.draws) + 1) / columns)
    sheet_ = sheet(1.2 + 3.4 * lines, tape.title, _CAPTION)
    panels = sheet_.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    along = tape.x[:, column]
    observed = thin(np.column_stack([tape.observed_x[:, column], tape.observed_y[:, 0]]), 1500)
    vertical = limits(observed[:, 1], *tape.draws.values(), pad=0.14)
    panels[0].set(ylim=vertical, xlim=limits(observed[:, 0], along, pad=0.03, tail=0.0))

    panels[0].scatter(*observed.T, s=9, color=TRUTH, alpha=0.6, linewidths=0, rasterized=True)
    panels[0].set_title("the data")
    for axes, (family, draws) in zip(panels[1:], tape.draws.items(), strict=False):
        axes.scatter(*observed.T, s=7, color=FAINT, linewidths=0, rasterized=True)
        if family == "mse":
            _dots(axes, np.column_stack([along, draws[:, 0, 0]]), size=150 if len(along) <= 12 else 46)
            row = _worst(tape)
            _explain(axes, tape, row, np.array([along[row], draws[row, 0, 0]]), observed, 11.0)
        else:
            shown = thin(draws[:, :, 0].T, max(1, 2500 // len(along)))  # (n, rows)
            dots = {"s": 9, "color": colour(family), "alpha": 0.55, "linewidths": 0}
            axes.scatter(np.tile(along, len(shown)), shown.ravel(), rasterized=True, **dots)
        axes.set_title(_headline(tape, family, slice(None)))
    for axes in panels:
        axes.set(xlabel=name, ylabel=tape.y_names[0])
        axes.label_outer()
    for axes in panels[len(tape.draws) + 1 :]:
        axes.set_visible(False)
    return sheet_


def _planes(tape: Tape) -> Figure:
    """y of two numbers: the plane. Of longer y, the first two numbers."""
    rows = chosen_rows(tape, 3 if len(tape.draws) <= 4 else 1)
    cells = [(int(row), family) for row in rows for family in ("", *tape.draws)]
    columns = min(len(tape.draws) + 1, 4) if len(rows) == 1 else len(tape.draws) + 1
    lines = ceil(len(cells) / columns)
    first = "" if len(tape.y_names) == 2 else f"; drawn: the first two of {len(tape.y_names)} outputs"
    everything = [tape.observed_y, *(draws.reshape(-1, draws.shape[2]) for draws in tape.draws.values())]
    horizontal, vertical = square_limits(*everything)
    panel = (10.0 / columns - 0.15) * shape(horizontal, vertical)
    rings = "; rings: the known modes" if tape.modes is not None else ""
    sheet_ = sheet(1.4 + lines * (0.55 + panel), tape.title, f"{_CAPTION}{rings}{first}")
    panels = sheet_.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()

    size = 11.0 if columns <= 3 else 9.0
    for axes, (row, family) in zip(panels, cells, strict=False):
        where = condition(tape, tape.x[row]) if len(rows) > 1 else ""
        near = _near(tape, row)
        background = thin(tape.observed_y[near, :2], 1200)
        if not family:
            axes.scatter(*thin(tape.observed_y[~near, :2], 800).T, s=6, color=FAINT, linewidths=0, rasterized=True)
            axes.scatter(*background.T, s=9, color=TRUTH, alpha=0.7, linewidths=0, rasterized=True)
            axes.set_title(f"the data near\n{where}" if where else "the data")
        elif family == "mse":
            axes.scatter(*background.T, s=7, color=FAINT, linewidths=0, rasterized=True)
            dot = tape.draws[family][row, 0, :2]
            _dots(axes, dot[None], size=260)
            if row == rows[0]:
                _explain(axes, tape, row, dot, background, size, horizontal, vertical)
        else:
            axes.scatter(*background.T, s=7, color=FAINT, linewidths=0, rasterized=True)
            dots = {"s": 11, "color": colour(family), "alpha": 0.55, "linewidths": 0}
            axes.scatter(*thin(tape.draws[family][row, :, :2], 1200).T, rasterized=True, **dots)
        if tape.modes is not None:
            mark_modes(axes, *tape.modes[row][0][:, :2].T)
        if family:
            axes.set_title(_headline(tape, family, slice(row, row + 1)))
        axes.title.set_fontsize(12.5 if columns <= 4 else 11.0)
        plane(axes, tape, horizontal, vertical)
    for axes in panels[len(cells) :]:
        axes.set_visible(False)
    return sheet_


def _dots(axes: Axes, points: np.ndarray, size: float) -> None:
    axes.scatter(*points.T, s=size, marker="X", color=colour("mse"), edgecolors="white", linewidths=0.8, zorder=8)


def _headline(tape: Tape, family: str, rows: slice) -> str:
    """The family, and below it how many of its draws are valid."""
    if tape.valid is None or family not in tape.valid:
        return label(family)
    known = tape.valid[family][rows]
    if family == "mse":  # its draws for one x are all the same
        known = known[:, :1]
    of = f" of {known.size:,} draws" if family != "mse" else f", at {known.size} x" if known.size > 1 else ""
    return f"{label(family)}\n{percent(float(known.mean()))} valid{of}"


def _near(tape: Tape, row: int) -> np.ndarray:
    """Which observations have an x near a probe's -> bool (observed,); all of them where x says nothing."""
    spread = tape.observed_x.std(axis=0)
    if not (spread > 0).any():
        return np.ones(len(tape.observed_x), dtype=bool)
    distance = np.linalg.norm((tape.observed_x - tape.x[row]) / np.where(spread > 0, spread, 1), axis=1)
    return distance <= np.quantile(distance, min(1.0, max(0.05, 60 / len(distance))))


def _worst(tape: Tape) -> int:
    """The probe that shows best why averages fail: an invalid answer, far from every valid one."""
    others = [draws for family, draws in tape.draws.items() if family != "mse"]
    answers = tape.truth if tape.truth is not None else others[0] if others else None
    dots = tape.draws["mse"][:, :1]
    distance = np.zeros(len(dots)) if answers is None else np.linalg.norm(answers - dots, axis=2).min(axis=1)
    if tape.valid is not None and "mse" in tape.valid:
        distance = distance + 1e6 * ~tape.valid["mse"][:, 0]
    return int(np.argmax(distance))


def _explain(
    axes: Axes,
    tape: Tape,
    row: int,
    dot: np.ndarray,
    data: np.ndarray,
    size: float,
    *frame: tuple[float, float],
) -> None:
    """Says beside the regressor's dot what it is, where the data leave room."""
    text = "the average of\nthe valid answers"
    if tape.valid is not None and "mse" in tape.valid:
        text += f":\n{float(tape.valid['mse'][row, 0]):.0%} valid"
    low, high = np.array(frame or (axes.get_xlim(), axes.get_ylim())).T
    places = np.array([(h, v) for v in (0.84, 0.16) for h in (0.5, 0.26, 0.74)])
    crowd = [(np.abs(((data - low) / (high - low)) - place) < (0.27, 0.16)).all(axis=1).sum() for place in places]
    hides = (np.abs((dot - low) / (high - low) - places) < (0.3, 0.24)).all(axis=1)
    place = places[int(np.argmin(np.array(crowd) + 1e6 * hides))]
    axes.annotate(
        text,
        xy=(float(dot[0]), float(dot[1])),
        xytext=(float(place[0]), float(place[1])),
        textcoords="axes fraction",
        ha="center",
        va="center",
        fontsize=size,
        color=colour("mse"),
        fontweight="bold",
        zorder=9,
        path_effects=[withStroke(linewidth=3, foreground="white")],
        arrowprops={"arrowstyle": "-", "color": colour("mse"), "linewidth": 1.2, "shrinkB": 9},
    )
