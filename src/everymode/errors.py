"""Errors and checks: every message names the thing, what it was, and how to mend it."""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Iterable
from typing import Any

__all__ = [
    "CheckpointError",
    "DataError",
    "FileError",
    "MissingExtraError",
    "SettingError",
    "UnsupportedError",
    "ValleyWarning",
    "check_bool",
    "check_choice",
    "check_number",
    "nearest",
    "require",
    "unknown_name",
]


class DataError(ValueError):
    """What a user gave as data cannot be used; the message names rows, columns or shapes."""


class SettingError(ValueError):
    """A setting is out of range; the message names the setting, its value and what is allowed."""


class FileError(ValueError):
    """A file cannot be written; the message names it, the reason, and what became of the old one."""


class CheckpointError(FileError):
    """A checkpoint cannot be read; the message names the file and the reason."""


class UnsupportedError(ValueError):
    """A family was asked for what it cannot do; the message names the families that can."""


class ValleyWarning(UserWarning):
    """An average was asked for that lies between several answers, and is none of them."""


class MissingExtraError(ImportError):
    """An optional dependency is absent; the message holds the `pip install` that mends it."""


def require(module: str, extra: str, purpose: str | None = None) -> Any:
    """Return an optional module, imported.

    Args:
        module: its name, such as 'zarr'.
        extra: the extra of this package that brings it.
        purpose: what needs it, in the plural, for the message: "boosted trees".

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        needs = "this needs" if purpose is None else f"{purpose} need"
        raise MissingExtraError(f"{needs} {module}: pip install 'everymode[{extra}]'.") from error


def nearest(name: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """Return the known names nearest to `name`, the best first (all of them where there are few)."""
    known = list(known)
    found = difflib.get_close_matches(str(name).lower(), [str(k).lower() for k in known], n=limit, cutoff=0.4)
    by_lower = {str(k).lower(): k for k in known}
    return [by_lower[f] for f in found]


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Return a sentence that says `name` is unknown, with the nearest names and all that there are."""
    known = [str(k) for k in known]
    close = nearest(name, known)
    hint = f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
    listed = ", ".join(known[:30]) + (", ..." if len(known) > 30 else "")
    return f"Unknown {what} {name!r}.{hint} Known: {listed}."


def check_choice(setting: str, value: Any, allowed: Iterable[str]) -> str:
    """Return `value` if it is one of `allowed`, else raise `SettingError`."""
    allowed = list(allowed)
    if not isinstance(value, str) or value not in allowed:
        raise SettingError(f"{setting}={value!r}: " + unknown_name(setting, str(value), allowed))
    return value


def check_bool(setting: str, value: Any) -> bool:
    """Return `value` if it is True or False, else raise `SettingError`."""
    if not isinstance(value, bool):
        raise SettingError(f"{setting}={value!r}: give True or False.")
    return value


def check_number(
    setting: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    integer: bool = False,
    optional: bool = False,
    exclusive_low: bool = False,
) -> Any:
    """Return `value` if it is a number in [low, high] (or (low, high]), else raise `SettingError`."""
    if value is None and optional:
        return value
    kind = "a whole number" if integer else "a number"
    bounds = f"{'above' if exclusive_low else 'at least'} {low:g}" if math.isfinite(low) else ""
    if math.isfinite(high):
        bounds += (" and " if bounds else "") + f"at most {high:g}"
    allowed = f"{kind}{' ' + bounds if bounds else ''}{' or None' if optional else ''}"
    number = math.nan
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        number = float(value)  # pyright: ignore[reportArgumentType]
        fits = math.isfinite(number) and low <= number <= high and not (exclusive_low and number == low)
        fits = fits and (not integer or number == int(number))
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise SettingError(f"{setting}={value!r} is out of range: give {allowed}.")
    return int(number) if integer else value
