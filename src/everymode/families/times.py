"""The times that a path is trained at, the same for every family that has a path.

References:
    Variational diffusion models (Kingma et al., 2021), https://arxiv.org/abs/2107.00630: one time a stratum
    Scaling rectified flow transformers (Esser et al., 2024), https://arxiv.org/abs/2403.03206: logit-normal times
    Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        https://arxiv.org/abs/2206.00364: a log-normal ratio of noise to data, with their mean and standard deviation
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from everymode.paths import Path
from everymode.randomness import Source, stratified

__all__ = ["TIME_SAMPLING", "density_of_log_ratio", "draw_times"]

TIME_SAMPLING = ("uniform", "logit_normal", "edm")
_MEAN, _DEVIATION = 1.2, 1.2  # of log alpha / sigma, for 'edm'


def draw_times(how: str, path: Path, batch: int, generator: Source, *, like: Tensor) -> Tensor:
    """Return training times (batch,): one a stratum, so that every batch covers [0, 1] evenly.

    Args:
        how: 'uniform', 'logit_normal' (more of the middle), or 'edm' (more of the data's end, where sharp modes part).
        path: what 'edm' measures the noise on.
        batch: number of rows.
        generator: where the randomness comes from.
        like: has the device and the dtype.
    """
    u = stratified(batch, generator, like=like)
    if how == "uniform":
        return u
    z = torch.special.ndtri(u.clamp(1e-6, 1 - 1e-6))
    return z.sigmoid() if how == "logit_normal" else path.time_at(_MEAN + _DEVIATION * z)


def density_of_log_ratio(how: str, t: Tensor, log_ratio: Tensor, rate: Tensor) -> Tensor:
    """Return the density of log(alpha / sigma) where `draw_times` draws t, in the shape of t.

    It is held at 1e-6 at least, about the least that is drawn at, so that it can be divided by.

    Args:
        how: as in `draw_times`.
        t: times.
        log_ratio: log(alpha / sigma) there.
        rate: its derivative in t.
    """
    if how == "edm":
        density = _normal_density((log_ratio - _MEAN) / _DEVIATION) / _DEVIATION
    elif how == "logit_normal":
        inside = t.clamp(1e-6, 1 - 1e-6)
        density = _normal_density(inside.logit()) / (inside * (1 - inside) * rate)
    else:
        density = 1 / rate
    return density.clamp_min(1e-6)


def _normal_density(z: Tensor) -> Tensor:
    return torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
