"""All paths from one start, coloured by the way they went: a panel a policy, in the scene itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from everymode.plots.style import TRUTH, WIDTH, colour, label, percent, sheet

if TYPE_CHECKING:  # figures are drawn without torch
    from everymode.policies.episodes import Rollouts
    from everymode.policies.ways import Ways

__all__ = ["NEEDS", "SUMMARY", "figure"]

SUMMARY = "All paths of policies from one start, coloured by the way they went"
NEEDS = ("paths", "way_names", "backdrop")

_TINTS = [colour(name) for name in ("flow_matching", "mip", "diffusion", "mdn", "gmm", "normalizing_flow", "vq", "gan")]
_CRASH = "#e03131"
_FEW = 6  # ways that a legend can name
_ACROSS = 4  # panels in a row, at most
_NARROWEST = 7.5  # inches, for the caption


def figure(ways: Ways) -> Figure:
    """One panel a policy; grey paths went no way, and a red cross is where one collided."""
    rows = math.ceil(len(ways.paths) / _ACROSS)
    columns = math.ceil(len(ways.paths) / rows)
    caption = "one line an episode, from the same start; a red cross is a collision, a grey line went no way"
    across = WIDTH / max(columns, 3)
    drawn = sheet(1.0 + rows * (0.6 + 1.15 * across), ways.title, caption, max(_NARROWEST, columns * across))
    panels = drawn.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, rollouts) in zip(panels, ways.paths.items(), strict=False):
        ways.backdrop(axes)
        _paths(axes, rollouts, len(ways.way_names))
        axes.set_title(label(name), loc="left", pad=20)
        axes.text(0, 1.02, _told(rollouts), transform=axes.transAxes, fontsize=10, color="#596270")
    for axes in panels[len(ways.paths) :]:
        axes.set_visible(False)
    if 0 < len(ways.way_names) <= _FEW:
        lines = [Line2D([], [], color=_tint(way, _FEW), linewidth=2) for way in range(len(ways.way_names))]
        drawn.legend(lines, ways.way_names, loc="upper right", ncols=len(lines))
    return drawn


def _paths(axes: Axes, rollouts: Rollouts, ways: int) -> None:
    strength = max(0.25, min(0.9, 12 / max(len(rollouts), 1)))
    for episode in rollouts.whole:
        axes.plot(*episode.path.T, color=_tint(episode.way, ways), linewidth=1.2, alpha=strength, zorder=3)
    ends = [episode.path[-1] for episode in rollouts.whole if episode.collided and len(episode.path)]
    if ends:
        axes.scatter(*zip(*ends, strict=True), marker="x", s=34, color=_CRASH, linewidths=1.6, zorder=5)
    axes.set(xticks=[], yticks=[], xlabel="", ylabel="")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _tint(way: int, ways: int) -> str:
    """Return the colour of a way: one of the house's, or, where there are more ways than those, along a scale."""
    if way < 0:
        return TRUTH
    return _TINTS[way] if ways <= len(_TINTS) else to_hex(colormaps["turbo"](way / (ways - 1)))


def _told(rollouts: Rollouts) -> str:
    whole = rollouts.whole
    if not whole:
        return "crashed"
    done = sum(episode.success for episode in whole) / len(whole)
    told = f"{percent(done)} succeed"
    if rollouts.way_names:
        taken = len({episode.way for episode in whole if episode.way >= 0 and episode.success})
        told += f", {taken} of {len(rollouts.way_names)} ways"
    return told
