"""How much conformal regions hold, and how large they are, against conformalized quantile regression on the same rows.

Three tables of UCI, at most 1,000 rows a split, drawn anew for each, and the geyser, 299 rows drawn with replacement:
60 % of the rows to fit, 20 % to calibrate, 20 % to judge, five splits at level .9, and twenty of the geyser. The peer
is two quantile regressions by boosted trees, with the margin that the rows of calibration ask for (Romano, Patterson
and Candès, 2019: Conformalized quantile regression). Both are set once a table, on the training rows of the first
split, for the least length of conformal regions there: ours by the family, on a third of these rows; the peer by
leaves, trees and the two quantiles, in three folds.

The standard error of a coverage is that of the rows of calibration and of those that judge, as if splits were
independent; those of one table overlap. `covers` says whether the mean is within two of them.

Beside `em.Conformal` two other scores of the same draws: the density itself with one cut-off for all rows, and the
distance to the nearest draw (Wang et al., 2022: Probabilistic conformal prediction using conditional random samples).

The quality of a wine is a whole number: `answers` counts those in a region, which is fairer there than a length.

    OMP_NUM_THREADS=1 python benchmarks/conformal.py

The data are in the folder EVERYMODE_DATA, by default `shared/data` beside the checkout; tables that are not there are
left out. What is done is kept in `runs/conformal` and not done again.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import beta
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import KFold

import everymode as em
from everymode.conformal import ScoredLine
from everymode.regions import bandwidth, density_on_a_line
from peers import DATA, kept, write

LEVEL, MOST_ROWS, DRAWS = 0.9, 1000, 300
CACHE = Path(__file__).parents[1] / "runs" / "conformal"
SETS = ("uci_concrete", "uci_power_plant", "uci_wine_quality_red", "geyser")
SPLITS = {"geyser": 20}  # of few rows more; of the others 5
WHOLE = ("uci_wine_quality_red",)  # whose y are whole numbers
FAMILIES: dict[str, Callable[[], em.OneToManyRegressor]] = {
    "trees": lambda: em.OneToManyRegressor("trees", random_state=0),
    "mdn": lambda: em.OneToManyRegressor(
        em.MDN(components=8), width=32, depth=2, steps=400, batch_size=256, weight_decay=1.0, random_state=0
    ),
}
NOMINAL, LEAVES, TREES, EVERY = (0.1, 0.2, 0.4), (3, 8, 24), 200, 20
Rows = tuple[np.ndarray, np.ndarray]


def split(name: str, seed: int) -> list[Rows]:
    """Return the rows to fit, to calibrate and to judge."""
    rng = np.random.default_rng(seed)
    if name == "geyser":
        x, y = (np.asarray(part) for part in em.problems.get(name).sample(299, seed=seed))
    else:
        table = np.loadtxt(DATA / f"{name}.csv", delimiter=",", skiprows=1)
        x, y = table[:, :-1], table[:, -1]
    order = rng.permutation(len(y))[:MOST_ROWS]
    cuts = [round(0.6 * len(order)), round(0.8 * len(order))]
    return [(x[part], y[part].ravel()) for part in np.split(order, cuts)]


def rank(rows: int) -> int:
    """Return which of the sorted scores is the threshold."""
    return int(np.ceil((rows + 1) * LEVEL - 1e-9))


# Ours ----------------------------------------------------------------------------------------------------------------


class Kept(em.Conformal):
    """Draws once for each X, whatever the score."""

    drawn: dict[int, list[np.ndarray]]

    def __init__(self, drawn: dict[int, list[np.ndarray]], *given: Any, **settings: Any) -> None:
        self.drawn = drawn
        super().__init__(*given, **settings)

    def _draws(self, X: Any) -> Iterator[np.ndarray]:
        if id(X) not in self.drawn:
            self.drawn[id(X)] = list(super()._draws(X))
        return iter(self.drawn[id(X)])


class CutOff(Kept):
    def _line(self, draws: np.ndarray) -> ScoredLine:
        grid, density = density_on_a_line(draws[:, 0], max(bandwidth(draws), 1e-3))
        return ScoredLine(grid, -density, 1.0)


class Nearest(Kept):
    def _line(self, draws: np.ndarray) -> ScoredLine:
        places = np.unique(draws)
        grid = np.sort(np.append(places, (places[1:] + places[:-1]) / 2))
        scores = np.zeros(len(grid))
        scores[1::2] = np.diff(places) / 2
        return ScoredLine(grid, scores, 1.0)


SCORES: dict[str, type[Kept]] = {"everymode": Kept, "density cut-off": CutOff, "nearest draw": Nearest}


def lengths(regions: list[np.ndarray]) -> np.ndarray:
    return np.array([np.diff(parts).sum() for parts in regions])


def whole_numbers(regions: list[np.ndarray]) -> np.ndarray:
    counts = [np.maximum(np.floor(parts[:, 1]) - np.ceil(parts[:, 0]) + 1, 0).sum() for parts in regions]
    return np.array(counts)


def judged(inside: np.ndarray, regions: list[np.ndarray]) -> dict[str, float]:
    return {
        "coverage": float(inside.mean()),
        "size": float(lengths(regions).mean()),
        "answers": float(whole_numbers(regions).mean()),
        "intervals": float(np.mean([len(parts) for parts in regions])),
    }


def family_for(name: str) -> dict[str, Any]:
    """Return the family with the smallest regions on a third of the training rows of the first split."""
    x, y = split(name, 0)[0]
    cut = 2 * len(y) // 3
    sizes = {}
    for family, build in FAMILIES.items():
        model = build().fit(x[:cut], y[:cut])
        sizes[family] = float(em.Conformal(model, x[cut:], y[cut:], level=LEVEL, n_draws=DRAWS).size(x[cut:]).mean())
    return {"family": min(sizes, key=lambda family: sizes[family]), "sizes": sizes}


def ours(parts: list[Rows], family: str) -> dict[str, dict[str, float]]:
    """Return what regions by each score hold of the rows to judge, and their sizes."""
    train, calibration, test = parts
    model = FAMILIES[family]().fit(*train)
    drawn: dict[int, list[np.ndarray]] = {}
    found = {}
    for name, score in SCORES.items():
        regions = score(drawn, model, *calibration, level=LEVEL, n_draws=DRAWS)
        found[name] = judged(regions.contains(*test), regions.predict_interval(test[0]))
    return found


# The peer ------------------------------------------------------------------------------------------------------------


def quantiles(rows: Rows, nominal: float, leaves: int, trees: int) -> list[HistGradientBoostingRegressor]:
    return [
        HistGradientBoostingRegressor(
            loss="quantile",
            quantile=quantile,
            max_leaf_nodes=leaves,
            max_iter=trees,
            min_samples_leaf=10,
            early_stopping=False,  # pyright: ignore[reportArgumentType]
            random_state=0,
        ).fit(*rows)
        for quantile in (nominal / 2, 1 - nominal / 2)
    ]


def margin(low: np.ndarray, high: np.ndarray, y: np.ndarray) -> float:
    return float(np.sort(np.maximum(low - y, y - high))[rank(len(y)) - 1])


def peer_settings(name: str) -> dict[str, Any]:
    """Return the settings with the shortest conformal intervals in three folds of the training rows."""
    x, y = split(name, 0)[0]
    tried = []
    for nominal, leaves in product(NOMINAL, LEAVES):
        told = np.empty((2, TREES // EVERY, len(y)))
        for fold, out in KFold(3, shuffle=True, random_state=0).split(x):
            for side, model in enumerate(quantiles((x[fold], y[fold]), nominal, leaves, TREES)):
                told[side][:, out] = np.stack(list(model.staged_predict(x[out])))[EVERY - 1 :: EVERY]
        for stage, (low, high) in enumerate(zip(*told, strict=True)):
            size = np.maximum(high - low + 2 * margin(low, high, y), 0).mean()
            tried.append((float(size), {"nominal": nominal, "leaves": leaves, "trees": EVERY * (stage + 1)}))
    return min(tried, key=lambda pair: pair[0])[1]


def peer(parts: list[Rows], settings: dict[str, Any]) -> dict[str, float]:
    train, (x, y), (x_test, y_test) = parts
    models = quantiles(train, **settings)
    below, above = (model.predict(x) for model in models)
    more = margin(below, above, y)
    low, high = (model.predict(x_test) for model in models)
    intervals = np.stack(
        [low - more, np.maximum(high, low - 2 * more) + more], axis=1
    )  # one that is empty has no length
    inside = (low - more <= y_test) & (y_test <= high + more)
    return judged(inside, list(intervals[:, None]))


# What is found -------------------------------------------------------------------------------------------------------


def one(name: str, seed: int) -> dict[str, Any]:
    """Return one split, with the seconds of the process that each side takes to fit, calibrate and judge."""
    parts, start = split(name, seed), time.process_time()
    found: dict[str, Any] = dict(ours(parts, kept(CACHE / f"{name}_family.json", partial(family_for, name))["family"]))
    middle = time.process_time()
    found["peer"] = peer(parts, kept(CACHE / f"{name}_peer.json", partial(peer_settings, name)))
    seconds = [round(middle - start, 2), round(time.process_time() - middle, 2)]
    return {"methods": found, "rows": [len(part[1]) for part in parts], "seconds": seconds}


def measure(name: str) -> dict[str, Any]:
    """Return coverage beside what is expected, and sizes, of each method on one table."""
    chosen = kept(CACHE / f"{name}_family.json", partial(family_for, name))
    settings = kept(CACHE / f"{name}_peer.json", partial(peer_settings, name))
    splits = [kept(CACHE / f"{name}_{seed}.json", partial(one, name, seed)) for seed in range(SPLITS.get(name, 5))]
    _, calibration, test = splits[0]["rows"]
    k = rank(calibration)
    expected, spread = k / (calibration + 1), float(beta.std(k, calibration + 1 - k))
    by_chance = (expected * (1 - expected) / test) ** 0.5
    error = ((spread**2 + by_chance**2) / len(splits)) ** 0.5
    methods = {}
    for method in splits[0]["methods"]:
        told = {key: [s["methods"][method][key] for s in splits] for key in splits[0]["methods"][method]}
        methods[method] = {
            **{key: round(float(np.mean(values)), 4) for key, values in told.items() if key != "answers"},
            **({"answers": round(float(np.mean(told["answers"])), 3)} if name in WHOLE else {}),
            "size_of_peer": [round(s["methods"][method]["size"] / s["methods"]["peer"]["size"], 3) for s in splits],
            "covers": bool(abs(np.mean(told["coverage"]) - expected) <= 2 * error),
            "coverages": [round(value, 4) for value in told["coverage"]],
            "sizes": [round(value, 4) for value in told["size"]],
        }
    ratios = methods["everymode"]["size_of_peer"]
    counts = {method: np.mean([s["methods"][method]["answers"] for s in splits]) for method in ("everymode", "peer")}
    answers = {"ratio_of_answers": round(float(counts["everymode"] / counts["peer"]), 3)}
    return {
        "rows": dict(zip(("fit", "calibrate", "judge"), splits[0]["rows"], strict=True)),
        "splits": len(splits),
        "family": chosen,
        "peer_settings": settings,
        "expected_coverage": round(expected, 4),
        "standard_error_of_calibration": round(spread, 4),
        "standard_error_of_judging": round(by_chance, 4),
        "standard_error": round(error, 4),
        "ratio": round(methods["everymode"]["size"] / methods["peer"]["size"], 3),
        "ratio_standard_error": round(float(np.std(ratios, ddof=1) / len(splits) ** 0.5), 3),
        **(answers if name in WHOLE else {}),
        "seconds": [round(float(part), 1) for part in np.mean([s["seconds"] for s in splits], axis=0)],
        "methods": methods,
    }


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    CACHE.mkdir(parents=True, exist_ok=True)
    names = [name for name in SETS if name == "geyser" or (DATA / f"{name}.csv").exists()]
    absent = [name for name in SETS if name not in names]
    settings = {"level": LEVEL, "most_rows": MOST_ROWS, "draws": DRAWS, "absent": absent}
    write("conformal", {**settings, "sets": {name: measure(name) for name in names}})


if __name__ == "__main__":
    main()
