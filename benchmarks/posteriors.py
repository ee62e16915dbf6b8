"""Simulation-based inference: posteriors by everymode and by sbi's NPE and FMPE, against reference posteriors.

Three tasks of Lueckmann et al., with simulators written from the paper's formulas. Every method learns from the same
simulations, on one thread, and draws from the posteriors of ten observations. The draws are compared with those of the
reference by two C2STs of five folds, on 2,000 draws a side, in standard deviations of the reference: a multilayer
perceptron with two layers of ten units a parameter, as the paper has it but for 100 epochs at most, and a random forest
of 100 trees. .5 is perfect.

Ours is one recipe for all tasks: members of one family, which differ in seed and in the rows they hold out, and share
the draws. What it is told of a task besides the simulations is the box of the prior: it learns each parameter where
the prior is standard normal, and there draws cannot leave the box. sbi rejects those that do. The peers have their
defaults. Seconds are of the process, so that a busy machine does not count, and of one thread.

`slcp` is its eight numbers. `slcp_points` says besides, to every method, that they are four points in the plane which
stand in no order: ours has `exchangeable=True`, and the peers have sbi's own network for that, with its defaults.
`slcp_summaries` tells every method the means, the logarithms of the spreads and the correlation of the four: what a
scientist who knows that the points are draws of one normal would do. The other tasks tell nothing of the kind.

Family, times and weight decay were chosen by the log-density of fresh simulations of another seed; the sampler and its
steps by the forest on three observations of `two_moons`, which is therefore not quite blind; the number of members by
the time that was left. So was the encoder of points: of those tried it had the greatest log-density.

`floor` is the C2ST of two parts of the reference, and `check` that of the reference and exact draws: by rejection with
the likelihood of our simulators, which shows that both mean the same.

The peer needs an environment of its own, and everymode goes into it:

    python -m venv peers && peers/bin/pip install -e . "sbi==0.27.*"
    OMP_NUM_THREADS=1 peers/bin/python benchmarks/posteriors.py

The data are in the folder EVERYMODE_DATA, by default `shared/data` beside the checkout. What is done is kept in
`runs/posteriors` and not done again; `--tasks`, `--simulations` and `--methods` choose what to do, and the result holds
all that is there. A table (one task at one number of simulations) of which nothing is there is carried over from the
result of the same seed, and keeps its date. After a change of the recipe, remove what it made. `--judge 0` leaves the
C2STs to a later call, and `--check 0` the check of the simulators.

References:
    Benchmarking simulation-based inference (Lueckmann et al., 2021), https://arxiv.org/abs/2101.04653
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import cdist
from scipy.special import logsumexp, ndtr, ndtri
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neural_network import MLPClassifier

import everymode as em
from everymode.metrics import bootstrap_interval
from peers import DATA, earlier, kept, write

MEMBERS = 12
RECIPE: dict[str, Any] = {
    "family": em.FlowMatching(time_sampling="edm", solver="dpm_solver_2m", steps=16),
    "weight_decay": 0.1,
}
CLASSIFIERS = ("mlp", "forest")
POINTS = 2000  # draws a side of a C2ST
EPOCHS = 100  # of the perceptron, at most
TIMED = 10_000  # draws of the timing
CHECKED = 3  # observations whose exact posterior is drawn from
PROPOSALS, CENTRES, BLUR = 100_000, 500, 0.1  # of those draws; the blur is in standard deviations of the reference
CACHE = Path(__file__).parents[1] / "runs" / "posteriors"
Draw = Callable[[np.ndarray, int], np.ndarray]  # (observation (dx,), n) -> (n, d)


# The tasks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """A simulator and its likelihood; the prior is uniform on [-bound, bound]^size.

    Attributes:
        simulate: (theta (n, size), generator) -> x (n, dx).
        log_likelihood: (x (dx,), theta (n, size)) -> (n,), up to a constant.
        told: x (n, dx) -> what the methods see of it.
    """

    size: int
    bound: float
    simulate: Callable[[np.ndarray, np.random.Generator], np.ndarray]
    log_likelihood: Callable[[np.ndarray, np.ndarray], np.ndarray]
    told: Callable[[np.ndarray], np.ndarray] = np.asarray

    def simulations(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (theta, x) of n draws from the prior."""
        rng = np.random.default_rng(seed)
        theta = rng.uniform(-self.bound, self.bound, (n, self.size))
        return theta, self.simulate(theta, rng)

    def to_normal(self, theta: np.ndarray) -> np.ndarray:
        """Return parameters as quantiles of the standard normal that the prior then is."""
        return ndtri(np.clip((theta / self.bound + 1) / 2, 1e-7, 1 - 1e-7))

    def from_normal(self, z: np.ndarray) -> np.ndarray:
        return self.bound * (2 * ndtr(z) - 1)

    def log_slope(self, z: np.ndarray) -> np.ndarray:
        """Return log |d theta / d z|, (n,)."""
        return (np.log(2 * self.bound) - (z**2 + np.log(2 * np.pi)) / 2).sum(axis=1)


def moons_at(theta: np.ndarray) -> np.ndarray:
    """Return where the crescent of each theta is, (n, 2)."""
    return np.stack([-np.abs(theta[:, 0] + theta[:, 1]), theta[:, 1] - theta[:, 0]], axis=1) / np.sqrt(2)


def simulate_moons(theta: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(-np.pi / 2, np.pi / 2, len(theta))
    radius = rng.normal(0.1, 0.01, len(theta))
    return moons_at(theta) + np.stack([radius * np.cos(angle) + 0.25, radius * np.sin(angle)], axis=1)


def moons_likelihood(x: np.ndarray, theta: np.ndarray) -> np.ndarray:
    across, along = (x - moons_at(theta) - [0.25, 0.0]).T
    radius = np.hypot(across, along)  # its density is in polar coordinates; the angle is uniform on one side
    return np.where(across > 0, -0.5 * ((radius - 0.1) / 0.01) ** 2 - np.log(radius), -np.inf)


def simulate_mixture(theta: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    wide = rng.random((len(theta), 1)) < 0.5
    return theta + np.where(wide, 1.0, 0.1) * rng.normal(size=theta.shape)


def mixture_likelihood(x: np.ndarray, theta: np.ndarray) -> np.ndarray:
    squares = ((x - theta) ** 2).sum(axis=1)
    return np.logaddexp(-squares / 2, -squares / (2 * 0.1**2) - 2 * np.log(0.1))


def simulate_slcp(theta: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    scales, correlation = theta[:, None, 2:4] ** 2, np.tanh(theta[:, 4])[:, None]
    one, other = np.moveaxis(rng.normal(size=(len(theta), 4, 2)), 2, 0)
    noise = np.stack([one, correlation * one + np.sqrt(1 - correlation**2) * other], axis=2)
    return (theta[:, None, :2] + scales * noise).reshape(len(theta), 8)


def slcp_likelihood(x: np.ndarray, theta: np.ndarray) -> np.ndarray:
    scales, correlation = theta[:, 2:4] ** 2, np.tanh(theta[:, 4])
    one, other = np.moveaxis((x.reshape(4, 2) - theta[:, None, :2]) / scales[:, None], 2, 0)  # (n, 4) each
    left = 1 - correlation**2
    squares = (one**2 + other**2 - 2 * correlation[:, None] * one * other).sum(axis=1) / left
    return -0.5 * squares - 4 * (np.log(scales).sum(axis=1) + 0.5 * np.log(left))


def summaries(x: np.ndarray) -> np.ndarray:
    """Return the means, the log spreads and Fisher's z of the correlation of the four points of slcp, (n, 5)."""
    points = x.reshape(-1, 4, 2)
    mean, spread = points.mean(axis=1), points.std(axis=1)
    correlation = ((points - mean[:, None]) / spread[:, None]).prod(axis=2).mean(axis=1)
    return np.column_stack([mean, np.log(spread), np.arctanh(np.clip(correlation, -1 + 1e-6, 1 - 1e-6))])


def as_points(x: np.ndarray) -> np.ndarray:
    return x.reshape(-1, 4, 2)


TASKS = {
    "two_moons": Task(2, 1.0, simulate_moons, moons_likelihood),
    "gaussian_mixture": Task(2, 10.0, simulate_mixture, mixture_likelihood),
    "slcp": Task(5, 3.0, simulate_slcp, slcp_likelihood),
    "slcp_points": Task(5, 3.0, simulate_slcp, slcp_likelihood, as_points),
    "slcp_summaries": Task(5, 3.0, simulate_slcp, slcp_likelihood, summaries),
}


def exact(task: Task, x: np.ndarray, reference: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return up to n exact draws: by rejection from a mixture of the prior, 1 in 5, and a blurred reference."""
    width = BLUR * reference.std(axis=0)
    centres = reference[rng.permutation(len(reference))[:CENTRES]]
    theta = centres[rng.integers(CENTRES, size=PROPOSALS)] + width * rng.normal(size=(PROPOSALS, task.size))
    from_prior = rng.random(PROPOSALS) < 0.2
    theta[from_prior] = rng.uniform(-task.bound, task.bound, (from_prior.sum(), task.size))
    theta = theta[(np.abs(theta) < task.bound).all(axis=1)]
    volume = np.log(CENTRES) + np.log(width * np.sqrt(2 * np.pi)).sum()
    blurred = [
        logsumexp(-0.5 * cdist(part / width, centres / width, "sqeuclidean"), axis=1) - volume
        for part in np.array_split(theta, 10)
    ]
    prior = np.log(0.2) - task.size * np.log(2 * task.bound)
    weights = task.log_likelihood(x, theta) - np.logaddexp(np.log(0.8) + np.concatenate(blurred), prior)
    most = np.quantile(weights, 0.9995)  # a bound, but for the rarest
    return theta[np.log(rng.random(len(theta))) < weights - most][:n]


# The methods ---------------------------------------------------------------------------------------------------------


def member(task: Task, theta: np.ndarray, x: np.ndarray, seed: int, stem: Path) -> tuple[em.OneToManyRegressor, float]:
    """Return one of ours and the seconds of its fit; it is kept, so that a run that was cut short goes on."""
    file = stem.with_name(f"{stem.name}_member_{seed}.safetensors")

    def fit() -> dict[str, float]:
        start = time.process_time()
        model = em.OneToManyRegressor(**RECIPE, exchangeable=x.ndim == 3, random_state=seed)
        model.fit(x, task.to_normal(theta)).save(file)
        return {"seconds": time.process_time() - start}

    seconds = kept(file.with_suffix(".json"), fit)["seconds"]
    return em.load(file), seconds


def ours(task: Task, theta: np.ndarray, x: np.ndarray, seed: int, stem: Path) -> tuple[Draw, dict[str, Any]]:
    """Return a function that draws, and what there is to tell of the fit."""
    members, seconds = zip(*(member(task, theta, x, seed + k, stem) for k in range(MEMBERS)), strict=True)

    def draw(x: np.ndarray, n: int) -> np.ndarray:
        shares = [(n + k) // MEMBERS for k in range(MEMBERS)]
        drawn = [member.sample(x[None], share)[0] for member, share in zip(members, shares, strict=True)]
        return task.from_normal(np.concatenate(drawn))

    told = {"members": MEMBERS, "parameters": sum(m.n_parameters_ for m in members)}
    return draw, {**told, "fit_seconds": round(sum(seconds), 1)}


def peer(name: str, network: str, builder: str, kind: str) -> Callable[..., tuple[Draw, dict[str, Any]]]:
    """Return the fit of a method of sbi, with its defaults.

    Args:
        name: of the method.
        network: what the method calls its network.
        builder: of a network that is told of points.
        kind: of network that the method builds by default.
    """

    def fit(task: Task, theta: np.ndarray, x: np.ndarray, seed: int, _: Path) -> tuple[Draw, dict[str, Any]]:
        from sbi import inference, neural_nets  # pyright: ignore[reportMissingImports]
        from sbi.neural_nets import embedding_nets  # pyright: ignore[reportMissingImports]
        from sbi.utils import BoxUniform  # pyright: ignore[reportMissingImports]

        start = time.process_time()
        torch.manual_seed(seed)
        bound = task.bound * torch.ones(task.size)
        told: dict[str, Any] = {}
        if x.ndim == 3:
            point = embedding_nets.FCEmbedding(x.shape[2])
            points = embedding_nets.PermutationInvariantEmbedding(point, trial_net_output_dim=20)
            told = {network: getattr(neural_nets, builder)(kind, embedding_net=points)}
        method = getattr(inference, name)(prior=BoxUniform(-bound, bound), show_progress_bars=False, **told)
        method.append_simulations(torch.from_numpy(theta).float(), torch.from_numpy(x).float())
        estimator = method.train()
        posterior = method.build_posterior(estimator)

        def draw(x: np.ndarray, n: int) -> np.ndarray:
            asked = torch.from_numpy(x).float()[None]
            return posterior.sample((n,), x=asked, show_progress_bars=False).numpy()

        parameters = sum(p.numel() for p in estimator.parameters())
        return draw, {"parameters": parameters, "fit_seconds": round(time.process_time() - start, 1)}

    return fit


METHODS: dict[str, Callable[..., tuple[Draw, dict[str, Any]]]] = {
    "everymode": ours,
    "npe": peer("NPE", "density_estimator", "posterior_nn", "maf"),
    "fmpe": peer("FMPE", "vf_estimator", "posterior_flow_nn", "mlp"),
}


# Judging -------------------------------------------------------------------------------------------------------------


def c2st(draws: np.ndarray, reference: np.ndarray, classifier: str) -> float:
    """Return the accuracy of telling draws (n, d) from as many of the reference, averaged over five folds."""
    points = min(POINTS, len(draws), len(reference))
    draws, reference = draws[:points], reference[:points]
    features = (np.concatenate([draws, reference]) - reference.mean(axis=0)) / reference.std(axis=0)
    units = 10 * features.shape[1]
    judge = (
        MLPClassifier((units, units), max_iter=EPOCHS, random_state=1)
        if classifier == "mlp"
        else RandomForestClassifier(100, random_state=1)
    )
    folds = KFold(5, shuffle=True, random_state=1)
    return float(cross_val_score(judge, features, np.repeat([0, 1], points), cv=folds).mean())


def both(draws: np.ndarray, reference: np.ndarray) -> dict[str, list[float]]:
    """Return both C2STs of each observation; draws and reference are (observations, n, d)."""
    order = np.random.default_rng(1).permutation(draws.shape[1])  # the members' draws stand one after another
    return {
        kind: [round(c2st(one[order], other, kind), 4) for one, other in zip(draws, reference, strict=True)]
        for kind in CLASSIFIERS
    }


def drawn(task: Task, fit: Callable, observations: np.ndarray, n: int, seed: int, stem: Path) -> dict[str, Any]:
    """Fit and draw, keep the draws beside `stem`, and return what it took."""
    observations = task.told(observations)
    theta, x = task.simulations(n, seed)
    draw, told = fit(task, theta, task.told(x), seed, stem)
    draw(observations[0], 100)
    draws = np.stack([draw(x, POINTS) for x in observations])
    start = time.process_time()
    draw(observations[0], TIMED)
    seconds = round(time.process_time() - start, 3)
    np.savez_compressed(stem.with_suffix(".npz"), draws=draws.astype(np.float32))
    return {**told, "draw_seconds": seconds}


def checked(task: Task, data: Any) -> dict[str, Any]:
    """Return the C2STs of the reference with itself, and with exact draws under our likelihood."""
    reference, half, rng = data["reference_posterior"], POINTS, np.random.default_rng(0)
    found = [
        exact(task, x, draws, half, rng)
        for x, draws in zip(data["observation"][:CHECKED], reference[:CHECKED], strict=True)
    ]
    least = min(map(len, found))
    return {
        "floor": both(reference[:CHECKED, half:], reference[:CHECKED, :half]),
        "check": both(np.stack([draws[:least] for draws in found]), reference[:CHECKED, :least]),
        "check_draws": least,
    }


# What is found -------------------------------------------------------------------------------------------------------


def summed(values: list[float]) -> dict[str, Any]:
    error = np.std(values, ddof=1) / len(values) ** 0.5
    return {"mean": round(float(np.mean(values)), 4), "standard_error": round(float(error), 4), "each": values}


def compared(cells: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what is known of each method at one task and size, and ours less the peers' C2STs."""
    scores = {name: cell.pop("c2st") for name, cell in cells.items()}
    mine = scores.get("everymode", {})
    for name, cell in cells.items():
        for kind, values in scores[name].items():
            cell[f"c2st_{kind}"] = summed(values)
            if name != "everymode" and kind in mine:
                less = np.subtract(mine[kind], values)
                low, high = bootstrap_interval(less, seed=0)
                ends = {"mean": less.mean(), "low": low, "high": high}
                cell[f"ours_less_{kind}"] = {end: round(float(value), 4) for end, value in ends.items()}
        if name != "everymode" and "everymode" in cells:
            cell["draw_seconds_to_ours"] = round(cell["draw_seconds"] / cells["everymode"]["draw_seconds"], 1)
    return cells


def carried(seed: int) -> dict[str, Any]:
    """Return the tasks of the result that is there, if it is of this seed; each table with its date."""
    older = earlier("posteriors")
    found: dict[str, Any] = {name: {} for name in TASKS} | (older["tasks"] if older.get("seed") == seed else {})
    for key, table in ((key, table) for task in found.values() for key, table in task.items()):
        if key.endswith("_simulations"):
            table.setdefault("date", older["date"])
    return found


def gathered(seed: int) -> dict[str, Any]:
    """Return all that `runs/posteriors` holds, and what an older result of this seed holds beyond it."""
    tasks = carried(seed)
    for name in TASKS:
        check = CACHE / f"{name}_check.json"
        if check.exists():
            tasks[name] |= json.loads(check.read_text())
        for n in sorted({int(file.stem.split("_")[-3]) for file in CACHE.glob(f"{name}_[0-9]*_{seed}.npz")}):
            cells, days = {}, []
            for method in METHODS:
                stem = CACHE / f"{name}_{n}_{method}_{seed}"
                if (told := stem.with_suffix(".fit.json")).exists():
                    cells[method] = json.loads(told.read_text())
                    judged = stem.with_suffix(".c2st.json")
                    cells[method]["c2st"] = json.loads(judged.read_text()) if judged.exists() else {}
                    days.append(datetime.fromtimestamp(told.stat().st_mtime, UTC).date().isoformat())
            tasks[name][f"{n}_simulations"] = {"date": max(days, default=None), **compared(cells)}
    return {
        "recipe": {key: str(value) for key, value in RECIPE.items()},
        "members": MEMBERS,
        "points": POINTS,
        "perceptron_epochs": EPOCHS,
        "timed_draws": TIMED,
        "versions": {name: version(name) for name in ("sbi", "scikit-learn", "numpy")},
        "tasks": tasks,
    }


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Posteriors by everymode and by sbi.")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--simulations", nargs="+", type=int, default=[1000, 10_000])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--judge", type=int, default=1, help="0: leave out the C2STs")
    parser.add_argument("--check", type=int, default=1, help="0: leave out the check of the simulators")
    return parser.parse_args()


def main() -> None:
    asked = options()
    files = {name: DATA / f"sbi_{name.removesuffix('_summaries').removesuffix('_points')}.npz" for name in TASKS}
    absent = sorted({file.name for file in files.values() if not file.exists()})
    if absent:
        print(f"skipped: no {', '.join(absent)} in {DATA.name}; set EVERYMODE_DATA to the folder of the data.")
        return
    if find_spec("sbi") is None:
        print('skipped: there is no sbi to compare with; pip install "sbi==0.27.*".')
        return
    warnings.simplefilter("ignore")  # the peers'
    torch.set_num_threads(1)
    CACHE.mkdir(parents=True, exist_ok=True)
    data = {name: dict(np.load(file)) for name, file in files.items()}
    for name, n, method in product(asked.tasks, asked.simulations, asked.methods):
        stem = CACHE / f"{name}_{n}_{method}_{asked.seed}"
        observations = data[name]["observation"]
        kept(
            stem.with_suffix(".fit.json"),
            lambda t=TASKS[name], m=METHODS[method], x=observations, n=n, s=stem: drawn(t, m, x, n, asked.seed, s),
        )
        if asked.judge:
            kept(
                stem.with_suffix(".c2st.json"),
                lambda s=stem, name=name: both(
                    np.load(s.with_suffix(".npz"))["draws"], data[name]["reference_posterior"]
                ),
            )
    if asked.check:
        for name in asked.tasks:
            kept(CACHE / f"{name}_check.json", lambda t=TASKS[name], d=data[name]: checked(t, d))
    write("posteriors", {"seed": asked.seed, "threads": 1, **gathered(asked.seed)})


if __name__ == "__main__":
    main()
