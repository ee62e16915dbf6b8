"""Families whose answers flow from noise along a velocity: what flow matching and diffusion share.

A draw is an integral of dy/dt = field(y, t, x) from N(0, prior_scale^2) at t = 0 to an answer at t = 1, and its density
is what `solvers.density` computes along the way back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from everymode import temperature as tempering
from everymode.control import Control
from everymode.errors import SettingError, check_number
from everymode.families.base import Family, copied, outside_inference, times_like
from everymode.guidance import classifier_free, hide
from everymode.networks import NetworkFactory, sizes_for
from everymode.paths import Path
from everymode.randomness import Source, normal, uniform
from everymode.solvers import Sampler, Tableau, get_sampler, integrate, karras_grid, last
from everymode.solvers.density import log_density, vector_passes
from everymode.spaces import ArraySpace, Condition, Space, count_rows, take_rows

__all__ = ["Continuous"]

_AT_ONCE = 1 << 16  # values times vectors of a Jacobian: memory stays bounded


class Continuous(Family):
    """A family with a velocity on a path."""

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

    @property
    def _method(self) -> Tableau | Sampler:
        """How a draw is made."""
        raise NotImplementedError

    @property
    def _times(self) -> Tensor:
        """The times of a draw, (steps + 1,)."""
        raise NotImplementedError

    def _states(self, embedding: Any, times: Tensor, generator: Source) -> Iterator[tuple[float, Tensor]]:
        rows, like = self._rows(embedding)
        start = self._path.prior_scale * normal((rows, *self.event), generator, like=like)
        method = self._method
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

    def assemble(
        self,
        y_space: ArraySpace,
        x_space: Space,
        *,
        width: int | None,
        depth: int | None,
        network: NetworkFactory | None,
    ) -> None:
        """Make `encoder` and `network`, and where x is hidden now and then what stands in its place."""
        super().assemble(y_space, x_space, width=width, depth=depth, network=network)
        if self.drop:
            self.nothing = nn.Parameter(torch.zeros(sizes_for(y_space, width, depth)[0]))

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

    def controlled(self, embedding: Any, control: Control, *, generator: Source = None) -> Tensor:
        """Return one draw a row, (batch, *event), steered by `control`."""
        with outside_inference():
            embedding = copied(embedding)
            rows, like = self._rows(embedding)
            start = self._path.prior_scale * normal((rows, *self.event), generator, like=like)
            predict, path = self.predictor(embedding, guidance=control.guidance), self._path
            if control.temperature == 1:
                return control.draw(predict, start, self._times, path, self._method, generator)
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
