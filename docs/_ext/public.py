"""The reference of the public names: whatever `__all__` holds, so that no new name is left out.

```{public} everymode       classes and functions of a module, in alphabetical order
:kinds: exception           `class`, `function`, `exception`, `family`, `value`; several are told apart by commas
:members:                   the methods of classes, too
```
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from everymode.families import Family


def kind_of(value: object) -> str:
    """Return what a public name is."""
    if inspect.ismodule(value):
        return "module"
    if not inspect.isclass(value):
        return "function" if callable(value) else "value"
    if issubclass(value, BaseException):
        return "exception"
    return "family" if issubclass(value, Family) and value is not Family else "class"


class Public(SphinxDirective):
    """The public names of a module."""

    required_arguments = 1
    option_spec: ClassVar = {"kinds": directives.unchanged_required, "members": directives.flag}

    def run(self) -> list[nodes.Node]:
        """Return their descriptions."""
        name = self.arguments[0]
        module = importlib.import_module(name)
        asked = [kind.strip() for kind in self.options.get("kinds", "class, function, exception, family").split(",")]
        lines: list[str] = []
        for public in sorted(module.__all__, key=str.lower):
            kind = kind_of(getattr(module, public))
            if kind not in asked:
                continue
            told = {"function": "autofunction", "exception": "autoexception"}.get(kind, "autoclass")
            lines += ["```{eval-rst}", f".. {told}:: {name}.{public}"]
            lines += ["   :members:"] if told == "autoclass" and "members" in self.options else []
            lines += ["```", ""]
        holder = nodes.container()
        self.state.nested_parse(StringList(lines, source=name), self.content_offset, holder)
        return holder.children


def setup(app: Sphinx) -> dict[str, Any]:
    """Make the directive known."""
    app.add_directive("public", Public)
    return {"version": "1", "parallel_read_safe": True}
