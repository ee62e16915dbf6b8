"""Probability paths between noise (t = 0) and data (t = 1): y_t = alpha(t) y + sigma(t) noise.

A path is two functions of time and their derivatives. Everything that a model may predict (the velocity, the data,
the noise, the score) is one linear map away from everything else, and those maps are here, once.

References:
    Flow matching for generative modeling (Lipman et al., 2023), https://arxiv.org/abs/2210.02747
    Stochastic interpolants (Albergo, Boffi and Vanden-Eijnden, 2023), https://arxiv.org/abs/2303.08797
    Score-based generative modeling through SDEs (Song et al., 2021), https://arxiv.org/abs/2011.13456
    Improved denoising diffusion probabilistic models (Nichol and Dhariwal, 2021), https://arxiv.org/abs/2102.09672
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from everymode.errors import SettingError, check_choice, check_number

__all__ = [
    "PATHS",
    "CosinePath",
    "CustomPath",
    "LinearPath",
    "Path",
    "VEPath",
    "VPPath",
    "get_path",
    "path_settings",
]

Schedule = Callable[[Tensor], Tensor]
QUANTITIES = ("velocity", "data", "noise", "score")


def _expand(value: Tensor, like: Tensor) -> Tensor:
    """Give a value a row, (batch,) or (), as many trailing axes as `like` has."""
    return value.reshape(value.shape + (1,) * (like.ndim - value.ndim)) if value.ndim else value


class Path:
    """Base of all paths. A path gives `alpha` and `sigma`; their derivatives are automatic unless it gives them too.

    `alpha` must reach 1 and `sigma` (about) 0 at t = 1.
    """

    name = "custom"

    def __init__(self) -> None:
        self._check()

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of the data at times t, in the shape of t."""
        raise NotImplementedError

    def sigma(self, t: Tensor) -> Tensor:
        """Weight of the noise at times t, in the shape of t."""
        raise NotImplementedError

    def d_alpha(self, t: Tensor) -> Tensor:
        """Derivative of `alpha` at t."""
        return torch.func.jvp(self.alpha, (t,), (torch.ones_like(t),))[1]

    def d_sigma(self, t: Tensor) -> Tensor:
        """Derivative of `sigma` at t."""
        return torch.func.jvp(self.sigma, (t,), (torch.ones_like(t),))[1]

    def _check(self) -> None:
        t = torch.linspace(0.0, 1.0, 33, dtype=torch.float64)
        alpha, sigma = self.alpha(t), self.sigma(t)
        if alpha.shape != t.shape or sigma.shape != t.shape:
            raise SettingError(f"path: alpha and sigma must keep the shape of t, {tuple(t.shape)}.")
        if not (alpha[-1] - 1).abs() < 0.05 or not sigma[-1].abs() < 0.05 * max(1.0, float(sigma[0])):
            raise SettingError(
                f"path: at t = 1 (data) alpha must be 1 and sigma 0; they are {alpha[-1]:.3g} and {sigma[-1]:.3g}. "
                "In this library t = 0 is noise and t = 1 is data: reverse a schedule that runs the other way."
            )
        determinant = alpha * self.d_sigma(t) - self.d_alpha(t) * sigma
        inside = determinant[1:-1]
        if not torch.isfinite(determinant).all() or not ((inside < 0).all() or (inside > 0).all()):
            raise SettingError("path: alpha * sigma' - alpha' * sigma must be finite and keep its sign inside (0, 1).")

    def time_at(self, log_ratio: Tensor) -> Tensor:
        """Return the times at which log(alpha / sigma) is `log_ratio`, in its shape; the ends where it never is."""
        known = self._log_ratios(log_ratio.device, log_ratio.dtype)
        place = torch.searchsorted(known, log_ratio.contiguous()).clamp(1, len(known) - 1)
        low, high = known[place - 1], known[place]
        part = ((log_ratio - low) / (high - low)).clamp(0.0, 1.0)
        return (place - 1 + part) / (len(known) - 1)

    def _log_ratios(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Return log(alpha / sigma) at even times, where it is asked for: a copy from the CPU waits for a GPU."""
        if (device, dtype) not in self._known_log_ratios:
            t = torch.linspace(0.0, 1.0, 2049, dtype=torch.float64)
            ratios = self.alpha(t).clamp_min(1e-12).log() - self.sigma(t).clamp_min(1e-12).log()
            self._known_log_ratios[device, dtype] = ratios.to(device, dtype)
        return self._known_log_ratios[device, dtype]

    @cached_property
    def _known_log_ratios(self) -> dict[tuple[torch.device, torch.dtype], Tensor]:
        return {}

    @property
    def prior_scale(self) -> float:
        """Standard deviation of y_t at t = 0, where sampling starts."""
        return float(self.sigma(torch.zeros((), dtype=torch.float64)))

    def coefficients(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return alpha, sigma, alpha' and sigma' at `t` (batch,), shaped to multiply `like` (batch, *event)."""
        t = _expand(t, like)
        return self.alpha(t), self.sigma(t), self.d_alpha(t), self.d_sigma(t)

    def interpolate(self, y: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return (y_t, velocity) for data `y` and `noise`, both (batch, *event), at `t` (batch,)."""
        a, s, da, ds = self.coefficients(t, y)
        return a * y + s * noise, da * y + ds * noise

    def preconditioning(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (shrink, skip, scale) at `t`, shaped to multiply `like`, for data of unit variance.

        shrink * y_t has unit variance; skip * y_t is the best linear estimate of the velocity; what that leaves of the
        velocity has standard deviation scale (Karras et al., 2022, https://arxiv.org/abs/2206.00364, for any path).
        """
        a, s, da, ds = self.coefficients(t, like)
        variance = a * a + s * s
        shrink = variance.rsqrt()
        return shrink, (a * da + s * ds) / variance, (a * ds - da * s).abs() * shrink

    def convert(self, value: Tensor, y_t: Tensor, t: Tensor, *, given: str, wanted: str) -> Tensor:
        """Turn one prediction at (y_t, t) into another.

        Args:
            value: what is known, (batch, *event).
            y_t: the state, (batch, *event).
            t: the time, (batch,) or a scalar tensor.
            given: what `value` is: 'velocity', 'data', 'noise' or 'score'.
            wanted: what is asked for, one of the same.

        Where the map is singular (data from noise where alpha = 0, noise from data where sigma = 0) the divisor
        is held away from 0, so that the result is finite.

        Raises:
            SettingError: a quantity is unknown.
        """
        check_choice("given", given, QUANTITIES)
        check_choice("wanted", wanted, QUANTITIES)
        if given == wanted:
            return value
        a, s, da, ds = self.coefficients(t, y_t)
        if given == "score":
            value, given = -s * value, "noise"
        # Two unknowns (data, noise) and two equations: y_t = a data + s noise, and the given one.
        if given == "velocity":
            determinant = _away_from_zero(a * ds - da * s)
            data = (ds * y_t - s * value) / determinant
            noise = (a * value - da * y_t) / determinant
        elif given == "data":
            data, noise = value, (y_t - a * value) / _away_from_zero(s)
        else:
            data, noise = (y_t - s * value) / _away_from_zero(a), value
        if wanted == "data":
            return data
        if wanted == "noise":
            return noise
        if wanted == "score":
            return -noise / _away_from_zero(s)
        return da * data + ds * noise

    def __repr__(self) -> str:
        settings = ", ".join(f"{k}={v!r}" for k, v in self.settings().items())
        return f"{type(self).__name__}({settings})"

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments, JSON-ready."""
        return {}


def _away_from_zero(value: Tensor) -> Tensor:
    tiny = 1e-6 if value.dtype != torch.float64 else 1e-12
    return torch.where(value.abs() < tiny, torch.where(value < 0, -tiny, tiny), value)


class CustomPath(Path):
    """A path with functions of your own.

    Args:
        alpha: weight of the data, a function of a tensor of times.
        sigma: weight of the noise; the same.
        d_alpha: derivative of `alpha`; automatic if None.
        d_sigma: derivative of `sigma`; automatic if None.

    Raises:
        SettingError: alpha or sigma is wrong at t = 1, or the path is singular inside (0, 1).
    """

    def __init__(
        self,
        alpha: Schedule,
        sigma: Schedule,
        d_alpha: Schedule | None = None,
        d_sigma: Schedule | None = None,
    ) -> None:
        self._functions = (alpha, sigma, d_alpha, d_sigma)
        super().__init__()

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of the data at t."""
        return self._functions[0](t)

    def sigma(self, t: Tensor) -> Tensor:
        """Weight of the noise at t."""
        return self._functions[1](t)

    def d_alpha(self, t: Tensor) -> Tensor:
        """Derivative of `alpha` at t."""
        return super().d_alpha(t) if self._functions[2] is None else self._functions[2](t)

    def d_sigma(self, t: Tensor) -> Tensor:
        """Derivative of `sigma` at t."""
        return super().d_sigma(t) if self._functions[3] is None else self._functions[3](t)


class LinearPath(Path):
    """Conditional optimal transport: alpha = t, sigma = 1 - t (Lipman et al., 2023; rectified flow)."""

    name = "linear"

    def alpha(self, t: Tensor) -> Tensor:
        """Return t."""
        return t

    def sigma(self, t: Tensor) -> Tensor:
        """Return 1 - t."""
        return 1 - t

    def d_alpha(self, t: Tensor) -> Tensor:
        """Return 1."""
        return torch.ones_like(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        """Return -1."""
        return -torch.ones_like(t)

    def time_at(self, log_ratio: Tensor) -> Tensor:
        """Return the inverse of log(t / (1 - t))."""
        return log_ratio.sigmoid()

    def interpolate(self, y: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return (y_t, velocity): the velocity is y - noise at every time."""
        return torch.lerp(noise, y, _expand(t, y)), y - noise

    def preconditioning(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (shrink, skip, scale); here alpha sigma' - alpha' sigma = -1, and scale is shrink."""
        odd = 2 * _expand(t, like) - 1
        shrink = torch.addcmul(odd.new_full((), 0.5), odd, odd, value=0.5).rsqrt()  # t^2 + (1 - t)^2 = (1 + odd^2) / 2
        return shrink, odd * shrink.square(), shrink


class CosinePath(Path):
    """Variance-preserving, cosine: alpha = sin(pi t / 2), sigma = cos(pi t / 2) (Nichol and Dhariwal, 2021)."""

    name = "cosine"

    def alpha(self, t: Tensor) -> Tensor:
        """Return sin(pi t / 2)."""
        return torch.sin(math.pi / 2 * t)

    def sigma(self, t: Tensor) -> Tensor:
        """Return cos(pi t / 2)."""
        return torch.cos(math.pi / 2 * t)

    def d_alpha(self, t: Tensor) -> Tensor:
        """Return (pi / 2) cos(pi t / 2)."""
        return math.pi / 2 * self.sigma(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        """Return -(pi / 2) sin(pi t / 2)."""
        return -math.pi / 2 * self.alpha(t)


class VPPath(Path):
    """Variance-preserving with a linear beta: log alpha = -(b1 - b0) s^2 / 4 - b0 s / 2, s = 1 - t (Song et al., 2021).

    Args:
        beta_min: beta at the data end.
        beta_max: beta at the noise end.
    """

    name = "vp"

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        self.beta_min = check_number("beta_min", beta_min, 0.0, exclusive_low=True)
        self.beta_max = check_number("beta_max", beta_max, beta_min)
        super().__init__()

    def _log_alpha(self, t: Tensor) -> Tensor:
        s = 1 - t
        return -0.25 * (self.beta_max - self.beta_min) * s * s - 0.5 * self.beta_min * s

    def _half_beta(self, t: Tensor) -> Tensor:
        return 0.5 * (self.beta_max - self.beta_min) * (1 - t) + 0.5 * self.beta_min

    def alpha(self, t: Tensor) -> Tensor:
        """Return exp(log alpha)."""
        return torch.exp(self._log_alpha(t))

    def sigma(self, t: Tensor) -> Tensor:
        """Return sqrt(1 - alpha^2)."""
        return torch.sqrt(-torch.expm1(2 * self._log_alpha(t)))

    def d_alpha(self, t: Tensor) -> Tensor:
        """Return alpha beta / 2."""
        return self.alpha(t) * self._half_beta(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        """Return -alpha^2 beta / (2 sigma): infinite at t = 1, like the slope of sqrt(1 - t), and held finite."""
        smallest = torch.finfo(t.dtype).eps ** 0.5
        return -self.alpha(t).square() * self._half_beta(t) / self.sigma(t).clamp_min(smallest)

    def settings(self) -> dict[str, Any]:
        """Return beta_min and beta_max."""
        return {"beta_min": self.beta_min, "beta_max": self.beta_max}


class VEPath(Path):
    """Variance-exploding: alpha = 1, sigma falls geometrically from sigma_max to sigma_min (Song et al., 2021).

    Args:
        sigma_min: noise left at t = 1, in standard deviations of the data.
        sigma_max: noise at t = 0; large against the data, whose standard deviation is 1.
    """

    name = "ve"

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 20.0) -> None:
        self.sigma_min = check_number("sigma_min", sigma_min, 0.0, 0.05, exclusive_low=True)
        self.sigma_max = check_number("sigma_max", sigma_max, 2.0)
        super().__init__()

    def alpha(self, t: Tensor) -> Tensor:
        """Return 1."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Return sigma_max (sigma_min / sigma_max)^t."""
        return self.sigma_max * torch.exp(math.log(self.sigma_min / self.sigma_max) * t)

    def d_alpha(self, t: Tensor) -> Tensor:
        """Return 0."""
        return torch.zeros_like(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        """Return log(sigma_min / sigma_max) sigma."""
        return math.log(self.sigma_min / self.sigma_max) * self.sigma(t)

    def settings(self) -> dict[str, Any]:
        """Return sigma_min and sigma_max."""
        return {"sigma_min": self.sigma_min, "sigma_max": self.sigma_max}


PATHS: dict[str, type[Path]] = {p.name: p for p in (LinearPath, CosinePath, VPPath, VEPath)}


@lru_cache
def _by_name(name: str) -> Path:
    return PATHS[name]()


def get_path(path: str | Path) -> Path:
    """Return the path of that name, or the path itself; `SettingError` where there is none."""
    return path if isinstance(path, Path) else _by_name(check_choice("path", path, PATHS))


def path_settings(path: Path) -> dict[str, Any]:
    """Return what a checkpoint needs to make `path` again; a custom path cannot be saved and says so."""
    if type(path) not in PATHS.values():
        raise SettingError(
            "A path made of your own functions cannot be written to a checkpoint: register a Path subclass "
            "in everymode.paths.PATHS under a name."
        )
    return {"name": path.name, **path.settings()}
