"""Which families answer validly, and how many of the modes they find: a panel a problem."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from everymode.comparison import Comparison, ModeTable
from everymode.plots.style import INK, TRUTH, colour, fade, label, sheet

__all__ = ["NEEDS", "SUMMARY", "figure"]

SUMMARY = "The share of valid answers and the modes found, of every family on every problem"
NEEDS = ("tables",)


def figure(comparison: Comparison) -> Figure:
    """One panel a problem, one bar a family; whiskers are intervals, the numbers beside them the modes found."""
    tables = {name: table for name, table in comparison.tables.items() if any(row.valid_share for row in table)}
    families = [row.family for row in next(iter(tables.values()))] if tables else []
    for table in tables.values():
        families += [row.family for row in table if row.family not in families]
    caption = "bars: share of draws that are valid answers; n/m: modes found of modes there are"
    sheet_ = sheet(1.5 + 0.34 * len(families), "Valid answers, and modes found", caption, max(6.0, 2.3 * len(tables)))
    if not tables:
        sheet_.text(0.5, 0.5, "which answers are valid is not known here", ha="center", color=TRUTH)
        return sheet_
    panels = sheet_.subplots(1, len(tables), sharey=True, squeeze=False)[0]
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        _panel(axes, name, table, families)
    panels[0].set_yticks(range(len(families)), [label(family) for family in families])
    panels[0].set_ylim(len(families) - 0.4, -0.6)
    return sheet_


def _panel(axes: Axes, name: str, table: ModeTable, families: list[str]) -> None:
    rows = {row.family: row for row in table}
    for line, family in enumerate(families):
        axes.barh(line, 1, height=0.62, color="#f1f3f6", zorder=1)
        row = rows.get(family)
        if row is None or row.valid_share is None:
            axes.text(0.02, line, "failed", va="center", color=TRUTH, fontsize=9)
            continue
        share = row.valid_share
        axes.barh(line, share.value, height=0.62, color=fade(colour(family), 0.7), zorder=2)
        if share.low is not None and share.high is not None:
            around = [[max(share.value - share.low, 0)], [max(min(share.high, 1) - share.value, 0)]]
            axes.errorbar(share.value, line, xerr=around, color=INK, linewidth=1.1, capsize=2.5, zorder=3)
        if row.modes_found is not None:
            lost = row.modes_total is not None and row.modes_found < row.modes_total - 0.01
            axes.text(
                1.04,
                line,
                f"{row.modes_found:.3g}/{row.modes_total}",
                va="center",
                fontsize=9,
                color="#e03131" if lost else INK,
                fontweight="bold" if lost else "normal",
            )
    axes.set_xlim(0, 1.42)
    axes.set_xticks([0, 0.5, 1], ["0", "50%", "100%"])
    axes.spines["bottom"].set_bounds(0, 1)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(label(name), fontsize=11)
