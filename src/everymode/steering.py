"""From what a user asks of draws to what steers a batch of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from everymode.control import Control
from everymode.errors import SettingError, UnsupportedError, check_number
from everymode.families import Family, get_family, names
from everymode.families.base import outside_inference
from everymode.guidance import Autoguidance, Classifier, ClassifierFree
from everymode.inpainting import Known, Regression
from everymode.inputs import encode_condition
from everymode.spaces import ArraySpace, Condition, place, repeat_rows, take_rows

__all__ = ["Steering", "able", "read_guides"]

Guide = ClassifierFree | Classifier | Autoguidance


def able(ability: str) -> str:
    """Return the names of the families that have an ability, for an error."""
    return ", ".join(name for name in names() if getattr(get_family(name).abilities, ability))


def read_guides(guide: Any, model: Any, X: Any) -> tuple[tuple[Guide, ...], Condition | None]:
    """Return (guides, rows of X as the weaker model of an `Autoguidance` takes them, if there is one).

    Args:
        guide: None, one of `everymode.guidance`, or several.
        model: the fitted estimator that is guided.
        X: rows.

    Raises:
        SettingError: something is no guide, or the weaker model is one of other spaces or of another path.
    """
    guides = () if guide is None else tuple(guide) if isinstance(guide, Sequence) else (guide,)
    weaker_x = None
    for one in guides:
        if not isinstance(one, Guide):
            raise SettingError(f"guide={one!r}: give ClassifierFree(...), Classifier(...) or Autoguidance(...).")
        if isinstance(one, Autoguidance):
            _check_weaker(one.weaker, model)
            weaker_x = encode_condition(one.weaker, X, one.weaker.x_space_)
    return guides, weaker_x


def _check_weaker(weaker: Any, model: Any) -> None:
    family = getattr(weaker, "family_", None)
    if family is None or not family.abilities.steered:
        raise SettingError(
            f"Autoguidance: the weaker model must be a fitted one of {able('steered')}; it is {weaker!r}."
        )
    for what, own, other in (
        ("y", model.y_space_, weaker.y_space_),
        ("x", model.x_space_, weaker.x_space_),
    ):
        if own != other:
            raise SettingError(
                f"Autoguidance: the weaker model has another space of {what}, or standardises it otherwise: fit both "
                "on the same X and Y."
            )
    if model.family_.abilities.steered:
        times = torch.linspace(0, 1, 17, dtype=torch.float64)
        own, other = (torch.stack([f._path.alpha(times), f._path.sigma(times)]) for f in (model.family_, family))
        if not torch.allclose(own, other):
            raise SettingError("Autoguidance: the weaker model has another path: fit both with the same path.")


@dataclass(frozen=True)
class Steering:
    """What was asked of the draws for all rows.

    Attributes:
        family: fitted.
        y_space: of y.
        known: (rows, *event) in the units of y, NaN where y is drawn; or None. Of a sequence with angles they are
            known in pairs, sine and cosine.
        spread: how far known values may be off, (rows, *leading axes of the event), in standard deviations of y; exact
            if None.
        regression: see `everymode.inpainting.Known`.
        inpainting: see `everymode.inpainting.Known`.
        resamplings: the same.
        temperature: draws are from p(y | x)^(1 / temperature).
        guides: at most one of each kind in `everymode.guidance`.
        weaker_x: the rows as the weaker model of an `Autoguidance` takes them, standardised.

    Raises:
        UnsupportedError: the family cannot do what was asked.
        SettingError: a setting is out of range.
    """

    family: Family
    y_space: ArraySpace
    known: np.ndarray | None = None
    inpainting: str = "posterior"
    resamplings: int = 10
    temperature: float = 1.0
    guides: tuple[Guide, ...] = ()
    weaker_x: Condition | None = None
    spread: np.ndarray | None = None
    regression: Regression = field(default_factory=Regression)

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, 0.0, exclusive_low=True)
        if self.temperature != 1 and not self.family.abilities.temperature:
            raise UnsupportedError(
                f"family {self.family.name!r} has no temperature; these have one: {able('temperature')}."
            )
        if self.guides and not self.family.abilities.steered:
            raise UnsupportedError(
                f"family {self.family.name!r} has no velocity that can be guided; these have: {able('steered')}."
            )
        if len({type(guide) for guide in self.guides}) < len(self.guides):
            raise SettingError("guide holds two of one kind: give one of each at most.")
        if self.known is not None and not self.family.abilities.steered:
            raise UnsupportedError(
                f"family {self.family.name!r} cannot draw a part of y given the rest; these can: {able('steered')}."
            )

    @property
    def idle(self) -> bool:
        """Whether draws are to be plain ones."""
        return self.known is None and self.temperature == 1 and not self.guides

    def control(self, rows: Tensor, n: int, device: torch.device) -> Control:
        """Return what steers `n` draws for each of `rows` (indices), those of a row side by side."""
        free, weaker, told = None, None, None
        for guide in self.guides:
            if isinstance(guide, ClassifierFree):
                free = guide.weight
            elif isinstance(guide, Classifier):
                if not guide.weight:
                    continue
                told = (self._told(guide, rows.repeat_interleave(n).to(device)), guide.weight)
            else:
                weaker = (self._weaker(guide.weaker.family_, rows, n, device), guide.weight)
        return Control(self._known(rows, n, device), self.temperature, free, weaker, told)

    def _told(self, guide: Classifier, row: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the guide's log-probability as a function of standardised y."""

        def log_prob(y: Tensor) -> Tensor:
            scale, shift = (
                torch.from_numpy(self.y_space.per_value(part).copy()).to(y)
                for part in (self.y_space.scale, self.y_space.shift)
            )
            return guide.log_prob(y * scale + shift, row)

        return log_prob

    def _weaker(self, family: Any, rows: Tensor, n: int, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the weaker model's data; its parameters may lie on another device."""
        if self.weaker_x is None:
            raise SettingError("Autoguidance needs the rows of X as its weaker model takes them: give weaker_x.")
        place_of = next(family.parameters()).device
        with outside_inference():
            embedding = repeat_rows(family.encode(place(take_rows(self.weaker_x, rows), place_of)), n)
        predict = family.predictor(embedding)
        return lambda y, t: predict(y.to(place_of), t.to(place_of)).to(device)

    def _known(self, rows: Tensor, n: int, device: torch.device) -> Known | None:
        if self.known is None:
            return None
        given = self.known[rows.numpy()]
        unknown = np.isnan(given)
        values = self.y_space.encode(np.where(unknown, self.y_space.middle, given))
        parts = [values, torch.from_numpy(self.y_space.spread_over(~unknown))]
        if self.spread is not None:
            off = torch.from_numpy(self.spread[rows.numpy()]).to(values.dtype)
            parts.append(off.reshape(*off.shape, *(1,) * (values.ndim - off.ndim)).expand_as(values))
        values, mask, *spread = (part.to(device).repeat_interleave(n, dim=0) for part in parts)
        off = spread[0] if spread else None
        return Known(values, mask, self.inpainting, self.resamplings, off, self.regression)

    def put(self, draws: np.ndarray) -> np.ndarray:
        """Return draws (rows, n, *event), in the units of y, with what is known exactly as it was given."""
        if self.known is None:
            return draws
        known = self.known[:, None]
        return np.where(np.isnan(known), draws, known)
