"""Every family on five problems whose answers are known: equal data, parameters and seconds.

    python benchmarks/families.py [--budget 60s] [--seeds 3] [--jobs 2] [--folder runs/families]

Finished fits are kept in the folder, and are not run again. Writes benchmarks/results/families.json, the README's table
(on stdout) and docs/images/families_{matrix,scoreboard,quality}.png.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from everymode import plots
from everymode.comparison import Comparison, ProblemTask, Result, Row, Sweep
from everymode.families import GAN, get_family, names
from everymode.plots.style import house
from peers import write

PROBLEMS = ("fork", "sine_fold", "inverse_kinematics", "grid", "imbalanced")
IMAGES = Path(__file__).parents[1] / "docs" / "images"
KEPT = ("valid_share", "modes_found", "modes_total", "probability_error", "energy_score", "sliced_wasserstein", "c2st")


def rounded(value: Any) -> Any:
    """Return JSON-ready content with numbers of four digits."""
    if isinstance(value, dict):
        return {key: rounded(content) for key, content in value.items()}
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value


def single(result: Result) -> dict[str, Any]:
    """Return one fit in short."""
    row = {} if result.row is None else result.row.to_dict()
    told = {"error": result.error, "remark": result.remark, "stopped": result.stopped, "steps": result.steps}
    return {
        "problem": result.task,
        "family": result.family,
        "seed": result.seed,
        **{key: row.get(key) for key in KEPT},
        **{key: value for key, value in told.items() if value is not None},
    }


def checks(found: Comparison) -> dict[str, bool]:
    """Return what was expected, and whether it came."""
    rows = {(task, row.family): row for task, table in found.tables.items() for row in table}

    def every(family: str, test: Any) -> bool:
        return all((task, family) in rows and test(rows[task, family]) for task in found.tables)

    def valid(row: Row) -> bool:
        return row.valid_share is not None and row.valid_share.value >= 0.95

    def whole(row: Row) -> bool:
        return row.modes_found == row.modes_total

    expected = {}
    for family in ("flow_matching", "diffusion"):
        expected[f"{family}: valid share at least .95 on all"] = every(family, valid)
        expected[f"{family}: every mode found on all, by every seed"] = every(family, whole)
    classic = rows.get(("grid", "gan:objective=classic"))
    expected["the classic GAN loses modes on grid"] = classic is not None and not whole(classic)
    low = [rows[task, "mdn"] for task in ("fork", "sine_fold", "imbalanced") if (task, "mdn") in rows]
    expected["mdn: valid share at least .95 and every mode in low dimensions"] = bool(low) and all(
        valid(row) and whole(row) for row in low
    )
    return expected


def markdown(found: Comparison) -> str:
    """Return the README's table: a family a line, a problem a column; valid share, modes, probability error."""
    head = ["family", *found.tables]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]

    def cell(row: Row | None) -> str:
        if row is None or row.valid_share is None:
            return "failed"
        lost = row.modes_found is not None and row.modes_total is not None and row.modes_found < row.modes_total
        modes = (
            f", **{row.modes_found:.3g} of {row.modes_total}**" if lost else f", {row.modes_total} of {row.modes_total}"
        )
        error = "" if row.probability_error is None else f", {row.probability_error.value:.3f}"
        return f"{100 * row.valid_share.value:.1f} %{modes}{error}"

    for family in found.settings["families"]:
        rows = [next((r for r in table if r.family == family), None) for table in found.tables.values()]
        lines.append(f"| `{family}` | " + " | ".join(map(cell, rows)) + " |")
    lines.append("| *truth* | " + " | ".join(cell(table.floor) for table in found.tables.values()) + " |")
    return "\n".join(lines)


def chosen(given: Iterable[str]) -> list[Any]:
    """Return the families asked for, and with all of them the classic GAN."""
    wanted = list(given)
    return [get_family(name) for name in wanted] if wanted else [*map(get_family, names()), GAN(objective="classic")]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--families", nargs="*", default=[])
    parser.add_argument("--folder", default="runs/families")
    asked = parser.parse_args()
    tasks = [ProblemTask(name) for name in PROBLEMS]
    sweep = Sweep(tasks, chosen(asked.families), seeds=asked.seeds, budget=asked.budget, jobs=asked.jobs)

    def tell(result: Result, done: int, total: int) -> None:
        share = "" if result.row is None or result.row.valid_share is None else f"{result.row.valid_share.value:.3f}"
        print(f"[{done}/{total}] {result.task} {result.family} {result.seed} {share} {result.error or ''}", flush=True)

    found = sweep.run(folder=asked.folder, progress=tell)
    found.save(asked.folder)
    print(markdown(found))
    for name, held in checks(found).items():
        print("met   " if held else "MISSED", name)
    for kind in ("matrix", "scoreboard", "quality"):
        with house():
            plots.draw(kind, found).savefig(IMAGES / f"families_{kind}.png", dpi=100, metadata={"Software": None})
    write(
        "families",
        {
            "asked": rounded(found.settings),
            "checks": checks(found),
            "problems": {name: rounded(table.to_dict()) for name, table in found.tables.items()},
            "fits": [rounded(single(result)) for result in found.results],
        },
    )


if __name__ == "__main__":
    main()
