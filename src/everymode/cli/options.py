"""Options that several verbs share, written once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from everymode.errors import SettingError

__all__ = ["Device", "Json", "Out", "Quiet", "Run", "Seed", "Settings", "parse_settings", "split_names"]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else there.")]
Seed = Annotated[int, typer.Option(help="Same seed, same answer, on the same machine.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no remarks on stderr.")]
Run = Annotated[Path, typer.Argument(help="A run folder, as `everymode fit` made it.", show_default=False)]
Out = Annotated[Path | None, typer.Option(help="Folder of the run; a fresh one under runs/ by default.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A setting of the family, such as path=cosine; repeat for more.")
]


def split_names(values: Sequence[str] | None) -> list[str]:
    """Return names given as 'a,b' or by repeating the option."""
    return [name.strip() for value in values or [] for name in value.split(",") if name.strip()]


def parse_settings(values: Sequence[str] | None, option: str = "--set") -> dict[str, Any]:
    """Return {'path': 'cosine', 'steps': 8} for ['path=cosine', 'steps=8'].

    Raises:
        SettingError: an entry has no '='.
    """
    parsed: dict[str, Any] = {}
    for value in values or []:
        name, sign, text = value.partition("=")
        if not sign or not name:
            raise SettingError(f"{option} {value!r}: write it as name=value.")
        parsed[name.strip()] = _literal(text.strip())
    return parsed


def _literal(text: str) -> Any:
    known = {"true": True, "false": False, "none": None}
    if text.lower() in known:
        return known[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
