"""Environments to run policies in, registered with gymnasium as `everymode/NAME-v0`.

`Obstacle`, `Avoiding` and `BlockPush` are made here and ship with scripted demonstrators whose ways and weights are
known; `PushT` and `Kitchen` are thin views of gym-pusht and gymnasium-robotics. To add one, write its file and name it
in `_HOMES`.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from everymode.errors import SettingError, UnsupportedError, require, unknown_name

if TYPE_CHECKING:
    from everymode.policies.demonstrations import Demonstrations
    from everymode.policies.environments.base import Environment

__all__ = ["demonstrate", "make", "names"]

_HOMES = {
    "Avoiding": "avoiding",
    "BlockPush": "block_push",
    "Kitchen": "kitchen",
    "Obstacle": "obstacle",
    "PushT": "push_t",
}

for _name, _home in _HOMES.items():
    require("gymnasium", "policies", "environments").register(
        f"everymode/{_name}-v0", entry_point=f"{__name__}.{_home}:{_name}"
    )


def names() -> list[str]:
    """The names that `make` knows, sorted."""
    return sorted(_HOMES)


def make(name: str, **settings: Any) -> Environment:
    """Make the environment of that name ('Obstacle' or 'everymode/Obstacle-v0').

    The environment itself is returned, without gymnasium's wrappers; it ends its episodes by itself.

    Raises:
        SettingError: (a ValueError) no environment or setting has that name, and the nearest are offered; or a setting
            is out of range.
        MissingExtraError: a package that it needs is not installed.
    """
    environment = _class(name)
    allowed = list(inspect.signature(environment).parameters)
    for setting in settings:
        if setting not in allowed:
            raise SettingError(unknown_name(f"setting of {environment.name}", setting, allowed))
    return environment(**settings)


def demonstrate(name: str, episodes: int = 200, seed: int = 0, **settings: Any) -> Demonstrations:
    """Return scripted demonstrations of an environment with these settings; episode e starts from seed + e.

    Raises:
        UnsupportedError: (a ValueError) the environment has no scripted demonstrator.
        SettingError: as `make`.
    """
    from everymode.policies.environments.base import Scripted

    if not issubclass(known := _class(name), Scripted):
        raise UnsupportedError(known.no_script)  # before asking for packages that would not help
    return cast(Scripted, make(name, **settings)).demonstrate(episodes, seed)


def _class(name: str) -> type[Environment]:
    short = name.removeprefix("everymode/").removesuffix("-v0")
    if short not in _HOMES:
        raise SettingError(unknown_name("environment", name, names()))
    return getattr(import_module(f"{__name__}.{_HOMES[short]}"), short)
