"""Couplings: which noise meets which target while a flow is trained.

A coupling takes the noise, the targets and the conditions of one batch and returns them re-paired. It is called on the
whole batch, outside the network, and must leave the marginal of the noise and the joint of (y, x) as they were.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from everymode.errors import SettingError, check_choice

__all__ = ["COUPLINGS", "Coupling", "Independent", "get_coupling"]


class Coupling(Protocol):
    """Pairs noise (batch, *event) with targets (batch, *event) and their conditions."""

    name: str

    def __call__(self, noise: Tensor, y: Tensor, x: Any) -> tuple[Tensor, Tensor, Any]:
        """Return (noise, y, x), row by row the pairs to train on."""
        ...


class Independent:
    """Noise and target are drawn independently (Lipman et al., 2023). Right for every condition."""

    name = "independent"

    def __call__(self, noise: Tensor, y: Tensor, x: Any) -> tuple[Tensor, Tensor, Any]:
        """Return what was given."""
        return noise, y, x


COUPLINGS: dict[str, type[Coupling]] = {"independent": Independent}


def get_coupling(coupling: str | Coupling) -> Coupling:
    """Return the coupling of that name, or the coupling itself; `SettingError` where there is none."""
    if callable(coupling) and isinstance(getattr(coupling, "name", None), str):
        return coupling
    if not isinstance(coupling, str):
        raise SettingError(f"coupling={coupling!r}: give a name ({', '.join(COUPLINGS)}) or a callable with a `name`.")
    return COUPLINGS[check_choice("coupling", coupling, COUPLINGS)]()
