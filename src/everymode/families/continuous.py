"""Families whose answers flow from noise along a velocity: what flow matching and diffusion share.

A draw is an integral of dy/dt = field(y, t, x) from N(0, prior_scale^2) at t = 0 to an answer at t = 1, and its density
is what `solvers.density` computes along the way back.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from everymode import temperature as tempering
from everymode.control import Control
from everymode.errors import SettingError, check_choice, check_number
from everymode.families.base import Family, copied, outside_inference, times_like
from everymode.guidance import classifier_free, hide
from everymode.networks import Sizes
from everymode.paths import Path
from everymode.randomness import Source, new_generator, normal, uniform
from everymode.solvers import (
    SAMPLERS,
    SOLVERS,
    SPACINGS,
    Sampler,
    Tableau,
    get_method,
    get_sampler,
    get_solver,
    integrate,
    karras_grid,
    last,
)
from everymode.solvers.choice import AUTO, CHOSEN_FROM, FOUND, KNOTS, Choice, choose, found_times
from everymode.solvers.density import log_density, vector_passes
from everymode.spaces import ArraySpace, Condition, Space, count_rows, repeat_rows, take_rows

__all__ = ["Continuous", "carried", "velocity_on"]

_ASKED, _DRAWS = 64, 64  # x, and draws of each, that a solver is chosen on
_MOST = 128  # evaluations of a chosen solver
_GRIDS = (FOUND, *SPACINGS)
_AT_ONCE = 1 << 16  # values times vectors of a Jacobian: memory stays bounded


class Continuous(Family):
    """A family with a velocity on a path."""

    chosen: Tensor
    grid: Tensor

    method_setting: ClassVar[str] = "solver"
    methods: ClassVar[tuple[str, ...]] = tuple(dict.fromkeys((*SOLVERS, *SAMPLERS)))

    @property
    def flow_end(self) -> float:
        """The time at which the velocity is still regular, and the noise gone."""
        return 1.0

    @property
    def _path(self) -> Path:
        raise NotImplementedError

    def field(self, y_t: Tensor, t: float | Tensor, embedding: Any) -> Tensor:
        """Return the velocity at (y_t, t) for an embedding of x, (batch, *event)."""
        raise NotImplementedError

    def data(self, y_t: Tensor, t: float | Tensor, embedding: Any) -> Tensor:
        """Return E[y | y_t, x] for an embedding of x, (batch, *event)."""
        t = times_like(t, y_t)
        return self._path.convert(self.field(y_t, t, embedding), y_t, t, given="velocity", wanted="data")

    # Solving -------------------------------------------------------------------------------------------------------

    def _solve(self, method: str | Tableau, spacing: str, steps: int, tolerance: float) -> None:
        """Check and keep the settings of how draws are made."""
        if method != AUTO and not isinstance(method, Tableau):
            check_choice(self.method_setting, method, self.methods)
        setattr(self, self.method_setting, method)
        self.spacing = check_choice("spacing", spacing, (AUTO, FOUND, *SPACINGS))
        self.steps = check_number("steps", steps, 1, 100_000, integer=True)
        self.tolerance = check_number("tolerance", tolerance, 0.0, exclusive_low=True)

    @property
    def _measured(self) -> bool:
        """Whether anything of how draws are made is found by measurement."""
        return getattr(self, self.method_setting) == AUTO or self.spacing == FOUND

    @property
    def choice(self) -> Choice | None:
        """What was chosen where the method is 'auto'; None where it is not, or before the model is trained."""
        if getattr(self, self.method_setting) != AUTO or not hasattr(self, "chosen") or not self.chosen[2]:
            return None
        method, spacing, steps, error = self.chosen.tolist()
        return Choice(CHOSEN_FROM[int(method)], _GRIDS[int(spacing)], int(steps), error)

    @property
    def _how(self) -> tuple[Tableau | Sampler, str, int]:
        """Method, spacing and steps of a draw."""
        name: str | Tableau = getattr(self, self.method_setting)
        if name == AUTO:
            choice = self.choice or Choice("midpoint", "uniform", 16, math.inf)
            return get_method(choice.method, prefer="solver"), choice.spacing, choice.steps
        method = get_method(name, prefer=self.method_setting)
        if self.spacing != AUTO:
            return method, self.spacing, self.steps
        return method, "uniform" if isinstance(method, Tableau) else "karras", self.steps

    @property
    def _method(self) -> Tableau | Sampler:
        """How a draw is made."""
        return self._how[0]

    @property
    def _times(self) -> Tensor:
        """The times of a draw, (steps + 1,)."""
        _, spacing, steps = self._how
        return found_times(self.grid, steps) if spacing == FOUND else SPACINGS[spacing](self._path, steps)

    @property
    def nfe(self) -> int:
        """Network evaluations for one draw."""
        method, _, steps = self._how
        return method.evaluations(steps) * self._calls

    def settle(self, x: Condition, *, seed: int) -> None:
        """Choose the method, or find the grid, on fresh noise for some of the x, where they are to be measured."""
        if not self._measured:
            return
        asked = take_rows(x, slice(0, _ASKED))
        with torch.no_grad():
            embedding = repeat_rows(self.encode(asked), _DRAWS)
            rows, like = self._rows(embedding)
            start = self._start(rows, new_generator(seed, like.device), like)
            choice, grid = choose(
                start,
                self._guided(self.field, embedding),
                lambda method, times: last(self._followed(method, start, times, embedding)),
                self._path,
                tolerance=self.tolerance,
                most=_MOST if getattr(self, self.method_setting) == AUTO else 1,
            )
        self.grid.copy_(grid)
        found = [CHOSEN_FROM.index(choice.method), _GRIDS.index(choice.spacing), choice.steps, choice.error]
        self.chosen.copy_(torch.tensor(found))
        if self.choice is not None and choice.error > self.tolerance:
            warnings.warn(
                f"no solver of up to {_MOST} evaluations is within tolerance={self.tolerance:g} of the exact draws: "
                f"the best, {choice.method} in {self.nfe}, is {choice.error:.2g} away and is taken. Ask for less.",
                ConvergenceWarning,
                stacklevel=2,
            )

    def _states(self, embedding: Any, times: Tensor, generator: Source) -> Iterator[tuple[float, Tensor]]:
        rows, like = self._rows(embedding)
        return self._followed(self._method, self._start(rows, generator, like), times, embedding, generator)

    def _start(self, rows: int, generator: Source, like: Tensor) -> Tensor:
        return self._path.prior_scale * normal((rows, *self.event), generator, like=like)

    def _followed(
        self, method: Tableau | Sampler, start: Tensor, times: Tensor, embedding: Any, generator: Source = None
    ) -> Iterator[tuple[float, Tensor]]:
        if isinstance(method, Tableau):
            return integrate(self._guided(self.field, embedding), start, times, method)
        return method.states(self._guided(self.data, embedding), start, times, self._path, generator=generator)

    # Guidance ------------------------------------------------------------------------------------------------------

    def _guide(self, drop: float, guidance: float) -> None:
        """Check and keep the settings of guidance."""
        self.drop = check_number("drop", drop, 0.0, 1.0)
        self.guidance = self._weight(guidance)

    def _weight(self, guidance: float) -> float:
        """Return a weight of classifier-free guidance, if the family can be guided so."""
        check_number("guidance", guidance, 0.0)
        if guidance != 1 and not self.drop:
            raise SettingError(
                f"guidance={guidance} asks what the model says without x, which it learns only if x is hidden now and "
                "then: train with drop=0.1, say."
            )
        return guidance

    @property
    def _calls(self) -> int:
        """How many rows the network sees for one evaluation of one draw."""
        return 1 if self.guidance == 1 else 2

    def assemble(self, y_space: ArraySpace, x_space: Space, sizes: Sizes) -> None:
        """Make `encoder` and `network`, and where x is hidden now and then what stands in its place."""
        super().assemble(y_space, x_space, sizes)
        if self._measured:
            self.register_buffer("chosen", torch.zeros(4))  # method, grid, steps, error
            self.register_buffer("grid", torch.linspace(0, 1, KNOTS))
        if self.drop:
            self.nothing = nn.Parameter(torch.zeros(sizes.width))

    def _hidden(self, embedding: Tensor, generator: Source) -> Tensor:
        """Return the embedding with x hidden in some rows, in training."""
        if not self.drop:
            return embedding
        return hide(embedding, self.nothing, uniform((len(embedding),), generator, like=self.nothing), self.drop)

    def _guided(self, predict: Callable[[Tensor, Any, Any], Tensor], embedding: Any) -> Callable[[Tensor, Any], Tensor]:
        return self._leaning(predict, embedding, self.guidance)

    def _leaning(
        self, predict: Callable[[Tensor, Any, Any], Tensor], embedding: Any, weight: float
    ) -> Callable[[Tensor, Any], Tensor]:
        if weight == 1:
            return lambda y, t: predict(y, t, embedding)
        return classifier_free(predict, embedding, self.nothing, weight)

    def predictor(self, embedding: Any, *, guidance: float | None = None) -> Callable[[Tensor, Tensor], Tensor]:
        """Return E[y | y_t, x] as a function of (y_t, t), with classifier-free guidance of another weight if given.

        Raises:
            SettingError: there is to be guidance, and x was never hidden in training.
        """
        weight = self.guidance if guidance is None else self._weight(guidance)
        return self._leaning(self.data, embedding, weight)

    def draw(self, embedding: Any, *, generator: Source = None) -> Tensor:
        """Return one draw a row, (batch, *event): from noise, step by step."""
        return last(self._states(embedding, self._times, generator))

    @property
    def _steering(self) -> tuple[Tableau | Sampler, Tensor]:
        """Method and times of draws that are steered."""
        return self._method, self._times

    def controlled(self, embedding: Any, control: Control, *, generator: Source = None) -> Tensor:
        """Return one draw a row, (batch, *event), steered by `control`."""
        if not self.abilities.steered:
            return super().controlled(embedding, control, generator=generator)
        with outside_inference():
            embedding = copied(embedding)
            rows, like = self._rows(embedding)
            start = self._start(rows, generator, like)
            predict, path = self.predictor(embedding, guidance=control.guidance), self._path
            if control.temperature == 1:
                method, times = self._steering
                return control.draw(predict, start, times, path, method, generator)
            times = karras_grid(path, tempering.STEPS)
            return control.draw(predict, start, times, path, get_sampler("ddpm"), generator)

    def velocity(self, y_t: Tensor, t: Tensor, x: Condition) -> Tensor:
        """Return dy/dt at (y_t, t), (batch, *event)."""
        return self.field(y_t, t, self.encode(x))

    def trajectory(self, x: Condition, times: Tensor, *, generator: Source = None) -> Iterator[tuple[float, Tensor]]:
        """Yield (time, states (batch, *event)) at each of `times`, from noise to data."""
        return self._states(self.encode(x), times, generator)

    def log_prob(self, y: Tensor, x: Condition, **settings: Any) -> Tensor:
        """Return log p(y | x) of standardised y, (batch,), in nats; see `log_prob_and_error`."""
        return self.log_prob_and_error(y, x, **settings)[0]

    def log_prob_and_error(self, y: Tensor, x: Condition, **settings: Any) -> tuple[Tensor, Tensor]:
        """Return log p(y | x) of standardised y under the flow without solver error, and its standard error, in nats.

        Args:
            y: answers (batch, *event), standardised.
            x: conditions, rows first, standardised.
            **settings: `divergence`, `probes`, `solver`, `steps`, `tolerance` and `seed` of
                `everymode.solvers.log_density`: by default exact up to 8 values, and else by 16 probes.
        """
        size, parts = y[0].numel() if len(y) else 1, []
        passes = vector_passes(size, **{key: settings[key] for key in ("divergence", "probes") if key in settings})
        chunk = max(1, _AT_ONCE // (size * passes))
        for start in range(0, count_rows(x), chunk):
            rows = slice(start, start + chunk)
            parts.append(self._log_prob(y[rows], take_rows(x, rows), settings))
        if not parts:
            return y.new_zeros(0), y.new_zeros(0)
        found, error = (torch.cat(part) for part in zip(*parts, strict=True))
        return found, error

    def _log_prob(self, y: Tensor, x: Condition, settings: dict[str, Any]) -> tuple[Tensor, Tensor]:
        with outside_inference():
            embedding, y = copied(self.encode(x)), y.clone()
            given = {"prior_scale": self._path.prior_scale, "end": self.flow_end, **settings}
            return log_density(lambda state, t: self.field(state, t, embedding), y, **given)


def velocity_on(path: Path, family: Continuous, y_t: Tensor, t: Tensor, embedding: Any) -> Tensor:
    """Return the velocity on `path` at y_t (batch, *event) and t (batch,) of a family that was trained on any path.

    Where signal and noise stand in one ratio two paths differ by a factor, and E[y | y_t, x] is the same.
    """
    a, s, da, ds = path.coefficients(t, y_t)
    own = family._path
    there = own.time_at((a.clamp_min(1e-12).log() - s.clamp_min(1e-12).log()).reshape(-1)).to(t)
    own_a, own_s, _, _ = own.coefficients(there, y_t)
    state = y_t * ((own_a.square() + own_s.square()) / (a.square() + s.square())).sqrt()
    velocity = family.field(state, there, embedding)
    data, noise = (own.convert(velocity, state, there, given="velocity", wanted=w) for w in ("data", "noise"))
    return da * data + ds * noise


def carried(family: Continuous, noise: Tensor, embedding: Any, *, steps: int = 10) -> Tensor:
    """Return where the flow of a family takes unit noise (batch, *event) in `steps` Heun steps, (batch, *event)."""
    times = SPACINGS["karras" if family._path.prior_scale > 1 else "uniform"](family._path, steps)
    start = family._path.prior_scale * noise
    return last(integrate(lambda y, t: family.field(y, t, embedding), start, times, get_solver("heun")))
