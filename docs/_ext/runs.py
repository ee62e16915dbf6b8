"""Pages whose numbers are of runs: code is shown and executed from the same text, and an error fails the build.

    ```{run}                    Python; what it prints and what its last line gives are shown below it. A figure of
    em.diagnose(X, Y)           `everymode.plots` becomes a picture, a mode table or a frame a table, all else text.
    ```
    ```{run}
    :result-only:               The same, and the code is not shown: for tables of `benchmarks/results`.
    ```
    ```{run}
    :quiet:                     Nothing is shown: assertions that hold what the page says.
    ```
    ```{command}
    :says: one answer           A command line; it is run, and what it prints is shown. With `says`, that must be in it.
    everymode diagnose ...
    ```
    {value}`f"{found.share:.0%}"`       A number in a sentence.

The blocks of a page share their names and a folder that goes when the page is done. Every page knows `results`, the
tables of what the benchmarks measured.
"""

from __future__ import annotations

import ast
import contextlib
import io
import math
import os
import shlex
import subprocess
import sys
import tempfile
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from docutils import nodes
from docutils.parsers.rst import directives
from matplotlib.figure import Figure
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective, SphinxRole

import results
from everymode import plots
from everymode.comparison import ModeTable


@dataclass
class Page:
    """What the blocks of a page share."""

    names: dict[str, Any] = field(default_factory=lambda: {"results": results})
    folder: tempfile.TemporaryDirectory[str] = field(default_factory=tempfile.TemporaryDirectory)
    figures: int = 0


PAGES: dict[str, Page] = {}


def begin(app: Sphinx, docname: str, source: list[str]) -> None:
    """Start a page with nothing."""
    PAGES[docname] = Page()


def end(app: Sphinx, doctree: nodes.document) -> None:
    """Forget the page."""
    page = PAGES.pop(app.env.docname, None)
    if page is not None:
        page.folder.cleanup()


def executed(page: Page, code: str, where: str) -> tuple[str, Any]:
    """Return what the code prints, warnings included, and what its last line gives."""
    printed, value = io.StringIO(), None
    try:
        tree = ast.parse(code)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        with (
            contextlib.chdir(page.folder.name),
            contextlib.redirect_stdout(printed),
            warnings.catch_warnings(record=True) as said,
        ):
            warnings.simplefilter("always")
            exec(compile(tree, where, "exec"), page.names)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), where, "eval"), page.names)
    except Exception as error:
        raise ExtensionError(f"{where}: the code of the page fails.\n{code}\n{traceback.format_exc()}") from error
    return printed.getvalue() + "".join(f"{one.category.__name__}: {one.message}\n" for one in said), value


def table(rows: list[dict[str, Any]], title: str = "") -> nodes.table:
    """Return rows as a table; what stands between backticks is set as code."""
    names = list(rows[0])
    group = nodes.tgroup(cols=len(names))
    group += [nodes.colspec(colwidth=1) for _ in names]
    head, body = nodes.thead(), nodes.tbody()
    for part, lines in ((head, [names]), (body, [[str(row[name]) for name in names] for row in rows])):
        for line in lines:
            entries = [nodes.entry("", nodes.paragraph("", "", *_inline(text))) for text in line]
            part += nodes.row("", *entries)
    group += [head, body]
    return nodes.table("", *([nodes.title("", title)] if title else []), group)


def _inline(text: str) -> list[nodes.Node]:
    parts = text.split("`")
    return [nodes.literal("", part) if index % 2 else nodes.Text(part) for index, part in enumerate(parts) if part]


class Run(SphinxDirective):
    """A block of Python."""

    has_content = True
    option_spec: ClassVar = {
        "result-only": directives.flag,
        "quiet": directives.flag,
        "alt": directives.unchanged_required,
    }

    def run(self) -> list[nodes.Node]:
        """Return the code and what it says."""
        code = "\n".join(self.content)
        page = PAGES[self.env.docname]
        printed, value = executed(page, code, f"{self.env.docname}, line {self.lineno}")
        for path in results.FOLDER.glob("*.json"):
            self.env.note_dependency(str(path))
        if "quiet" in self.options:
            return []
        shown: list[nodes.Node] = [] if "result-only" in self.options else [_listing(code, "python")]
        if isinstance(value, results.Result):
            printed += value.source
        elif value is not None and not isinstance(value, (Figure, ModeTable, pd.DataFrame)):
            printed += f"{value}\n"
        if isinstance(value, results.Result):
            return [*shown, table(value.rows), nodes.paragraph("", "", *_inline(value.source), classes=["source"])]
        if printed:
            shown.append(_listing(printed.rstrip(), "text"))
        if isinstance(value, Figure):
            shown.append(self._picture(page, value))
        elif isinstance(value, ModeTable):
            shown += [table(value.shown(), value.title), nodes.paragraph("", value.note)]
        elif isinstance(value, pd.DataFrame):
            shown.append(table([{str(k): _cell(v) for k, v in row.items()} for row in value.to_dict("records")]))
        return shown

    def _picture(self, page: Page, figure: Figure) -> nodes.Node:
        if "alt" not in self.options:
            raise ExtensionError(f"{self.env.docname}, line {self.lineno}: the figure has no :alt:.")
        page.figures += 1
        name = f"{self.env.docname.replace('/', '-')}-{page.figures}"
        png = plots.save(figure, Path(self.env.doctreedir) / "figures", name)[0]
        here = Path(self.env.doc2path(self.env.docname)).parent
        return nodes.image(uri=Path(os.path.relpath(png, here)).as_posix(), alt=self.options["alt"])


class Command(SphinxDirective):
    """A command line of everymode."""

    has_content = True
    option_spec: ClassVar = {"says": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """Return the line and what it prints."""
        line = " ".join(self.content)
        program, *rest = shlex.split(line)
        if program != "everymode":
            raise ExtensionError(f"{self.env.docname}, line {self.lineno}: {program!r} is not everymode.")
        done = subprocess.run(
            [sys.executable, "-m", "everymode", *rest],
            cwd=PAGES[self.env.docname].folder.name,
            env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "PYTHONWARNINGS": "default"},
            capture_output=True,
            text=True,
        )
        if done.returncode or self.options.get("says", "") not in done.stdout:
            raise ExtensionError(f"{self.env.docname}, line {self.lineno}: {line}\n{done.stdout}{done.stderr}")
        return [_listing(line, "console"), _listing(done.stdout.rstrip(), "text")]


class Value(SphinxRole):
    """A number in a sentence."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return what the expression gives."""
        _, value = executed(PAGES[self.env.docname], self.text, f"{self.env.docname}, line {self.lineno}")
        return _inline(str(value)), []


def _listing(text: str, language: str) -> nodes.literal_block:
    return nodes.literal_block(text, text, language=language)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def setup(app: Sphinx) -> dict[str, Any]:
    """Make the directives and the role known."""
    app.add_directive("run", Run)
    app.add_directive("command", Command)
    app.add_role("value", Value())
    app.connect("source-read", begin)
    app.connect("doctree-read", end)
    return {"version": "1", "parallel_read_safe": True}
