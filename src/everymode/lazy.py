"""Names that are imported when they are first used, so that `everymode --help` need not wait for torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["attach"]


def attach(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a module's `__getattr__` and `__dir__` (PEP 562).

    Args:
        package: the module's name.
        homes: where each name lives: a module, or '' for a submodule of that name.
    """

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes[name]
        return getattr(importlib.import_module(home), name) if home else importlib.import_module(f"{package}.{name}")

    return __getattr__, lambda: sorted(homes)
