"""Held-out log-likelihood of our density families against zuko used directly: same data, same budget, one process.

Ours goes through `OneToManyRegressor`; the peer is zuko's own flow or mixture, with x as its context, in the plain loop
of zuko's README: Adam at 1e-3, no schedule, no average. Both see the same standardised rows in batches of the same
size, under the same budget, once in optimiser steps and once in seconds. Ours keeps a tenth of the rows to stop by, and
the peer does not train on that tenth either: it is shown as the README leaves it, with its last weights (`zuko`), and
with those that did best on that tenth (`zuko, best weights`), looked at as often as ours. The peer's hidden layers are
as wide as gives it the parameters that ours has.

Scores are mean log p(y | x) in nats a row, in the units of y, on rows that neither side saw, over all seeds. A
difference is ours less the peer's, row by row, with a bootstrap interval over the rows of all seeds: it tells what
other test rows would change, not what other seeds would.

Tables are read from EVERYMODE_DATA, by default the folder shared/data beside the checkout, and skipped where it is not.
Usage: python benchmarks/densities.py [--quick]
"""

from __future__ import annotations

import copy
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import pandas as pd
import torch
import zuko
from torch import Tensor, nn

import everymode as em
from everymode.families import Family, get_family, names
from everymode.metrics.intervals import bootstrap_interval
from everymode.randomness import seeded
from everymode.spaces import VectorSpace
from everymode.training import TrainingSettings
from peers import DATA, write

PROBLEMS = ("two_moons", "sine_fold", "grid")
TABLES = {"uci_concrete": "y"}  # the file, and its target
SEEDS = (0, 1, 2)
ROWS, TEST_ROWS = 2000, 2000
WIDTH, LAYERS = 64, 2
LOOKS = 200  # steps between two looks at the rows to stop by


@dataclass(frozen=True)
class Data:
    """Rows to train on and rows to judge on, and the true log-density of the latter where it is known."""

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    truth: np.ndarray | None


@dataclass(frozen=True)
class Budget:
    """What either side may spend: optimiser steps or seconds."""

    steps: int | None
    seconds: float | None


@dataclass(frozen=True)
class Pair:
    """A family of ours, and the zuko module of the same kind for (features, context, hidden layers, our family)."""

    ours: Family
    peer: Callable[[int, int, list[int], Family], nn.Module]


def pairs() -> dict[str, Pair]:
    """Return what is compared, by the name it is shown under; families that are not there are left out."""

    def flow(kind: Callable[..., nn.Module], **settings: int) -> Callable[[int, int, list[int], Family], nn.Module]:
        return lambda d, c, hidden, ours: kind(d, c, hidden_features=hidden, **settings)

    found = {
        "normalizing_flow (nsf)": Pair(em.NormalizingFlow(), flow(zuko.flows.NSF, transforms=2, bins=32)),
        "normalizing_flow (maf)": Pair(em.NormalizingFlow(kind="maf"), flow(zuko.flows.MAF, transforms=5)),
    }
    if "mdn" in names():
        found["mdn"] = Pair(
            get_family("mdn"),
            lambda d, c, hidden, ours: zuko.mixtures.GMM(
                d, c, components=ours.get_params()["components"], hidden_features=hidden
            ),
        )
    return found


# Data ----------------------------------------------------------------------------------------------------------------


def of_problem(name: str, seed: int) -> Data:
    problem = em.problems.get(name)
    x, y = problem.sample(ROWS, seed=seed)
    test_x, test_y = problem.sample(TEST_ROWS, seed=1000 + seed)
    return Data(x, y, test_x, test_y, problem.log_density(test_x, test_y[:, None])[:, 0])


def of_table(name: str, target: str, seed: int) -> Data:
    frame = pd.read_csv(DATA / f"{name}.csv")
    x, y = frame.drop(columns=target).to_numpy(float), frame[[target]].to_numpy(float)
    order = np.random.default_rng(seed).permutation(len(x))
    out, kept = np.split(order, [len(x) // 5])
    return Data(x[kept], y[kept], x[out], y[out], None)


# The two sides -------------------------------------------------------------------------------------------------------


def ours(pair: Pair, data: Data, budget: Budget, seed: int) -> tuple[em.OneToManyRegressor, np.ndarray]:
    """Return the fitted model and log p(y | x) of the test rows."""
    steps = budget.steps or 10**6  # more than the seconds allow: the schedule follows the time
    model = em.OneToManyRegressor(
        pair.ours, width=WIDTH, steps=steps, max_seconds=budget.seconds, random_state=seed, device="cpu"
    ).fit(data.x, data.y)
    return model, model.log_prob(data.test_x, data.test_y)


def peer(pair: Pair, data: Data, budget: Budget, seed: int, parameters: int) -> tuple[dict[str, np.ndarray], dict]:
    """Return log p(y | x) of the test rows, for its last and its best weights, and what it took."""
    x_space, y_space = VectorSpace.fit(data.x), VectorSpace.fit(data.y)
    x, y = x_space.encode(data.x), y_space.encode(data.y)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(x)))
    out, kept = order[: len(x) // 10], order[len(x) // 10 :]
    batch_size = TrainingSettings.for_rows(len(kept)).batch_size
    module = sized(pair, y.shape[1], x.shape[1], parameters, seed)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(seed)
    best, best_loss, step = {}, np.inf, 0
    started = time.perf_counter()
    batches: list[Tensor] = []
    over = False
    while not over:
        if not batches:
            batches = list(kept[torch.randperm(len(kept), generator=generator)].split(batch_size))
        rows = batches.pop()
        loss = -module(x[rows]).log_prob(y[rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        over = step >= (budget.steps or np.inf) or time.perf_counter() - started >= (budget.seconds or np.inf)
        if over or step % LOOKS == 0:
            with torch.inference_mode():
                held_out = -float(module(x[out]).log_prob(y[out]).mean())
            if held_out < best_loss:
                best, best_loss = copy.deepcopy(module.state_dict()), held_out
    cost = {"seconds": time.perf_counter() - started, "steps": step, "parameters": count(module)}

    def score() -> np.ndarray:
        with torch.inference_mode():
            found = module(x_space.encode(data.test_x)).log_prob(y_space.encode(data.test_y))
        return found.double().numpy() + y_space.log_jacobian

    scores = {"zuko": score()}
    module.load_state_dict(best)
    return {**scores, "zuko, best weights": score()}, cost


def sized(pair: Pair, features: int, context: int, parameters: int, seed: int) -> nn.Module:
    """Return the peer with two hidden layers, as wide as brings it nearest to so many parameters."""

    def made(width: int) -> nn.Module:
        with seeded(seed):
            return pair.peer(features, context, [width] * LAYERS, pair.ours)

    low, high = 4, 4096
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(made(middle)) <= parameters else (low, middle)
    return min((made(low), made(high)), key=lambda module: abs(count(module) - parameters))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# What is found -------------------------------------------------------------------------------------------------------


def measured(values: np.ndarray, digits: int = 4) -> dict[str, float | None]:
    """Return the mean of (rows,) with its 95 % interval."""
    low, high = bootstrap_interval(values, seed=0)
    found = {"mean": float(values.mean()), "low": low, "high": high}
    return {name: None if value is None else round(value, digits) for name, value in found.items()}


def compared(pair: Pair, load: Callable[[int], Data], budget: Budget) -> dict:
    """Return the scores of both sides over all seeds, their differences and their costs."""
    scores: dict[str, list[np.ndarray]] = {}
    costs: dict[str, list[Mapping[str, float]]] = {"everymode": [], "zuko": []}
    truths: list[np.ndarray] = []
    for seed in SEEDS:
        data = load(seed)
        model, mine = ours(pair, data, budget, seed)
        its, cost = peer(pair, data, budget, seed, model.n_parameters_)
        for name, values in {"everymode": mine, **its}.items():
            scores.setdefault(name, []).append(values)
        own = {"seconds": model.fit_seconds_, "steps": model.n_steps_, "parameters": model.n_parameters_}
        costs["everymode"].append(own)
        costs["zuko"].append(cost)
        truths += [] if data.truth is None else [data.truth]
    pooled = {name: np.concatenate(values) for name, values in scores.items()}
    differences = {name: pooled["everymode"] - values for name, values in pooled.items() if name != "everymode"}
    return {
        "log_likelihood": {name: measured(values) for name, values in pooled.items()},
        "truth": round(float(np.concatenate(truths).mean()), 4) if truths else None,
        "ours_less": {name: measured(values) for name, values in differences.items()},
        "by_seed": {name: [round(float(v.mean()), 4) for v in values] for name, values in scores.items()},
        "cost": {
            side: {key: round(float(np.mean([c[key] for c in cost])), 2) for key in ("seconds", "steps", "parameters")}
            for side, cost in costs.items()
        },
    }


def main() -> None:
    warnings.simplefilter("ignore")  # the peer's
    torch.set_num_threads(1)
    quick = "--quick" in sys.argv
    budgets = {
        "steps": Budget(steps=100 if quick else 600, seconds=None),
        "seconds": Budget(steps=None, seconds=1.0 if quick else 4.0),
    }
    loads: dict[str, Callable[[int], Data]] = {
        name: lambda seed, name=name: of_problem(name, seed) for name in PROBLEMS
    }
    skipped = {}
    for name, target in TABLES.items():
        if (DATA / f"{name}.csv").is_file():
            loads[name] = lambda seed, name=name, target=target: of_table(name, target, seed)
        else:
            skipped[name] = "its file is not in the folder of real data sets: set EVERYMODE_DATA"
    rows = []
    for name, pair in pairs().items():
        for data, load in loads.items():
            for kind, budget in budgets.items():
                rows.append({"family": name, "data": data, "same": kind, **compared(pair, load, budget)})
                print(rows[-1], file=sys.stderr)
    shared = {"seeds": SEEDS, "threads": 1, "zuko": version("zuko"), "skipped": skipped}
    write("densities_quick" if quick else "densities", {**shared, "rows": rows})


if __name__ == "__main__":
    main()
