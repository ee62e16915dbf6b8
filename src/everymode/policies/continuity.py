"""How the next chunk meets the last one, where a policy may change its mind between the two.

    ensemble   Chunks that overlap are averaged, the oldest weighing most (temporal ensembling). Smooth, but the average
               of two ways is none.
    select     Of several draws the one is taken that is nearest to what is left of the last chunk (backward coherence).
    real_time  The next chunk is inpainted onto the actions that will be executed before it arrives, which are known
               exactly, and leans on what else is left of the last chunk, the less the later an action is. What then
               still differs from the last chunk is taken back with the same weights.

References:
    Learning fine-grained bimanual manipulation with low-cost hardware (Zhao et al., 2023),
        https://arxiv.org/abs/2304.13705: temporal ensembling
    Bidirectional decoding: improving action chunking via guided test-time sampling (Liu et al., 2024),
        https://arxiv.org/abs/2408.17355: backward coherence
    Real-time execution of action chunking flow policies (Black et al., 2025), https://arxiv.org/abs/2506.07339: the
        weights of the actions that are leaned on. There they scale the correction; here they are the noise with which
        an action is known, which makes the correction that of a posterior mean, and weights of an average in the end
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from everymode.errors import UnsupportedError, check_choice, check_number
from everymode.families import get_family
from everymode.policies.angles import add, difference
from everymode.steering import able

if TYPE_CHECKING:
    from everymode.policies.policy import Policy

__all__ = ["CONTINUITIES", "Continuity", "Ensemble", "Look", "RealTime", "Select", "get_continuity"]


@dataclass(frozen=True, eq=False)
class Look:
    """What robots know when they plan anew.

    Attributes:
        seen: the last observations by name, (robots, observation_horizon, *shape).
        generators: one a robot.
        ahead: what is left of the last chunk from the present step on, (robots, prediction_horizon, d); NaN where
            nothing is planned.
        delay: steps after which the chunk arrives: so many of `ahead` will be executed.
    """

    seen: Mapping[str, Any]
    generators: Sequence[torch.Generator]
    ahead: np.ndarray
    delay: int


@dataclass(frozen=True)
class Continuity:
    """The next chunk takes the place of the last one, as it is drawn.

    Subclasses say how else the two meet.
    """

    name: ClassVar[str] = "none"

    @property
    def queue_decay(self) -> float | None:
        """Decay with which overlapping chunks are averaged; None where the newest counts alone."""
        return None

    def check(self, policy: Policy) -> None:
        """Raise `UnsupportedError` if the policy's family cannot do what this asks of it."""

    def plan(self, policy: Policy, look: Look) -> np.ndarray:
        """Return the next chunk of each robot, (robots, prediction_horizon, d).

        Args:
            policy: fitted.
            look: what they saw, and what they will do meanwhile.
        """
        return policy.plan(look.seen, look.generators)

    def to_dict(self) -> dict[str, Any]:
        """Return the name and the settings, JSON-ready."""
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True)
class Ensemble(Continuity):
    """Temporal ensembling.

    Attributes:
        decay: overlapping chunks weigh exp(-decay * i), i = 0 for the oldest.
    """

    name: ClassVar[str] = "ensemble"
    decay: float = 0.01

    def __post_init__(self) -> None:
        check_number("decay", self.decay, 0.0)

    @property
    def queue_decay(self) -> float | None:
        """Decay with which overlapping chunks are averaged."""
        return self.decay


@dataclass(frozen=True)
class Select(Continuity):
    """Of several draws the one nearest to what is left of the last chunk.

    Attributes:
        draws: chunks to choose from.
        decay: the distance at step j weighs decay^j.
    """

    name: ClassVar[str] = "select"
    draws: int = 16
    decay: float = 0.5

    def __post_init__(self) -> None:
        check_number("draws", self.draws, 1, 4096, integer=True)
        check_number("decay", self.decay, 0.0, 1.0, exclusive_low=True)

    def plan(self, policy: Policy, look: Look) -> np.ndarray:
        """Return the nearest of `draws` chunks for each robot, (robots, prediction_horizon, d)."""
        ahead = look.ahead
        chunks = policy.plan(look.seen, look.generators, draws=self.draws)  # (robots, draws, horizon, d)
        scale = policy.action_scale_
        weights = self.decay ** np.arange(ahead.shape[1])[:, None]
        away = weights * (difference(chunks, ahead[:, None], policy.action_angles_) / scale) ** 2
        nearest = np.nansum(away, axis=(2, 3)).argmin(axis=1)
        return chunks[np.arange(len(chunks)), nearest]


@dataclass(frozen=True)
class RealTime(Continuity):
    """Real-time chunking.

    Attributes:
        softness: noise with which an action of weight 1/2 is known, in standard deviations of the actions.
    """

    name: ClassVar[str] = "real_time"
    softness: float = 0.1

    def __post_init__(self) -> None:
        check_number("softness", self.softness, 0.0, exclusive_low=True)

    def check(self, policy: Policy) -> None:
        """Raise `UnsupportedError` if the family cannot draw a part of a chunk given the rest."""
        family = get_family(policy.family)
        if not family.abilities.steered:
            raise UnsupportedError(
                f"continuity='real_time' draws a part of a chunk given the rest, which family {family.name!r} cannot; "
                f"these can: {able('steered')}. Or take 'select' or 'ensemble'."
            )

    def plan(self, policy: Policy, look: Look) -> np.ndarray:
        """Return a chunk for each robot that goes on from what it will do meanwhile, (robots, horizon, d)."""
        ahead, horizon = look.ahead, look.ahead.shape[1]
        planned = np.isfinite(ahead).all(axis=2)  # (robots, horizon)
        if not planned.any():
            return policy.plan(look.seen, look.generators)
        weights = np.stack([real_time_weights(horizon, look.delay, int(count)) for count in planned.sum(axis=1)])
        with np.errstate(divide="ignore"):
            spread = self.softness * np.sqrt((1 - weights) / weights)  # 0 where known exactly, infinite where unknown
        known = np.where((weights > 0)[..., None], ahead, np.nan)
        spread = np.where(np.isfinite(spread), spread, 0.0)
        chunk = policy.plan(look.seen, look.generators, known=known, spread=spread)
        angles, share = policy.action_angles_, weights[..., None]
        return add(chunk, share * difference(np.where(share > 0, ahead, chunk), chunk, angles), angles)


def real_time_weights(horizon: int, delay: int, left: int) -> np.ndarray:
    """Return how much each action of the next chunk is bound to what is left of the last one, (horizon,), in [0, 1].

    1 for the `delay` actions that are executed before the chunk arrives, 0 where nothing is left, and between the two
    c (e^c - 1) / (e - 1), with c falling evenly from 1 to 0.
    """
    step = np.arange(horizon)
    c = np.clip((left - step) / max(1, left - delay + 1), 0.0, 1.0)
    weights = c * np.expm1(c) / np.expm1(1.0)
    return np.where(step < min(delay, left), 1.0, np.where(step < left, weights, 0.0))


CONTINUITIES: dict[str, type[Continuity]] = {kind.name: kind for kind in (Continuity, Ensemble, Select, RealTime)}


def get_continuity(continuity: str | Continuity | Mapping[str, Any] | None) -> Continuity:
    """Return a continuity from its name, or from what `to_dict` wrote; None is that of nothing at all.

    Raises:
        SettingError: the name or a setting is unknown, or a setting is out of range.
    """
    if isinstance(continuity, Continuity):
        return continuity
    described = dict(continuity) if isinstance(continuity, Mapping) else {"name": continuity or "none"}
    kind = CONTINUITIES[check_choice("continuity", described.pop("name", None), CONTINUITIES)]
    for setting in described:
        check_choice(f"setting of continuity {kind.name!r}", setting, [field.name for field in fields(kind)])
    return kind(**described)
