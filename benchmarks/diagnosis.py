"""How often the diagnosis is right: random tables with one answer a row, and with several.

`one`: y is a linear or a curved function of some of up to 20 columns of x, some of them discrete, plus noise that is
normal, uneven, skewed, heavy-tailed or flat; 1 to 4 targets, 300 to 20,000 rows. `several answers` is a false alarm.

`several`: 2 to 4 answers, the nearest two of them 3 to 8 widths of the noise apart, the rarest with a probability down
to .15, in all rows or in three to eight tenths of them, told by x; around them the same functions. Anything but

Beside these, the built-in problems, the geyser and a table of a power plant, and how long it takes.

    python benchmarks/diagnosis.py --jobs 2

The data of the power plant are in the folder EVERYMODE_DATA, by default `shared/data` beside the checkout, and are left
out where they are not. What is done is kept in `runs/diagnosis` and not done again.
"""

from __future__ import annotations

import argparse
import math
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

import everymode as em
from everymode.metrics import wilson_interval
from everymode.problems.geyser import Geyser
from peers import DATA, kept, write

TABLES = 200  # of each kind
CACHE = Path(__file__).parents[1] / "runs" / "diagnosis"
NAMED = {
    **dict.fromkeys(
        ("fork", "sine_fold", "branches", "inverse_kinematics", "two_moons", "rings", "grid", "imbalanced"),
        "several answers",
    ),
    "geyser": "several answers",
    "line": "one answer",
    "heteroscedastic": "one answer, uneven noise",
    "skewed": "skewed or heavy-tailed, still one answer",
    "heavy_tailed": "skewed or heavy-tailed, still one answer",
    "power_plant": "one answer",
}
ROWS = 2000  # of a built-in problem
LAWS: dict[str, list[Callable[[np.random.Generator, int], np.ndarray]]] = {
    "normal": [lambda rng, n: rng.normal(size=n)],
    "uneven": [lambda rng, n: rng.normal(size=n)],
    "skewed": [
        lambda rng, n: rng.exponential(size=n) - 1,
        lambda rng, n: np.exp(0.8 * rng.normal(size=n)) - np.exp(0.32),
        lambda rng, n: rng.gamma(2, size=n) - 2,
    ],
    "heavy-tailed": [
        lambda rng, n: rng.standard_t(3, size=n),
        lambda rng, n: rng.laplace(size=n),
        lambda rng, n: rng.standard_t(2, size=n),
    ],
    "flat": [lambda rng, n: rng.uniform(-1.7, 1.7, size=n)],
}


# The tables ----------------------------------------------------------------------------------------------------------


def function(rng: np.random.Generator, x: np.ndarray, terms: int) -> np.ndarray:
    """Return a random curved function of x (n, columns), (n,): a sum of terms, each of up to three columns."""
    total = np.zeros(len(x))
    for _ in range(terms):
        columns = rng.choice(x.shape[1], size=min(x.shape[1], rng.integers(1, 4)), replace=False)
        weights = rng.normal(size=len(columns))
        across = x[:, columns] @ weights / np.linalg.norm(weights)
        bent = [across, np.sin(2 * across), across**2 - 1, np.tanh(3 * across)]
        total += rng.normal() * bent[rng.integers(4)]
    return total


def conditions(rng: np.random.Generator, n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x (n, size), some of whose columns may be discrete, and those of its columns that matter."""
    x = rng.normal(size=(n, size)) if rng.random() < 0.5 else rng.uniform(-1.7, 1.7, size=(n, size))
    if rng.random() < 0.4:
        for column in rng.choice(size, size=rng.integers(1, max(2, size // 2 + 1)), replace=False):
            x[:, column] = rng.integers(0, rng.integers(2, 7), size=n) - 1.0
    return x, x[:, rng.permutation(size)[: rng.integers(1, size + 1)]]


def sized(rng: np.random.Generator) -> tuple[int, int, int]:
    """Return rows, columns and targets."""
    return int(np.exp(rng.uniform(np.log(300), np.log(20_000)))), int(rng.integers(1, 21)), int(rng.integers(1, 5))


def one(seed: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Return x, y, and what they are, of a table with one answer a row."""
    rng = np.random.default_rng([1, seed])
    n, size, targets = sized(rng)
    x, known = conditions(rng, n, size)
    curved, law = bool(rng.integers(2)), list(LAWS)[rng.integers(len(LAWS))]
    y = []
    for _ in range(targets):
        along = known @ rng.normal(size=known.shape[1]) / np.sqrt(known.shape[1])
        middle = function(rng, known, int(rng.integers(1, 5))) if curved else along
        noise = LAWS[law][rng.integers(len(LAWS[law]))](rng, n)
        if law == "uneven":
            noise *= np.exp(rng.uniform(0.5, 1) * np.sin(1.5 * known[:, 0] + rng.normal()))
        elif law == "skewed":
            noise *= rng.choice([-1, 1])
        y.append(middle + np.exp(rng.uniform(np.log(0.1), np.log(1.5))) * noise)
    told = {"n": n, "columns": size, "targets": targets, "curved": curved, "law": law, "known": known.shape[1]}
    return x, np.stack(y, axis=1), told


def several(seed: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Return x, y, and what they are, of a table with several answers in some or all rows."""
    rng = np.random.default_rng([2, seed])
    n, size, targets = sized(rng)
    answers, apart = int(rng.integers(2, 5)), float(rng.uniform(3, 8))
    least = min(float(rng.uniform(0.15, 0.5)), 1 / answers)
    part = 1.0 if rng.random() < 0.5 else float(rng.uniform(0.3, 0.8))
    x, known = conditions(rng, n, size)
    weights = np.full(answers, (1 - least) / (answers - 1))
    weights[0] = least
    if rng.random() < 0.5:
        way = rng.normal(size=targets)
        places = np.arange(answers)[:, None] * way
    else:
        places = rng.normal(size=(answers, targets))
    between = np.linalg.norm(places[:, None] - places[None], axis=2)[~np.eye(answers, dtype=bool)]
    places *= apart / between.min()
    places -= places[-1] if rng.random() < 0.5 else weights @ places
    score = function(rng, known, 2) + 1e-3 * rng.normal(size=n)
    where = score <= np.quantile(score, part)
    label = np.where(where, rng.choice(answers, size=n, p=weights), answers - 1)
    middle = np.stack(
        [function(rng, known, int(rng.integers(4))) if rng.random() < 0.8 else np.zeros(n) for _ in range(targets)],
        axis=1,
    )
    width = np.exp(rng.uniform(np.log(0.1), 0.0))
    y = middle + width * (places[label] + rng.normal(size=(n, targets)))
    told = {"n": n, "columns": size, "targets": targets, "answers": answers, "apart": apart, "least": least}
    return x, y, {**told, "part": part, "known": known.shape[1]}


def named(name: str) -> tuple[Any, Any]:
    """Return x and y of a problem, or of a table."""
    if name == "power_plant":
        frame = pd.read_csv(DATA / "uci_power_plant.csv")
        return frame.iloc[:, :-1], frame.iloc[:, -1]
    if name == "geyser":
        frame = Geyser().table()
        return frame[["waiting"]], frame["duration"]
    return em.problems.get(name).sample(ROWS, seed=0)


# Diagnosing ----------------------------------------------------------------------------------------------------------


def diagnosed(x: Any, y: Any) -> dict[str, Any]:
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = em.diagnose(x, y)
    return {
        "verdict": found.verdict,
        "p_value": found.p_value,
        "share": round(found.share, 3),
        "gain": round(found.gain, 4),
        "valley_ratio": found.valley_ratio,
        "core_seconds": round(time.process_time() - started, 1),
    }


def random_table(kind: str, seed: int) -> dict[str, Any]:
    def work() -> dict[str, Any]:
        x, y, told = {"one": one, "several": several}[kind](seed)
        return {"seed": seed, **told, **diagnosed(x, y)}

    return kept(CACHE / f"{kind}_{seed}.json", work)


def large(rows: int) -> dict[str, Any]:
    """Return what a table of 10 columns takes, beside what the process has taken before."""

    def work() -> dict[str, Any]:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(rows, 10))
        y = np.sin(x[:, 0]) + x[:, 1] * rng.choice([-1, 1], size=rows) + 0.2 * rng.normal(size=rows)
        started = time.perf_counter()
        found = diagnosed(x, y)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return {"rows": rows, "seconds": round(time.perf_counter() - started, 1), "peak_gib": round(peak, 2), **found}

    return kept(CACHE / f"large_{rows}.json", work)


# What is found -------------------------------------------------------------------------------------------------------


def rate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the share of tables that are said to have several answers, with its interval."""
    said = sum(row["verdict"] == "several answers" for row in rows)
    low, high = wilson_interval(said, len(rows)) if rows else (math.nan, math.nan)
    return {"tables": len(rows), "several": said, "low": round(low, 3), "high": round(high, 3)}


def split(rows: list[dict[str, Any]], key: str, edges: list[float]) -> dict[str, Any]:
    """Return the rates by the value of `key`."""
    parts = {}
    for low, high in zip(edges, [*edges[1:], math.inf], strict=True):
        parts[f"{low:g} to {high:g}"] = rate([row for row in rows if low <= row[key] < high])
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description="How often the diagnosis is right.")
    parser.add_argument("--tables", type=int, default=TABLES, help="random tables of each kind")
    parser.add_argument("--jobs", type=int, default=1)
    asked = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    work = [(kind, seed) for seed in range(asked.tables) for kind in ("one", "several")]
    found: Any = Parallel(n_jobs=asked.jobs)(delayed(random_table)(kind, seed) for kind, seed in work)
    ones: list[dict[str, Any]] = found[::2]
    others: list[dict[str, Any]] = found[1::2]
    names = [name for name in NAMED if name != "power_plant" or (DATA / "uci_power_plant.csv").exists()]
    problems = {}
    for name in names:
        told = kept(CACHE / f"{name}.json", lambda name=name: diagnosed(*named(name)))
        problems[name] = {**told, "expected": NAMED[name], "right": told["verdict"] == NAMED[name]}
        print(name, problems[name], file=sys.stderr)
    ready = [row for row in others if row["n"] >= 2000 and row["apart"] >= 4]
    write(
        "diagnosis",
        {
            "one": {**rate(ones), "by_law": {law: rate([row for row in ones if row["law"] == law]) for law in LAWS}},
            "several": {
                **rate(others),
                "2000_rows_and_4_widths": rate(ready),
                "by_rows": split(others, "n", [300, 1000, 2000, 5000]),
                "by_apart": split([row for row in others if row["n"] >= 2000], "apart", [3, 4, 5, 6]),
                "by_columns": split([row for row in others if row["n"] >= 2000], "columns", [1, 6, 11, 16]),
                "by_least": split([row for row in others if row["n"] >= 2000], "least", [0.15, 0.2, 0.3]),
                "by_part": split([row for row in others if row["n"] >= 2000], "part", [0.3, 0.55, 1.0]),
            },
            "missed": [row for row in ready if row["verdict"] != "several answers"],
            "false_alarms": [row for row in ones if row["verdict"] == "several answers"],
            "problems": problems,
            "large": [large(10_000), large(1_000_000)],
        },
    )


if __name__ == "__main__":
    main()
