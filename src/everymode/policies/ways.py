"""All ways from one start: the same episode many times over, for the picture of paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from matplotlib.axes import Axes

from everymode.policies.episodes import Rollouts
from everymode.policies.rollouts import SEED_BLOCKS, Actor, Make, maker, roll_out

__all__ = ["Ways"]

_SYMMETRIC = "symmetric"  # the option of environments that have such a start


@dataclass(frozen=True, eq=False)
class Ways:
    """One start, and the episodes of policies from it; made by `Ways.of`.

    Attributes:
        environment: a name, or a function that makes one; it draws its own scene.
        name: of the environment.
        way_names: names of the ways.
        seed: of the start.
        settings: of the environment.
        options: for its `reset`.
        paths: episodes by the name of the policy, as many of each.
    """

    environment: str | Make
    name: str
    way_names: tuple[str, ...]
    seed: int
    settings: Mapping[str, Any]
    options: Mapping[str, Any] | None
    paths: Mapping[str, Rollouts] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        environment: str | Make,
        *,
        seed: int = SEED_BLOCKS["report"],
        settings: Mapping[str, Any] | None = None,
    ) -> Self:
        """Return a start of an environment, a symmetric one where it has such, and no episodes yet."""
        given = dict(settings or {})
        env: Any = maker(environment, **given)()
        try:
            scene = env.unwrapped
            options = {_SYMMETRIC: True} if _SYMMETRIC in getattr(scene, "reset_options", ()) else None
            name = environment if isinstance(environment, str) else type(scene).__name__
            return cls(environment, name, tuple(getattr(scene, "way_names", ())), seed, given, options)
        finally:
            env.close()

    @property
    def title(self) -> str:
        """One line."""
        most = max((len(rollouts) for rollouts in self.paths.values()), default=0)
        return f"{self.name}: {most} episodes from one start"

    def roll(self, policy: Actor, episodes: int = 50, *, robots: int = 32, random_state: int = 0) -> Rollouts:
        """Return episodes of a policy from this start, each with draws of its own."""
        return roll_out(
            policy,
            self.environment,
            [self.seed] * episodes,
            robots=robots,
            settings=self.settings,
            options=self.options,
            random_state=random_state,
        )

    def beside(self, others: Mapping[str, Rollouts]) -> Ways:
        """Return this start with the episodes of further policies."""
        return replace(self, paths={**self.paths, **others})

    def backdrop(self, axes: Axes) -> None:
        """Draw the scene of this start, and set the limits of the axes."""
        env: Any = maker(self.environment, **self.settings)()
        try:
            env.reset(seed=self.seed, options=None if self.options is None else dict(self.options))
            env.unwrapped.backdrop(axes)
        finally:
            env.close()
