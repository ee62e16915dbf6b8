"""Methods by name, whatever they ask a model for."""

from __future__ import annotations

from everymode.errors import check_choice
from everymode.solvers.exponential import SAMPLERS, Sampler
from everymode.solvers.runge_kutta import SOLVERS, Tableau

__all__ = ["get_method"]


def get_method(method: str | Tableau, *, prefer: str) -> Tableau | Sampler:
    """Return the method of that name: a tableau, which asks for velocities, or a sampler, which asks for data.

    Args:
        method: its name, or a tableau itself.
        prefer: 'solver' or 'sampler', the setting that it comes from: 'heun' is a name of both kinds.

    Raises:
        SettingError: there is none of that name.
    """
    if isinstance(method, Tableau):
        return method
    known = {**SAMPLERS, **SOLVERS} if prefer == "solver" else {**SOLVERS, **SAMPLERS}
    return known[check_choice(prefer, method, known)]
