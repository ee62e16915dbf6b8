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
        """Print a table on stdout, unless it is JSON's."""
        table = Table(title=title, title_justify="left", caption=note, caption_justify="left", box=None, pad_edge=False)
        for name in rows[0]:
            table.add_column(name, no_wrap=True)
        for row in rows:
            table.add_row(*row.values())
        self.out.print(table)
        self.out.print()

    def show(self, text: str) -> None:
        """Print a result on stdout, unless it is JSON's."""
        self.out.print(text, markup=False, soft_wrap=True)

    def result(self, content: Any) -> None:
        """Print the result as JSON, if that was asked for."""
        if self.json:
            sys.stdout.write(json.dumps(content, indent=2, allow_nan=False) + "\n")

    @contextmanager
    def bar(self, title: str) -> Iterator[Callable[[Report], None]]:
        """Give a function that moves a bar by the reports of the training loop."""
        if self.quiet or not sys.stderr.isatty():
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
