"""One cell of a comparison: one family, fitted and judged on one task at one seed. A crash is a result too."""

from __future__ import annotations

import contextlib
import io
import json
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from everymode.comparison.budget import Budget, matched_size
from everymode.comparison.table import Row
from everymode.comparison.tasks import Samples, Task
from everymode.estimator import OneToManyRegressor
from everymode.families import Family
from everymode.files import atomically, write_json
from everymode.version import __version__

__all__ = ["Cell", "Result", "label_of"]

_WITHIN = 0.1  # parameters differ by no more than this, else it is reported


def label_of(family: Family) -> str:
    """Return the name under which a family stands in a table: its settings are in it where they are not the usual."""
    usual = type(family)().get_params()
    changed = [f"{name}={value}" for name, value in family.get_params().items() if value != usual[name]]
    return ":".join([family.name, *changed])


@dataclass(frozen=True)
class Result:
    """What became of a cell.

    Attributes:
        task, family, seed: which one it is.
        identity: what decides it, JSON-ready.
        row: its numbers; None if it crashed.
        error: what went wrong, in one line; None if nothing did.
        details: where it went wrong.
        stopped: why training ended.
        steps: made.
        remark: what is not equal about it.
    """

    task: str
    family: str
    seed: int
    identity: dict[str, Any]
    row: Row | None = None
    error: str | None = None
    details: str | None = None
    stopped: str | None = None
    steps: int | None = None
    remark: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {**vars(self), "row": None if self.row is None else self.row.to_dict()}

    @classmethod
    def from_dict(cls, described: dict[str, Any]) -> Result:
        """Return the result that `to_dict` described."""
        row = described["row"]
        return cls(**{**described, "row": None if row is None else Row.from_dict(row)})


@dataclass(frozen=True)
class Cell:
    """One fit to be made and judged.

    Attributes:
        task: what on.
        family: settings only.
        seed: of the data, the fit and the draws.
        budget: to spend.
        parameters: to come near to; None leaves the width as it is.
        settings: further parameters of `OneToManyRegressor`.
        folder: where its result is kept; nowhere if None.
    """

    task: Task
    family: Family
    seed: int
    budget: Budget
    parameters: int | None
    settings: dict[str, Any]
    folder: Path | None

    @property
    def label(self) -> str:
        """Name of the family in the table."""
        return label_of(self.family)

    def identity(self) -> dict[str, Any]:
        """Return what decides the result: a cell with the same identity is not run again."""
        described = {
            "task": self.task.identity(),
            "family": {"name": self.family.name, "settings": self.family.settings()},
            "seed": self.seed,
            "budget": str(self.budget),
            "parameters": self.parameters,
            "settings": self.settings,
            "version": __version__,
        }
        return json.loads(json.dumps(described))

    @property
    def _file(self) -> Path | None:
        if self.folder is None:
            return None
        safe = "".join(c if c.isalnum() or c in "_-." else "-" for c in f"{self.task.name}--{self.label}--{self.seed}")
        return self.folder / f"{safe}.json"

    def finished(self) -> Result | None:
        """Return the result that is in the folder, if it is one of this cell and no crash."""
        file = self._file
        if file is None or not file.is_file():
            return None
        try:
            result = Result.from_dict(json.loads(file.read_text()))
        except (ValueError, TypeError, KeyError):
            return None  # damaged: it is run again
        return result if result.error is None and result.identity == self.identity() else None

    def samples(self) -> Samples | None:
        """Return the draws to show that are in the folder, if there are any."""
        file = self._file
        if file is None or not file.with_suffix(".npz").is_file():
            return None
        with np.load(file.with_suffix(".npz")) as arrays:
            return dict(arrays)

    def crashed(self, error: str, details: str | None = None) -> Result:
        """Return, and keep, the result of a cell that went wrong."""
        return self._keep(Result(self.task.name, self.label, self.seed, self.identity(), error=error, details=details))

    def _keep(self, result: Result) -> Result:
        if self._file is not None:
            write_json(self._file, result.to_dict())
        return result

    def run(self) -> Result:
        """Fit and judge; whatever goes wrong is in the result."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a diverged run is told by `stopped`
                return self._run()
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
            return self.crashed(reason, traceback.format_exc())

    def _run(self) -> Result:
        X, Y = self.task.known(self.seed)
        settings, remark = dict(self.settings), None
        if self.parameters is not None:
            size = matched_size(self.family, X, Y, self.parameters, settings.get("depth"))
            if size.width is not None:
                settings["width"] = size.width
            if size.parameters is not None and abs(size.parameters / self.parameters - 1) > _WITHIN:
                remark = f"{size.parameters} parameters, where {self.parameters} were asked for"
        model = OneToManyRegressor(self.family, random_state=self.seed, **{**self.budget.settings(), **settings})
        model.fit(X, Y)
        row = self.task.judge(model, self.seed)
        row = Row.from_dict({**row.to_dict(), "family": self.label})
        samples = self.task.samples(model)
        if samples is not None and self._file is not None:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **{k: v.astype(np.float32) for k, v in samples.items()})  # type: ignore[arg-type]
            with atomically(self._file.with_suffix(".npz")) as file:
                file.write(buffer.getvalue())
        return self._keep(
            Result(
                self.task.name,
                self.label,
                self.seed,
                self.identity(),
                row,
                stopped=model.stopped_,
                steps=model.n_steps_,
                remark=remark,
            )
        )

    # a process that dies leaves this mark behind
    def mark(self) -> None:
        """Note in the folder that this cell has begun."""
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.with_suffix(".begun").touch()

    def unmark(self) -> None:
        """Note that it is over."""
        if self._file is not None:
            with contextlib.suppress(FileNotFoundError):
                self._file.with_suffix(".begun").unlink()

    @property
    def marked(self) -> bool:
        """Whether it began and did not end."""
        return self._file is not None and self._file.with_suffix(".begun").exists()
