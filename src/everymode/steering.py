"""From what a user asks of draws to what steers a batch of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from everymode.control import Control
from everymode.errors import UnsupportedError, check_number
from everymode.families import Family, get_family, names
from everymode.inpainting import Known
from everymode.spaces import ArraySpace

__all__ = ["Steering", "able"]


def able(ability: str) -> str:
    """Return the names of the families that have an ability, for an error."""
    return ", ".join(name for name in names() if getattr(get_family(name).abilities, ability))


@dataclass(frozen=True)
class Steering:
    """What was asked of the draws for all rows.

    Attributes:
        family: fitted.
        y_space: of y.
        known: (rows, *event) in the units of y, NaN where y is drawn; or None.
        inpainting: see `everymode.inpainting.Known`.
        resamplings: the same.
        temperature: draws are from p(y | x)^(1 / temperature).

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

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, 0.0, exclusive_low=True)
        if self.temperature != 1 and not self.family.abilities.temperature:
            raise UnsupportedError(
                f"family {self.family.name!r} has no temperature; these have one: {able('temperature')}."
            )
        if self.known is not None and not self.family.abilities.steered:
            raise UnsupportedError(
                f"family {self.family.name!r} cannot draw a part of y given the rest; these can: {able('steered')}."
            )

    @property
    def idle(self) -> bool:
        """Whether draws are to be plain ones."""
        return self.known is None and self.temperature == 1

    def control(self, rows: Tensor, n: int, device: torch.device) -> Control:
        """Return what steers `n` draws for each of `rows` (indices), those of a row side by side."""
        return Control(self._known(rows, n, device), self.temperature)

    def _known(self, rows: Tensor, n: int, device: torch.device) -> Known | None:
        if self.known is None:
            return None
        given = self.known[rows.numpy()]
        unknown = np.isnan(given)
        middle = self.y_space.per_value(self.y_space.shift)
        values = self.y_space.encode(np.where(unknown, middle, given)).to(device)
        mask = torch.from_numpy(~unknown).to(device)
        each = [part.repeat_interleave(n, dim=0) for part in (values, mask)]
        return Known(each[0], each[1], self.inpainting, self.resamplings)

    def put(self, draws: np.ndarray) -> np.ndarray:
        """Return draws (rows, n, *event), in the units of y, with what is known exactly as it was given."""
        if self.known is None:
            return draws
        known = self.known[:, None]
        return np.where(np.isnan(known), draws, known)
