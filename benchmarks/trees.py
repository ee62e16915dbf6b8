"""CRPS and fit time of `trees` against Treeffuser and NGBoost on three tables of UCI, five folds, in one process.

Same folds, same rows, one thread for all. All have their default settings. The CRPS of a row is estimated fairly from
30 draws (Treeffuser's with 50 steps of its solver, as its paper has it), that of NGBoost's normal is exact; it is
averaged over the test rows of a fold, 400 at most. Seconds are of the process, so that a busy machine does not count.

Treeffuser 0.1.3 wants NumPy 1, so the peers need an environment of their own, and everymode goes into it:

    python -m venv peers && peers/bin/pip install -e . "lightgbm>=4.3" treeffuser ngboost "pyarrow<22"
    OMP_NUM_THREADS=1 peers/bin/python benchmarks/trees.py

The data are in the folder EVERYMODE_DATA, by default `shared/data` beside the checkout.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from scipy.stats import norm

import everymode as em
from everymode.metrics import energy_scores
from peers import DATA, write

SETS = ("uci_concrete", "uci_wine_quality_red", "uci_power_plant")
FOLDS, DRAWS, TEST_ROWS, PEER_STEPS = 5, 30, 400, 50


def folds(rows: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (training rows, test rows) of each fold."""
    parts = np.array_split(np.random.default_rng(0).permutation(rows), FOLDS)
    return [(np.concatenate(parts[:k] + parts[k + 1 :]), parts[k][:TEST_ROWS]) for k in range(FOLDS)]


def of_draws(y: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return the fair CRPS of each row, (rows,), of draws (rows, n)."""
    return energy_scores(y[:, None], draws[:, :, None])


def ours(family: em.Family) -> Callable:
    """Return a function of (x, y) that fits, and gives back a function of (x, y) to CRPS a row."""

    def fit(x: np.ndarray, y: np.ndarray) -> Callable:
        model = em.OneToManyRegressor(family, random_state=0).fit(x, y)
        return lambda x, y: of_draws(y, model.sample(x, DRAWS))

    return fit


def treeffuser(x: np.ndarray, y: np.ndarray) -> Callable:
    from treeffuser import Treeffuser  # pyright: ignore[reportMissingImports]

    model = Treeffuser(seed=0, n_jobs=1).fit(x, y)
    steps = {"n_parallel": DRAWS, "n_steps": PEER_STEPS, "seed": 0}
    return lambda x, y: of_draws(y, model.sample(x, DRAWS, **steps).T)


def ngboost(x: np.ndarray, y: np.ndarray) -> Callable:
    from ngboost import NGBRegressor  # pyright: ignore[reportMissingImports]

    model = NGBRegressor(verbose=False, random_state=0).fit(x, y)

    def crps(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        told = model.pred_dist(x)
        z = (y - told.loc) / told.scale
        return told.scale * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))

    return crps


FITS: dict[str, Callable] = {
    "trees": ours(em.Trees()),
    "trees (flow)": ours(em.Trees(objective="flow")),
    "treeffuser": treeffuser,
    "ngboost": ngboost,
}


def measure(table: np.ndarray) -> dict[str, Any]:
    """Return CRPS, seconds of fitting and of judging, of each method on a table whose last column is y."""
    x, y = table[:, :-1], table[:, -1]
    scores: dict[str, list[float]] = {name: [] for name in FITS}
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in FITS}
    for kept, out in folds(len(y)):
        for name, fit in FITS.items():
            start = time.process_time()
            judge = fit(x[kept], y[kept])
            fitted = time.process_time()
            scores[name].append(float(judge(x[out], y[out]).mean()))
            spent[name].append((fitted - start, time.process_time() - fitted))
            print(name, round(scores[name][-1], 4), [round(s, 2) for s in spent[name][-1]], file=sys.stderr, flush=True)
    found: dict[str, Any] = {}
    for name in FITS:
        seconds = np.mean(spent[name], axis=0)
        behind = np.subtract(scores[name], scores["treeffuser"])
        found[name] = {
            "crps": round(float(np.mean(scores[name])), 4),
            "standard_error": round(float(np.std(scores[name], ddof=1) / FOLDS**0.5), 4),
            "less_treeffuser": round(float(behind.mean()), 4),
            "less_treeffuser_standard_error": round(float(np.std(behind, ddof=1) / FOLDS**0.5), 4),
            "folds": [round(score, 4) for score in scores[name]],
            "fit_seconds": round(float(seconds[0]), 3),
            "judge_seconds": round(float(seconds[1]), 3),
        }
    ratio = found["trees"]["fit_seconds"] / found["treeffuser"]["fit_seconds"]
    return {"rows": len(y), "fit_time_to_treeffuser": round(ratio, 3), "methods": found}


def main() -> None:
    absent = [name for name in SETS if not (DATA / f"{name}.csv").exists()]
    if absent:
        print(f"skipped: no {', '.join(absent)} in {DATA.name}; set EVERYMODE_DATA to the folder of the data sets.")
        return
    warnings.simplefilter("ignore")  # the peers'
    torch.set_num_threads(1)
    for fit in FITS.values():  # what is imported at first use is not fitting
        fit(*(np.random.default_rng(0).normal(size=shape) for shape in ((60, 2), (60,))))
    sets = {name: measure(np.loadtxt(DATA / f"{name}.csv", delimiter=",", skiprows=1)) for name in SETS}
    peers = {name: version(name) for name in ("treeffuser", "ngboost", "lightgbm", "numpy")}
    write("trees", {"seed": 0, "folds": FOLDS, "draws": DRAWS, "threads": 1, "versions": peers, "sets": sets})


if __name__ == "__main__":
    main()
