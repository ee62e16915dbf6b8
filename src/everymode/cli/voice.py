"""How the command line speaks: results on stdout, everything else on stderr, bars only on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from everymode.training import Progress as Report

__all__ = ["Voice"]

_GAP = 2  # between two columns


class Voice:
    """Speaks as the options ask.

    Args:
        json: stdout holds one JSON document and nothing else.
        quiet: stderr stays empty, errors apart.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json, self.quiet = json, quiet
        self.errors = Console(stderr=True, quiet=quiet, highlight=False)
        self.out = Console(quiet=json, highlight=False, width=None if sys.stdout.isatty() else 160)

    def say(self, text: str) -> None:
        """Remark on stderr."""
        self.errors.print(text, markup=False, soft_wrap=True)

    def table(self, title: str, rows: Sequence[Mapping[str, str]], note: str = "") -> None:
        """Print a table on stdout, unless it is JSON's: one that is too wide in several, below one another."""
        blocks = _blocks(rows, self.out.width)
        for place, names in enumerate(blocks):
            table = Table(
                title=title if not place else None,
                title_justify="left",
                caption=note if place == len(blocks) - 1 else None,
                caption_justify="left",
                box=None,
                pad_edge=False,
            )
            for name in names:
                table.add_column(name, overflow="fold")  # one that is wider than the terminal
            for row in rows:
                table.add_row(*(row[name] for name in names))
            self.out.print(table)
            self.out.print()

    def show(self, text: str) -> None:
        """Print a result on stdout, unless it is JSON's."""
        self.out.print(text, markup=False, soft_wrap=True)

    def result(self, content: Any) -> None:
        """Print the result as JSON, if that was asked for."""
        if self.json:
            sys.stdout.write(json.dumps(content, indent=2, allow_nan=False) + "\n")

    @property
    def _draws_bars(self) -> bool:
        return not self.quiet and sys.stderr.isatty()

    @contextmanager
    def share(self, title: str) -> Iterator[Callable[[float], None]]:
        """Give a function that moves a bar to the share that is done, from 0 to 1."""
        if not self._draws_bars:
            yield lambda done: None
            return
        with Progress(
            TextColumn(title), BarColumn(), TimeRemainingColumn(), console=self.errors, transient=True
        ) as bar:
            task = bar.add_task(title, total=1.0)
            yield lambda done: bar.update(task, completed=done)

    @contextmanager
    def bar(self, title: str) -> Iterator[Callable[[Report], None]]:
        """Give a function that moves a bar by the reports of the training loop."""
        if not self._draws_bars:
            yield lambda report: None
            return
        columns = (TextColumn(title), BarColumn(), TextColumn("{task.fields[loss]}"), TimeRemainingColumn())
        with Progress(*columns, console=self.errors, transient=True) as progress:
            task = progress.add_task(title, total=None, loss="")

            def move(report: Report) -> None:
                seen = report.loss if report.held_out_loss is None else report.held_out_loss
                progress.update(task, total=report.steps, completed=report.step, loss=f"loss {seen:.4f}")

            yield move

    @contextmanager
    def count(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """Give a function that moves a bar to so many of so many."""
        if self.quiet or not sys.stderr.isatty():
            yield lambda done, total: None
            return
        columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.errors, transient=True) as progress:
            task = progress.add_task(title, total=None)
            yield lambda done, total: progress.update(task, total=total, completed=done)


def _blocks(rows: Sequence[Mapping[str, str]], width: int) -> list[list[str]]:
    """Return the columns of the tables that rows are printed as, each within `width`; the first column is in all."""
    first, *others = rows[0]
    wide = {name: _GAP + max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    blocks = [[first]]
    for name in others:
        if len(blocks[-1]) > 1 and sum(wide[each] for each in (*blocks[-1], name)) > width:
            blocks.append([first])
        blocks[-1].append(name)
    return blocks
