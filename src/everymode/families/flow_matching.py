"""Flow matching: a velocity field that carries noise to data, learned by regression.

Draw a time t, noise and a target y; let y_t = alpha(t) y + sigma(t) noise. The conditional velocity is
alpha'(t) y + sigma'(t) noise; its regression on (y_t, t, x) is the marginal velocity u(y_t, t, x) =
E[velocity | y_t, x], and the flow dy/dt = u carries noise to p(y | x). Squared error is right here, where it is wrong
on y itself: the average of the velocities through one point *is* the field that moves all mass rightly.

The network's output is preconditioned as in EDM, for every path: with data of unit variance, the best linear estimate
of the velocity is skip * y_t, with skip = (alpha alpha' + sigma sigma') / (alpha^2 + sigma^2), and what is left has
standard deviation scale = |alpha sigma' - alpha' sigma| / sqrt(alpha^2 + sigma^2). The network sees
y_t / sqrt(alpha^2 + sigma^2) and predicts (velocity - skip y_t) / scale.

References:
    Flow matching for generative modeling (Lipman et al., 2023), https://arxiv.org/abs/2210.02747
    Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        https://arxiv.org/abs/2206.00364
    Scaling rectified flow transformers (Esser et al., 2024), https://arxiv.org/abs/2403.03206: logit-normal times

Fails: with very few steps (one Euler step from noise is E[y | x] again).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from everymode.couplings import Coupling, Independent, OptimalTransport, get_coupling
from everymode.errors import SettingError, check_bool, check_choice
from everymode.families.base import Abilities, Part, mean_over_event, times_like
from everymode.families.continuous import Continuous
from everymode.families.times import TIME_SAMPLING, draw_times
from everymode.networks import Sizes
from everymode.paths import Path, get_path, path_settings
from everymode.randomness import Source, normal
from everymode.solvers import Tableau
from everymode.spaces import ArraySpace, Condition, Space

__all__ = ["FlowMatching"]


class FlowMatching(Continuous):
    """Flow matching on any Gaussian path.

    Args:
        path: 'linear' (conditional optimal transport), 'cosine', 'vp', 've', or a `Path`.
        coupling: which noise meets which target: 'independent', 'conditional_ot' (straighter, so that fewer steps do;
            a batch takes longer), 'optimal_transport' (without a condition only), or a `Coupling`.
        time_sampling: 'uniform', 'logit_normal' (more of the middle), 'edm' (more of the data's end), 'sharp' (nearly
            that alone), or 'auto': 'sharp' for up to 16 values, else 'logit_normal'.
        precondition: whether the network predicts the scaled remainder of the best linear velocity, or the velocity.
        solver: for the velocity 'euler', 'midpoint', 'heun', 'rk4', or a tableau; by the data that the velocity tells
            'ddim', 'dpm_solver_2m', 'dpm_solver_3m', 'unipc', or 'ddpm' and 'heun_churn', which draw fresh noise; or
            'auto', the cheapest whose draws are exact within `tolerance`, chosen on held-out x after training.
        drop: share of the rows whose x is hidden in training; guidance needs some, .1 say.
        guidance: weight of classifier-free guidance; 1 is none, and above it draws lean on x and cover less. Densities
            are those without it.
        spacing: of the times of a draw: 'uniform', 'karras', 'logit_normal' (quantiles), 'found' (where the trained
            flow turns), or 'auto': 'uniform' for solvers, 'karras' for the others.
        steps: number of solver steps for a draw; NFE = steps times the solver's stages, and steps for the others.
        tolerance: of 'auto': mean distance of a draw to the exact one of its noise, in standard deviations of y.
    """

    name: ClassVar[str] = "flow_matching"
    abilities: ClassVar[Abilities] = Abilities(
        density=True, velocity=True, trajectory=True, temperature=True, steered=True
    )

    def __init__(
        self,
        *,
        path: str | Path = "linear",
        coupling: str | Coupling = "independent",
        time_sampling: str = "auto",
        precondition: bool = True,
        solver: str | Tableau = "midpoint",
        drop: float = 0.0,
        guidance: float = 1.0,
        spacing: str = "auto",
        steps: int = 16,
        tolerance: float = 0.05,
    ) -> None:
        super().__init__()
        self.path, self.coupling = path, coupling
        get_path(path)  # each of the two refuses what it does not know
        get_coupling(coupling)
        self.time_sampling = check_choice("time_sampling", time_sampling, TIME_SAMPLING)
        self.precondition = check_bool("precondition", precondition)
        self._solve(solver, spacing, steps, tolerance)
        self._guide(drop, guidance)

    @property
    def _path(self) -> Path:
        return get_path(self.path)

    def assemble(self, y_space: ArraySpace, x_space: Space, sizes: Sizes) -> None:
        """Make `encoder` and `network`; refuse plain optimal transport where there is a condition."""
        empty = isinstance(x_space, ArraySpace) and x_space.size == 0
        if get_coupling(self.coupling).name == OptimalTransport.name and not empty:
            raise SettingError(
                "coupling='optimal_transport' makes the noise depend on x, and a model so trained is wrong for every "
                "single x: take coupling='conditional_ot'."
            )
        super().assemble(y_space, x_space, sizes)

    def settings(self) -> dict[str, Any]:
        """Return the settings, JSON-ready."""
        return {
            **self.get_params(),
            "path": path_settings(self._path),
            "coupling": get_coupling(self.coupling).name,
            "solver": getattr(self.solver, "name", self.solver),
        }

    def parts(self) -> list[Part]:
        """Return what is trained; a coupling may read values, as those of optimal transport do."""
        recorded = isinstance(get_coupling(self.coupling), Independent)
        return [replace(part, recorded=recorded) for part in super().parts()]

    def loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return the squared error of the (scaled) velocity of each row, averaged over the event, (batch,)."""
        noise = normal(tuple(y.shape), generator, like=y)
        t = draw_times(self.time_sampling, self._path, len(y), generator, like=y)
        noise, y, x = get_coupling(self.coupling)(noise, y, x)
        return self.error(noise, y, t, self._hidden(self.encode(x), generator))

    def error(self, noise: Tensor, y: Tensor, t: Tensor, embedding: Any) -> Tensor:
        """Return the squared error of the (scaled) velocity between noise and y (batch, *event) at t, (batch,)."""
        path = self._path
        y_t, velocity = path.interpolate(y, noise, t)
        if not self.precondition:
            return mean_over_event((self.network(y_t, t, embedding) - velocity).square())
        shrink, skip, scale = path.preconditioning(t, y_t)
        wanted = (velocity - skip * y_t) / scale
        return mean_over_event((self.network(shrink * y_t, t, embedding) - wanted).square())

    def field(self, y_t: Tensor, t: float | Tensor, embedding: Any) -> Tensor:
        """Return the velocity at (y_t, t) for an embedding of x, (batch, *event)."""
        t = times_like(t, y_t)
        if not self.precondition:
            return self.network(y_t, t, embedding)
        shrink, skip, scale = self._path.preconditioning(t, y_t)
        return skip * y_t + scale * self.network(shrink * y_t, t, embedding)
