"""How the user guide is built: `make docs`, or `python -m sphinx -W -b html docs docs/_build/html`. No network."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import everymode

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "everymode"
author = "The everymode developers"
release = version = everymode.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "runs", "public"]
exclude_patterns = ["_build", "images"]

html_theme = "furo"
html_title = "everymode"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
pygments_style = "friendly"
smartquotes = False

myst_heading_anchors = 2
default_role = "code"  # docstrings write `x` where they mean code
autodoc_member_order = "bysource"
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}
napoleon_numpy_docstring = False
suppress_warnings = ["ref.python"]  # a class has two names: where it is written, and in `everymode`

_BARE = re.compile(r"(?<!\\)([*|])")
_TAILED = re.compile(r"(?<=[^\s,] )(\w+)_(?![\w`])")  # inside a sentence; at its head napoleon knows it for a name


def _plain(app: Any, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Take the marks of docstrings, as in (rows, *event) and fit_seconds_, as what they are: no markup is meant."""
    for index, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = re.split(r"(`[^`]*`)", line)
            for place, part in enumerate(parts):
                if not part.startswith("`"):
                    parts[place] = _TAILED.sub(r"\1\\_", _BARE.sub(r"\\\1", part))
            lines[index] = "".join(parts)
    if what in ("attribute", "data", "property") and lines:
        head, colon, tail = lines[0].partition(": ")  # napoleon would take the head of the line for a type
        lines[:1] = [f"{head}:", tail] if colon else [head]


def _skip(app: Any, what: str, name: str, obj: object, skip: bool, options: Any) -> bool | None:
    """Leave out what scikit-learn writes into its estimators."""
    return True if name.startswith("set_") and name.endswith("_request") else None


def setup(app: Any) -> None:
    """Connect the two; before napoleon, which writes markup of its own."""
    app.connect("autodoc-process-docstring", _plain, priority=400)
    app.connect("autodoc-skip-member", _skip)
