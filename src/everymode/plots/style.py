"""The house style: white, quiet, and the same colour for the same family in every figure."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike

__all__ = [
    "FAINT",
    "INK",
    "MASS",
    "TIME",
    "TRUTH",
    "WIDTH",
    "colour",
    "fade",
    "house",
    "label",
    "mark_modes",
    "percent",
    "sheet",
]

WIDTH = 11.0
"""Inches. At 150 dots an inch a README shows it at half size, which leaves the text at 11 to 12 pixels."""

INK = "#22262e"  # text
FAINT = "#c9ced6"  # observed data behind a model's draws
TRUTH = "#7d848f"

TIME = LinearSegmentedColormap.from_list(
    "noise_to_data",
    list(zip((0.0, 0.41, 0.75, 1.0), ("#c8bfdc", "#9a86c2", "#4f5fa8", "#004c6d"), strict=True)),
)
"""Colours of t: pale violet is noise (t = 0), deep blue is data (t = 1). Lightness falls evenly."""

MASS = LinearSegmentedColormap.from_list(
    "mass",
    list(zip((0.0, 0.16, 0.52, 0.73, 1.0), ("#ffffff", "#dcd6ea", "#9a86c2", "#4f5fa8", "#00384f"), strict=True)),
)
"""Colours of a density: white is none. Lightness falls evenly, so no edge is seen where none is."""

_COLOURS = {  # told apart under the common colour blindnesses (after Okabe and Ito, 2008)
    "mse": "#d9480f",
    "mip": "#e69f00",
    "gaussian": "#44c2c2",
    "gmm": "#cc79a7",
    "mdn": "#009e73",
    "normalizing_flow": "#56b4e9",
    "flow_matching": "#00607f",
    "diffusion": "#8c5fb0",
    "mean_flow": "#2b3fae",
    "shortcut": "#5a7fd6",
    "consistency": "#2f9aa0",
    "reflow": "#00908a",
    "drifting": "#c77c11",
    "gm_flow": "#38761d",
    "energy": "#6a6ad8",
    "autoregressive": "#7a2048",
    "vae": "#b3a000",
    "gan": "#3d5a1f",
    "vae_gan": "#86a83e",
    "vq": "#a0522d",
    "trees": "#c2255c",
    "truth": TRUTH,
    "nearest_neighbours": "#8a6d3b",
}
_SPARE = ("#cc79a7", "#e69f00", "#3d5a1f", "#44c2c2", "#7a2048", "#6a6ad8")

_LABELS = {"mse": "squared error", "mdn": "mixture density", "truth": "the truth", "gm_flow": "Gaussian-mixture flow"}

_SETTINGS: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],  # it comes with matplotlib, so a figure is the same on every machine
    "font.size": 12.0,
    "figure.facecolor": "white",
    "figure.titlesize": 15.0,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.08,
    "axes.facecolor": "white",
    "axes.edgecolor": "#8b919b",
    "axes.linewidth": 0.8,
    "axes.labelcolor": INK,
    "axes.labelsize": 12.0,
    "axes.titlesize": 12.5,
    "axes.titlecolor": INK,
    "axes.titlepad": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "text.color": INK,
    "xtick.color": "#8b919b",
    "ytick.color": "#8b919b",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 11.0,
    "ytick.labelsize": 11.0,
    "legend.frameon": False,
    "legend.fontsize": 11.0,
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "everymode",  # the same picture gives the same bytes
}


@contextmanager
def house() -> Iterator[None]:
    """The house style for figures made and saved inside; matplotlib's own settings come back afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def colour(family: str) -> str:
    """The colour of a family: the same in every figure, whichever families stand beside it.

    One with settings, as in 'gan:objective=classic', has a paler colour than the family with the usual ones.
    """
    name, _, settings = family.partition(":")
    if settings:
        return to_hex(fade(colour(name), 0.65))
    return _COLOURS.get(family) or _SPARE[zlib.crc32(family.encode()) % len(_SPARE)]


def label(family: str) -> str:
    """What a figure calls a family."""
    name, _, settings = family.partition(":")
    if settings:
        values = ", ".join(setting.split("=")[-1] for setting in settings.split(":"))
        return f"{label(name)} ({values})"
    return _LABELS.get(family, family.replace("_", " "))


def fade(colour: str, amount: float) -> tuple[float, float, float]:
    """`colour` mixed with white: 1 is the colour itself, 0 is white. Opaque, so overlaps do not darken."""
    red, green, blue, _ = to_rgba(colour)
    return (1 - amount * (1 - red), 1 - amount * (1 - green), 1 - amount * (1 - blue))


def percent(share: float) -> str:
    """A share in percent; "0%" and "100%" mean none and all, not nearly so."""
    return "<1%" if 0 < share < 0.005 else ">99%" if 0.995 <= share < 1 else f"{share:.0%}"


def sheet(height: float, title: str, caption: str = "", width: float = WIDTH) -> Figure:
    """An empty figure with its title above and one line on how to read it below, left-aligned."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, x=0.012, ha="left", fontweight="bold")
    if caption:
        figure.supxlabel(caption, x=0.012, ha="left", fontsize=11, color="#596270")
    return figure


def mark_modes(axes: Axes, horizontal: ArrayLike, vertical: ArrayLike) -> None:
    """Rings around the known modes."""
    axes.scatter(
        horizontal,
        vertical,
        s=190,
        facecolors="none",
        edgecolors=INK,
        linewidths=1.6,
        zorder=6,
        clip_on=False,
        path_effects=[withStroke(linewidth=3.8, foreground="white")],
    )
