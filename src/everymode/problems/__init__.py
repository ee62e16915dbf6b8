"""Problems where one x has many valid y, every one of them known, and one-answer controls beside them.

To add a problem, add a file to this folder that defines a subclass of `Problem`; nothing else changes.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache

from everymode.errors import SettingError, unknown_name
from everymode.problems.base import Modes, NotKnownError, Problem
from everymode.problems.gaussian_mixture import GaussianMixture

__all__ = ["GaussianMixture", "Modes", "NotKnownError", "Problem", "get", "names"]


def names() -> list[str]:
    """The names that `get` knows, sorted."""
    return sorted(_classes())


def get(name: str, **settings: float) -> Problem:
    """Make the problem of that name, with its default settings or those given.

    Raises:
        SettingError: (a ValueError) no problem or setting has that name, and the nearest are offered; or a
            setting is out of range.
    """
    classes = _classes()
    if name not in classes:
        raise SettingError(unknown_name("problem", name, names()))
    allowed = list(inspect.signature(classes[name]).parameters)
    for setting in settings:
        if setting not in allowed:
            raise SettingError(unknown_name(f"setting of {name}", setting, allowed))
    return classes[name](**settings)


@cache
def _classes() -> dict[str, type[Problem]]:
    found: dict[str, type[Problem]] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for member in vars(module).values():
            if not (isinstance(member, type) and issubclass(member, Problem)) or inspect.isabstract(member):
                continue
            if member.__module__ == module.__name__:  # defined there, not imported
                found[member.name] = member
    return found
