"""Families x tasks x seeds, in parallel, and again from where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError
from joblib.parallel import get_active_backend

from everymode.comparison.budget import Budget, reference_parameters
from everymode.comparison.cells import Cell, Result, label_of
from everymode.comparison.table import TRUTH, ModeTable, Row
from everymode.comparison.tasks import Samples, TableTask, Task
from everymode.errors import CheckpointError, SettingError, check_number
from everymode.families import Family, get_family
from everymode.files import write_json

__all__ = ["COMPARISON_FILE", "Comparison", "Sweep", "compare"]

COMPARISON_FILE = "comparison.json"
_CELLS = "cells"


@dataclass(frozen=True)
class Comparison:
    """Families on tasks: a mode table a task, averaged over seeds, and everything that went into it.

    Attributes:
        settings: what was asked for, JSON-ready.
        tables: the mode table of each task, by its name.
        results: one a task, family and seed.
        samples: draws to show, (task, family) to arrays, the truth among them.
    """

    settings: dict[str, Any]
    tables: dict[str, ModeTable]
    results: tuple[Result, ...]
    samples: dict[tuple[str, str], Samples]

    def __iter__(self) -> Iterator[ModeTable]:
        return iter(self.tables.values())

    def __getitem__(self, task: str) -> ModeTable:
        return self.tables[task]

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.tables.values()))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "".join(table._repr_html_() for table in self.tables.values())

    @property
    def title(self) -> str:
        """One line."""
        budget = self.settings.get("budget")
        terms = f", {budget} each" if budget else ""
        return f"{len(self.settings['families'])} families on {', '.join(self.tables)}{terms}"

    @property
    def failures(self) -> list[Result]:
        """The cells that crashed."""
        return [result for result in self.results if result.error is not None]

    def to_dict(self) -> dict[str, Any]:
        """Return settings, tables and single results, JSON-ready."""
        return {
            "settings": self.settings,
            "tasks": {name: table.to_dict() for name, table in self.tables.items()},
            "cells": [result.to_dict() for result in self.results],
        }

    def save(self, folder: str | Path) -> Path:
        """Write comparison.json and the draws to show; `Comparison.load` reads them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        flat = {
            f"{task}|{family}|{name}": values.astype(np.float32)
            for (task, family), arrays in self.samples.items()
            for name, values in arrays.items()
        }
        np.savez_compressed(folder / "samples.npz", **flat)  # type: ignore[arg-type]
        return write_json(folder / COMPARISON_FILE, self.to_dict())

    @classmethod
    def load(cls, folder: str | Path) -> Comparison:
        """Return the comparison that `save` wrote into a folder.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        folder = Path(folder)
        if not (folder / COMPARISON_FILE).is_file():
            raise CheckpointError(f"{folder} holds no {COMPARISON_FILE}; `everymode compare` writes one.")
        samples: dict[tuple[str, str], Samples] = {}
        try:
            described = json.loads((folder / COMPARISON_FILE).read_text())
            if (folder / "samples.npz").is_file():
                with np.load(folder / "samples.npz") as arrays:
                    for key in arrays.files:
                        task, family, name = key.split("|")
                        samples.setdefault((task, family), {})[name] = arrays[key]
            tables = {name: ModeTable.from_dict(table) for name, table in described["tasks"].items()}
            results = tuple(Result.from_dict(result) for result in described["cells"])
            return cls(described["settings"], tables, results, samples)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"the comparison in {folder} is damaged: {error}") from error


class Sweep:
    """Every family on every task at every seed, on equal terms: checked when it is made, run by `run`.

    Args:
        tasks: what on.
        families: names or family objects.
        seeds: how many, or which.
        budget: of one fit: a `Budget`, or '60s', '2m', '5000' steps. None leaves it to the defaults of the estimator.
        jobs: processes at once; each computes on one thread if there are several.
        equal_parameters: whether each family gets the width at which it is as large as flow matching.
        settings: further parameters of `OneToManyRegressor`, the same for all.

    Raises:
        DataError, SettingError: as `OneToManyRegressor.fit` does.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        families: Iterable[str | Family],
        *,
        seeds: int | Sequence[int] = 1,
        budget: Budget | str | None = None,
        jobs: int = 1,
        equal_parameters: bool = True,
        **settings: Any,
    ) -> None:
        self.tasks, self.families = list(tasks), [get_family(family) for family in families]
        if not self.tasks or not self.families:
            raise SettingError("there is nothing to compare: give at least one task and one family.")
        self.labels = [label_of(family) for family in self.families]
        for kind, given in (("family", self.labels), ("task", [task.name for task in self.tasks])):
            if doubled := {name for name in given if given.count(name) > 1}:
                raise SettingError(f"{kind} {', '.join(sorted(doubled))} stands twice in this comparison.")
        if isinstance(seeds, int):
            seeds = range(check_number("seeds", seeds, 1, 1000, integer=True))
        self.seeds = [check_number("seeds", seed, 0, integer=True) for seed in seeds]
        if not self.seeds:
            raise SettingError("seeds: give at least one.")
        self.jobs = check_number("jobs", jobs, 1, 4096, integer=True)
        self.budget = Budget.parse(budget) if isinstance(budget, str) else budget
        self.settings = settings
        size = settings.get("width"), settings.get("depth")
        asked = [reference_parameters(*task.known(self.seeds[0]), *size) for task in self.tasks]
        self.parameters = asked if equal_parameters else [None] * len(asked)

    def described(self) -> dict[str, Any]:
        """Return what was asked for, JSON-ready."""
        return {
            "tasks": [task.identity() for task in self.tasks],
            "families": self.labels,
            "seeds": self.seeds,
            "budget": None if self.budget is None else str(self.budget),
            "jobs": self.jobs,
            "parameters": self.parameters,
            "settings": {name: value for name, value in self.settings.items() if value is not None},
        }

    def run(
        self, *, folder: str | Path | None = None, progress: Callable[[Result, int, int], None] | None = None
    ) -> Comparison:
        """Run what is not finished.

        Cells run in parallel by joblib: inside `joblib.parallel_config(backend="dask")` or `"ray"` they spread over
        machines. What crashes is reported as such, and the rest goes on.

        Args:
            folder: where finished cells are kept, and found again; nowhere if None.
            progress: called with (result, cells done, cells in all) as each cell ends.
        """
        place = None if folder is None else Path(folder) / _CELLS
        cells = [
            Cell(task, family, seed, self.budget or Budget(), parameters, self.settings, place)
            for task, parameters in zip(self.tasks, self.parameters, strict=True)
            for seed in self.seeds
            for family in self.families
        ]
        done: dict[int, Result] = {}

        def report(index: int, result: Result) -> None:
            done[index] = result
            if progress is not None:
                progress(result, len(done), len(cells))

        for index, cell in enumerate(cells):
            if (earlier := cell.finished()) is not None:
                report(index, earlier)
        _run(cells, done, self.jobs, report)
        results = tuple(done[index] for index in range(len(cells)))
        tables = {task.name: _table(task, self.labels, results) for task in self.tasks}
        return Comparison(self.described(), tables, results, _samples(self.tasks, cells))


def _run_cell(index: int, cell: Cell) -> tuple[int, Result]:
    cell.mark()
    result = cell.run()
    cell.unmark()
    return index, result


def _backend(jobs: int) -> AbstractContextManager[Any]:
    """Return processes of one thread each, unless the caller has chosen a backend of joblib, or there is one job."""
    chosen, _ = get_active_backend()
    if jobs == 1 or type(chosen).__name__ != "LokyBackend":  # joblib's own default
        return nullcontext()
    return parallel_config(backend="loky", inner_max_num_threads=1)


def _run(cells: list[Cell], done: dict[int, Result], jobs: int, report: Callable[[int, Result], None]) -> None:
    """Run the cells that are not done. Where a process dies, the cell that it ran is a crash, and the others go on."""

    def attempt(indices: list[int], jobs: int) -> None:
        for index in indices:
            cells[index].unmark()
        with _backend(jobs):
            work = Parallel(n_jobs=jobs, return_as="generator_unordered")
            ended: Any = work(delayed(_run_cell)(index, cells[index]) for index in indices)
            for index, result in ended:
                report(index, result)

    while waiting := [index for index in range(len(cells)) if index not in done]:
        try:
            attempt(waiting, jobs)
        except TerminatedWorkerError:  # it takes the cells of the other processes along: each is tried alone
            left = [index for index in waiting if index not in done]
            for index in [index for index in left if cells[index].marked] or left:
                if (kept := cells[index].finished()) is not None:
                    report(index, kept)
                    continue
                try:
                    attempt([index], 2)  # of two processes, one is idle; with one, the cell would run in this one
                except TerminatedWorkerError:
                    cells[index].unmark()
                    report(index, cells[index].crashed("the process died (out of memory, or killed)"))


def _table(task: Task, labels: list[str], results: Sequence[Result]) -> ModeTable:
    mine = [result for result in results if result.task == task.name]
    rows, failures = [], []
    for label in labels:
        judged = [result.row for result in mine if result.family == label and result.row is not None]
        if judged:
            rows.append(Row.mean(judged))
        errors = [result for result in mine if result.family == label and result.error is not None]
        if errors and not judged:
            failures.append((label, str(errors[0].error)))
    remarks = sorted({f"{r.family}: {r.remark}" for r in mine if r.remark is not None})
    seeds = len({result.seed for result in mine})
    note = f"{task.note} Means over {seeds} seed(s)." + "".join(f" {remark}." for remark in remarks)
    return ModeTable(task.title, tuple(rows), note, task.floor(), tuple(failures))


def _samples(tasks: Sequence[Task], cells: Sequence[Cell]) -> dict[tuple[str, str], Samples]:
    found: dict[tuple[str, str], Samples] = {}
    for cell in reversed(cells):  # the first seed's stay
        if (arrays := cell.samples()) is not None:
            found[cell.task.name, cell.label] = arrays
    for task in tasks:
        if any(name == task.name for name, _ in found) and (truth := task.samples(None)) is not None:
            found[task.name, TRUTH] = truth
    return found


def compare(
    X: Any,
    Y: Any,
    families: Iterable[str | Family] = ("mse", "flow_matching"),
    *,
    test_fraction: float = 0.2,
    draws: int = 200,
    seeds: int | Sequence[int] | None = None,
    budget: Budget | str | None = None,
    jobs: int = 1,
    random_state: int = 0,
    **settings: Any,
) -> ModeTable:
    """Fit families on the same rows on equal terms, and return their table on rows held out from all of them.

    Args:
        X, Y: as for `OneToManyRegressor.fit`.
        families: names or family objects.
        test_fraction: share of the rows held out.
        draws: draws a held-out row.
        seeds: how many splits and fits, or their seeds; the one of `random_state` if None.
        budget: of one fit, '60s' or '5000' steps; the estimator's defaults if None.
        jobs: processes at once.
        random_state: of the split, the fits and the draws.
        settings: further parameters of `OneToManyRegressor`, the same for all.

    Raises:
        DataError, SettingError: as `fit` does.
        RuntimeError: every family crashed.
    """
    task = TableTask(X, Y, test_fraction=test_fraction, draws=draws)
    seeds = [random_state] if seeds is None else seeds
    found = Sweep([task], families, seeds=seeds, budget=budget, jobs=jobs, **settings).run()
    table = found[task.name]
    if not table.rows:
        raise RuntimeError(f"no family could be fitted: {'; '.join(f'{name}: {why}' for name, why in table.failures)}")
    return table
