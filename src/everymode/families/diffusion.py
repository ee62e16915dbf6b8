"""Diffusion: learn to tell the data from the noise at every noise level, then take the noise away step by step.

Draw a time t, noise and a target y; let y_t = alpha(t) y + sigma(t) noise. A network that is trained by squared error
to tell one of

    data   y
    noise                                                          (epsilon, Ho et al.)
    v      (alpha noise - sigma y) / sqrt(alpha^2 + sigma^2)       (Salimans and Ho; there alpha^2 + sigma^2 = 1)

from (y_t, t, x) knows E[y | y_t, x], since y_t and any of the three give the others; and with it the score, the
probability-flow ODE and its SDE. Samplers ask for E[y | y_t, x] and for nothing else (see `solvers.exponential`).

Preconditioning (Karras et al.) asks the network for data = c_skip y_t + c_out F(c_in y_t), with c_in, c_skip and c_out
such that F's input and its target have variance 1 where y has. For data of unit variance, on any path, c_skip =
alpha / (alpha^2 + sigma^2), c_out = -sigma / sqrt(alpha^2 + sigma^2), and F's target is v. So with preconditioning the
network tells v from the scaled state whatever `target` is, and `target` says only in which units the error counts;
where alpha^2 + sigma^2 = 1 it is nothing but v-prediction.

The weighting is a function of the signal-to-noise ratio snr = alpha^2 / sigma^2, with lambda = log snr. An error in
v is sqrt(snr / (1 + snr)) times as large in noise, and 1 / sqrt(1 + snr) times in data, so a weight for one is a
weight for all:

    uniform   1 on the squared error of `target`
    min_snr   min(snr, 5) on that of the data (Hang et al.)
    sigmoid   sigmoid(2 - lambda) on that of the noise, with lambda spread evenly (Kingma and Gao: a weighted ELBO)
    edm       1 / c_out^2 on that of the data, with lambda / 2 normal of mean 1.2 and standard deviation 1.2 (Karras et
              al.)

The first two are factors at the times that `time_sampling` draws. The last two say themselves how lambda is spread, so
they are divided by the density at which lambda is drawn: `time_sampling` changes their noise and not their objective.
With the times of 'edm', the weighting 'edm' is 1.

In the papers t or the step counts from data to noise; here t = 0 is noise and t = 1 is data, on every path.

References:
    Denoising diffusion probabilistic models (Ho, Jain and Abbeel, 2020), https://arxiv.org/abs/2006.11239
    Progressive distillation (Salimans and Ho, 2022), https://arxiv.org/abs/2202.00512: v
    Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        https://arxiv.org/abs/2206.00364
    Efficient diffusion training via Min-SNR weighting strategy (Hang et al., 2023), https://arxiv.org/abs/2303.09556
    Understanding diffusion objectives as the ELBO with simple data augmentation (Kingma and Gao, 2023),
        https://arxiv.org/abs/2303.00848
    Common diffusion noise schedules and sample steps are flawed (Lin et al., 2024), https://arxiv.org/abs/2305.08891

Fails: with very few steps (one step is E[y | x] again). With the noise as target, no preconditioning, and a path that
starts from nothing but noise: there the network's answer says nothing of the data (Lin et al.), and the guess of the
data is shrunk towards 0 where alpha < .05.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from everymode.errors import check_bool, check_choice
from everymode.families.base import Abilities, mean_over_event, times_like
from everymode.families.continuous import Continuous
from everymode.families.times import TIME_SAMPLING, density_of_log_ratio, draw_times, resolved
from everymode.paths import Path, get_path, path_settings
from everymode.randomness import Source, normal
from everymode.spaces import Condition

__all__ = ["Diffusion"]

TARGETS = ("v", "noise", "data")
WEIGHTINGS = ("uniform", "min_snr", "sigmoid", "edm")
_LEAST = 1e-4  # of what a weight is divided by
_LEAST_ALPHA = 0.05  # of what the data are divided by where a network tells the noise


class Diffusion(Continuous):
    """Denoising diffusion on any Gaussian path.

    Args:
        path: 'cosine', 'vp' (linear beta), 'linear', 've', or a `Path`.
        target: what the network is asked for: 'v', 'noise' or 'data'; with `precondition`, the units of its error.
        weighting: 'uniform', 'min_snr', 'sigmoid' or 'edm'; see the module.
        precondition: whether the network sees the scaled state and predicts v in any case, as EDM's does.
        time_sampling: 'uniform', 'logit_normal' (more of the middle), 'edm' (more of the data's end), 'sharp' (nearly
            that alone), or 'auto': 'sharp' for up to 16 values, else 'logit_normal'.
        sampler: 'dpm_solver_2m', 'dpm_solver_3m', 'unipc', 'ddim', 'heun' (EDM's), all deterministic, 'ddpm'
            (ancestral) or 'heun_churn' (EDM's with churn); or a method for the velocity: 'euler', 'midpoint', 'rk4'.
        spacing: of the sampler's times: 'karras' (even in (sigma / alpha)^(1/7)), 'uniform' in t, 'logit_normal'
            (quantiles), or 'found' (where the trained flow turns).
        drop: share of the rows whose x is hidden in training; guidance needs some, .1 say.
        guidance: weight of classifier-free guidance; 1 is none, and above it draws lean on x and cover less. Densities
            are those without it.
        steps: number of the sampler's steps for a draw; NFE = steps, with 'heun' 2 steps - 1, and
            times its stages with a method for the velocity.
    """

    name: ClassVar[str] = "diffusion"
    method_setting: ClassVar[str] = "sampler"
    abilities: ClassVar[Abilities] = Abilities(
        density=True, velocity=True, trajectory=True, temperature=True, steered=True
    )

    def __init__(
        self,
        *,
        path: str | Path = "cosine",
        target: str = "v",
        weighting: str = "uniform",
        precondition: bool = True,
        time_sampling: str = "auto",
        sampler: str = "dpm_solver_2m",
        spacing: str = "karras",
        drop: float = 0.0,
        guidance: float = 1.0,
        steps: int = 24,
        tolerance: float = 0.05,
    ) -> None:
        super().__init__()
        self.path = path
        get_path(path)  # refuses what it does not know
        self.target = check_choice("target", target, TARGETS)
        self.weighting = check_choice("weighting", weighting, WEIGHTINGS)
        self.precondition = check_bool("precondition", precondition)
        self.time_sampling = check_choice("time_sampling", time_sampling, TIME_SAMPLING)
        self._solve(sampler, spacing, steps, tolerance)
        self._guide(drop, guidance)

    @property
    def _path(self) -> Path:
        return get_path(self.path)

    @property
    def _predicts(self) -> str:
        """What the network's answer is."""
        return "v" if self.precondition else self.target

    def settings(self) -> dict[str, Any]:
        """Return the settings, JSON-ready."""
        return {**self.get_params(), "path": path_settings(self._path)}

    def weight(self, t: Tensor, like: Tensor) -> Tensor:
        """Return the weight of the squared error of what the network predicts at `t` (batch,), shaped for `like`."""
        a, s, da, ds = self._path.coefficients(t, like)
        signal = a.square() / (a.square() + s.square())
        units = {"v": torch.ones_like(signal), "noise": signal, "data": 1 - signal}  # of a squared error, against v's
        if self.weighting == "uniform":
            return units[self.target] / units[self._predicts] if self.precondition else units["v"]
        if self.weighting == "min_snr":
            weight = torch.minimum(signal, 5 * (1 - signal))
        else:
            a, s = a.clamp_min(_LEAST), s.clamp_min(_LEAST)
            log_ratio, rate = (a / s).log(), da / a - ds / s  # log_ratio is lambda / 2
            weight = 1 / density_of_log_ratio(resolved(self.time_sampling, like), t.reshape(a.shape), log_ratio, rate)
            if self.weighting == "sigmoid":
                weight = 2 * weight * torch.sigmoid(2 - 2 * log_ratio) * signal
            else:
                weight = weight * density_of_log_ratio("edm", t, log_ratio, rate)
        return weight / units[self._predicts].clamp_min(_LEAST)

    def loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return the weighted squared error of each row, averaged over the event, (batch,)."""
        noise = normal(tuple(y.shape), generator, like=y)
        t = draw_times(self.time_sampling, self._path, len(y), generator, like=y)
        a, s, _, _ = self._path.coefficients(t, y)
        y_t, shrink = a * y + s * noise, (a.square() + s.square()).rsqrt()
        wanted = {"v": lambda: shrink * (a * noise - s * y), "noise": lambda: noise, "data": lambda: y}
        error = self._answer(y_t, t, self._hidden(self.encode(x), generator)) - wanted[self._predicts]()
        return mean_over_event(self.weight(t, y) * error.square())

    def _answer(self, y_t: Tensor, t: Tensor, embedding: Any) -> Tensor:
        """Return the network's answer: v, noise or data, by `_predicts`."""
        return self.network(self._path.preconditioning(t, y_t)[0] * y_t if self.precondition else y_t, t, embedding)

    def data(self, y_t: Tensor, t: float | Tensor, embedding: Any) -> Tensor:
        """Return E[y | y_t, x] for an embedding of x, (batch, *event)."""
        t = times_like(t, y_t)
        return self._data(self._answer(y_t, t, embedding), y_t, t)

    def _data(self, answer: Tensor, y_t: Tensor, t: Tensor) -> Tensor:
        if self._predicts == "data":
            return answer
        a, s, _, _ = self._path.coefficients(t, y_t)
        if self._predicts == "noise":
            return (y_t - s * answer) / a.clamp_min(_LEAST_ALPHA)
        variance = a.square() + s.square()
        return (a * y_t - s * variance.sqrt() * answer) / variance

    @property
    def flow_end(self) -> float:
        """The time at which the velocity is still regular: 1 where v is predicted."""
        return 1.0 if self._predicts == "v" else 1 - 1e-4

    def field(self, y_t: Tensor, t: float | Tensor, embedding: Any) -> Tensor:
        """Return dy/dt of the probability-flow ODE at (y_t, t) for an embedding of x, (batch, *event)."""
        t, path = times_like(t, y_t), self._path
        answer = self._answer(y_t, t, embedding)
        if self._predicts == "v":  # regular at both ends
            _, skip, scale = path.preconditioning(t, y_t)
            return skip * y_t - scale * answer
        if self._predicts == "data":
            return path.convert(answer, y_t, t, given="data", wanted="velocity")
        _, _, da, ds = path.coefficients(t, y_t)
        return da * self._data(answer, y_t, t) + ds * answer
