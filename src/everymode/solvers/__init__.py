"""ODE and SDE solvers. Each is a generator of (time, state); it prints nothing.

`runge_kutta` and `adaptive` take a velocity, and `density` follows what it does to a density; `stochastic` takes a
drift and a diffusion, `exponential` a model's guess of the data.
"""

from everymode.solvers.adaptive import integrate_adaptively
from everymode.solvers.density import log_density, velocity_and_divergence
from everymode.solvers.exponential import (
    SAMPLERS,
    SPACINGS,
    Sampler,
    ddim,
    ddpm,
    dpm_solver_2m,
    dpm_solver_3m,
    get_sampler,
    heun,
    karras_grid,
    multistep,
    unipc,
)
from everymode.solvers.methods import get_method
from everymode.solvers.runge_kutta import SOLVERS, Tableau, get_solver, integrate, last, steps_for, time_grid
from everymode.solvers.stochastic import euler_maruyama

__all__ = [
    "SAMPLERS",
    "SOLVERS",
    "SPACINGS",
    "Sampler",
    "Tableau",
    "ddim",
    "ddpm",
    "dpm_solver_2m",
    "dpm_solver_3m",
    "euler_maruyama",
    "get_method",
    "get_sampler",
    "get_solver",
    "heun",
    "integrate",
    "integrate_adaptively",
    "karras_grid",
    "last",
    "log_density",
    "multistep",
    "steps_for",
    "time_grid",
    "unipc",
    "velocity_and_divergence",
]
