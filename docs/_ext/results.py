"""Tables of what the benchmarks measured: read from `benchmarks/results` when a page is built, and never typed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import everymode as em

FOLDER = Path(__file__).parents[2] / "benchmarks" / "results"


@dataclass(frozen=True)
class Result:
    """Rows, and where they are from."""

    rows: list[dict[str, str]]
    source: str


@cache
def read(name: str) -> Any:
    """Return the file of a benchmark."""
    return json.loads((FOLDER / f"{name}.json").read_text())


# Families ------------------------------------------------------------------------------------------------------------


def family(problem: str, name: str) -> dict[str, Any]:
    """Return the numbers of a family on a problem."""
    return read("families")["problems"][problem]["families"][name]


def families() -> Result:
    """Return valid share, modes found and probability error of every family on every problem."""
    problems = read("families")["problems"]
    rows = []
    for name in next(iter(problems.values()))["families"]:
        told = {problem: _answers(table["families"][name]) for problem, table in problems.items()}
        rows.append({"family": f"`{name}`", **told})
    rows.append({"family": "real draws", **{problem: _answers(table["floor"]) for problem, table in problems.items()}})
    return Result(rows, _source("families", "Valid share, modes found, probability error."))


def costs() -> Result:
    """Return what every family takes: seconds of training, evaluations and microseconds a draw."""
    problems = read("families")["problems"]
    rows = []
    for name in next(iter(problems.values()))["families"]:
        mine = [table["families"][name] for table in problems.values()]
        rows.append(
            {
                "family": f"`{name}`",
                "seconds to fit": _range([row["seconds"] for row in mine], ".0f"),
                "evaluations a draw": _range([row["nfe"] for row in mine], ".0f"),
                "microseconds a draw": _range([_two_digits(1000 * row["milliseconds"]) for row in mine], ",g"),
                "least valid share": f"{100 * min(row['valid_share'] for row in mine):.1f} %",
                "problems with every mode": _count(row["modes_found"] >= row["modes_total"] for row in mine),
            }
        )
    return Result(rows, _source("families", "Least to most of the five problems; many draws at once."))


def told_apart(pairs: Sequence[tuple[str, str, str]]) -> Result:
    """Return some families on some problems, with what goes wrong there: (problem, family, remark)."""
    rows = []
    for problem, name, remark in pairs:
        row = family(problem, name)
        shown = {"valid share": _share(row["valid_share"]), "modes": _modes(row)}
        error = {"probability error (floor)": _floored(row, "probability_error")}
        rows.append({"problem": f"`{problem}`", "family": f"`{name}`", **shown, **error, "so it": remark})
    return Result(rows, _source("families"))


def averages(names: Sequence[str]) -> Result:
    """Return how families fare on every problem, by what an average is judged by and by what answers are."""
    rows = []
    for problem in read("families")["problems"]:
        for name in names:
            row = family(problem, name)
            shown = {"valid share": _share(row["valid_share"]), "modes": _modes(row)}
            score = {"energy score (floor)": _floored(row, "energy_score")}
            rows.append({"problem": f"`{problem}`", "family": f"`{name}`", **shown, **score})
    return Result(rows, _source("families"))


def abilities() -> Result:
    """Return what families say of themselves."""
    rows = []
    for name in em.families.names():
        able = em.families.get_family(name).abilities
        rows.append(
            {
                "family": f"`{name}`",
                "several answers": _yes(able.modes),
                "density": _yes(able.density),
                "sequences": _yes("sequence" in able.spaces),
                "images": _yes("image" in able.spaces),
                "parts of y known": _yes(able.steered),
            }
        )
    return Result(rows, "As the families themselves declare it, in this version.")


def few_steps() -> Result:
    """Return the families of few steps, in one and two evaluations, beside the flow in a hundred."""
    told = read("few_steps")
    problems = list(dict.fromkeys(row["problem"] for row in told["rows"]))
    found: dict[tuple[str, bool, int], dict[str, str]] = {}
    for row in told["rows"]:
        missing = row["modes"].split("/")
        text = _share(row["valid_share"]) + ("" if missing[0] == missing[1] else f", {missing[0]} of {missing[1]}")
        found.setdefault((row["family"], row["taught"], row["nfe"]), {})[row["problem"]] = text
    order = sorted(found, key=lambda key: (key[0] != "flow_matching" or key[2] < 3, key[2], key[0], key[1]))
    rows = [
        {
            "family": f"`{name}`" + (", taught" if taught else ""),
            "evaluations": str(nfe),
            **{problem: found[name, taught, nfe].get(problem, "-") for problem in problems},
        }
        for name, taught, nfe in order
    ]
    return Result(rows, _source("few_steps", "Valid share; the modes found where some are not."))


def solvers() -> Result:
    """Return what `solver="auto"` took."""
    rows = [
        {
            "problem": f"`{row['problem']}`",
            "chosen": row["chosen"],
            "distance on fresh x": f"{row['error']:.3f}",
            "best of all, looked up afterwards": row["best_fixed"],
        }
        for row in read("solvers")["rows"]
    ]
    return Result(rows, _source("solvers"))


def trees() -> Result:
    """Return the trees beside their peers."""
    rows = []
    for name, table in read("trees")["sets"].items():
        methods = {
            f"`{method}`" if method == "trees" else method: f"{told['crps']:.4g} ± {told['standard_error']:.2g}"
            for method, told in table["methods"].items()
        }
        ratio = f"{table['fit_time_to_treeffuser']:.2f}"
        rows.append({"table": name, "rows": f"{table['rows']:,}", **methods, "fit time over treeffuser's": ratio})
    return Result(rows, _source("trees", "CRPS, lower is better, with its standard error over the folds."))


# The diagnosis -------------------------------------------------------------------------------------------------------


def alarms() -> Result:
    """Return the false alarms by the law of the noise."""
    told = read("diagnosis")["one"]
    rows = [_said(law, rate) for law, rate in told["by_law"].items()]
    return Result([*rows, _said("all", told)], _source("diagnosis", "Every row of these tables has one answer."))


def power() -> Result:
    """Return how often several answers are found, by what the table is like."""
    told = read("diagnosis")["several"]
    ready = "2,000 rows or more, answers 4 widths apart or more"
    rows = [_said("all, whatever the rows", told), _said(ready, told["2000_rows_and_4_widths"])]
    named = {
        "by_rows": "rows",
        "by_apart": "widths between answers",
        "by_columns": "columns",
        "by_least": "probability of the rarest",
        "by_part": "share of the rows with several",
    }
    for key, name in named.items():
        rows += [_said(f"{name}: {part.replace(' to inf', ' or more')}", rate) for part, rate in told[key].items()]
    note = "All have several answers. But for the first line and those by rows, they have 2,000 rows or more."
    return Result(rows, _source("diagnosis", note))


def missed() -> Result:
    """Return the tables that were missed though they are large and their answers lie apart."""
    rows = [
        {
            "rows": f"{row['n']:,}",
            "columns": f"{row['columns']} ({row['known']} matter)",
            "targets": str(row["targets"]),
            "answers": str(row["answers"]),
            "widths apart": f"{row['apart']:.1f}",
            "rarest": f"{row['least']:.2f}",
            "in": f"{row['part']:.0%} of the rows",
            "verdict": row["verdict"],
            "p-value": f"{row['p_value']:.2g}",
        }
        for row in read("diagnosis")["missed"]
    ]
    return Result(rows or [{"missed": "none"}], _source("diagnosis"))


def verdicts() -> Result:
    """Return the verdicts on the problems and on real tables."""
    rows = [
        {
            "table": f"`{name}`",
            "verdict": row["verdict"],
            "right": _yes(row["right"]),
            "p-value": f"{row['p_value']:.2g}",
            "rows with several": f"{row['share']:.0%}",
            "p(average) / p(best)": f"{row['valley_ratio']:.2g}",
            "core seconds": f"{row['core_seconds']:.0f}",
        }
        for name, row in read("diagnosis")["problems"].items()
    ]
    return Result(rows, _source("diagnosis"))


def _said(name: str, rate: Mapping[str, Any]) -> dict[str, str]:
    said = f"{rate['several']} of {rate['tables']}"
    return {"tables": name, "said to have several": said, "95 % interval": f"{rate['low']:.0%} to {rate['high']:.0%}"}


# The library ---------------------------------------------------------------------------------------------------------


def problems() -> Result:
    """Return the problems."""
    rows = []
    for name in em.problems.names():
        problem = em.problems.get(name)
        columns = {"x": ", ".join(problem.x_names), "y": ", ".join(problem.y_names)}
        rows.append({"problem": f"`{name}`", "what it is": problem.title, **columns})
    return Result(rows, "As `everymode.problems` tells them.")


def figures() -> Result:
    """Return the figures."""
    rows = [{"kind": f"`{kind}`", "what it shows": em.plots.summary(kind)} for kind in em.plots.kinds()]
    return Result(rows, "As `everymode.plots` tells them.")


# Texts ---------------------------------------------------------------------------------------------------------------


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence lists them."""
    shown = [f"`{name}`" for name in names]
    return " and ".join([*([", ".join(shown[:-1])] if shown[1:] else []), *shown[-1:]]) or "none"


def _source(name: str, note: str = "") -> str:
    told = read(name)
    return f"{note} Measured by `{told['command']}`, {told['date']}; `benchmarks/results/{name}.json`.".strip()


def _answers(row: Mapping[str, Any]) -> str:
    return f"{_share(row['valid_share'])}, {_modes(row)}, {row['probability_error']:.3f}"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _modes(row: Mapping[str, Any]) -> str:
    return f"{row['modes_found']:.3g} of {row['modes_total']}"


def _floored(row: Mapping[str, Any], name: str) -> str:
    floor = row[f"{name}_floor"]
    return f"{row[name]:.3f}" + ("" if floor is None else f" ({floor:.3f})")


def _range(values: Sequence[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")


def _count(flags: Any) -> str:
    flags = list(flags)
    return f"{sum(flags)} of {len(flags)}"


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"
