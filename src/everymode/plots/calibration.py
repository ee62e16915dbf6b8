"""Whether answers could be draws: ranks beside the band of right ones, and shares beside those asked for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from everymode.calibration import LEVELS, Calibration
from everymode.calibration.uniform import Band, band_of, ecdf
from everymode.plots.style import INK, TRUTH, colour, sheet

__all__ = ["NEEDS", "SUMMARY", "figure"]

SUMMARY = "Ranks of the answers among draws, less those of right draws; and the share of answers in the regions"
NEEDS = ("ranks", "checks")

_MOST = 5  # targets
_BAND = "#e6e9ee"
_TINTS = ("flow_matching", "mse", "mdn", "mip", "diffusion")
_TOGETHER = ("gap rank", "reference rank", "average rank", "energy rank")


def figure(found: Calibration) -> Figure:
    """A panel for each target's ranks, one for those of all targets together, and one for regions."""
    caption = (
        "grey: where right draws are in 95 of 100 cases, all along; bold lines leave it. Above 0: answers rank too low"
    )
    drawn = sheet(4.4, found.title, caption)
    left, middle, right = drawn.subplots(1, 3)
    pits = {name.removeprefix("PIT of "): ranks for name, ranks in found.ranks.items() if name.startswith("PIT")}
    shown = dict(sorted(pits.items(), key=lambda pair: _strays(pair[1]), reverse=True)[:_MOST])
    together = {name.removesuffix(" rank"): found.ranks[name] for name in _TOGETHER if name in found.ranks}
    more = f", the {_MOST} farthest out of {len(pits)}" if len(pits) > _MOST else ""
    _differences(left, shown, f"each target among its draws{more}")
    _differences(middle, together, "scores of the whole answer")
    limit = 1.15 * max(abs(value) for axes in (left, middle) for value in axes.get_ylim())
    for axes in (left, middle):
        axes.set_ylim(-limit, limit)
    _regions(right, found)
    return drawn


def _strays(ranks: np.ndarray) -> float:
    band = band_of(len(ranks))
    return float(np.abs(ecdf(ranks, band.places) - band.places).max())


def _leaves(ranks: np.ndarray, band: Band) -> bool:
    share = ecdf(ranks, band.places)
    return bool(((share < band.low) | (share > band.high)).any())


def _differences(axes: Axes, ranks: Mapping[str, np.ndarray], title: str) -> None:
    """Draw the ECDF of each less the uniform one."""
    axes.set_title(title, loc="left")
    axes.set_xlabel("rank among the draws")
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["lowest", "middle", "highest"])
    axes.axhline(0, color=TRUTH, linewidth=0.8, zorder=1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:+.0f}%" if share else "0"))
    if not ranks:
        axes.text(0.5, 0.5, "too many targets", transform=axes.transAxes, ha="center", color=TRUTH)
        return
    band = band_of(min(len(values) for values in ranks.values()))
    ends = np.concatenate([[0], band.places, [1]])
    low, high = (np.concatenate([[0], bound - band.places, [0]]) for bound in (band.low, band.high))
    axes.fill_between(ends, low, high, color=_BAND, linewidth=0, zorder=0)
    for (name, values), tint in zip(ranks.items(), _TINTS, strict=False):
        off = _leaves(values, band_of(len(values)))
        height = np.concatenate([[0], ecdf(values, band.places) - band.places, [0]])
        axes.plot(ends, height, color=colour(tint), linewidth=2.6 if off else 1.2, label=name)
    axes.legend(loc="upper right" if axes.get_ylim()[1] > 0.1 else "best", fontsize=9.5)


def _regions(axes: Axes, found: Calibration) -> None:
    """Draw the share of answers in the regions of each size, and within each distance of references."""
    band = band_of(found.rows)
    ends = np.concatenate([[0], band.places, [1]])
    axes.fill_between(
        ends, np.concatenate([[0], band.low, [1]]), np.concatenate([[0], band.high, [1]]), color=_BAND, linewidth=0
    )
    axes.plot([0, 1], [0, 1], color=TRUTH, linewidth=0.8)
    for name, tint, text in (
        ("density rank", "flow_matching", "highest density"),
        ("reference rank", "mse", "nearest a reference"),
    ):
        values = found.ranks[name]
        off = _leaves(values, band_of(len(values)))
        share = np.concatenate([[0], ecdf(values, band.places), [1]])
        axes.plot(ends, share, color=colour(tint), linewidth=2.6 if off else 1.2, label=text)
    shares = ecdf(found.ranks["density rank"], np.array(LEVELS))
    axes.scatter(LEVELS, shares, s=30, color=colour("flow_matching"), zorder=4)
    for level, share in zip(LEVELS[:3:2], shares[:3:2], strict=True):
        axes.annotate(
            f"{share:.0%} in the {level:.0%}",
            (level, share),
            (8, -14),
            textcoords="offset points",
            fontsize=9.5,
            color=INK,
        )
    axes.set_title("answers in regions of the draws", loc="left")
    axes.set_xlabel("share of the draws")
    axes.set_ylabel("share of the answers")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    axes.legend(loc="upper left", fontsize=9.5)
