"""The `everymode` command: one verb a file. A new module in this folder with a function `command` is a new verb.

A package in this folder is a group of verbs, told in one line by its `SUMMARY`: `cli/policy/data.py` is
`everymode policy data`.

Exit codes: 0 fine; 1 it ran and a required threshold failed; 2 usage, input or configuration; 130 interrupted, after a
checkpoint was written.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from types import ModuleType

import typer

from everymode.version import __version__

__all__ = ["main"]

_NOT_VERBS = ("options", "voice", "fitting")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"everymode {__version__}")
        raise typer.Exit


def _app() -> typer.Typer:
    app = typer.Typer(
        name="everymode",
        help="Predict every valid answer, not their average.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )

    @app.callback()
    def _root(  # pyright: ignore[reportUnusedFunction]
        version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
    ) -> None:
        """Predict every valid answer, not their average."""

    _add_verbs(app, sys.modules[__name__])
    return app


def _add_verbs(app: typer.Typer, package: ModuleType) -> None:
    """Add every module of a package as a verb, and every package in it as a group of verbs."""
    for found in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
        if found.name in _NOT_VERBS or found.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package.__name__}.{found.name}")
        if found.ispkg:
            group = typer.Typer(help=module.SUMMARY, no_args_is_help=True, rich_markup_mode="markdown")
            _add_verbs(group, module)
            app.add_typer(group, name=found.name)
        else:
            app.command(found.name)(module.command)


def main() -> None:
    """Run the command line: every error that a user can mend is one sentence on stderr and exit code 2."""
    try:
        _app()()
    except (ValueError, ImportError) as error:
        if os.environ.get("EVERYMODE_DEBUG"):
            raise
        print(f"everymode: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except KeyboardInterrupt:
        print("everymode: interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(130)
    except BrokenPipeError:  # `everymode sample ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
