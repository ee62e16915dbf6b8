"""Flow matching and score matching with boosted trees in the place of the network: the method for small tables.

First a location: m(x), a regression whose answer for a training row comes from trees that have not seen that row
(cross-fitting), so that the residuals are as large as on new rows. It is the blend of boosted and of extremely
randomised trees whose unseen answers have the least squared error, and s is the deviation of what it leaves. Then

    z = (y - m(x)) / s,    z_t = alpha(t) z + sigma(t) noise,

and for each output boosted trees learn what the best linear guess of the velocity of z_t leaves, in units of its
deviation (see `flow_matching`), from z_t, t, x, m(x) and the best linear guess of y itself, m(x) + s alpha z_t /
(alpha^2 + sigma^2): where y keeps to a lattice or to bounds, that last one tells. Without any tree the flow is that of
the normal N(m(x), s^2), so trees need to learn only in what p(y | x) is not that normal, and few of them do. Each row
comes `repeats` times, with noise and times of its own. Several members, each stopped early on rows of its own, answer
by their average.

    flow    linear path, uniform times and weights; a draw follows the ODE by the midpoint rule
    score   cosine path; errors are those of the noise, that is, of the score times -sigma: the weight is alpha^2 on the
            same remainder; a draw follows the reverse SDE by ancestral steps

In both the noise that a draw starts from is N(m(x), s^2), not N(0, 1). All rows that are given, the held-out ones too,
are used in the cross-fitting: each is judged by trees that have not seen it.

References:
    Generating and imputing tabular data via diffusion and flow-based gradient-boosted trees (Jolicoeur-Martineau et
        al., 2024), https://arxiv.org/abs/2309.09968: ForestFlow and ForestDiffusion
    Treeffuser: probabilistic predictions via conditional diffusions with gradient-boosted trees (Beltran-Velez et al.,
        2024), https://arxiv.org/abs/2406.07658: one model for all times, noise repeated, early stopping
    CARD: classification and regression diffusion models (Han et al., 2022), https://arxiv.org/abs/2206.07275: a
        diffusion that starts from a regression
    Double/debiased machine learning (Chernozhukov et al., 2018), https://arxiv.org/abs/1608.00060: cross-fitting

Fails: on many outputs that hang together finely, since a tree asks for one of them at a time; on answers much narrower
than the gaps between them (many modes on a grid, curves in the plane), since trees are step functions; a flow's draws
are somewhat too wide where p(y | x) is much narrower than elsewhere, a score's less so.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from everymode.errors import SettingError, check_bool, check_choice, check_number
from everymode.families.base import Abilities, Family, Part, times_like
from everymode.families.boosting import Boosted, Forest, boost, grow, lightgbm, pack, unpack
from everymode.families.flat import flat_condition
from everymode.networks import Sizes
from everymode.paths import Path, get_path
from everymode.randomness import Source, mix, new_generator, normal, uniform
from everymode.solvers import get_sampler, integrate, last, time_grid
from everymode.spaces import ArraySpace, Condition, Space

__all__ = ["Trees"]

OBJECTIVES = ("flow", "score")
_PATHS = {"flow": "linear", "score": "cosine"}
_STEPS = {"flow": 10, "score": 40}
_FOLDS = 5  # of the location
_LEFT_OUT = 0.1  # of the rows, by each member
_FOREST = 12  # trees a fold
_FIT_ROWS = 150_000  # rows x repeats, about
_LOCATION, _NOISE, _MEMBERS = range(3)  # streams of randomness


class Trees(Family):
    """Flow matching and score matching with LightGBM.

    Args:
        objective: 'score' (the better of the two on most problems) or 'flow' (half the evaluations, and an ODE).
        center: whether a regression comes first; without it the flow starts from N(0, 1), as in the papers.
        repeats: noisy copies of each row; 10 to 16 and, from 9,000 rows on, down to 2, by the number of rows, if None.
        leaves: of a tree; 31 to 127, by the number of rows, if None.
        learning_rate: of the boosting.
        max_trees: of a member, at most.
        patience: trees without improvement on the rows left out after which a member is complete.
        members: ensembles that are averaged, 1 to 10.
        steps: of the solver; 10 midpoint steps of a flow, 40 ancestral ones of a score, if None.
    """

    name: ClassVar[str] = "trees"
    abilities: ClassVar[Abilities] = Abilities(
        spaces=("vector",),
        gradient=False,
        own_network=False,
        networks=(),
        velocity=True,
        trajectory=True,
        why_not="Trees split one value at a time: take flow_matching or diffusion.",
    )
    sized_by_data: ClassVar[tuple[str, ...]] = (
        "shift_models",
        "shift_lengths",
        "models",
        "lengths",
        "forest_features",
        "forest_thresholds",
        "forest_children",
        "forest_values",
    )

    shift_models: Tensor  # uint8: the boosted trees of the location, as LightGBM writes them, compressed
    shift_lengths: Tensor  # (d, folds)
    models: Tensor  # uint8: those of the velocity
    lengths: Tensor  # (d, members)
    forest_features: Tensor
    forest_thresholds: Tensor
    forest_children: Tensor
    forest_values: Tensor
    blend: Tensor  # (2, d): weights of the boosted and of the randomised trees in the location
    spread: Tensor  # (d,): deviation of what the location leaves

    def __init__(
        self,
        *,
        objective: str = "score",
        center: bool = True,
        repeats: int | None = None,
        leaves: int | None = None,
        learning_rate: float = 0.1,
        max_trees: int = 1000,
        patience: int = 20,
        members: int = 3,
        steps: int | None = None,
    ) -> None:
        super().__init__()
        self.objective = check_choice("objective", objective, OBJECTIVES)
        self.center = check_bool("center", center)
        self.repeats = check_number("repeats", repeats, 1, 10_000, integer=True, optional=True)
        self.leaves = check_number("leaves", leaves, 2, 100_000, integer=True, optional=True)
        self.learning_rate = check_number("learning_rate", learning_rate, 0, 1, exclusive_low=True)
        self.max_trees = check_number("max_trees", max_trees, 1, 100_000, integer=True)
        self.patience = check_number("patience", patience, 1, 100_000, integer=True)
        self.members = check_number("members", members, 1, 10, integer=True)
        self.steps = check_number("steps", steps, 1, 100_000, integer=True, optional=True)

    def assemble(self, y_space: ArraySpace, x_space: Space, sizes: Sizes) -> None:
        """Make room for the trees; there is no network, and `sizes` mean nothing."""
        lightgbm()  # its absence is told now
        d = y_space.size
        self.register_buffer("blend", torch.zeros(2, d))
        self.register_buffer("spread", torch.ones(d))
        for name in ("shift_models", "shift_lengths", "models", "lengths"):
            self.register_buffer(name, torch.zeros(0, 0, dtype=torch.int64))
        for name in ("features", "thresholds", "children", "values"):
            self.register_buffer(f"forest_{name}", torch.zeros(0, 0))
        self._ready: dict[str, tuple[Tensor, list[Boosted]]] = {}

    @property
    def parameter_count(self) -> int:
        """Number of leaves and of splits of all trees."""
        boosted = sum(model.size for name in ("shift_", "") for model in self._boosted(name))
        return boosted + int((self.forest_children.sum(dim=-1) > 0).sum()) * 2

    @property
    def _path(self) -> Path:
        return get_path(_PATHS[self.objective])

    @property
    def _steps(self) -> int:
        return _STEPS[self.objective] if self.steps is None else self.steps

    @property
    def nfe(self) -> int:
        """Evaluations of the trees for one draw."""
        return self._steps * (2 if self.objective == "flow" else 1)

    def _boosted(self, name: str) -> list[Boosted]:
        """Return the boosted trees of '' (the velocity) or 'shift_' (the location), one an output."""
        joined = getattr(self, f"{name}models")
        kept = self._ready.get(name)
        if kept is None or kept[0] is not joined:
            kept = self._ready[name] = joined, unpack(joined, getattr(self, f"{name}lengths"))
        return kept[1]

    def _hold(self, name: str, models: list[Boosted]) -> None:
        for part, value in zip(("models", "lengths"), pack(models), strict=True):
            setattr(self, f"{name}{part}", value.to(self.spread.device))
        self._ready[name] = getattr(self, f"{name}models"), models

    def parts(self) -> list[Part]:
        """Return nothing: it is fitted by `solve`."""
        return []

    # Fitting -------------------------------------------------------------------------------------------------------

    def solve(
        self, y: Tensor, x: Condition, *, held_out: tuple[Tensor, Condition] | None, seed: int, seconds: float | None
    ) -> Iterator[tuple[float, float, float | None]]:
        """Fit the location, then the trees of each output.

        Yields (share done, squared error of the scaled velocity on rows that were seen, the same on rows that were
        not, or None where `held_out` is).
        """
        begun = time.perf_counter()
        until = math.inf if seconds is None else begun + 0.9 * seconds
        flat, coded = self._flat(x)
        if held_out is not None:
            y, flat = torch.cat([y, held_out[0]]), torch.cat([flat, self._flat(held_out[1])[0]])
        rows, d = y.shape
        middle = begun + 0.5 * (until - begun)
        location = self._fit_location(y, flat, coded, seed, middle) if self.center and flat.shape[1] else 0 * y
        repeats = min(10 if rows < 1000 else 16, max(2, _FIT_ROWS // rows)) if self.repeats is None else self.repeats
        generator = new_generator(mix(seed, _NOISE))
        z = ((y - location) / self.spread).cpu().repeat(repeats, 1)
        steps = torch.arange(repeats).repeat_interleave(rows)  # each row's times are one a stratum
        t = (steps + uniform((len(z),), generator, like=z)) / repeats
        z_t, velocity = self._path.interpolate(z, normal(tuple(z.shape), generator, like=z), t)
        _, skip, scale = self._path.preconditioning(t, z_t)
        wanted = ((velocity - skip * z_t) / scale).numpy()
        embedding = {"x": flat.cpu().repeat(repeats, 1), "location": location.cpu().repeat(repeats, 1)}
        features = self._features(z_t, t, embedding)
        weight = None if self.objective == "flow" else self._path.alpha(t).square().numpy()
        folds = np.tile(_folds(rows, round(1 / _LEFT_OUT), mix(seed, _MEMBERS)), repeats)
        used = 1 if folds.max() == 0 else min(self.members, int(folds.max()) + 1)
        unseen = folds < used
        some = np.flatnonzero(folds >= used)[:4096] if folds.max() else np.arange(min(4096, len(folds)))
        models, errors = [Boosted((), ())] * d, np.ones((2, d))
        for output in range(d):
            target = wanted[:, output]
            models[output], answers = boost(
                features,
                target,
                folds,
                used=used,
                settings=self._tree_settings(rows),
                rounds=self.max_trees,
                patience=self.patience,
                categorical=[3 * d + 1 + column for column in coded],
                weight=weight,
                until=middle + (output + 1) / d * (until - middle) if until < math.inf else until,
            )
            errors[0, output] = np.mean((models[output].predict(features[some]) - target[some]) ** 2)
            errors[1, output] = np.mean((answers[unseen] - target[unseen]) ** 2)
            self._hold("", [Boosted(m.texts, m.boosters) for m in models[: output + 1]])
            held_out_loss = None if held_out is None else float(errors[1].mean())
            yield (output + 1) / d, float(errors[0].mean()), held_out_loss

    def _tree_settings(self, rows: int) -> dict[str, Any]:
        leaves = (31 if rows < 1000 else 63 if rows < 5000 else 127) if self.leaves is None else self.leaves
        return {
            "learning_rate": self.learning_rate,
            "num_leaves": leaves,
            "min_data_in_leaf": 20,
            "max_bin": 127,
            "bin_construct_sample_cnt": 50_000,
        }

    def _fit_location(self, y: Tensor, flat: Tensor, coded: list[int], seed: int, until: float) -> Tensor:
        """Fit and hold the location and the spread; return the location of each row by trees that have not seen it."""
        rows, d = y.shape
        folds = _folds(rows, _FOLDS, mix(seed, _LOCATION))
        if folds.max() == 0:
            return 0 * y
        target, x = y.cpu().double().numpy(), flat.cpu().numpy()
        small = rows < 1000
        settings = {
            "learning_rate": 0.3 if small else 0.2 if rows < 5000 else 0.1,
            "num_leaves": 8 if small else 31 if rows < 5000 else 63,
            "min_data_in_leaf": 5 if small else 2 if rows < 5000 else 5,
            "min_data_per_group": 5,
            "cat_smooth": 1.0,
        }
        forest, randomised = grow(
            x, target, folds, trees=_FOREST, least=max(1, rows // 1000), seed=mix(seed, _LOCATION)
        )
        for name in ("features", "thresholds", "children", "values"):
            setattr(self, f"forest_{name}", getattr(forest, name).to(self.spread.device))
        models, unseen = [], np.empty_like(target)
        for output in range(d):
            found, boosted = boost(
                x,
                target[:, output],
                folds,
                used=int(folds.max()) + 1,
                settings=settings,
                rounds=self.max_trees,
                patience=self.patience // 2 + 1,
                categorical=coded,
                until=until,
            )
            models.append(found)
            both = np.stack([boosted, randomised[:, output]], axis=1)
            weights, _ = nnls(both, target[:, output])
            unseen[:, output] = both @ weights
            self.blend[:, output] = torch.from_numpy(weights)
        self._hold("shift_", models)
        self.spread.copy_(torch.from_numpy((target - unseen).std(axis=0)).clamp_min(1e-6))
        return torch.from_numpy(unseen).to(y)

    # Answers -------------------------------------------------------------------------------------------------------

    def _flat(self, x: Condition) -> tuple[Tensor, list[int]]:
        """Return x as (rows, columns), and which columns are codes."""
        if self.x_space is None:
            raise SettingError("Trees holds settings only; build(y_space, x_space) makes room for trees.")
        return flat_condition(x, self.x_space, indicators=False)

    def encode(self, x: Condition) -> dict[str, Tensor]:
        """Return 'x' (batch, columns), codes as numbers, and 'location' m(x) (batch, d)."""
        flat, _ = self._flat(x)
        location = self.spread.new_zeros(len(flat), *self.event)
        if self.shift_lengths.numel():
            features = flat.cpu().numpy()
            boosted = np.stack([model.predict(features) for model in self._boosted("shift_")], axis=1)
            forest = Forest(self.forest_features, self.forest_thresholds, self.forest_children, self.forest_values)
            location = self.blend[0] * torch.from_numpy(boosted).to(location) + self.blend[1] * forest.predict(flat)
        return {"x": flat, "location": location}

    def _features(self, z_t: Tensor, t: Tensor, embedding: dict[str, Tensor]) -> np.ndarray:
        """Return what the trees see: z_t, t, m(x), the best linear guess of y, x."""
        alpha, sigma, _, _ = self._path.coefficients(t, z_t)
        location, spread = embedding["location"], self.spread.to(z_t.device)
        guess = location + spread * alpha / (alpha.square() + sigma.square()) * z_t
        return torch.cat([z_t, t[:, None], location, guess, embedding["x"]], dim=1).cpu().numpy()

    def field(self, z_t: Tensor, t: float | Tensor, embedding: Any) -> Tensor:
        """Return the velocity of z_t, (batch, d)."""
        t = times_like(t, z_t)
        _, skip, scale = self._path.preconditioning(t, z_t)
        features = self._features(z_t, t, embedding)
        answers = torch.zeros_like(z_t)
        for output, model in enumerate(self._boosted("")):
            answers[:, output] = torch.from_numpy(model.predict(features))
        return skip * z_t + scale * answers

    def velocity(self, y_t: Tensor, t: Tensor, x: Condition) -> Tensor:
        """Return dy/dt at (y_t, t), (batch, d), for y_t = m(x) + s z_t."""
        embedding = self.encode(x)
        z_t = (y_t - embedding["location"]) / self.spread
        return self.spread * self.field(z_t, t, embedding)

    def _states(self, embedding: Any, times: Tensor, generator: Source) -> Iterator[tuple[float, Tensor]]:
        rows, like = self._rows(embedding)
        start = normal((rows, *self.event), generator, like=like)
        path = self._path
        if self.objective == "flow":
            states = integrate(lambda z, t: self.field(z, t, embedding), start, times, "midpoint")
        else:
            states = get_sampler("ddpm").states(
                lambda z, t: path.convert(
                    self.field(z, t, embedding), z, times_like(t, z), given="velocity", wanted="data"
                ),
                start,
                times,
                path,
                generator=generator,
            )
        return ((t, embedding["location"] + self.spread * z) for t, z in states)

    def draw(self, embedding: Any, *, generator: Source = None) -> Tensor:
        """Return one draw a row, (batch, d): from N(m(x), s^2) along the flow or the reverse SDE."""
        return last(self._states(embedding, time_grid(self._steps), generator))

    def trajectory(self, x: Condition, times: Tensor, *, generator: Source = None) -> Iterator[tuple[float, Tensor]]:
        """Yield (time, states (batch, d)) at each of `times`, from noise to data."""
        return self._states(self.encode(x), times, generator)


def _folds(rows: int, count: int, seed: int) -> np.ndarray:
    """Return a fold for each row, at random and of equal sizes; all 0 where there are too few rows for two."""
    if rows < 2 * count:
        count = 1 if rows < 4 else 2
    order = torch.randperm(rows, generator=new_generator(seed))
    return (order % count).numpy()
